"""Gram matrices as data: the checks that everything which reads a kernel matrix shares."""

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float


def check_symmetric(matrix: ArrayLike, name: str = "K") -> Float[np.ndarray, "n n"]:
    """Return a symmetric matrix as float64 on the host, or say what is wrong with it.

    Asymmetry up to n u max|K|, u the unit roundoff of the matrix's own dtype, counts as rounding,
    and the symmetric part is returned.

    Raises:
        TypeError: if the matrix is not floating point.
        ValueError: if it is not a non-empty square matrix, not finite, or not symmetric.

    Example:
        >>> import numpy as np
        >>> check_symmetric(np.eye(2, dtype=np.float32)).dtype
        dtype('float64')
    """
    array = np.asarray(matrix)
    if array.ndim == 4:
        raise ValueError(
            f"{name} must be a matrix, got shape {array.shape}: a kernel with step axes is "
            f"flattened by {name}.reshape(n * t, n * t)."
        )
    if array.ndim != 2 or array.shape[0] != array.shape[1] or array.size == 0:
        raise ValueError(f"{name} must be a square matrix, got shape {array.shape}.")
    if not np.issubdtype(array.dtype, np.floating):
        raise TypeError(f"{name} must be floating point, got {array.dtype}.")
    finite = np.isfinite(array)
    if not finite.all():
        i, j = np.argwhere(~finite)[0]
        raise ValueError(f"{name} must be finite, got {array[i, j]} at ({i}, {j}).")
    wide = array.astype(np.float64)
    gap = np.abs(wide - wide.T)
    i, j = np.unravel_index(np.argmax(gap), gap.shape)
    if gap[i, j] > len(wide) * unit_roundoff(array.dtype) * np.abs(wide).max():
        raise ValueError(
            f"{name} must be symmetric, got entries ({i}, {j}) and ({j}, {i}) that differ by "
            f"{gap[i, j]:.3g}: {wide[i, j]:.17g} and {wide[j, i]:.17g}."
        )
    return wide if gap[i, j] == 0 else (wide + wide.T) / 2


def unit_roundoff(dtype: np.typing.DTypeLike) -> float:
    """Half the distance from 1 to the next number of ``dtype``."""
    return float(np.finfo(np.dtype(dtype)).eps) / 2
