"""Figures of comparisons: trained networks beside their kernels, against time and against width."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from rnntk.compare import Comparison
from rnntk.plot.style import COLORS, MARKERS, STYLES, axes_of, width_axis

LABELS = {
    "gap_infinite": "to the infinite-width kernel",
    "gap_empirical": "to the initial empirical kernel",
    "gap_linearized": "to the linearized network",
    "kernel_drift": "change of the empirical kernel",
    "flipped": "share of flipped masks",
    "loss": "network",
    "loss_infinite": "infinite-width kernel",
    "loss_empirical": "initial empirical kernel",
    "loss_linearized": "linearized network",
    "error": "network",
    "error_infinite": "infinite-width kernel",
    "error_empirical": "initial empirical kernel",
    "error_linearized": "linearized network",
    "movement_W": "$W$",
    "movement_U": "$U$",
    "movement_b": "$b$",
    "movement_V": "$V$",
}
AXES = {
    "gap": "distance of outputs / size of labels",
    "loss": "training loss",
    "error": "test error / size of labels",
    "misclassified": "misclassified test sequences",
    "movement": "relative movement of the weights",
    "kernel": "relative change of the kernel",
    "flipped": "flipped masks",
}
GAPS = ("gap_infinite", "gap_empirical", "gap_linearized")
LOSSES = ("loss", "loss_linearized", "loss_empirical", "loss_infinite")


def training(
    comparison: Comparison,
    columns: Sequence[str] = LOSSES,
    *,
    width: int | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Columns of a comparison against training time, both logarithmic.

    Args:
        comparison: from :func:`rnntk.compare.with_kernel`.
        columns: of its table, on one axis. Lines are medians over the seeds, bands reach from
            quartile to quartile; networks that diverged are left out.
        width: of the networks; the largest by default.
        ax: axes to draw on.

    Raises:
        ValueError: for a column or a width that there is not.

    Example:
        >>> import numpy as np, rnntk
        >>> steps = np.array([1, 2, 1, 2])
        >>> table = {"width": np.full(4, 16), "seed": np.array([0, 0, 1, 1]), "step": steps,
        ...          "time": 0.1 * steps, "loss": 1.0 / steps}
        >>> comparison = rnntk.compare.Comparison(table, {})
        >>> rnntk.plot.training(comparison, ["loss"]).axes[0].get_ylabel()
        'training loss'
    """
    width = comparison.widths[-1] if width is None else width
    if width not in comparison.widths:
        raise ValueError(f"width must be one of {comparison.widths}, got {width}.")
    figure, ax = axes_of(ax)
    row = comparison.widths.index(width)
    steps = [step for step in comparison.steps if step > 0]  # 0 has no logarithm
    times = [comparison.column("time", step=step)[row, 0] for step in steps]
    for i, name in enumerate(columns):
        values = np.stack([comparison.column(name, step=step)[row] for step in steps])
        _banded(ax, np.array(times), values, i, LABELS.get(name, name))
    ax.set_xscale("log")
    _logarithmic(ax, columns)
    ax.set_xlabel(r"training time $\eta\,k$ (learning rate times steps)")
    ax.set_title(f"width {width}", fontsize=10)
    ax.legend(fontsize=8)
    return figure


def widths(
    comparison: Comparison,
    columns: Sequence[str] = GAPS,
    *,
    step: int | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Columns of a comparison against width, both logarithmic, with their slopes.

    Args:
        comparison: from :func:`rnntk.compare.with_kernel`, of several widths.
        columns: of its table, on one axis. Lines are medians over the seeds, bands reach from
            quartile to quartile; networks that diverged are left out. The legend has the slopes
            with their intervals of 95%, where all values are positive.
        step: a recorded step; the last by default.
        ax: axes to draw on.

    Raises:
        ValueError: for a column or a step that there is not.

    Example:
        >>> import numpy as np, rnntk
        >>> m = np.array([16, 16, 64, 64])
        >>> table = {"width": m, "seed": np.array([0, 1, 0, 1]), "step": np.ones(4, int),
        ...          "gap_infinite": 1 / np.sqrt(m)}
        >>> comparison = rnntk.compare.Comparison(table, {})
        >>> rnntk.plot.widths(comparison, ["gap_infinite"]).axes[0].get_xlabel()
        'width $m$'
    """
    figure, ax = axes_of(ax)
    m = np.array(comparison.widths, float)
    for i, name in enumerate(columns):
        values = comparison.column(name, step=step)
        label = LABELS.get(name, name)
        if len(m) > 1 and _all_positive(values):
            slope = comparison.slope(name, step=step)
            interval = f"[{slope.lower:.2f}, {slope.upper:.2f}]"
            label = f"{label}\nslope ${slope.value:.2f}$, 95%: ${interval}$"
        _banded(ax, m, values, i, label)
    if len(m) > 1:
        first = np.nanmedian(comparison.column(columns[0], step=step)[0])
        guide = 1.4 * first * (m / m[0]) ** -0.5
        ax.plot(m, guide, color="0.4", lw=1, ls=(0, (1, 2)), label="slope $-1/2$")
    _logarithmic(ax, columns)
    width_axis(ax, comparison.widths)
    ax.legend(fontsize=7)
    return figure


def _banded(ax: Axes, at: np.ndarray, values: np.ndarray, i: int, label: str) -> None:
    """A line through medians, and a band between quartiles, over the last axis."""
    kept = ~np.isnan(values).all(axis=-1) & (np.nan_to_num(values, nan=1.0) > 0).all(axis=-1)
    if not kept.any():
        return
    low, middle, high = np.nanquantile(values[kept], [0.25, 0.5, 0.75], axis=-1)
    color, style = COLORS[i % len(COLORS)], ("-", *STYLES)[i % 5]
    marker = MARKERS[i % len(MARKERS)]
    ax.fill_between(at[kept], low, high, color=color, alpha=0.15, lw=0)
    ax.plot(at[kept], middle, ls=style, marker=marker, ms=4, lw=1.4, color=color, label=label)


def _all_positive(values: np.ndarray) -> bool:
    found = ~np.isnan(values)
    return bool(found.any(axis=1).all() and (values[found] > 0).all())


def _logarithmic(ax: Axes, columns: Sequence[str]) -> None:
    """The y axis, named by what the columns have in common."""
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    narrow = high < 1e3 * low  # beyond, so many marks find no place, and none is drawn
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())
    kinds: Mapping[str, None] = dict.fromkeys(name.split("_")[0] for name in columns)
    ax.set_ylabel(", ".join(AXES.get(kind, LABELS.get(kind, kind)) for kind in kinds))
