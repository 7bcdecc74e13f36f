"""Figures: what is drawn where, and that nothing global is touched."""

import sys
import warnings

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from rnntk import plot

RNG = np.random.default_rng(0)
MINIMA = RNG.uniform(0.1, 0.5, size=(2, 3))
FIGURES = {
    "width_convergence": lambda **ax: plot.width_convergence(
        [16, 64], {"NTK": MINIMA, "NNGP": MINIMA}, slopes={"NTK": -0.5}, **ax
    ),
    "width_convergence, one width": lambda **ax: plot.width_convergence(
        [16], {"NTK": MINIMA[:1]}, **ax
    ),
    "spectrum": lambda **ax: plot.spectrum(
        np.array([1.0, 3.0, -1e-17]), {16: RNG.uniform(size=(3, 3))}, **ax
    ),
    "min_eigenvalue_by_width": lambda **ax: plot.min_eigenvalue_by_width(
        [16, 64], MINIMA, 0.7, **ax
    ),
    "min_eigenvalue_by_width, one seed": lambda **ax: plot.min_eigenvalue_by_width(
        [16, 64], MINIMA[:, :1], 0.7, **ax
    ),
    "min_eigenvalue": lambda **ax: plot.min_eigenvalue(
        0.5, (0.49, 0.51), {"schur": 0.4, "separation": 0.1}, {"pair": 0.9}, **ax
    ),
    "min_eigenvalue, not positive": lambda **ax: plot.min_eigenvalue(
        -1e-17, (-1e-15, 1e-15), {"schur": 0.0}, {"pair": 0.0}, **ax
    ),
    "scores": lambda **ax: plot.scores({"NTK": 0.9, "RBF": 0.8}, "test accuracy", **ax),
    "losses": lambda **ax: plot.losses(
        np.array([1.0, 2.0]), np.ones((3, 2)), np.array([1.0, 0.5]), **ax
    ),
    "predictions": lambda **ax: plot.predictions(RNG.normal(size=9), RNG.normal(size=9), **ax),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_labelled_and_drawn_without_globals(name, tmp_path):
    before = dict(mpl.rcParams)
    figure = FIGURES[name]()
    assert isinstance(figure, Figure)
    assert figure.axes[0].get_xlabel()
    assert figure.axes[0].get_ylabel() or name.startswith(("min_eigenvalue", "scores"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a glyph that is missing, a layout that collapses
        figure.savefig(tmp_path / "figure.svg")
    assert dict(mpl.rcParams) == before
    if "matplotlib.pyplot" in sys.modules:
        assert not sys.modules["matplotlib.pyplot"].get_fignums()


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_draws_on_given_axes(name):
    parent = Figure()
    ax = parent.subplots(1, 2)[1]
    assert FIGURES[name](ax=ax) is parent
    assert ax.has_data()
    inner = Figure().subfigures(1, 2)[0]
    assert FIGURES[name](ax=inner.subplots()) is inner.figure


def lines(figure, label):
    return [line for line in figure.axes[0].lines if line.get_label() == label]


def test_width_convergence_draws_means_and_fit():
    deviations = np.array([[0.4, 0.1], [0.2, 0.05]])
    figure = plot.width_convergence([16, 64], {"NTK": deviations}, slopes={"NTK": -0.5})
    (means,) = lines(figure, "NTK")
    np.testing.assert_allclose(means.get_ydata(), [0.2, 0.1])
    (fit,) = lines(figure, "slope $-0.50$")
    x, y = fit.get_xdata(), fit.get_ydata()
    np.testing.assert_allclose(y * np.sqrt(x), 0.8)  # through (16, 0.2) and (64, 0.1)


def test_spectrum_is_descending_and_leaves_out_what_is_not_positive():
    figure = plot.spectrum(np.array([-1e-17, 3.0]), {16: np.array([[4.0, 1.0], [1.0, 4.0]])})
    (limit,) = lines(figure, "infinite width")
    np.testing.assert_array_equal(limit.get_ydata(), [3.0, np.nan])
    (empirical,) = lines(figure, "width 16")
    np.testing.assert_allclose(empirical.get_ydata(), [4.0, 1.0])


def test_series_differ_without_colour():
    figure = plot.spectrum(np.ones(2), {width: np.ones((1, 2)) for width in (1, 2, 3)})
    assert {line.get_linestyle() for line in figure.axes[0].lines} == {"-", "--", "-.", ":"}
