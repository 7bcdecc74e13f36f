"""Figures of kernel matrices themselves."""

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rnntk.plot.style import axes_of
from rnntk.storage import StoredMatrix


def kernel_matrix(
    K: Float[np.ndarray, "n1 n2"] | StoredMatrix,
    *,
    most: int = 512,
    ax: Axes | None = None,
) -> Figure:
    """The entries of a kernel as shades of one colour.

    Args:
        K: a matrix, or one on disk, of which the tiles that hold the sample are read.
        most: rows and columns that are drawn at the most, evenly spaced ones of larger matrices.
        ax: axes to draw on.

    Raises:
        ValueError: for what is no matrix, or fewer rows than one.

    Example:
        >>> import numpy as np, rnntk
        >>> figure = rnntk.plot.kernel_matrix(np.eye(3))
        >>> figure.axes[0].get_xlabel()
        'sequence'
    """
    if len(K.shape) != 2 or 0 in K.shape:
        raise ValueError(f"K must be a matrix, got shape {tuple(K.shape)}.")
    if most < 1:
        raise ValueError(f"most must be at least 1, got {most}.")
    steps = [-(-n // most) for n in K.shape]
    block = np.asarray(K[:: steps[0], :: steps[1]], float)
    figure, ax = axes_of(ax)
    # the axes count all sequences, of which a cell stands for several
    extent = (-0.5, block.shape[1] * steps[1] - 0.5, block.shape[0] * steps[0] - 0.5, -0.5)
    image = ax.imshow(block, cmap="cividis", extent=extent, interpolation="nearest")
    figure.colorbar(image, ax=ax, label="kernel")
    ax.set_xlabel("sequence")
    ax.set_ylabel("sequence")
    if max(steps) > 1:
        ax.set_title(f"every {steps[0]} of {K.shape[0]} rows", fontsize=8)
    return figure
