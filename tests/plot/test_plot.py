"""Figures: what is drawn where, and that nothing global is touched."""

import itertools
import sys
import warnings

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from rnntk import plot, spectrum
from rnntk.bounds import Bounds

RNG = np.random.default_rng(0)
MINIMA = RNG.uniform(0.1, 0.5, size=(2, 3))
EPS = [1.0, 1e-2, 5e-4, 1e-20]
MATRICES = [
    *(np.diag([1.0, 1.0, eps**2]) for eps in EPS[:2]),
    np.diag([1.0, 1.0, 2.5e-7]).astype(np.float32),  # positive, and not resolved in float32
    np.ones((3, 3)),
]
SMALLEST = [spectrum.min_eigenvalue(matrix) for matrix in MATRICES]
CERTIFICATES = [spectrum.certify(matrix) for matrix in MATRICES]
BOUNDS = [
    Bounds({"schur": s.lower / 2, "series": s.lower / 4}, {"pair": 2 * s.upper}, {}, False)
    for s in SMALLEST
]
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
    "bounds": lambda **ax: plot.bounds(
        0.5, (0.49, 0.51), {"schur": 0.4, "separation": 0.1}, {"pair": 0.9}, **ax
    ),
    "bounds, not positive": lambda **ax: plot.bounds(
        -1e-17, (-1e-15, 1e-15), {"schur": 0.0}, {"pair": 0.0}, **ax
    ),
    "min_eigenvalue": lambda **ax: plot.min_eigenvalue(
        EPS, SMALLEST, CERTIFICATES, BOUNDS, xlabel="eps", **ax
    ),
    "min_eigenvalue, nothing else": lambda **ax: plot.min_eigenvalue(
        EPS, SMALLEST, xlabel="eps", **ax
    ),
    "scores": lambda **ax: plot.scores({"NTK": 0.9, "RBF": 0.8}, "test accuracy", **ax),
    "losses": lambda **ax: plot.losses(
        np.tile([1.0, 2.0], (3, 1)), np.ones((3, 2)), np.ones(4), np.ones(4), **ax
    ),
    "predictions": lambda **ax: plot.predictions(RNG.normal(size=9), RNG.normal(size=9), **ax),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_labelled_and_drawn_without_globals(name, tmp_path):
    before = dict(mpl.rcParams)
    figure = FIGURES[name]()
    assert isinstance(figure, Figure)
    assert figure.axes[0].get_xlabel()
    assert figure.axes[0].get_ylabel() or name.startswith(("bounds", "scores"))
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


def test_smallest_eigenvalues_that_are_not_resolved_are_hollow_or_mere_upper_ends():
    figure = plot.min_eigenvalue(EPS, SMALLEST, CERTIFICATES, BOUNDS, xlabel="eps")
    (value,) = lines(figure, "value")
    np.testing.assert_allclose(value.get_ydata(), [1, 1e-4, np.nan, np.nan], rtol=1e-12)
    (hollow,) = lines(figure, "not resolved")
    (above,) = lines(figure, "not resolved, at most")
    assert hollow.get_markerfacecolor() == above.get_markerfacecolor() == "white"
    assert SMALLEST[2].lower > 0 > SMALLEST[3].lower
    np.testing.assert_array_equal(hollow.get_ydata(), [*[np.nan] * 2, SMALLEST[2].value, np.nan])
    np.testing.assert_array_equal(above.get_ydata(), [*[np.nan] * 3, SMALLEST[3].upper])
    (lower,) = lines(figure, "lower bound: schur")
    np.testing.assert_array_equal(lower.get_ydata()[:2], [b.lower["schur"] for b in BOUNDS[:2]])
    assert np.isnan(lower.get_ydata()[3])
    axes = figure.axes[0]
    assert (axes.get_xscale(), axes.get_yscale(), axes.get_xlabel()) == ("log", "log", "eps")


def test_eigenvalues_that_are_not_resolved_are_hollow():
    values = np.array([1.0, 1e-3, 1e-17, -1e-17])
    seeds = {16: np.array([[1.0, 1e-3, 1e-4, 1e-5], [1.0, 1e-3, 1e-4, 1e-17]])}
    for dtype, resolved in ((np.float64, 2), (np.float32, 2), (np.float16, 1)):
        figure = plot.spectrum(values, seeds, dtype=dtype)
        (line,) = lines(figure, "infinite width")
        ranks = np.arange(4)
        np.testing.assert_array_equal(line.get_ydata(), np.where(ranks < resolved, values, np.nan))
        (hollow,) = [
            one
            for one in figure.axes[0].lines
            if one.get_marker() == "o" and one.get_color() == line.get_color()
        ]
        rest = np.where((ranks >= resolved) & (values > 0), values, np.nan)
        np.testing.assert_allclose(hollow.get_ydata(), rest, rtol=1e-14)
        (mean,) = lines(figure, "width 16")
        assert np.isnan(mean.get_ydata()[3])  # of one seed the last is not resolved
        assert len(lines(figure, "not resolved")) == 1
    assert not lines(plot.spectrum(values[:2]), "not resolved")


def test_what_a_logarithmic_axis_cannot_show_is_marked_at_its_edge():
    matrices = [np.diag([1.0, v]) for v in (1e-3, 0.0, -0.5)]
    smallest = [spectrum.min_eigenvalue(matrix) for matrix in matrices]
    assert smallest[1].upper == 0  # nothing has been lost
    figure = plot.min_eigenvalue([1.0, 2.0, 3.0], smallest, xlabel="a")
    (edge,) = lines(figure, "not positive, at the edge")
    np.testing.assert_array_equal(edge.get_xdata(), [2.0, 3.0])
    assert not lines(figure, "not resolved, at most")
    assert figure.axes[0].get_ylim()[0] > 1e-6


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (
            lambda: plot.spectrum(np.eye(3)),
            r"limit must be eigenvalues with 1 axes, got .*\(3, 3\)",
        ),
        (lambda: plot.spectrum(np.array([])), r"limit must be eigenvalues .* got shape \(0,\)"),
        (lambda: plot.spectrum(np.array([1.0, np.nan])), "limit must be finite, got NaN"),
        (lambda: plot.spectrum(np.ones(2), {4: np.ones(2)}), r"empirical\[4\] must be eigenvalues"),
        (lambda: plot.min_eigenvalue([], [], xlabel="n"), "x must be positive numbers, at least"),
        (lambda: plot.min_eigenvalue([0.0], SMALLEST[:1], xlabel="n"), "x must be positive"),
        (lambda: plot.min_eigenvalue([1.0], SMALLEST[:2], xlabel="n"), "smallest must hold one fo"),
        (
            lambda: plot.min_eigenvalue([1.0], SMALLEST[:1], CERTIFICATES, xlabel="n"),
            "certificates must hold one for each x, 1, got 4",
        ),
        (
            lambda: plot.min_eigenvalue([1.0], SMALLEST[:1], bounds=BOUNDS, xlabel="n"),
            "bounds must hold one for each x, 1, got 4",
        ),
    ],
)
def test_figures_refuse_what_they_cannot_draw(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_minima_over_many_orders_have_a_logarithmic_axis():
    """Squares of what long sequences lead to leave the range; near values have an axis from 0."""
    ax = plot.min_eigenvalue_by_width([16, 64], np.array([[1e-3, 1e200], [2.0, 3.0]]), 1.0).axes[0]
    assert ax.get_yscale() == "log"
    assert 0 < ax.get_ylim()[0] < 1e-3
    (bars,) = ax.containers
    np.testing.assert_allclose(bars[0].get_ydata(), [5e199, 2.5])
    lost = np.array([[1e-9, -1e-17], [np.nan, 2.0], [np.nan, np.nan]])  # negative by rounding
    ax = plot.min_eigenvalue_by_width([16, 64, 256], lost, 1.0).axes[0]
    assert ax.get_yscale() == "log"
    (bars,) = ax.containers
    np.testing.assert_allclose(bars[0].get_ydata()[1:], [2.0, np.nan])
    ax = plot.min_eigenvalue_by_width([16, 64], np.array([[0.5, 0.6], [0.7, 0.8]]), 1.0).axes[0]
    assert ax.get_yscale() == "linear"
    assert ax.get_ylim()[0] == 0.0
    (bars,) = ax.containers
    ends = [path.vertices[:, 1] for path in bars[2][0].get_paths()]
    half = np.sqrt(0.005)  # the sample deviation of two numbers that differ by 0.1
    np.testing.assert_allclose(ends, [[0.55 - half, 0.55 + half], [0.75 - half, 0.75 + half]])


def test_bounds_differ_without_colour():
    names = ("schur", "schur_both", "schur_split", "series", "separation")
    bound = Bounds(dict.fromkeys(names, 0.1), {"pair": 2.0, "diagonal": 3.0}, {}, False)
    figure = plot.min_eigenvalue([1.0], SMALLEST[:1], bounds=[bound], xlabel="eps")
    looks = [
        (line.get_linestyle(), line.get_marker(), line.get_markerfacecolor() == "none")
        for line in figure.axes[0].lines
    ]
    assert len(looks) == len(set(looks)) == 8


def test_scores_that_are_all_zero_have_a_plain_axis():
    axes = plot.scores({"NTK": 0.0, "RBF": 0.0}, "test accuracy").axes[0]
    assert axes.get_xlim() == (0.0, 1.0)


def test_numbers_of_bounds_do_not_meet(tmp_path):
    """Each number stands at its row, to the right of everything that is drawn."""
    lower = {f"lower {i}": 10.0**-i for i in range(8)}
    figure = plot.bounds(2.0, (1.9, 2.1), lower, {"pair": 3.0})
    figure.savefig(tmp_path / "bounds.png")
    axes = figure.axes[0]
    (numbers,) = axes.child_axes
    boxes = [label.get_window_extent() for label in numbers.get_yticklabels()]
    assert len(boxes) == 10
    assert all(one.y1 <= two.y0 + 1 for one, two in itertools.pairwise(boxes))
    assert min(box.x0 for box in boxes) >= axes.get_window_extent().x1


def test_networks_out_of_range_are_left_out():
    deviations = {"NTK": np.array([[np.nan, np.inf], [0.2, np.nan]])}
    axes = plot.width_convergence([16, 64], deviations).axes[0]
    means = axes.lines[1]
    np.testing.assert_allclose(means.get_ydata(), [0.2])
