"""Figures of kernels and their spectra: deviations, eigenvalues, bounds."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator
from numpy.typing import DTypeLike

from rnntk.bounds import Bounds
from rnntk.linalg import matrices
from rnntk.plot.style import (
    BOUND_MARKERS,
    COLORS,
    MARKERS,
    STYLES,
    axes_of,
    positive,
    width_axis,
)
from rnntk.spectrum import Certificate, MinEigenvalue

WIDE = 1e3
"""Ratio of eigenvalues from which on an axis is logarithmic."""


def width_convergence(
    widths: Sequence[int],
    deviations: Mapping[str, Float[np.ndarray, "w s"]],
    *,
    slopes: Mapping[str, float] | None = None,
    ax: Axes | None = None,
) -> Figure:
    r"""Deviation of empirical kernels from their limit against width, both logarithmic.

    Args:
        widths: the widths m.
        deviations: for each kind of kernel by name, :math:`\|K_m - K\|_F / \|K\|_F`, a row for
            each width and a column for each seed. Small marks are seeds, large ones their
            geometric means. NaN, of a kernel out of range, is left out.
        slopes: fitted slopes by the same names, drawn through the centre of the points.
        ax: axes to draw on.

    Example:
        >>> import numpy as np, rnntk
        >>> deviations = {"NTK": np.array([[0.4, 0.5], [0.2, 0.25]])}
        >>> figure = rnntk.plot.width_convergence([16, 64], deviations, slopes={"NTK": -0.5})
        >>> figure.axes[0].get_xlabel()
        'width $m$'
    """
    figure, ax = axes_of(ax)
    m = np.asarray(widths, float)
    ends = np.array([m.min() / 1.4, m.max() * 1.4])
    for i, (name, values) in enumerate(deviations.items()):
        color, marker = COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)]
        shift = 1.04 ** (2 * i - len(deviations) + 1)  # side by side, not on top of each other
        flat, logs = np.repeat(m * shift, values.shape[1]), np.log(positive(values))
        ax.plot(flat, np.exp(logs).ravel(), marker, ms=3.5, mfc="none", mec=color, mew=0.7)
        there = np.isfinite(logs).any(axis=1)  # widths at which a network is in range
        mean = np.array([np.exp(np.nanmean(row)) for row in logs[there]])
        ax.plot(m[there] * shift, mean, marker, ms=7, color=color, label=name)
        center = (1.0, 1.0)
        if there.any():
            center = (np.exp(np.mean(np.log(m[there]))), np.exp(np.mean(np.log(mean))))
        if slopes and name in slopes:
            line = center[1] * (ends / center[0]) ** slopes[name]
            style = ("-", *STYLES)[i % 4]
            ax.plot(ends, line, ls=style, color=color, lw=1.3, label=f"slope ${slopes[name]:.2f}$")
    guide = center[1] * 0.55 * (ends / center[0]) ** -0.5
    ax.plot(ends, guide, color="0.4", lw=1, ls=(0, (1, 2)), label="theory's slope $-1/2$")
    ax.set_yscale("log")
    ax.set_ylabel(r"$\|K_m - K\|_F \,/\, \|K\|_F$")
    width_axis(ax, widths)
    ax.legend(fontsize=8)
    return figure


def spectrum(
    limit: Float[np.ndarray, " n"],
    empirical: Mapping[int, Float[np.ndarray, "s n"]] | None = None,
    *,
    dtype: DTypeLike = np.float64,
    ax: Axes | None = None,
) -> Figure:
    """All eigenvalues, largest first, on a logarithmic axis.

    Args:
        limit: eigenvalues of the infinite-width kernel, in any order.
        empirical: for each width, the eigenvalues of the kernel of each seed; their geometric
            mean over seeds is drawn.
        dtype: of the matrices that the eigenvalues are of. Those that rounding may have
            made (docs/theory/spectrum.md) are hollow marks; of means, where one seed's is.
        ax: axes to draw on.

    Eigenvalues that are not positive cannot be drawn and are left out.

    Raises:
        ValueError: for eigenvalues of another shape, or not finite.

    Example:
        >>> import numpy as np, rnntk
        >>> rnntk.plot.spectrum(np.array([3.0, 1.0, 0.1])).axes[0].get_ylabel()
        'eigenvalue'
    """
    curves: list[tuple[np.ndarray, str, int, str, Any, str]] = [
        (np.asarray(limit, float)[None], "limit", 1, COLORS[0], "-", "infinite width")
    ]
    for i, (width, values) in enumerate((empirical or {}).items()):
        look = COLORS[1 + i % 4], STYLES[i % len(STYLES)], f"width {width}"
        curves.append((np.asarray(values, float), f"empirical[{width}]", 2, *look))
    for rows, name, axes, *_ in curves:
        if rows.ndim != 2 or rows.size == 0:
            shape = rows.shape[2 - axes :]
            raise ValueError(f"{name} must be eigenvalues with {axes} axes, got shape {shape}.")
        if not np.isfinite(rows).all():
            raise ValueError(f"{name} must be finite, got NaN or infinity.")
    figure, ax = axes_of(ax)
    unresolved = False
    for rows, _, _, color, style, label in [*curves[1:], curves[0]]:
        ordered = np.sort(rows, axis=1)[:, ::-1]
        n, sizes = rows.shape[1], [matrices.size_of_spectrum(row) for row in rows]
        floors = np.array([matrices.resolution(n, size, dtype) for size in sizes])
        resolved = (ordered > floors[:, None]).all(axis=0)
        shown = positive(ordered)
        mean = shown[0] if len(shown) == 1 else np.exp(np.mean(np.log(shown), axis=0))
        ranks = np.arange(1, n + 1)
        shown, hollow = np.where(resolved, mean, np.nan), np.where(resolved, np.nan, mean)
        ax.plot(ranks, shown, ls=style, color=color, lw=1.5, label=label)
        if np.isfinite(hollow).any():
            ax.plot(ranks, hollow, "o", ms=4, mfc="white", color=color)
            unresolved = True
    if unresolved:
        ax.plot([], [], "o", ms=4, mfc="white", color="0.3", label="not resolved")
    ax.set_yscale("log")
    ax.set_xlabel("rank (1 is the largest)")
    ax.set_ylabel("eigenvalue")
    ax.legend(fontsize=8)
    return figure


def min_eigenvalue_by_width(
    widths: Sequence[int],
    values: Float[np.ndarray, "w s"],
    limit: float,
    *,
    ax: Axes | None = None,
) -> Figure:
    """Smallest eigenvalue of empirical kernels against width, and that of their limit.

    Args:
        widths: the widths m.
        values: smallest eigenvalues, a row for each width and a column for each seed; NaN is left
            out, and where they differ by orders of magnitude, so is what is not positive.
        limit: smallest eigenvalue of the infinite-width kernel.
        ax: axes to draw on.

    Example:
        >>> import numpy as np, rnntk
        >>> figure = rnntk.plot.min_eigenvalue_by_width([16, 64], np.array([[0.4], [0.5]]), 0.6)
        >>> figure.axes[0].get_ylabel()
        'smallest eigenvalue'
    """
    figure, ax = axes_of(ax)
    m = np.asarray(widths, float)
    seeds = np.shape(values)[1]
    size = float(np.nanmax(np.abs(values), initial=0.0)) or 1.0  # its square may leave the range
    kept = np.isfinite(values)
    counts = kept.sum(axis=1)
    scaled = np.where(kept, values, 0.0) / size
    mean = np.where(counts > 0, scaled.sum(axis=1) / np.maximum(counts, 1), np.nan)
    squares = np.where(kept, scaled - mean[:, None], 0.0) ** 2
    deviation = np.sqrt(squares.sum(axis=1) / np.maximum(counts - 1, 1))
    ax.axhline(limit, color=COLORS[0], lw=1.5, label="infinite width")
    ax.plot(
        np.repeat(m, seeds),
        np.ravel(values),
        "o",
        ms=3.5,
        mfc="none",
        mec="0.45",
        mew=0.8,
        label="one seed",
    )
    ax.errorbar(
        m,
        mean * size,
        yerr=deviation * size if seeds > 1 else None,
        fmt="D--",
        ms=6,
        lw=1,
        capsize=4,
        color=COLORS[1],
        label="mean and standard deviation over seeds" if seeds > 1 else "mean over seeds",
    )
    positives = np.append(values[values > 0], limit)
    if limit > 0 and positives.max() > WIDE * positives.min():
        ax.set_yscale("log")
        ax.set_ylim(bottom=positives.min() / 3)
    else:
        ax.set_ylim(bottom=min(0.0, limit, float(np.nanmin(values, initial=0.0))))
    ax.set_ylabel("smallest eigenvalue")
    width_axis(ax, widths)
    ax.legend(fontsize=8, loc="lower right")
    return figure


def bounds(
    value: float,
    interval: tuple[float, float],
    lower: Mapping[str, float],
    upper: Mapping[str, float],
    *,
    ax: Axes | None = None,
) -> Figure:
    """One smallest eigenvalue with its interval, between its lower and upper bounds.

    Args:
        value: the smallest eigenvalue.
        interval: what encloses it.
        lower: lower bounds by name.
        upper: upper bounds by name.
        ax: axes to draw on.

    The axis is logarithmic; what is not positive is named, and marked at the left edge.

    Example:
        >>> import rnntk
        >>> figure = rnntk.plot.bounds(0.5, (0.49, 0.51), {"schur": 0.4}, {"pair": 0.9})
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['lower bound: schur', 'smallest eigenvalue', 'upper bound: pair']
    """
    figure, ax = axes_of(ax)
    rows = [(f"lower bound: {name}", bound, 0) for name, bound in _ascending(lower)]
    rows += [("smallest eigenvalue", value, 1)]
    rows += [(f"upper bound: {name}", bound, 2) for name, bound in _ascending(upper)]
    positive = [bound for _, bound, _ in rows if bound > 0]
    left = min(positive, default=1.0) / 3
    for y, (_, bound, kind) in enumerate(rows):
        marker, color = (">", "o", "<")[kind], (COLORS[2], COLORS[0], COLORS[1])[kind]
        ax.plot([max(bound, left)], [y], marker, ms=8, color=color, clip_on=False, zorder=3)
    y = len(lower)
    ends = [max(end, left) for end in interval]
    ax.plot(ends, [y, y], "-", marker="|", ms=12, color=COLORS[0], lw=2)
    ax.axvline(max(value, left), color=COLORS[0], lw=0.8, ls=":")
    ax.set_xscale("log")
    ax.set_xlim(left / 1.5, max(positive, default=1.0) * 4)
    ax.set_ylim(-0.6, len(rows) - 0.3)
    ax.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    # the numbers in a column of their own, where no marker or row covers them
    numbers = ax.secondary_yaxis("right")
    texts = [f"{bound:.3g}" if bound > 0 else f"{bound:.3g} (at the edge)" for _, bound, _ in rows]
    numbers.set_yticks(range(len(rows)), texts, fontsize=8)
    numbers.tick_params(length=0)
    ax.set_xlabel(r"$\lambda_{\min}$ of the NTK")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.grid(axis="y", color="0.9")
    ax.set_axisbelow(True)
    return figure


def _ascending(bounds: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(bounds.items(), key=lambda item: item[1])


def min_eigenvalue(
    x: Sequence[float],
    smallest: Sequence[MinEigenvalue],
    certificates: Sequence[Certificate] = (),
    bounds: Sequence[Bounds] = (),
    *,
    xlabel: str,
    ax: Axes | None = None,
) -> Figure:
    """Smallest eigenvalues with their intervals and bounds against anything, both logarithmic.

    Against the number of sequences or steps, a norm, a separation, a width: what all arguments
    are given for, value by value.

    Args:
        x: positive numbers.
        smallest: of a kernel matrix for each of them. Those that are not resolved are hollow, with
            their intervals as bars; of an interval that reaches below 0 only the upper end is
            marked. What is negative, or 0, is marked at the lower edge.
        certificates: of the exact kernels; drawn are both ends, unless 0 or infinite.
        bounds: every lower bound dashed with filled marks, every upper one dotted with hollow ones;
            those that are not positive are left out.
        xlabel: what ``x`` is.
        ax: axes to draw on.

    Raises:
        ValueError: if ``x`` is empty or not positive, or of another length than what belongs to it.

    Example:
        >>> import numpy as np, rnntk
        >>> x = [0.1, 1.0]
        >>> smallest = [rnntk.spectrum.min_eigenvalue(np.diag([1, v])) for v in x]
        >>> figure = rnntk.plot.min_eigenvalue(x, smallest, xlabel="second eigenvalue")
        >>> figure.axes[0].get_ylabel()
        'smallest eigenvalue'
    """
    at = np.asarray(x, float)
    if at.ndim != 1 or at.size == 0 or not ((at > 0) & np.isfinite(at)).all():
        raise ValueError(f"x must be positive numbers, at least one, got {x!r}.")
    for name, given in (
        ("smallest", smallest),
        ("certificates", certificates or at),
        ("bounds", bounds or at),
    ):
        if len(given) != len(at):
            raise ValueError(f"{name} must hold one for each x, {len(at)}, got {len(given)}.")
    figure, ax = axes_of(ax)
    _bound_curves(ax, at, "upper", [bound.upper for bound in bounds])
    value, low, high = (
        positive([getattr(s, name) for s in smallest]) for name in ("value", "lower", "upper")
    )
    resolved = np.array([s.resolved for s in smallest])
    shown = np.where(resolved, value, np.nan)
    ax.plot(at, shown, "o-", ms=6, lw=1.8, color=COLORS[0], label="value")
    ax.vlines(at, low, high, color=COLORS[0], lw=2)
    hollow: dict[str, Any] = {"ms": 7, "mfc": "white", "color": COLORS[0], "ls": "none"}
    for name, marker, these, where in (
        ("not resolved", "o", low > 0, value),
        ("not resolved, at most", "v", np.isnan(low) & ~np.isnan(high), high),
    ):
        if (these & ~resolved).any():
            points = np.where(these & ~resolved, where, np.nan)
            ax.plot(at, points, marker=marker, label=name, zorder=3, **hollow)
    below = np.isnan(high) | (resolved & np.isnan(value))
    if below.any():  # data along x, a share of the axes along y
        edge, place = ax.get_xaxis_transform(), np.full(int(below.sum()), 0.02)
        look = {**hollow, "mfc": COLORS[0], "clip_on": False}
        ax.plot(at[below], place, "v", transform=edge, label="not positive, at the edge", **look)
    if certificates:
        ends = positive([[c.lower, c.upper] for c in certificates]).ravel()
        twice, label = np.repeat(at, 2), "certified, exact kernel"
        ax.plot(twice, ends, "x", ms=9, mew=1.2, color="black", zorder=4, label=label)
    _bound_curves(ax, at, "lower", [bound.lower for bound in bounds])
    ax.set_xscale("log")
    ax.set_yscale("log")
    if at.max() < 100 * at.min():  # too few powers of ten to read
        ax.set_xticks(at, [f"{v:g}" for v in at])
        ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel(xlabel)
    ax.set_ylabel("smallest eigenvalue")
    ax.legend(fontsize=7)
    return figure


def _bound_curves(
    ax: Axes, at: np.ndarray, side: str, bounds: Sequence[Mapping[str, float]]
) -> None:
    """Every bound by name, in the legend from the largest to the smallest at the last place."""
    style, fill = (":", "none") if side == "upper" else ("--", None)
    names = list(dict.fromkeys(name for one in bounds for name in one))
    look = dict(zip(names, cycle(zip(cycle(COLORS[1:]), BOUND_MARKERS, strict=False))))
    for name in sorted(names, key=lambda name: -bounds[-1].get(name, 0.0)):
        curve = positive([one.get(name, np.nan) for one in bounds])
        color, marker = look[name]
        label = f"{side} bound: {name}"
        ax.plot(at, curve, style, marker=marker, ms=4.5, lw=1, mfc=fill, color=color, label=label)
