"""Figures of what grows with the length of the sequences."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from rnntk.compare import SampleComplexity
from rnntk.compare import growth as fit_growth
from rnntk.plot.style import COLORS, MARKERS, STYLES, axes_of, positive

LABELS = {
    "kernel": "kernel regression",
    "network": "network, one pass of SGD",
    "linearized": "linearized network, one pass",
    "exact": "Gaussian features, exact",
    "upper": "Theorem 2.1: enough",
    "lower": "Theorem 2.2: too few",
    "rademacher": "from $y^T K^{-1} y$",
}


def sample_complexity(
    found: SampleComplexity, names: Sequence[str] = ("kernel",), *, ax: Axes | None = None
) -> Figure:
    """Samples against the length, both logarithmic: geometric means, with intervals over draws.

    Args:
        found: from :func:`rnntk.compare.sample_complexity`.
        names: of columns; what was not reached is left out.
        ax: axes to draw on.

    Raises:
        ValueError: for a name that there is not.

    Example:
        >>> import numpy as np, rnntk
        >>> table = {"length": np.array([1, 2]), "draw": np.zeros(2, int),
        ...          "kernel": np.array([2.0, 8.0])}
        >>> found = rnntk.compare.SampleComplexity(table, {})
        >>> rnntk.plot.sample_complexity(found).axes[0].get_ylabel()
        'samples'
    """
    figure, ax = axes_of(ax)
    for i, name in enumerate(names):
        mean, low, high = found.interval(name).T
        mean = positive(mean)
        gaps = np.nan_to_num([mean - positive(low), positive(high) - mean], nan=0.0)
        color, marker = COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)]
        style = ("-", *STYLES)[i % 5]
        look: dict[str, Any] = {"color": color, "marker": marker, "ls": style, "ms": 5, "lw": 1.3}
        label = LABELS.get(name, name)
        ax.errorbar(found.lengths, mean, yerr=gaps, capsize=3, label=label, **look)
    _length_axis(ax, found.lengths)
    ax.set_yscale("log")
    ax.set_ylabel("samples")
    ax.legend(fontsize=8)
    return figure


def growth(
    lengths: Sequence[int] | Int[np.ndarray, " k"],
    values: Float[np.ndarray, " k"],
    *,
    ylabel: str,
    ax: Axes | None = None,
) -> Figure:
    """Values against the length with the three laws of growth fitted, the best one solid.

    Args:
        lengths: at least four.
        values: positive, one for each.
        ylabel: what they are.
        ax: axes to draw on.

    Raises:
        ValueError: as :func:`rnntk.compare.growth`.

    Example:
        >>> import numpy as np, rnntk
        >>> L = np.array([2, 4, 8, 16])
        >>> rnntk.plot.growth(L, 3.0 * L, ylabel="samples").axes[0].get_xlabel()
        'length $L$'
    """
    found = fit_growth(np.asarray(lengths, float), np.asarray(values, float))
    figure, ax = axes_of(ax)
    at = np.geomspace(min(lengths), max(lengths), 100)
    for i, (name, law) in enumerate(found.laws.items()):
        best = name == found.best
        style = "-" if best else STYLES[i % len(STYLES)]
        label = f"{name}: {law.formula}"
        ax.plot(at, law.predict(at), ls=style, lw=2 if best else 1, color=COLORS[i], label=label)
    ax.plot(lengths, values, "o", ms=6, mfc="white", color="black", label="measured")
    _length_axis(ax, lengths)
    ax.set_yscale("log")
    ax.set_ylabel(ylabel)
    ax.legend(fontsize=7)
    return figure


def _length_axis(ax: Axes, lengths: Sequence[int] | Int[np.ndarray, " k"]) -> None:
    ax.set_xscale("log")
    ax.set_xticks(list(lengths), [str(length) for length in lengths])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("length $L$")
