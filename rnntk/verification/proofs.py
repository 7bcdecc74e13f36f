"""Smallest eigenvalues bounded by exact whole numbers of Python, and what a certificate may state.

docs/theory/spectrum.md has the two lemmas.
"""

from collections.abc import Iterator
from fractions import Fraction
from math import inf, isqrt
from typing import Any

import numpy as np
from tqdm import tqdm

from rnntk.verification.logistic import FACTS, as_fraction
from rnntk.verification.recursion import Recursion

_PRECISIONS = (128, 256, 512, 1024, 2048)
_CHOICES = {
    "readout": ("last", "mean", "sequence"),
    "input_scaling": ("none", "fan_in"),
    "initial_state": ("zero", "shared", "independent"),
    "bidirectional": (False, True),
}
_STDS = ("w_std", "u_std", "b_std", "v_std", "initial_state_std")

_SMOOTH = ("erf", "gelu", "sin", "cos", *FACTS)


def verify(certificate: Any) -> bool:
    """Whether the enclosure that a certificate states can be proved from the data it holds.

    Slow and simple: about 300 microseconds for a step of a pair of sequences (tanh, sigmoid,
    softplus, silu: some milliseconds), and (n/100)^3 seconds for the matrix, more at higher
    precision.

    Args:
        certificate: a :class:`rnntk.spectrum.Certificate`. Of ``radius``, ``bits`` and
            ``method``, which tell how it was made, only what contradicts the rest is noticed.

    Returns:
        True if both ends are proved, for the data and the network that are stated, and the latter
        are ones that ``certify`` takes. False does not disprove the ends, but any certificate that
        ``certify`` made, and whose kernel is not singular, should pass; of a singular kernel the
        upper end passes where it is 0 because of equal sequences, or wide enough.

    Raises:
        ImportError: without mpmath, for a kernel.

    Example:
        >>> import dataclasses, numpy as np, rnntk
        >>> certificate = rnntk.spectrum.certify(np.array([[2.0, 1.0], [1.0, 2.0]]))
        >>> verify(certificate), verify(dataclasses.replace(certificate, lower=1.5))
        (True, False)
    """
    if not _is_sound(certificate):
        return False
    if not certificate.network:
        middle, unit = _whole(np.asarray(certificate.data))
        norm2 = int(np.sum(middle * middle))
        radius = Fraction(certificate.relative) * (isqrt(norm2) + 1) * unit
        radius += Fraction(certificate.absolute)
        return any(_proved(certificate, middle, unit, radius, bits) for bits in _PRECISIONS)
    lengths = [int(length) for length in certificate.lengths]
    whole, unit = _whole(np.asarray(certificate.data))
    tokens = [x[:t] for x, t in zip(whole, lengths, strict=True)]
    # a Gram matrix has no negative eigenvalue
    if certificate.lower <= 0 and _has_equal_rows(certificate.network, tokens):
        return bool(certificate.upper >= 0)
    width = Fraction(certificate.upper) - Fraction(certificate.lower)
    for bits in _PRECISIONS:
        if bits < certificate.bits:
            continue
        middle, whole_unit, radius = _kernel(certificate.network, tokens, unit, bits)
        if _proved(certificate, middle, whole_unit, radius, bits):
            return True
        # where the entries and the arithmetic know far more than is claimed, more proves nothing
        largest = int(np.abs(middle).max()) * whole_unit
        if radius < width / 2**64 and largest < width * 2 ** (bits // 2):
            return False
    return False


def _is_sound(certificate: Any) -> bool:
    """Whether the fields have the types, shapes and ranges that ``certify`` gives them."""
    lower, upper, radius = certificate.lower, certificate.upper, certificate.radius
    errors = certificate.relative, certificate.absolute
    if not all(_is_number(v) for v in (lower, upper, *errors)) or lower > upper or min(errors) < 0:
        return False
    data, lengths = certificate.data, certificate.lengths
    if not all(isinstance(v, np.ndarray) for v in (data, lengths)) or data.dtype != np.float64:
        return False
    if lengths.dtype.kind not in "iu" or not data.size or not np.isfinite(data).all():
        return False
    if not (_is_whole(certificate.n, 1) and _is_whole(certificate.bits, 53)):
        return False
    if not isinstance(radius, int | float) or not radius >= 0:
        return False
    if not isinstance(certificate.network, dict):
        return False
    sound = _is_kernel if certificate.network else _is_matrix
    return sound(certificate, data, lengths)


def _is_matrix(certificate: Any, data: np.ndarray, lengths: np.ndarray) -> bool:
    """The part of :func:`_is_sound` that is for given matrices."""
    if data.shape != 2 * (certificate.n,) or lengths.size or not np.array_equal(data, data.T):
        return False
    # the largest entry's own uncertainty
    known = Fraction(certificate.relative) * Fraction(float(np.abs(data).max()))
    if certificate.radius < inf and Fraction(certificate.radius) < known:
        return False
    return bool(certificate.bits == 53 and certificate.method == "cholesky")


def _is_kernel(certificate: Any, data: np.ndarray, lengths: np.ndarray) -> bool:
    """The part of :func:`_is_sound` that is for kernels."""
    if certificate.relative or certificate.absolute or data.ndim != 3:
        return False
    if certificate.method not in ("weyl", "inverse", "singular"):
        return False
    if lengths.shape != data.shape[:1] or lengths.min() < 1 or lengths.max() > data.shape[1]:
        return False
    if not _is_network(certificate.network):
        return False
    rows = lengths.sum() if certificate.network["readout"] == "sequence" else len(data)
    return bool(certificate.n == rows)


def _is_network(network: dict[str, Any]) -> bool:
    """Whether every argument of the network is one that the recursion below knows."""
    names = {"activation", "depth", "trainable", *_CHOICES, *_STDS}
    if set(network) - {"slopes"} != names or not _is_whole(network["depth"], 1):
        return False
    if any(network[name] not in valid for name, valid in _CHOICES.items()):
        return False
    if not all(_is_number(network[name]) and network[name] >= 0 for name in _STDS):
        return False
    if (network["initial_state"] == "zero") != (network["initial_state_std"] == 0):
        return False
    groups = network["trainable"]
    if not isinstance(groups, list) or not groups or any(g not in list("WUbV") for g in groups):
        return False
    # slopes are those that the activation's name tells
    if network["activation"] in _SMOOTH:
        return "slopes" not in network
    given, name = network.get("slopes"), network["activation"]
    if not isinstance(given, list) or len(given) != 2 or not all(map(_is_number, given)):
        return False
    below, above = given
    slopes = {"relu": 0, "abs": -1, "linear": 1, f"leaky_relu({float(below)})": below}
    return bool(above == 1 and isinstance(name, str) and name in slopes and below == slopes[name])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) <= float(np.finfo(np.float64).max)


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _whole(numbers: np.ndarray) -> tuple[np.ndarray, Fraction]:
    """Floating-point numbers as whole numbers times a power of two."""
    ratios = [float(v).as_integer_ratio() for v in numbers.ravel()]
    common = max(d for _, d in ratios)
    whole = np.empty(len(ratios), object)
    whole[:] = [p * (common // d) for p, d in ratios]
    return whole.reshape(numbers.shape), Fraction(1, common)


def _proved(
    certificate: Any, middle: np.ndarray, unit: Fraction, radius: Fraction, bits: int
) -> bool:
    """Both ends, for every symmetric matrix within ``radius`` of ``middle`` times ``unit``."""
    lower, upper = Fraction(certificate.lower), Fraction(certificate.upper)
    gram = bool(certificate.network) and lower <= 0
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


def _has_equal_rows(network: dict[str, Any], tokens: list[np.ndarray]) -> bool:
    """Whether two outputs have seen the same tokens, or one nothing but zeros and no bias."""
    if network["initial_state"] == "independent":
        return False
    spread, both = network["readout"] == "sequence", network["bidirectional"]
    outputs = [(x, s) for x in tokens for s in (range(len(x)) if spread else [len(x) - 1])]

    def equal(one: np.ndarray, other: np.ndarray) -> bool:
        return one.shape == other.shape and bool(np.all(one == other))

    for p, (x, s) in enumerate(outputs):
        whole = x if both or network["readout"] == "mean" else x[: s + 1]
        if network["initial_state"] == "zero" and not network["b_std"] and not whole.any():
            return True
        for y, r in outputs[:p]:
            if equal(x[: s + 1], y[: r + 1]) and (not (spread and both) or equal(x[s:], y[r:])):
                return True
    return False


def _kernel(
    network: dict[str, Any], tokens: list[np.ndarray], unit: Fraction, bits: int
) -> tuple[np.ndarray, Fraction, Fraction]:
    """Whole numbers, their unit, and a bound on their distance from the kernel (Frobenius)."""
    try:
        from mpmath import iv
    except ImportError as error:
        raise ImportError("verify of a kernel needs mpmath: pip install mpmath.") from error
    precision = iv.prec
    try:
        iv.prec = bits + 64
        entries = list(_entries(Recursion(iv, network, unit, tokens[0].shape[1]), network, tokens))
    finally:
        iv.prec = precision
    size = 1 + max(p for p, _, _ in entries)
    ends = {(p, q): (as_fraction(v.a), as_fraction(v.b)) for p, q, v in entries}
    largest = max(max(abs(a), abs(b)) for a, b in ends.values())
    if not largest:
        return np.zeros((size, size), object), Fraction(1), Fraction(0)
    magnitude = largest.numerator.bit_length() - largest.denominator.bit_length()
    scale = Fraction(2) ** (bits + 64 - magnitude)
    middle, squares = np.zeros((size, size), object), 0
    for (p, q), (a, b) in ends.items():
        low, high = (a * scale).__floor__(), (b * scale).__ceil__()
        middle[p, q] = middle[q, p] = (low + high) // 2
        squares += 2 * (high - middle[p, q]) ** 2
    return middle, 1 / scale, (isqrt(squares) + 1) / scale


def _entries(
    recursion: Recursion, network: dict[str, Any], tokens: list[np.ndarray]
) -> Iterator[tuple[int, int, Any]]:
    """Lower triangle of the kernel as (row, column, interval)."""
    readout, both = network["readout"], network["bidirectional"]
    first = np.cumsum([0] + [len(x) for x in tokens]).tolist()
    for i in tqdm(range(len(tokens)), desc="kernel in interval arithmetic", delay=5):
        for j in range(i + 1):
            x, y = tokens[i], tokens[j]
            cells = recursion.cells(x, y, i == j)
            if both:
                for (s, r), value in recursion.cells(x[::-1], y[::-1], i == j).items():
                    last = readout == "last"
                    where = (s, r) if last else (len(x) - 1 - s, len(y) - 1 - r)
                    cells[where] = cells[where] + value
            if readout == "last":
                yield i, j, cells[len(x) - 1, len(y) - 1]
            elif readout == "mean":
                yield i, j, sum(cells.values()) / (len(x) * len(y))
            else:
                for (s, r), value in cells.items():
                    if first[i] + s >= first[j] + r:
                        yield first[i] + s, first[j] + r, value
