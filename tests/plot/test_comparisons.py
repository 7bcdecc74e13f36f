"""Figures of comparisons show the numbers of their tables."""

import numpy as np
import pytest

from rnntk import plot
from rnntk.compare import Comparison


def comparison():
    rng = np.random.default_rng(0)
    m, i, k = (v.ravel() for v in np.meshgrid([8, 32, 128], range(4), [0, 1, 10], indexing="ij"))
    noise = np.exp(0.1 * rng.standard_normal(len(m)))
    gap = np.where(k == 0, 0.0, noise / np.sqrt(m))
    table = {"width": m, "seed": i, "step": k, "time": 0.5 * k, "gap_infinite": gap}
    table["loss"] = np.where(i == 3, np.nan, noise / (1 + k))  # one network diverged
    return Comparison(table, {})


def test_training_shows_medians_and_quartiles_of_one_width():
    one = comparison()
    ax = plot.training(one, ["loss"], width=32).axes[0]
    (line,) = ax.get_lines()
    np.testing.assert_allclose(line.get_xdata(), [0.5, 5.0])
    values = np.stack([one.column("loss", step=step)[1] for step in (1, 10)])
    np.testing.assert_allclose(line.get_ydata(), np.nanmedian(values, axis=1))
    (band,) = ax.collections
    corners = band.get_paths()[0].vertices[:, 1]
    assert corners.min() == np.nanquantile(values, 0.25, axis=1).min()
    assert corners.max() == np.nanquantile(values, 0.75, axis=1).max()
    assert ax.get_title() == "width 32"
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert plot.training(one, ["loss"]).axes[0].get_title() == "width 128"


def test_widths_shows_medians_and_slopes():
    one = comparison()
    ax = plot.widths(one, ["gap_infinite"]).axes[0]
    line, guide = ax.get_lines()
    np.testing.assert_allclose(line.get_xdata(), [8, 32, 128])
    np.testing.assert_allclose(line.get_ydata(), np.median(one.column("gap_infinite"), axis=1))
    x, y = (np.log(guide.get_data()[i]) for i in (0, 1))
    np.testing.assert_allclose(np.diff(y) / np.diff(x), -0.5)
    slope = one.slope("gap_infinite")
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert f"slope ${slope.value:.2f}$" in texts[0]
    assert f"[{slope.lower:.2f}, {slope.upper:.2f}]" in texts[0]
    assert len(plot.widths(one, ["loss"], step=0).axes[0].get_lines()) == 2


def test_bad_input_is_named():
    one = comparison()
    with pytest.raises(ValueError, match=r"width must be one of \(8, 32, 128\), got 9"):
        plot.training(one, width=9)
    with pytest.raises(ValueError, match="name must be one of"):
        plot.widths(one, ["gap_linearized"])
    with pytest.raises(ValueError, match="step must be one of those recorded"):
        plot.widths(one, ["loss"], step=2)
