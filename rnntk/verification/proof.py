"""The proof of a certificate: its kernel again, and both ends of its interval."""

from fractions import Fraction
from math import isqrt
from typing import Any

import numpy as np

from rnntk.verification import eigenvalues, recursion, statement

_PRECISIONS = (128, 256, 512, 1024, 2048)


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
    if not statement.is_sound(certificate):
        return False
    ends = certificate.lower, certificate.upper
    whole, unit = eigenvalues.whole(np.asarray(certificate.data))
    if not certificate.network:
        radius = Fraction(certificate.relative) * (isqrt(int(np.sum(whole * whole))) + 1) * unit
        radius += Fraction(certificate.absolute)
        return any(
            eigenvalues.proved(ends, whole, unit, radius, bits, gram=False) for bits in _PRECISIONS
        )
    tokens = [x[: int(t)] for x, t in zip(whole, certificate.lengths, strict=True)]
    # a Gram matrix has no negative eigenvalue
    if certificate.lower <= 0 and _has_equal_rows(certificate.network, tokens):
        return bool(certificate.upper >= 0)
    width = Fraction(certificate.upper) - Fraction(certificate.lower)
    for bits in (bits for bits in _PRECISIONS if bits >= certificate.bits):
        middle, step, radius = recursion.kernel(certificate.network, tokens, unit, bits)
        if eigenvalues.proved(ends, middle, step, radius, bits, gram=True):
            return True
        # where the entries and the arithmetic know far more than is claimed, more proves nothing
        largest = int(np.abs(middle).max()) * step
        if radius < width / 2**64 and largest < width * 2 ** (bits // 2):
            return False
    return False


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
