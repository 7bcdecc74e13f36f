"""Eigenvalues of kernel matrices, in float64 on the host, each smallest one with its interval.

The lower end is Rump's Cholesky test (2006), the upper one a Rayleigh quotient, both with their
own rounding bounded: docs/theory/spectrum.md derives every constant.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from jax.typing import ArrayLike
from jaxtyping import Float

from rnntk import gram

METHODS = ("auto", "dense")
_U = 2.0**-53
_ETA = 2.0**-1074


@dataclass(frozen=True)
class MinEigenvalue:
    """A smallest eigenvalue and what is known about it.

    Attributes:
        value: the eigenvalue as computed.
        lower: lower end of the interval.
        upper: upper end of the interval.
        method: how ``value`` was computed.
        certified: whether [lower, upper] provably contains the smallest eigenvalue of the given
            matrix; for a float32 matrix, of every matrix that rounds to it.
        resolved: whether ``value`` exceeds what rounding in the matrix's own dtype can make,
            n eps times the largest eigenvalue in magnitude.
    """

    value: float
    lower: float
    upper: float
    method: str
    certified: bool
    resolved: bool


def eigenvalues(K: ArrayLike) -> Float[np.ndarray, " n"]:
    """All eigenvalues of a symmetric matrix, ascending.

    Args:
        K: symmetric matrix (n, n).

    Returns:
        float64 NumPy array (n,), by LAPACK on the host.

    Raises:
        TypeError, ValueError: see :func:`rnntk.gram.check_symmetric`.

    Example:
        >>> import numpy as np, rnntk
        >>> rnntk.spectrum.eigenvalues(np.diag([2.0, 1.0])).tolist()
        [1.0, 2.0]
    """
    return scipy.linalg.eigvalsh(gram.check_symmetric(K))


def min_eigenvalue(K: ArrayLike, method: str = "auto") -> MinEigenvalue:
    """Smallest eigenvalue of a symmetric matrix, in an interval that rounding cannot escape.

    Args:
        K: symmetric matrix (n, n). A float32 matrix counts as known to its own rounding.
        method: ``"dense"``, all eigenvalues by LAPACK; ``"auto"`` chooses.

    Returns:
        The eigenvalue with its interval, in float64.

    Raises:
        ValueError: for an unknown method, or a matrix that is not square, finite and symmetric.
        TypeError: for a matrix that is not floating point.

    Example:
        >>> import numpy as np, rnntk
        >>> result = rnntk.spectrum.min_eigenvalue(np.diag([2.0, 1.0]))
        >>> result.lower <= 1 <= result.upper, result.certified
        (True, True)
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}.")
    A = gram.check_symmetric(K)
    dtype = np.asarray(K).dtype
    n = len(A)
    values = scipy.linalg.eigvalsh(A)
    largest = max(abs(values[0]), abs(values[-1]))
    lower, factor = _lower_bound(A, values[0], largest)
    upper = _rayleigh_upper_bound(A, factor)
    if dtype != np.float64:
        own = gram.unit_roundoff(dtype) * np.linalg.norm(A) * (1 + 1e-12)
        lower, upper = np.nextafter(lower - own, -np.inf), np.nextafter(upper + own, np.inf)
    return MinEigenvalue(
        value=float(np.clip(values[0], lower, upper)),
        lower=float(lower),
        upper=float(upper),
        method="dense",
        certified=bool(np.isfinite(lower)),
        resolved=bool(abs(values[0]) > n * 2 * gram.unit_roundoff(dtype) * largest),
    )


def _lower_bound(A: np.ndarray, value: float, largest: float) -> tuple[float, np.ndarray | None]:
    """Rump's test at shifts that move down from ``value`` until Cholesky runs to completion.

    If the floating-point Cholesky factorization of fl(A - s I) ends without a pivot <= 0, then
    lmin(A) >= s - gamma/(1 - gamma) tr(fl(A - s I)) - u max|fl(a_ii - s)| - underflow, with
    gamma = (n + 2) u / (1 - (n + 2) u).
    """
    n = len(A)
    gamma = (n + 2) * _U / (1 - (n + 2) * _U)
    gap = 4 * n * _U * largest + 4 * _ETA * n * n
    for _ in range(40):
        shift = value - gap
        shifted = A.copy()
        diagonal = np.diagonal(A) - shift
        np.fill_diagonal(shifted, diagonal)
        gap *= 4
        try:
            factor = scipy.linalg.cholesky(shifted, lower=True, overwrite_a=True)
        except np.linalg.LinAlgError:
            continue
        top = float(np.max(np.abs(diagonal)))
        error = gamma / (1 - gamma) * float(np.sum(diagonal)) + _U * top
        error += 4 * (n + 1) * (2 * (n + 2) + top) * _ETA
        # the few operations that form the bound itself, its sum over n entries included
        error *= 1 + (n + 10) * 4 * _U
        return float(np.nextafter(shift - error, -np.inf)), factor
    return -np.inf, None


def _rayleigh_upper_bound(A: np.ndarray, factor: np.ndarray | None) -> float:
    """Rayleigh quotient of a vector from inverse iteration, rounded up.

    |fl(x'Ax) - x'Ax| <= gamma_{2n} |x|'|A||x| for any order of summation, and likewise for x'x.
    """
    n = len(A)
    best = int(np.argmin(np.diagonal(A)))
    if factor is None:
        return float(A[best, best])
    x = np.random.default_rng(0).standard_normal(n)
    with np.errstate(all="ignore"):
        for _ in range(4):
            x = scipy.linalg.cho_solve((factor, True), x, check_finite=False)
            x /= np.abs(x).max()  # first, so that the norm cannot overflow
            x /= np.linalg.norm(x)
    if not np.isfinite(x).all():  # a factor near underflow
        return float(A[best, best])
    size = np.abs(x)
    gamma = (2 * n + 4) * _U / (1 - (2 * n + 4) * _U)
    slack = gamma * float(size @ (np.abs(A) @ size)) * (1 + 4 * gamma) + 4 * n * n * _ETA
    top = float(x @ (A @ x)) + slack
    norm = float(x @ x)
    quotient = top / (norm * (1 - gamma)) if top > 0 else top / (norm * (1 + gamma))
    quotient = float(np.nextafter(quotient + 2 * _U * abs(quotient), np.inf))
    return min(quotient, float(A[best, best]))
