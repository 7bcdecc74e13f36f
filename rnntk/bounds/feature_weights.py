"""The kernel as a power series in the inner products of tokens: what each feature weighs in it.

Where the tokens of a step have one norm in all sequences, the variances are numbers, and the NTK
is a power series in rho_s = <x_s, x'_s>, s = 1 ... L, whose coefficients are not negative. The
coefficient of a monomial is the weight of its features: docs/theory/complexity.md.
"""

import math
from dataclasses import dataclass

import numpy as np
import scipy.special
from jax.typing import ArrayLike
from jaxtyping import Bool, Float

from rnntk import checks
from rnntk.activations.activation import Activation
from rnntk.bounds import power_series
from rnntk.bounds.truncated_series import Series, compose, constant, product, variable
from rnntk.network.elman import ElmanRNN

SAME_NORM = 1e-6
"""Relative difference of norms that counts as rounding of float32 tokens."""


@dataclass(frozen=True)
class Steps:
    """What is the same for all sequences.

    Attributes:
        norms: |x_s|^2 at each step.
        fixed: whether the token of a step is the same in all sequences.
    """

    norms: Float[np.ndarray, " t"]
    fixed: Bool[np.ndarray, " t"]


def check_network(rnn: ElmanRNN) -> None:
    """Refuse networks whose kernel is no such series, or none that is implemented."""
    for name, value in (
        ("depth", 1),
        ("bidirectional", False),
        ("readout", "last"),
        ("initial_state", "zero"),
    ):
        if getattr(rnn, name) != value:
            raise ValueError(
                f"rnn must have {name}={value!r} for its kernel's power series, got "
                f"{getattr(rnn, name)!r}."
            )


def steps_of(x: Float[ArrayLike, "n t d"]) -> Steps:
    """Norms of tokens, which must be the same in all sequences at each step."""
    checks.check_batch(x, None)
    tokens = np.asarray(x, np.float64)
    norms = np.square(tokens).sum(axis=2)
    gap = np.ptp(norms, axis=0)
    if (gap > SAME_NORM * norms.max(axis=0)).any():
        s = int(np.argmax(gap / np.maximum(norms.max(axis=0), 1e-300)))
        raise ValueError(
            "x must have tokens of one norm in all sequences at each step, got squared norms "
            f"{norms[:, s].min():.6g} to {norms[:, s].max():.6g} at step {s + 1}."
        )
    return Steps(norms.max(axis=0), (tokens == tokens[:1]).all(axis=(0, 2)))


def weights(rnn: ElmanRNN, steps: Steps, positions: tuple[int, ...], degree: int, d: int) -> Series:
    """Coefficients of the NTK in the inner products at ``positions`` (from 0), others left out.

    The recursion of docs/theory/infinite.md in truncated series: the inner product of a position is
    a variable, that of a fixed token its square norm, and any other 0, which leaves out what it
    contributes. Without positions it is the weight of a constant, with one axis.
    """
    share = d if rnn.input_scaling == "fan_in" else 1
    stds = (rnn.w_std, rnn.u_std, rnn.b_std, rnn.v_std)
    w2, u2, b2, v2 = (float(np.asarray(std)) ** 2 for std in stds)
    u2, number = u2 / share, max(1, len(positions))
    zero = constant(0.0, number, degree)
    own, state, back, total = 0.0, zero, zero, zero
    for s, norm in enumerate(steps.norms):
        q = w2 * own + u2 * norm + b2
        token = constant(norm if steps.fixed[s] else 0.0, number, degree)
        if s in positions:
            token = variable(positions.index(s), number, degree)
        bias = constant(b2, number, degree)
        parts = {"W": w2 * state, "U": u2 * token, "b": bias}
        total = w2 * back + sum((v for k, v in parts.items() if k in rnn.trainable), zero)
        if q == 0:  # nothing has been read yet
            own = float(_state(rnn.phi, 0.0, 1.0, 0)[0])
            state, back = constant(own, number, degree), zero
            continue
        r = sum(parts.values(), zero) / q
        mean = min(float(r.flat[0]), 1.0)
        order = degree if np.any(r.flat[1:]) else 0  # at mean = 1 there may be no others
        state = compose(_state(rnn.phi, q, mean, order), r)
        back = product(compose(_slope(rnn.phi, q, mean, order), r), total)
        own = float(_state(rnn.phi, q, 1.0, 0)[0])
    return v2 * (back + (state if "V" in rnn.trainable else zero))


def _slope(phi: Activation, q: float, mean: float, degree: int) -> Float[np.ndarray, " k"]:
    """Taylor coefficients of E phi' phi' in the correlation, at ``mean``."""
    if phi.slopes is not None:
        p, half = sum(phi.slopes) / 2, (phi.slopes[1] - phi.slopes[0]) / 2
        found = half**2 * (2 / math.pi) * _arcsine(mean, degree)
        found[0] += p**2
        return found
    d2 = power_series.coefficients(phi, np.array([q])).slopes[:, 0] ** 2
    return _shifted(d2, mean, degree)


def _state(phi: Activation, q: float, mean: float, degree: int) -> Float[np.ndarray, " k"]:
    """Likewise of E phi phi', whose derivative is q times that of the slopes."""
    if phi.slopes is not None:
        p, half = sum(phi.slopes) / 2, (phi.slopes[1] - phi.slopes[0]) / 2
        share = math.sqrt(max(0.0, (1 - mean) * (1 + mean))) + mean * math.asin(mean)
        first = q * (p**2 * mean + half**2 * (2 / math.pi) * share)
        if degree == 0:
            return np.array([first])
        return np.append(first, q * _slope(phi, q, mean, degree - 1) / np.arange(1, degree + 1))
    c2 = power_series.coefficients(phi, np.array([q])).squares[:, 0]
    return _shifted(c2, mean, degree)


def _shifted(series: Float[np.ndarray, " k"], mean: float, degree: int) -> Float[np.ndarray, " j"]:
    """Taylor coefficients at ``mean`` of a power series at 0."""
    k = np.arange(len(series))
    rows = [
        np.sum(series[j:] * scipy.special.binom(k[j:], j) * mean ** (k[j:] - j))
        for j in range(degree + 1)
    ]
    return np.array(rows)


def _arcsine(mean: float, degree: int) -> Float[np.ndarray, " k"]:
    """Taylor coefficients of the arcsine at ``mean``.

    Those f_k of its derivative (1 - z^2)^(-1/2) satisfy
    (1 - mean^2) (k + 1) f_(k+1) = (2k + 1) mean f_k + k f_(k-1).
    """
    gap = (1 - mean) * (1 + mean)
    found = [math.asin(mean)]
    before, now = 0.0, 1 / math.sqrt(gap) if degree else 0.0
    for k in range(degree):
        found.append(now / (k + 1))
        before, now = now, ((2 * k + 1) * mean * now + k * before) / (gap * (k + 1))
    return np.array(found)
