"""The arithmetic of proved bounds: numbers that are balls, rounding included.

Needs python-flint (the extra ``certify``). Arrays are NumPy arrays of ``flint.arb``.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float

from rnntk.bounds.arithmetic import Points
from rnntk.linalg import enclosure, lanczos
from rnntk.network.elman import ElmanRNN
from rnntk.spectrum import ball_kernel

Balls = np.ndarray  # of flint.arb


@dataclass(frozen=True)
class Enclosed:
    """Balls: numbers given are exact, and those that come out on the safe side."""

    flint: Any

    def number(self, value: ArrayLike) -> Any:
        """The float64 number itself."""
        return self.flint.arb(float(np.asarray(value)))

    def numbers(self, values: Float[np.ndarray, " p"]) -> Balls:
        """The float64 numbers themselves."""
        return np.frompyfunc(lambda v: self.flint.arb(float(v)), 1, 1)(values)

    def floats(self, values: Balls) -> np.ndarray:
        """Midpoints, rounded."""
        if not all(v.is_finite() for v in values.ravel()):
            raise FloatingPointError(self._imprecise())
        middle = values.astype(np.float64)
        if not np.isfinite(middle).all():
            raise FloatingPointError("The kernel leaves the range of float64: rescale the tokens.")
        return middle

    def smallest(self, matrix: Balls, size: float = 0.0) -> Any:
        """Certified for the midpoints, less the Frobenius norm of what they leave (Weyl)."""
        middle, radius, power = ball_kernel.rounded(matrix)
        if not math.isfinite(radius):
            raise FloatingPointError(self._imprecise())
        estimate = lanczos.ends(middle).smallest
        lower = enclosure.enclose(middle, estimate, absolute=radius).lower
        return self.flint.arb(lower) * self.flint.arb(2) ** power

    def _imprecise(self) -> str:
        return f"The kernel's balls are not finite at a precision of {self.flint.ctx.prec} bits."

    def least(self, values: Balls) -> Any:
        """The least of the lower ends."""
        arb = self.flint.arb
        return min(arb(v).lower() for v in values)

    def down(self, value: Any) -> float:
        """Rounded downward."""
        return math.nextafter(float(self.flint.arb(value).lower()), -math.inf)

    def hypot(self, one: Balls, two: Balls) -> Balls:
        """What a ball below zero holds from 0 on."""
        return np.frompyfunc(_root, 1, 1)(one * one + two * two)

    def above(self, values: Balls, sizes: Balls, terms: int = 0) -> float:
        """The smallest upper end, rounded upward; the balls have all that ``sizes`` allow for."""
        return math.nextafter(float(min(v.upper() for v in values)), math.inf)

    def frames(self, rnn: ElmanRNN, x: Float[np.ndarray, "n t d"]) -> Iterator[tuple[Points, ...]]:
        """Multipliers and tokens count as the exact values of the floating-point numbers given."""
        n, t, _ = x.shape
        side, spread = ball_kernel.prepare(rnn, list(x)), not rnn.r.ends_only
        pairs = [(i, j, ball_kernel.cells(side, i, j)) for i in range(n) for j in range(i + 1)]
        size, count = (n * t, None) if spread else (n, 1)
        for _ in range(1 if spread else t):
            matrices = np.empty((rnn.depth, len(ball_kernel.Cell._fields), size, size), object)
            equal = np.zeros((size, size), bool)
            for i, j, cells in pairs:
                for s1, s2, same, layers in islice(cells, count):
                    p, q = (s1 * n + i, s2 * n + j) if spread else (i, j)
                    matrices[:, :, p, q] = matrices[:, :, q, p] = layers
                    equal[p, q] = equal[q, p] = same
            yield tuple(_points(ball_kernel.Cell(*layer), equal) for layer in matrices)


def _points(cell: ball_kernel.Cell, equal: np.ndarray) -> Points:
    variance = np.diagonal(cell.signal)
    arb = type(variance[0])
    std = np.frompyfunc(_root, 1, 1)(variance)
    scale = np.outer(std, std)
    # the covariance with a zero variance is zero, and any correlation will do
    safe = np.frompyfunc(lambda v: arb(1) if v == 0 else v, 1, 1)(scale)
    correlation = np.frompyfunc(lambda v: _clip(arb, v), 1, 1)(cell.signal / safe)
    correlation[equal] = arb(1)
    decay = np.frompyfunc(_decay, 1, 1)(correlation).astype(np.float64)
    np.fill_diagonal(decay, np.inf)
    return Points(
        variance=variance,
        L=cell.signal,
        R=correlation,
        decay=decay,
        T=cell.tangent,
        K=cell.state,
        Kd=cell.slope,
    )


def _decay(r: Any) -> float:
    """A lower bound on -log|r|."""
    top = type(r)(r.abs_upper())
    if top == 0:
        return math.inf
    # 1 + 2^-40 covers the conversion to float64
    return max(0.0, float(-(top.log().upper())) * (1 - 2.0**-40))


def _root(v: Any) -> Any:
    """The square root of what a ball holds from 0 on."""
    if v >= 0:
        return v.sqrt()
    arb = type(v)
    return arb(0).union(arb(max(v.upper(), arb(0))).sqrt())


def _clip(arb: Any, r: Any) -> Any:
    """The part of a correlation's ball that lies in [-1, 1]."""
    return r if abs(r) <= 1 else r.intersection(arb(0, 1))
