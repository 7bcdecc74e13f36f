"""Estimates of extreme eigenvalues, for :mod:`rnntk.linalg.enclosure` to prove bounds beside."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Float

from rnntk.linalg import enclosure

_DENSE = 300  # rows up to which all eigenvalues cost no more than two factorizations and a search
_STEPS = 400  # of Lanczos; as many vectors are kept


class Ends(NamedTuple):
    """Smallest eigenvalue, largest magnitude of one, and how they were computed."""

    smallest: float
    largest: float
    method: str


def ends(A: Float[np.ndarray, "n n"], method: str = "auto") -> Ends:
    """Estimates by all eigenvalues ("dense"), by one factorization ("cholesky"), or by size.

    Example:
        >>> import numpy as np
        >>> ends(np.diag([2.0, 1.0]))
        Ends(smallest=1.0, largest=2.0, method='dense')
    """
    if method == "dense" or (method == "auto" and len(A) <= _DENSE):
        values = scipy.linalg.eigvalsh(A, check_finite=False)
        return Ends(float(values[0]), float(np.abs(values).max()), "dense")
    return Ends(*_by_factorization(A), "cholesky")


def _by_factorization(A: np.ndarray) -> tuple[float, float]:
    """Estimates of the smallest eigenvalue and of the largest magnitude, by Lanczos.

    The smallest one from the inverse of A + shift, the shift no larger than it takes to be positive
    definite for Cholesky.
    """
    n, entry = len(A), max(float(A.max()), -float(A.min()))
    if entry == 0:
        return 0.0, 0.0
    A, power = enclosure.rescaled(A, entry)
    values, _ = ritz(lambda v: A @ v, n, -1, 1e-2)
    largest = float(np.abs(values).max())
    shift = max(n * 2.0**-53 * largest, -1.25 * float(values[0]))
    while (factor := enclosure.cholesky(A, np.diagonal(A) + shift)) is None:
        shift *= 4
    inverse, _ = ritz(lambda v: enclosure.solve(factor, v), n, -1, 1e-6)
    smallest = 1 / float(inverse[-1]) - shift
    with np.errstate(over="ignore"):  # infinity is the estimate of what is beyond the range
        return float(np.ldexp(smallest, -power)), float(np.ldexp(largest, -power))


def ritz(
    product: Callable[[np.ndarray], np.ndarray], n: int, end: int, tolerance: float
) -> tuple[Float[np.ndarray, " k"], float]:
    """Ritz values, ascending, of Lanczos from a random vector, every vector kept orthogonal.

    They lie between the extreme eigenvalues. Stops when the residual of the one at ``end`` falls
    below ``tolerance`` times the largest magnitude, or after ``_STEPS`` products; the residual,
    within which some eigenvalue lies, comes second.
    """
    steps = min(n, _STEPS)
    basis = np.empty((steps, n))
    diagonal, beside = np.empty(steps), np.empty(steps)
    q = np.random.default_rng(0).standard_normal(n)
    q /= scipy.linalg.norm(q)  # BLAS's, whose squares do not overflow
    values, check, residual = np.zeros(1), 2, 0.0
    for k in range(steps):
        basis[k] = q
        w = product(q)
        diagonal[k] = q @ w
        for _ in range(2):  # once leaves what rounding has made of it
            w = w - (basis[: k + 1] @ w) @ basis[: k + 1]
        beside[k] = scipy.linalg.norm(w)
        if k + 1 in (check, steps) or beside[k] == 0:
            values, vectors = scipy.linalg.eigh_tridiagonal(diagonal[: k + 1], beside[:k])
            residual = float(beside[k] * abs(vectors[-1, end]))
            if residual <= tolerance * np.abs(values).max():
                break
            check += 1 + check // 4
        q = w / beside[k]
    return values, residual
