"""Figures over lengths show the numbers they are given."""

import numpy as np
import pytest

from rnntk import compare, plot

LENGTHS = np.array([2, 4, 8, 16])


def found(kernel):
    table = {"length": np.repeat(LENGTHS, 2), "draw": np.tile([0, 1], 4), "kernel": kernel}
    return compare.SampleComplexity(table, {})


def test_samples_are_geometric_means_and_what_was_not_reached_is_left_out():
    kernel = np.array([1.0, 4.0, 9.0, 4.0, 10.0, np.inf, np.inf, np.inf])
    figure = plot.sample_complexity(found(kernel))
    (line,) = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 4][:1]
    drawn = np.asarray(line.get_ydata(), float)
    np.testing.assert_allclose(drawn[:2], [2, 6], rtol=1e-12)
    assert np.isnan(drawn[2:]).all()
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["2", "4", "8", "16"]
    with pytest.raises(ValueError, match=r"name must be one of .* got 'svm'"):
        plot.sample_complexity(found(kernel), ["svm"])


def test_growth_draws_the_laws_it_compares():
    values = 3 * LENGTHS**2.0
    figure = plot.growth(LENGTHS, values, ylabel="samples")
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels[0] == "polynomial: 3 L^2"
    lines = figure.axes[0].lines
    best = lines[0]
    assert best.get_linestyle() == "-"
    at = np.asarray(best.get_xdata(), float)
    np.testing.assert_allclose(best.get_ydata(), 3 * at**2, rtol=1e-6)
    np.testing.assert_array_equal(lines[3].get_ydata(), values)
    assert all(line.get_linestyle() != "-" for line in lines[1:3])
