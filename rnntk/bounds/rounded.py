"""The arithmetic of bounds in float64, with allowances for the kernel's rounding."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from rnntk.bounds.arithmetic import Points
from rnntk.infinite import marginals
from rnntk.infinite.preactivations import Preactivation, preactivation_grid, preactivations
from rnntk.network.elman import ElmanRNN
from rnntk.network.multipliers import squares


@dataclass(frozen=True)
class Rounded:
    """Float64, for entries known to ``steps`` times ``eps``: see docs/theory/bounds.md."""

    eps: float
    steps: float  # roundings of the recursion

    @classmethod
    def of(cls, rnn: ElmanRNN, x: Float[Array, "n t d"]) -> "Rounded":
        """Eight roundings a step, which opposite sequences of large variance can amplify."""
        steps = 8.0 * x.shape[1] * rnn.depth
        if not rnn.phi.homogeneous:
            alone = marginals.prepare(rnn, squares(rnn, x.shape[-1], x.dtype), x, None)
            largest = max(float(layer.root_L.max()) for layer in alone.layers)
            steps *= max(1.0, largest**2 / 10)
        return cls(float(np.finfo(x.dtype).eps), steps)

    def number(self, value: ArrayLike) -> float:
        """The float64 number."""
        return float(np.asarray(value))

    def numbers(self, values: Float[np.ndarray, " p"]) -> Float[np.ndarray, " p"]:
        """What is given."""
        return values

    def floats(self, values: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """What is given."""
        return np.asarray(values, np.float64)

    def hypot(self, one: np.ndarray, two: np.ndarray) -> np.ndarray:
        """NumPy's."""
        return np.hypot(one, two)

    def smallest(self, matrix: np.ndarray, size: float = 0.0) -> float:
        """LAPACK's, less an allowance."""
        values = scipy.linalg.eigvalsh(matrix)
        size = max(size, abs(values[0]), abs(values[-1]))
        return float(values[0] - (len(matrix) + self.steps) * self.eps * size)

    def least(self, values: np.ndarray) -> float:
        """The smallest entry."""
        return float(np.min(values))

    def down(self, value: float) -> float:
        """The number less an allowance."""
        return value - self.steps * self.eps * abs(value)

    def above(self, values: np.ndarray, sizes: np.ndarray, terms: int = 0) -> float:
        """The smallest with its allowance, which stays where rounding made a number negative."""
        allowed = (self.steps + terms) * self.eps * sizes
        return float(np.min(np.maximum(values, 0) + allowed))

    def frames(self, rnn: ElmanRNN, x: Float[Array, "n t d"]) -> Iterator[tuple[Points, ...]]:
        """The recursion's matrices on the host."""
        steps = preactivations(rnn, x) if rnn.r.ends_only else [preactivation_grid(rnn, x)]
        for layers in steps:
            yield tuple(self._points(rnn, layer) for layer in layers)

    def _points(self, rnn: ElmanRNN, layer: Preactivation) -> Points:
        std, angle, T, K, Kd = (np.asarray(v, np.float64) for v in layer)
        scale = np.outer(std, std)
        half = np.clip(np.where(scale > 0, angle / np.where(scale > 0, 4 * scale, 1), 0.5), 0, 1)
        np.fill_diagonal(half, 0)  # sin^2 of half the angle
        # in which rounding is relative to its root, as distances come from differences of vectors
        near = np.minimum(half, 1 - half)
        allowed = near - 2 * self.steps * self.eps * np.sqrt(near)
        with np.errstate(divide="ignore"):
            decay = np.maximum(0.0, -np.log1p(-2 * np.clip(allowed, 0, 0.5)))
        np.fill_diagonal(decay, np.inf)
        if rnn.phi.homogeneous:  # whose angle with a pre-activation 0 counts as 0 elsewhere
            apart = (scale == 0) & ~np.eye(len(std), dtype=bool)
            Kd = np.where(apart, (sum(rnn.phi.slopes or ()) / 2) ** 2, Kd)
        return Points(
            variance=std**2, L=scale - angle / 2, R=1 - 2 * half, decay=decay, T=T, K=K, Kd=Kd
        )
