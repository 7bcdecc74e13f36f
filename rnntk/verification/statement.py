"""What a certificate states: whether it is of a kind that can be proved or refuted at all."""

from fractions import Fraction
from math import inf
from typing import Any

import numpy as np

from rnntk.verification.logistic import FACTS

_CHOICES = {
    "readout": ("last", "mean", "sequence"),
    "input_scaling": ("none", "fan_in"),
    "initial_state": ("zero", "shared", "independent"),
    "bidirectional": (False, True),
}
_STDS = ("w_std", "u_std", "b_std", "v_std", "initial_state_std")
_SMOOTH = ("erf", "gelu", "sin", "cos", *FACTS)


def is_sound(certificate: Any) -> bool:
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
    """The part of :func:`is_sound` that is for given matrices."""
    if data.shape != 2 * (certificate.n,) or lengths.size or not np.array_equal(data, data.T):
        return False
    # the largest entry's own uncertainty
    known = Fraction(certificate.relative) * Fraction(float(np.abs(data).max()))
    if certificate.radius < inf and Fraction(certificate.radius) < known:
        return False
    return bool(certificate.bits == 53 and certificate.method == "cholesky")


def _is_kernel(certificate: Any, data: np.ndarray, lengths: np.ndarray) -> bool:
    """The part of :func:`is_sound` that is for kernels."""
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
