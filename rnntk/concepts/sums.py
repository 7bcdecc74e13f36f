"""Targets that add up what they see of single tokens: of all of them, or of those before each."""

from dataclasses import dataclass

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, PRNGKeyArray, Real

from rnntk import checks
from rnntk.concepts.complexity import Complexity, complexity
from rnntk.concepts.drawing import check_betas, check_data, directions
from rnntk.concepts.scalar_functions import ScalarFunction, resolve


@dataclass(frozen=True, eq=False)
class Additive:
    r"""Sums over positions, :math:`y = \sum_{l=1}^L f(\beta_l^\top x_l)`.

    The class that the abstract of Wang et al. (2021) states SGD learns without small tokens, with
    samples and iterations that grow almost polynomially in L.

    Args:
        f: a name of :data:`rnntk.concepts.NAMES`, or a :class:`ScalarFunction`.
        betas: directions, shape (L, d).

    Raises:
        TypeError, ValueError: for an unknown f, or betas of another shape or not finite.

    Example:
        >>> import jax, numpy as np, rnntk
        >>> concept = rnntk.concepts.Additive.draw(jax.random.key(0), 8, 3, f="sin")
        >>> print(concept)
        y = sum_{l=1..8} sin(b_l' x_l)
        >>> concept(np.ones((5, 8, 3))).shape
        (5,)
    """

    f: ScalarFunction
    betas: Float[np.ndarray, "L d"]

    def __init__(self, f: str | ScalarFunction, betas: Real[ArrayLike, "L d"]) -> None:
        object.__setattr__(self, "f", resolve(f))
        object.__setattr__(self, "betas", check_betas(betas, "L, d"))

    @classmethod
    def draw(
        cls,
        key: PRNGKeyArray,
        length: int,
        token_size: int,
        f: str | ScalarFunction = "sin",
        *,
        norm: float = 1.0,
    ) -> "Additive":
        """Independent directions, uniform on a sphere.

        Args:
            key: JAX random key.
            length: number of tokens L.
            token_size: d.
            f: a name, or a :class:`ScalarFunction`.
            norm: of each direction.

        Raises:
            TypeError, ValueError: for what is out of range.
        """
        shape = checks.check_size("length", length), checks.check_size("token_size", token_size)
        return cls(f, directions(key, shape, norm))

    @property
    def length(self) -> int:
        """Number of tokens L."""
        return len(self.betas)

    @property
    def token_size(self) -> int:
        """Token size d."""
        return self.betas.shape[1]

    def __call__(self, x: Float[ArrayLike, "n L d"]) -> Float[np.ndarray, " n"]:
        """Targets of sequences, in float64."""
        tokens = check_data(x, self.length, self.token_size, "Additive")
        return self.f.value(np.einsum("nld,ld->nl", tokens, self.betas)).sum(axis=1)

    def complexity(self, eps: float = 0.1) -> Complexity:
        """Complexity measures of f at the largest norm of a direction; tokens of norm at most 1.

        Args:
            eps: accuracy, in (0, 1).

        Raises:
            ValueError: if f has no power series, or for an eps out of range.

        Example:
            >>> round(Additive("square", np.eye(2)).complexity().samples)
            68385
        """
        return complexity(self.f, _largest(self.betas), eps)

    def __str__(self) -> str:
        term = self.f.of("b_l' x_l")
        return f"y = sum_{{l=1..{self.length}}} {term}"


@dataclass(frozen=True, eq=False)
class PerToken:
    r"""Sums of earlier tokens at each position, :math:`y_j = \sum_{i<j,r} f(\beta_{jir}^\top x_i)`.

    The class of Allen-Zhu & Li (2019), for SGD on the recurrent weights alone, in a form with one
    output and one f.

    Args:
        f: a name of :data:`rnntk.concepts.NAMES`, or a :class:`ScalarFunction`.
        betas: directions, shape (L, L, p, d); only those of i < j are used.

    Raises:
        TypeError, ValueError: for an unknown f, or betas of another shape or not finite.

    Example:
        >>> import jax, numpy as np, rnntk
        >>> concept = rnntk.concepts.PerToken.draw(jax.random.key(0), 4, 3, f="sin", units=2)
        >>> print(concept)
        y_j = sum_{i<j} sum_{r=1..2} sin(b_jir' x_i), j = 1..4
        >>> concept(np.ones((5, 4, 3))).shape
        (5, 4, 1)
    """

    f: ScalarFunction
    betas: Float[np.ndarray, "L L p d"]

    def __init__(self, f: str | ScalarFunction, betas: Real[ArrayLike, "L L p d"]) -> None:
        found = check_betas(betas, "L, L, p, d")
        if found.shape[0] != found.shape[1]:
            raise ValueError(f"betas must have shape (L, L, p, d), got {found.shape}.")
        object.__setattr__(self, "f", resolve(f))
        object.__setattr__(self, "betas", found)

    @classmethod
    def draw(
        cls,
        key: PRNGKeyArray,
        length: int,
        token_size: int,
        f: str | ScalarFunction = "sin",
        *,
        units: int = 1,
        norm: float = 1.0,
    ) -> "PerToken":
        """Independent directions, uniform on a sphere.

        Args:
            key: JAX random key.
            length: number of tokens L.
            token_size: d.
            f: a name, or a :class:`ScalarFunction`.
            units: terms p for each pair of positions.
            norm: of each direction.

        Raises:
            TypeError, ValueError: for what is out of range.
        """
        for name, size in (("length", length), ("token_size", token_size), ("units", units)):
            checks.check_size(name, size)
        return cls(f, directions(key, (length, length, units, token_size), norm))

    @property
    def length(self) -> int:
        """Number of tokens L."""
        return len(self.betas)

    @property
    def token_size(self) -> int:
        """Token size d."""
        return self.betas.shape[-1]

    def __call__(self, x: Float[ArrayLike, "n L d"]) -> Float[np.ndarray, "n L 1"]:
        """Targets of sequences at every position, in float64; that of the first is 0."""
        tokens = check_data(x, self.length, self.token_size, "PerToken")
        y = np.zeros((*tokens.shape[:2], 1))
        for j in range(1, self.length):
            seen = np.einsum("nid,ird->nir", tokens[:, :j], self.betas[j, :j])
            y[:, j, 0] = self.f.value(seen).sum(axis=(1, 2))
        return y

    def complexity(self, eps: float = 0.1) -> Complexity:
        """Complexity measures of f at the largest norm of a direction; tokens of norm at most 1.

        Args:
            eps: accuracy, in (0, 1).

        Raises:
            ValueError: if f has no power series, or for an eps out of range.
        """
        return complexity(self.f, _largest(self.betas), eps)

    def __str__(self) -> str:
        term = self.f.of("b_jir' x_i")
        units = self.betas.shape[2]
        return f"y_j = sum_{{i<j}} sum_{{r=1..{units}}} {term}, j = 1..{self.length}"


def _largest(betas: np.ndarray) -> float:
    return float(np.linalg.norm(betas, axis=-1).max())
