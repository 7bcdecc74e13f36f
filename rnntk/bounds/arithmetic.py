"""What the bounds calculate with: one set of formulas serves two arithmetics.

:class:`~rnntk.bounds.rounded.Rounded` is float64 with allowances for the rounding of what enters,
:class:`~rnntk.bounds.enclosed.Enclosed` balls, whose results are proved.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float

from rnntk.network.elman import ElmanRNN

Matrix = np.ndarray  # of float64, or of balls
Vector = np.ndarray
Number = Any


@dataclass(frozen=True)
class Points:
    """Pre-activations of one layer at p points, each a step of a sequence.

    The names of the matrices are those of docs/theory/bounds.md.
    """

    variance: Vector  # L_ii
    L: Matrix  # covariance of the pre-activations
    R: Matrix  # their correlation
    decay: Float[np.ndarray, "p p"]  # no more than -log|R|, infinite on the diagonal
    T: Matrix  # tangent kernel of the pre-activations
    K: Matrix  # covariance of the states
    Kd: Matrix  # of the derivatives


@runtime_checkable
class Arithmetic(Protocol):
    """What the bounds need beyond NumPy's elementwise operations."""

    def number(self, value: ArrayLike) -> Number:
        """A number to calculate with."""

    def numbers(self, values: Float[np.ndarray, " p"]) -> Vector:
        """Numbers to calculate with."""

    def floats(self, values: Vector) -> Float[np.ndarray, " p"]:
        """The nearest float64 numbers."""

    def hypot(self, one: Vector, two: Vector) -> Vector:
        """sqrt(a^2 + b^2), entry by entry."""

    def smallest(self, matrix: Matrix, size: float = 0.0) -> Number:
        """A lower bound on the smallest eigenvalue; ``size``: of what the matrix came from."""

    def least(self, values: Vector) -> Number:
        """A lower bound on the smallest entry."""

    def down(self, value: Number) -> float:
        """As a float64 number that is no larger."""

    def above(self, values: Vector, sizes: Vector, terms: int = 0) -> float:
        """An upper bound on the smallest of numbers that are not negative.

        ``sizes`` are those of what they came from, ``terms`` the length of sums on the way.
        """

    def frames(self, rnn: ElmanRNN, x: Float[Any, "n t d"]) -> Iterator[tuple[Points, ...]]:
        """Points of all layers: for the "last" readout step by step, else all steps at once."""
