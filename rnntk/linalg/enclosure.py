"""Proved intervals for the smallest eigenvalue of a float64 matrix.

The lower end is Rump's Cholesky test (2006), the upper one a Rayleigh quotient. Both hold for any
order of summation, fused or not, with or without gradual underflow: docs/theory/spectrum.md derives
every constant that appears here. What surrounds LAPACK's work is done in exact rational numbers and
rounded outward once, at the end.
"""

import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Float

ROUNDOFF = Fraction(1, 2**53)
_TINY = Fraction(1, 2**1022)  # what any one operation may lose below the normal range
_ROWS = 256  # of absolute values formed at a time
_ROUNDS = 6  # of a better estimate from the factor, where the given one was poor
_SCALES = 2.0**-400, 2.0**400  # magnitudes at which no product over- or underflows


class Interval(NamedTuple):
    """A smallest eigenvalue.

    Attributes:
        lower: proved lower bound.
        upper: proved upper bound.
        value: Rayleigh quotient as computed, between the two.
    """

    lower: float
    upper: float
    value: float


def enclose(
    A: Float[np.ndarray, "n n"], estimate: float, relative: float = 0.0, absolute: float = 0.0
) -> Interval:
    """The smallest eigenvalue of every symmetric matrix near ``A``, by theorems 1 and 2.

    The cost is that of one Cholesky factorization if the estimate is good, and the work space that
    of one copy of ``A``.

    Args:
        A: finite and exactly symmetric.
        estimate: of its smallest eigenvalue; a bad one makes a wide interval, not a wrong one.
        relative: bound on the relative deviation of every entry.
        absolute: bound on the spectral norm of a further deviation.

    Example:
        >>> import numpy as np
        >>> interval = enclose(np.diag([2.0, 1.0]), 1.0)
        >>> interval.lower <= 1 <= interval.upper
        True
    """
    largest = max(float(A.max()), -float(A.min()))
    if largest == 0:
        return Interval(round_down(-Fraction(absolute)), round_up(Fraction(absolute)), 0.0)
    scaled, power = rescaled(A, largest)
    unit = Fraction(2) ** -power
    norm = frobenius_norm(scaled)
    lower, upper = -norm, norm
    value = min(max(math.ldexp(estimate, power), -float(norm)), float(norm))
    for _ in range(_ROUNDS):
        bound, factor, first = _lower_bound(scaled, value, float(norm))
        x = _smallest_vector(scaled, factor)
        del factor
        above, value = _upper_bound(scaled, x, _TINY if power else Fraction(0))
        lower, upper = max(lower, bound), min(upper, above)
        if first:
            break
    radius = Fraction(relative) * norm + Fraction(absolute) / unit
    low, high = round_down((lower - radius) * unit), round_up((upper + radius) * unit)
    middle = round_down(Fraction(value) * unit)
    return Interval(low, high, min(max(middle, low), high))


def rescaled(A: Float[np.ndarray, "n n"], largest: float) -> tuple[np.ndarray, int]:
    """``A`` times a power of two, and its exponent: 0 unless products could leave the range."""
    if _SCALES[0] <= largest <= _SCALES[1]:
        return A, 0
    power = -math.frexp(largest)[1]
    return np.ldexp(A, power), power


def cholesky(A: Float[np.ndarray, "n n"], diagonal: Float[np.ndarray, " n"]) -> np.ndarray | None:
    """Lower factor of ``A`` with another diagonal, the upper triangle unused; None if it fails."""
    work = A.copy()
    np.fill_diagonal(work, diagonal)
    # LAPACK works on columns in place: of a symmetric matrix the transpose has what it needs
    factor, info = scipy.linalg.lapack.dpotrf(work.T, lower=1, clean=0, overwrite_a=1)
    # an overflow anywhere in a row reaches its diagonal entry, which some libraries let pass
    if info or not np.isfinite(np.diagonal(factor)).all():
        return None
    return factor


def solve(factor: Float[np.ndarray, "n n"], b: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """A^-1 b for the factor of A that :func:`cholesky` returns."""
    return scipy.linalg.lapack.dpotrs(factor, b, lower=1)[0]


def _lower_bound(
    A: np.ndarray, estimate: float, norm: float
) -> tuple[Fraction, np.ndarray | None, bool]:
    """Theorem 1 at shifts that move down from the estimate until Cholesky runs to completion.

    Returns the bound, the factor, and whether the first shift served.
    """
    gap = smallest = len(A) * float(ROUNDOFF) * norm
    while gap <= 8 * norm:
        shift = estimate - gap
        diagonal = np.diagonal(A) - shift
        factor = cholesky(A, diagonal)
        if factor is not None:
            return Fraction(shift) - completion_error(diagonal), factor, gap == smallest
        gap *= 8
    return -Fraction(norm), None, True


def completion_error(diagonal: Float[np.ndarray, " n"]) -> Fraction:
    """How far below 0 the smallest eigenvalue may lie of a matrix that Cholesky has factored.

    Theorem 1 for the rounded diagonal of A - s I, the rounding of that diagonal included.
    """
    n = len(diagonal)
    alpha = Fraction(n + 1, 2**53 - 2 * (n + 1))  # gamma / (1 - gamma), gamma = (n+1)u/(1-(n+1)u)
    trace = Fraction(math.fsum(diagonal)) * (1 + 2 * ROUNDOFF)
    top = Fraction(float(diagonal.max()))
    return alpha * trace + ROUNDOFF * top + 10 * n * (n + max(Fraction(1), top)) * _TINY


def _smallest_vector(A: np.ndarray, factor: np.ndarray | None) -> np.ndarray:
    """A few inverse iterations: a vector with entries of magnitude at most 1, one of them 1."""
    n = len(A)
    best = np.zeros(n)
    best[int(np.argmin(np.diagonal(A)))] = 1.0
    if factor is None:
        return best
    x = np.random.default_rng(0).standard_normal(n)
    with np.errstate(all="ignore"):
        for _ in range(4):
            x = solve(factor, x)
            x /= np.abs(x).max()
    return x if np.isfinite(x).all() else best  # a factor near underflow


def _upper_bound(A: np.ndarray, x: np.ndarray, scaling: Fraction) -> tuple[Fraction, float]:
    """Theorem 2, or the smallest diagonal entry, and the Rayleigh quotient as computed.

    ``scaling`` is what an entry may have lost before.
    """
    size = np.abs(x)
    product, magnitude = float(x @ (A @ x)), 0.0
    for start in range(0, len(A), _ROWS):
        rows = slice(start, start + _ROWS)
        magnitude += float(size[rows] @ (np.abs(A[rows]) @ size))
    smallest = float(np.diagonal(A).min())
    return quotient_bound(product, magnitude, x, smallest, scaling)


def quotient_bound(
    product: float,
    magnitude: float,
    x: Float[np.ndarray, " n"],
    smallest: float,
    scaling: Fraction = Fraction(0),
) -> tuple[Fraction, float]:
    """Theorem 2 from sums over the entries of a matrix A, made in any order.

    Args:
        product: x' A x as computed.
        magnitude: |x|' |A| |x| as computed.
        x: with entries of magnitude at most 1, one of them 1.
        smallest: diagonal entry of A.
        scaling: what an entry may have lost before.
    """
    n = len(x)
    gamma, gamma2 = (Fraction(k, 2**53 - k) for k in (n, 2 * n))
    lost = 10 * n * n * _TINY
    # the sum over the blocks of rows is part of the order of summation
    slack = gamma2 * (Fraction(magnitude) + lost) / (1 - gamma2) + lost
    top, norm2 = Fraction(product) + slack, float(x @ x)
    ends = [(Fraction(norm2) - lost) / (1 + gamma), (Fraction(norm2) + lost) / (1 - gamma)]
    quotient = top / ends[0 if top > 0 else 1] + n * scaling
    return min(quotient, Fraction(smallest) + scaling), product / norm2


def frobenius_norm(A: Float[np.ndarray, "n n"]) -> Fraction:
    """At least the Frobenius norm: a sum of n^2 squares, in any order, and its root."""
    return norm_bound(float(np.linalg.norm(A)), len(A))


def norm_bound(norm: float, n: int) -> Fraction:
    """At least the Frobenius norm of n rows, of which ``norm`` was computed in any order."""
    terms = n * n + 4
    rounding = 1 + Fraction(terms, 2**53 - 2 * terms)
    # n^2 squares may each lose 2^-1022
    return Fraction(norm) * rounding + Fraction(2 * n, 2**511)


def round_down(q: Fraction) -> float:
    """The largest float64 number that is at most ``q``; finite above, maybe -inf below."""
    try:
        x = float(q)
    except OverflowError:
        return float(np.finfo(np.float64).max) if q > 0 else -math.inf
    return x if Fraction(x) <= q else math.nextafter(x, -math.inf)


def round_up(q: Fraction) -> float:
    """The smallest float64 number that is at least ``q``."""
    return -round_down(-q) + 0.0  # no -0.0
