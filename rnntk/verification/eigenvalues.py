"""Bounds on smallest eigenvalues, proved in whole numbers."""

from fractions import Fraction
from math import isqrt

import numpy as np


def whole(numbers: np.ndarray) -> tuple[np.ndarray, Fraction]:
    """Floating-point numbers as whole numbers times a power of two."""
    ratios = [float(v).as_integer_ratio() for v in numbers.ravel()]
    common = max(d for _, d in ratios)
    whole = np.empty(len(ratios), object)
    whole[:] = [p * (common // d) for p, d in ratios]
    return whole.reshape(numbers.shape), Fraction(1, common)


def proved(
    ends: tuple[float, float],
    middle: np.ndarray,
    unit: Fraction,
    radius: Fraction,
    bits: int,
    *,
    gram: bool,
) -> bool:
    """Both ends, for every symmetric matrix within ``radius`` of ``middle`` times ``unit``.

    Of Gram matrices, which have no negative eigenvalue, a lower end of 0 needs no proof.
    """
    lower, upper = map(Fraction, ends)
    gram = gram and lower <= 0
    if not gram:
        inverse = _inverse_factor(middle, (lower + radius) / unit, bits)
        if inverse is None or not _positive(middle, (lower + radius) / unit, inverse):
            return False
    if min(np.diagonal(middle)) * unit <= upper - radius:
        return True
    # a shift below the interval makes a factor in any case, and the eigenvector dominates
    inverse = _inverse_factor(middle, (2 * lower - upper - radius) / unit, bits)
    if inverse is None:
        return False
    x = np.array([1 + i % 3 for i in range(len(middle))], object)
    for _ in range(12):
        x = inverse.T @ (inverse @ x)
        size = max(abs(int(v)).bit_length() for v in x)
        x = np.array([int(v) >> (size - bits) if size > bits else int(v) for v in x], object)
        if int(x @ middle @ x) * unit <= (upper - radius) * int(x @ x):
            return True
    return False


def _shifted(middle: np.ndarray, shift: Fraction) -> np.ndarray:
    """``middle`` - ``shift``, exactly, times a whole number."""
    result = middle * shift.denominator
    result[np.diag_indices(len(result))] -= shift.numerator
    return result


def _inverse_factor(middle: np.ndarray, shift: Fraction, bits: int) -> np.ndarray | None:
    """About a multiple of L^-1 for the matrix less the shift, L L'; nothing is proved of it."""
    work = _shifted(middle, shift)
    n, largest = len(work), max(abs(int(v)) for v in work.ravel())
    if largest == 0:
        return None
    cut = largest.bit_length() - bits
    work = work >> cut if cut >= 0 else work << -cut
    inverse = np.zeros((n, n), object)
    inverse[np.diag_indices(n)] = 1 << (2 * bits)
    for k in range(n):
        if work[k, k] <= 0:
            return None
        pivot = isqrt(int(work[k, k]) << bits)
        column = (work[k + 1 :, k] << bits) // pivot
        work[k + 1 :, k + 1 :] -= np.multiply.outer(column, column) >> bits
        inverse[k, : k + 1] = (inverse[k, : k + 1] << bits) // pivot
        inverse[k + 1 :, : k + 1] -= np.multiply.outer(column, inverse[k, : k + 1]) >> bits
    return inverse


def _positive(middle: np.ndarray, shift: Fraction, X: np.ndarray) -> bool:
    """Whether X (A - shift) X' is strictly diagonally dominant, so that A > shift (lemma 1)."""
    work = _shifted(middle, shift)
    G = X @ work @ X.T
    diagonal = np.diagonal(G)
    return bool(np.all(2 * diagonal > np.abs(G).sum(axis=1)))
