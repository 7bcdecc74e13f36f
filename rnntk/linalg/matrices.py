"""Gram matrices as data: the checks that everything which reads a kernel matrix shares."""

import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.typing import ArrayLike
from jaxtyping import Float

from rnntk.kernel import Kernel

_TILE = 512
ENTRY_ROUNDINGS = 16
"""Roundings of one sign that :func:`resolution` allows each entry of a kernel."""


SLIGHT = 1e-4
"""Asymmetry over the largest entry that sums of many terms may have left, even in float32."""


def check_symmetric(matrix: ArrayLike, name: str = "K") -> Float[np.ndarray, "n n"]:
    """Return a symmetric matrix as float64 on the host, or say what is wrong with it.

    Asymmetry up to n u max|K|, u the unit roundoff of the matrix's own dtype, counts as rounding,
    and the symmetric part is returned. A float64 matrix that is symmetric comes back as it is, not
    as a copy.

    Raises:
        TypeError: if it is not a matrix, or not floating point.
        ValueError: if it is not a non-empty square matrix, not finite, or not symmetric.

    Example:
        >>> import numpy as np
        >>> check_symmetric(np.eye(2, dtype=np.float32)).dtype
        dtype('float64')
    """
    array = _as_array(matrix, name)
    if array.ndim == 2 and array.size == 0:
        raise ValueError(f"{name} must have at least one row, got an empty matrix {array.shape}.")
    if array.ndim != 2 or array.shape[0] != array.shape[1]:
        raise ValueError(
            f"{name} must be a square matrix, got shape {array.shape}{_hint(array.shape, name)}."
        )
    check_dtype(array.dtype, name)
    with np.errstate(over="ignore"):
        wide = array.astype(np.float64, copy=False)
    if not (np.isfinite(wide.max()) and np.isfinite(wide.min())):
        i, j = np.argwhere(~np.isfinite(wide))[0]
        beyond = ", beyond float64" if np.isfinite(array[i, j]) else ""
        raise ValueError(f"{name} must be finite, got {array[i, j]!s} at ({i}, {j}){beyond}.")
    gap, i, j = _asymmetry(wide)
    largest = max(float(wide.max()), -float(wide.min()))
    if gap > len(wide) * unit_roundoff(array.dtype) * largest:
        raise ValueError(
            f"{name} must be symmetric, got entries ({i}, {j}) and ({j}, {i}) that differ by "
            f"{gap:.3g}: {wide[i, j]:.17g} and {wide[j, i]:.17g}"
            + (
                f"; if rounding made the difference, ({name} + {name}.T) / 2 is symmetric."
                if gap <= SLIGHT * largest
                else "."
            )
        )
    return wide if gap == 0 else wide / 2 + wide.T / 2


def check_dtype(dtype: np.dtype, name: str = "K") -> None:
    """Refuse what is not floating point to NumPy.

    Raises:
        TypeError: saying what to convert to.

    Example:
        >>> check_dtype(np.dtype(np.float32))
    """
    if np.issubdtype(dtype, np.floating):
        return
    narrow = jnp.issubdtype(dtype, jnp.floating)  # bfloat16 and the like
    remedy = f": convert it by {name}.astype('float32')" if narrow else ""
    raise TypeError(f"{name} must be floating point, got {dtype}{remedy}.")


def with_uncertainty(
    matrix: ArrayLike, name: str = "K"
) -> tuple[Float[np.ndarray, "n n"], float, float]:
    """What :func:`check_symmetric` returns, and up to what errors its entries count as known.

    Entries of lower precision than float64 stand for all that round to them, and a symmetric part
    that had to be taken has been rounded.

    Returns:
        The matrix, a bound on the relative error of its entries, and one on a further error in the
        spectral norm, made by entries below the normal range.

    Example:
        >>> import numpy as np
        >>> with_uncertainty(np.eye(2))[1:]
        (0.0, 0.0)
    """
    A = check_symmetric(matrix, name)
    given = np.asarray(matrix)
    relative, absolute = uncertainty_of(given.dtype, len(A))
    if not np.shares_memory(A, given):
        relative += 2.0**-52
        absolute += len(A) * 2.0**-1072
    return A, relative, absolute


def uncertainty_of(dtype: np.dtype, n: int) -> tuple[float, float]:
    """Relative and absolute errors up to which entries of a dtype count as known.

    Example:
        >>> uncertainty_of(np.dtype(np.float64), 3)
        (0.0, 0.0)
    """
    if dtype == np.float64:
        return 0.0, 0.0
    relative = max(unit_roundoff(dtype), 2.0**-53)
    return relative, n * max(float(np.finfo(dtype).smallest_subnormal), 2.0**-1074)


def _as_array(matrix: ArrayLike, name: str) -> np.ndarray:
    """The numbers of a matrix, unless it is something else that would pass for one."""
    if isinstance(matrix, Kernel):
        raise TypeError(f"{name} must be a matrix, got a Kernel: take its .ntk or .nngp.")
    if np.ma.is_masked(matrix):
        raise ValueError(f"{name} must have no masked entries: drop their rows and columns.")
    array = np.asarray(matrix)
    if array.dtype == object:
        raise TypeError(f"{name} must be a matrix of numbers, got {type(matrix).__name__}.")
    return array


def _hint(shape: tuple[int, ...], name: str) -> str:
    """How a kernel with further axes becomes a matrix."""
    hints = []
    if len(shape) == 4 and shape[:2] == shape[2:]:
        hints.append(f"with step axes it is flattened by {name}.reshape(n * t, n * t)")
    if len(shape) == 4 and shape[0] == shape[1] and shape[2] == shape[3]:
        hints.append(
            f"with output axes it is flattened by {name}.swapaxes(1, 2).reshape(n * o, n * o)"
        )
    return "".join(f"; a kernel {hint}" for hint in hints)


def _asymmetry(A: np.ndarray) -> tuple[float, int, int]:
    """The largest |A_ij - A_ji| and where, tile by tile so that no copy of A is made."""
    worst = 0.0, 0, 0
    for top in range(0, len(A), _TILE):
        for left in range(0, top + 1, _TILE):
            rows, columns = slice(top, top + _TILE), slice(left, left + _TILE)
            gap = np.abs(A[rows, columns] - A[columns, rows].T)
            i, j = np.unravel_index(np.argmax(gap), gap.shape)
            if gap[i, j] > worst[0]:
                worst = float(gap[i, j]), top + int(i), left + int(j)
    return worst


def unit_roundoff(dtype: np.typing.DTypeLike) -> float:
    """Half the distance from 1 to the next number of ``dtype``."""
    return float(np.finfo(np.dtype(dtype)).eps) / 2


def resolution(
    n: int,
    size: float,
    dtype: np.typing.DTypeLike,
    arithmetic: np.typing.DTypeLike = np.float64,
) -> float:
    """Eigenvalues up to this magnitude are singular to rounding: docs/theory/spectrum.md.

    It is the sum of what a few roundings of each entry in the matrix's own dtype may have made, and
    of what a factorization and the search for an eigenvalue lose in the dtype of the arithmetic.

    Args:
        n: rows of the matrix.
        size: of the matrix, by :func:`size_of` or :func:`size_of_spectrum`.
        dtype: of the matrix.
        arithmetic: dtype that its factorization or its products are computed in.

    Example:
        >>> resolution(3, 1.0, np.float64) == (16 + 8) * 2.0**-53
        True
    """
    entries = ENTRY_ROUNDINGS * max(unit_roundoff(dtype), 2.0**-53)
    return (entries + 2 * (n + 1) * unit_roundoff(arithmetic)) * size


def size_of(A: Float[np.ndarray, "n n"]) -> float:
    """The trace, or the Frobenius norm where that is larger, as it is for no kernel.

    Example:
        >>> size_of(np.ones((3, 3)))
        3.0
    """
    with np.errstate(over="ignore"):  # infinity resolves nothing, as it should
        trace = float(np.trace(A))
    return max(trace, float(scipy.linalg.norm(A.ravel("K"), check_finite=False)))


def size_of_spectrum(values: Float[np.ndarray, " n"]) -> float:
    """:func:`size_of` of a matrix with these eigenvalues.

    Example:
        >>> size_of_spectrum(np.array([0.0, 3.0]))
        3.0
    """
    largest = max(float(np.abs(values).max()), np.finfo(np.float64).tiny)
    relative = values / largest
    return largest * max(float(relative.sum()), float(np.linalg.norm(relative)))
