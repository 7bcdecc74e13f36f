"""Targets that see several tokens at once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, PRNGKeyArray, Real

from rnntk import checks
from rnntk.concepts.complexity import Complexity, complexity
from rnntk.concepts.drawing import check_betas, check_data, directions
from rnntk.concepts.scalar_functions import ScalarFunction, resolve


@dataclass(frozen=True, eq=False)
class NVariable:
    r"""Functions of N positions jointly, :math:`y = f(\beta^\top [x_{l_1}, \dots, x_{l_N}])`.

    The second class of the abstract of Wang et al. (2021), which is learnable where N or the span
    :math:`l_0 = \max l - \min l` is small.

    Args:
        f: a name of :data:`rnntk.concepts.NAMES`, or a :class:`ScalarFunction`.
        positions: :math:`l_1, ..., l_N`, counted from 1, all different.
        betas: the parts of beta for each position, shape (N, d).
        length: number of tokens L.

    Raises:
        TypeError, ValueError: for an unknown f, betas of another shape or not finite, positions
            outside 1..L or repeated.

    Example:
        >>> import jax, numpy as np, rnntk
        >>> draw = rnntk.concepts.NVariable.draw
        >>> concept = draw(jax.random.key(0), 8, 3, positions=(2, 5), f="square")
        >>> print(concept)
        y = (b' [x_2, x_5])^2
        >>> concept.span, concept(np.ones((5, 8, 3))).shape
        (3, (5,))
    """

    f: ScalarFunction
    positions: tuple[int, ...]
    betas: Float[np.ndarray, "N d"]
    length: int

    def __init__(
        self,
        f: str | ScalarFunction,
        positions: Sequence[int],
        betas: Real[ArrayLike, "N d"],
        length: int,
    ) -> None:
        chosen = _check_positions(positions, checks.check_size("length", length))
        found = check_betas(betas, "N, d")
        if len(found) != len(chosen):
            raise ValueError(
                f"betas must have a row for each of the {len(chosen)} positions, got {len(found)}."
            )
        for name, value in (
            ("f", resolve(f)),
            ("positions", chosen),
            ("betas", found),
            ("length", int(length)),
        ):
            object.__setattr__(self, name, value)

    @classmethod
    def draw(
        cls,
        key: PRNGKeyArray,
        length: int,
        token_size: int,
        positions: Sequence[int],
        f: str | ScalarFunction = "sin",
        *,
        norm: float = 1.0,
    ) -> "NVariable":
        """A direction over all positions, uniform on a sphere.

        Args:
            key: JAX random key.
            length: number of tokens L.
            token_size: d.
            positions: counted from 1.
            f: a name, or a :class:`ScalarFunction`.
            norm: of each position's part on average: that of beta is sqrt(N) times it.

        Raises:
            TypeError, ValueError: for what is out of range.
        """
        d = checks.check_size("token_size", token_size)
        count = len(_check_positions(positions, checks.check_size("length", length)))
        beta = directions(key, (count * d,), norm * math.sqrt(count))
        return cls(f, positions, beta.reshape(count, d), length)

    @property
    def token_size(self) -> int:
        """Token size d."""
        return self.betas.shape[1]

    @property
    def span(self) -> int:
        """The largest position less the smallest."""
        return max(self.positions) - min(self.positions)

    def __call__(self, x: Float[ArrayLike, "n L d"]) -> Float[np.ndarray, " n"]:
        """Targets of sequences, in float64."""
        tokens = check_data(x, self.length, self.token_size, "NVariable")
        seen = tokens[:, np.array(self.positions) - 1]
        return self.f.value(np.einsum("nkd,kd->n", seen, self.betas))

    def complexity(self, eps: float = 0.1) -> Complexity:
        """Complexity measures of f at the sum of the parts' norms, for tokens of norm at most 1.

        Args:
            eps: accuracy, in (0, 1).

        Raises:
            ValueError: if f has no power series, or for an eps out of range.
        """
        return complexity(self.f, float(np.linalg.norm(self.betas, axis=1).sum()), eps)

    def __str__(self) -> str:
        tokens = ", ".join(f"x_{position}" for position in self.positions)
        argument = f"b' [{tokens}]"
        return f"y = {self.f.of(argument)}"


def _check_positions(positions: Sequence[int], length: int) -> tuple[int, ...]:
    if not np.iterable(positions):
        raise TypeError(f"positions must be a sequence of whole numbers, got {positions!r}.")
    given = tuple(positions)
    if not given:
        raise ValueError("positions must hold at least one position, got none.")
    for position in given:
        checks.check_size("positions", position, 1, length)
    if len(set(given)) != len(given):
        raise ValueError(f"positions must all be different, got {given}.")
    return tuple(int(position) for position in given)
