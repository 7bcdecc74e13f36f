"""What all figures have in common.

Every function draws on the given Matplotlib axes, or on a new figure if there are none, and
returns the figure. Nothing here touches pyplot or Matplotlib's global settings; markers and line
styles differ as colours do, so that a figure survives printing in grey.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import ArrayLike

SIZE = (5.2, 3.6)
# Okabe and Ito's colours, which stay apart for colour-blind readers, dark ones first.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P")
BOUND_MARKERS = ("s", "^", "D", "v", "P", "X", "<", ">", "h")
STYLES = ("--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


def axes_of(ax: Axes | None) -> tuple[Figure, Axes]:
    """The figure to return, and the axes to draw on."""
    if ax is None:
        figure = Figure(figsize=SIZE, layout="constrained")
        return figure, figure.subplots()
    return ax.figure.figure, ax  # of a SubFigure, the figure it is part of


def width_axis(ax: Axes, widths: Sequence[int]) -> None:
    """A logarithmic axis with a tick at every width."""
    ax.set_xscale("log")
    ax.set_xticks(list(widths), [str(width) for width in widths])
    ax.set_xlim(min(widths) / 1.5, max(widths) * 1.5)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("width $m$")


def positive(values: ArrayLike) -> np.ndarray:
    """NaN, which is not drawn, for what has no place on a logarithmic axis."""
    array = np.asarray(values, float)
    return np.where((array > 0) & np.isfinite(array), array, np.nan)
