"""The recursion of the kernels in ball arithmetic: every entry enclosed, rounding included.

Needs python-flint (the extra ``certify``). Arrays are NumPy arrays of ``flint.arb``.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from rnntk import lanczos, rump
from rnntk.elman import ElmanRNN
from rnntk.powers import parts
from rnntk.schur import Points, residual

BITS = 113
Balls = np.ndarray  # of flint.arb


@contextmanager
def arithmetic() -> Iterator[Any]:
    """The module ``flint``, at ``BITS`` bits.

    Raises:
        ImportError: naming the extra, if python-flint is not installed.
    """
    try:
        import flint
    except ImportError as error:
        raise ImportError(
            "rigorous=True needs ball arithmetic by python-flint: "
            "pip install 'rnntk[certify]', or pip install python-flint."
        ) from error
    with flint.ctx.workprec(BITS):
        yield flint


@dataclass(frozen=True)
class Enclosed:
    """Arithmetic of :mod:`rnntk.schur` with balls; numbers are exact, and on the safe side."""

    flint: Any

    def number(self, value: ArrayLike) -> Any:
        """The float64 number itself."""
        return self.flint.arb(float(np.asarray(value)))

    def floats(self, values: Balls) -> np.ndarray:
        """Midpoints, rounded."""
        return values.astype(np.float64)

    def smallest(self, matrix: Balls, size: float = 0.0) -> Any:
        """Certified for the midpoints, less the Frobenius norm of what they leave (Weyl)."""
        middle = self.floats(matrix)
        middle = (middle + middle.T) / 2
        off = np.frompyfunc(lambda v, m: float(abs(v - m).upper()), 2, 1)(matrix, middle)
        # the norm and its entries are rounded, by far less than 2^-30
        radius = float(np.linalg.norm(off.astype(np.float64))) * (1 + 2.0**-30)
        if not (np.isfinite(middle).all() and math.isfinite(radius)):
            raise FloatingPointError("The kernel leaves the range of float64: rescale the tokens.")
        estimate = lanczos.ends(middle).smallest
        return self.flint.arb(rump.enclose(middle, estimate, absolute=radius).lower)

    def least(self, values: Balls) -> Any:
        """The least of the lower ends."""
        arb = self.flint.arb
        return min(arb(v).lower() for v in values)

    def down(self, value: Any) -> float:
        """Rounded downward."""
        return math.nextafter(float(self.flint.arb(value).lower()), -math.inf)

    def upper_bounds(self, matrix: Balls) -> dict[str, float]:
        """Diagonal entries, pairs, and the Rayleigh quotient of :func:`rnntk.schur.residual`."""
        n = len(matrix)
        bounds = {"diagonal": min(v.upper() for v in np.diagonal(matrix))}
        if n > 1:
            pairs = []
            for i in range(n):
                for j in range(i):
                    a, b, c = matrix[i, i], matrix[j, j], matrix[i, j]
                    pairs.append(((a + b) / 2 - _root((a - b) * (a - b) / 4 + c * c)).upper())
            bounds["pair"] = min(pairs)
            vector = np.frompyfunc(lambda v: self.flint.arb(float(v)), 1, 1)(
                residual(self.floats(matrix))
            )
            bounds["residual"] = (vector.dot(matrix.dot(vector)) / vector.dot(vector)).upper()
        return {name: math.nextafter(float(v), math.inf) for name, v in bounds.items()}


def check_supported(rnn: ElmanRNN) -> None:
    """Refuse activations whose moments have no ball arithmetic here.

    Raises:
        ValueError: naming the activation and those that are covered.
    """
    if not (rnn.phi.homogeneous or rnn.phi.name == "erf"):
        raise ValueError(
            "rnn must have activation relu, leaky_relu, abs, linear or erf for rigorous bounds, "
            f"got activation={rnn.phi.name!r}; rigorous=False covers it."
        )


def frames(rnn: ElmanRNN, x: np.ndarray, flint: Any) -> Iterator[tuple[Points, ...]]:
    """Pre-activations of all layers: for the "last" readout step by step, else all steps at once.

    Multipliers and tokens count as the exact values of the floating-point numbers given.
    """
    n, t, d = x.shape
    exact = np.frompyfunc(lambda v: flint.arb(float(v)), 1, 1)
    w2, u2, b2, h2 = (
        flint.arb(float(np.asarray(v))) ** 2
        for v in (rnn.w_std, rnn.u_std, rnn.b_std, rnn.initial_state_std)
    )
    fan_in = d if rnn.input_scaling == "fan_in" else 1
    tokens = exact(x)
    zero = exact(np.zeros((n, n)))
    begun = {"zero": zero, "shared": zero + h2, "independent": zero + h2 * np.eye(n, dtype=int)}
    start = {(-1, -1): begun[rnn.initial_state]}
    states: list[dict[tuple[int, int], Balls]] = [dict(start) for _ in range(rnn.depth)]
    backs: list[dict[tuple[int, int], Balls]] = [{} for _ in range(rnn.depth)]
    variances: list[dict[int, Balls]] = [{} for _ in range(rnn.depth)]
    cells = [(s, s) for s in range(t)]
    if rnn.readout != "last":
        cells += [(s, r) for s in range(t) for r in range(t) if s != r]
    # Sequences that are equal up to a step have correlation 1 there, exactly: a ball around 1
    # would lose half of its digits a step.
    equal = np.stack(
        [(x[:, None, : s + 1] == x[None, :, : s + 1]).all(axis=(2, 3)) for s in range(t)]
    )
    if rnn.initial_state == "independent":
        equal = equal & np.eye(n, dtype=bool)
    raw: dict[tuple[int, int, int], tuple[Balls, ...]] = {}
    for s, r in cells:
        gram = tokens[:, s].dot(tokens[:, r].T) / fan_in
        back_below = zero
        for layer in range(rnn.depth):
            before = states[layer].get((s - 1, r - 1), zero)
            own = {"W": w2 * before, "U": u2 * gram, "b": zero + b2}
            covariance = own["W"] + own["U"] + own["b"]
            tangent = w2 * backs[layer].get((s - 1, r - 1), zero) + back_below
            tangent = tangent + sum((own[g] for g in rnn.trainable if g in own), zero)
            if s == r:
                variances[layer][s] = np.diagonal(covariance)
            a, other = variances[layer][s], variances[layer][r]
            correlation, state, slope = _moments(
                rnn, flint, covariance, a, other, equal[s] if s == r else np.zeros((n, n), bool)
            )
            states[layer][s, r], backs[layer][s, r] = state, slope * tangent
            raw[layer, s, r] = covariance, correlation, tangent, state, slope
            gram, back_below = state, u2 * backs[layer][s, r]
        if rnn.readout == "last":
            yield tuple(
                _points(flint, variances[layer][s], raw.pop((layer, s, s)))
                for layer in range(rnn.depth)
            )
    if rnn.readout != "last":
        yield tuple(
            _points(
                flint,
                np.concatenate([variances[layer][s] for s in range(t)]),
                tuple(
                    np.block([[raw[layer, s, r][k] for r in range(t)] for s in range(t)])
                    for k in range(5)
                ),
            )
            for layer in range(rnn.depth)
        )


def _points(flint: Any, variance: Balls, arrays: tuple[Balls, ...]) -> Points:
    signal, correlation, tangent, state, slope = arrays
    decay = np.frompyfunc(_decay, 1, 1)(correlation).astype(np.float64)
    np.fill_diagonal(decay, np.inf)
    return Points(variance, signal, correlation, decay, tangent, state, slope)


def _decay(r: Any) -> float:
    """A lower bound on -log|r|."""
    top = type(r)(r.abs_upper())
    if top == 0:
        return math.inf
    # 1 + 2^-40 covers the conversion to float64
    return max(0.0, float(-(top.log().upper())) * (1 - 2.0**-40))


def _moments(
    rnn: ElmanRNN, flint: Any, covariance: Balls, a: Balls, other: Balls, equal: np.ndarray
) -> tuple[Balls, Balls, Balls]:
    """Correlation, E phi phi' and E of the derivatives' product."""
    arb = flint.arb
    root = np.frompyfunc(_root, 1, 1)
    std1, std2 = root(a), root(other)
    scale = np.outer(std1, std2)
    # the covariance with a zero variance is zero, and any correlation will do
    safe = np.frompyfunc(lambda v: arb(1) if v == 0 else v, 1, 1)(scale)
    correlation = np.frompyfunc(lambda v: _clip(arb, v), 1, 1)(covariance / safe)
    correlation[equal] = arb(1)
    asin = np.frompyfunc(lambda v: _monotone(arb, v, arb.asin), 1, 1)
    if rnn.phi.homogeneous:
        p, q = (arb(v) for v in parts(rnn.phi))
        angle = asin(correlation) * (2 / arb.pi())
        even = np.frompyfunc(_absolute, 1, 1)(correlation)
        state = p * p * covariance + q * q * scale * even
        return correlation, state, p * p + q * q * angle
    r = np.outer(root(1 + 2 * a), root(1 + 2 * other))
    sine = 2 * covariance / r
    state = asin(sine) * (2 / arb.pi())
    determinant = r * r - 4 * covariance * covariance
    slope = np.frompyfunc(lambda v: v.rsqrt(), 1, 1)(determinant) * (4 / arb.pi())
    return correlation, state, slope


def _root(v: Any) -> Any:
    """The square root of what a ball holds from 0 on."""
    if v >= 0:
        return v.sqrt()
    arb = type(v)
    return arb(0).union(arb(max(v.upper(), arb(0))).sqrt())


def _clip(arb: Any, r: Any) -> Any:
    """The part of a correlation's ball that lies in [-1, 1]."""
    return r if abs(r) <= 1 else r.intersection(arb(0, 1))


def _absolute(r: Any) -> Any:
    """E |u||u'| at correlation r, (2/pi) (r asin r + sqrt(1 - r^2)), whose slope is at most 1.

    From the midpoint and the slope, as a ball's own arithmetic would widen it by 1/sqrt(1 - r^2)
    at every step.
    """
    arb = type(r)
    middle = max(arb(-1), min(arb(1), arb(r.mid())))  # no farther from what the ball may hold
    value = (middle * middle.asin() + _root(1 - middle * middle)) * 2 / arb.pi()
    return value + arb(0, r.rad().upper())


def _monotone(arb: Any, v: Any, fn: Any) -> Any:
    """An increasing function on [-1, 1] of a ball that may reach out of it."""
    if abs(v) <= 1:
        return fn(v)
    low, high = arb(v.lower()), arb(v.upper())
    low, high = (arb(-1) if low < -1 else low), (arb(1) if high > 1 else high)
    return fn(low).union(fn(high))
