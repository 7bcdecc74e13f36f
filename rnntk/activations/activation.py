"""What is known of an activation: the function, its Gaussian moments, and what proofs need.

For jointly Gaussian pre-activations (u, u') of variances a, a' the recursions need

- of one sequence, the variance ``E phi(u)^2`` and the slope ``E phi'(u)^2``, and
- of a pair, the *angles* of ``E phi(u) phi(u')`` and of the derivatives' moment, as functions of
  that of ``E u u'``. The angle of an entry M_ij of a kernel is 2 (sqrt(M_ii M_jj) - M_ij).

Angles rather than covariances: two nearly equal sequences differ in digits that the covariance has
already lost, and angles of sequences of unequal norm are no larger than their covariances. What
depends on one sequence alone is computed once a step, in vectors of n, so that the part over pairs
is short. See docs/theory/infinite.md.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

Marginal = Any  # a pytree of arrays whose last axis is that of the variances
Ball = Any  # flint.arb


class Alone(NamedTuple):
    """Moments of one sequence each.

    Attributes:
        variance: E phi(u)^2.
        slope: E phi'(u)^2.
        marginal: whatever ``Activation.pair`` needs, as arrays whose last axis has length n.
    """

    variance: Float[Array, "..."]
    slope: Float[Array, "..."]
    marginal: Marginal


class Expansion(NamedTuple):
    """Hermite coefficients at p variances, on the host: what bounds on eigenvalues are made of.

    Attributes:
        slopes: d_k = E phi'(sqrt(a) z) h_k(z), with h_k the orthonormal Hermite polynomials.
        mean: E phi.
        beyond: of the orders k that are not there, sum_(l >= k) d_l^2 >= beyond / sqrt(k + 1).
    """

    slopes: Float[np.ndarray, "terms p"]
    mean: Float[np.ndarray, " p"]
    beyond: float = 0.0


class BallMoments(NamedTuple):
    """Moments with proved errors, in balls of python-flint at the precision of its context.

    Attributes:
        own: maps a variance a to E phi(u)^2 and E phi'(u)^2.
        pair: maps variances a, a' and a covariance to E phi(u) phi(u') and E phi'(u) phi'(u').
    """

    own: Callable[[Ball], tuple[Ball, Ball]]
    pair: Callable[[Ball, Ball, Ball], tuple[Ball, Ball]]


@dataclass(frozen=True)
class Activation:
    """An elementwise nonlinearity with its Gaussian moments, and all else that is known of it.

    Nothing is ever looked up by ``name``: what an activation does not carry is found from ``fn``,
    or refused.

    Args:
        name: what messages and results call it.
        fn: the function itself, elementwise on JAX arrays.
        alone: maps variances a, shape (n,), to the moments of u ~ N(0, a).
        pair: maps two marginals, whose last axes broadcast against each other as (n1, 1) and
            (1, n2), and the angle of E u u', shape (n1, n2), to the two moments' angles.
        slopes: those below and above 0 where phi is linear on either side of it; else None.
        error: maps variances to estimates of the moments' relative errors, on the host; None where
            the moments are exact but for rounding.
        tolerance: the error up to which variances are accepted; None is that of the dtype, 1e-8 in
            float64 and 1e-5 in float32.
        expansion: maps float64 variances and a number of terms to Hermite coefficients; None takes
            them from ``fn`` by quadrature.
        balls: makes moments in ball arithmetic of the python-flint module; None where there are
            none, and so neither certificates nor rigorous bounds.
        definition: the name by which :mod:`rnntk.verification` knows the function, which
            certificates state; needed with ``balls`` only.
    """

    name: str
    fn: Callable[[Array], Array]
    alone: Callable[[Float[Array, " n"]], Alone]
    pair: Callable[
        [Marginal, Marginal, Float[Array, "n1 n2"]],
        tuple[Float[Array, "n1 n2"], Float[Array, "n1 n2"]],
    ]
    slopes: tuple[float, float] | None = None
    error: Callable[[Float[np.ndarray, " n"]], Float[np.ndarray, " n"]] | None = None
    tolerance: float | None = None
    expansion: Callable[[Float[np.ndarray, " p"], int], Expansion] | None = None
    balls: Callable[[Any], BallMoments] | None = None
    definition: str | None = None

    @property
    def homogeneous(self) -> bool:
        """Whether phi(c u) = c phi(u) for all c > 0."""
        return self.slopes is not None

    @property
    def constant_slope(self) -> float | None:
        """E phi'(u)^2 where it is the same at all variances."""
        return None if self.slopes is None else (self.slopes[0] ** 2 + self.slopes[1] ** 2) / 2

    def variance(self, a: Float[Array, " n"]) -> Float[Array, " n"]:
        """E phi(u)^2."""
        return self.alone(a).variance

    def slope(self, a: Float[Array, " n"]) -> Float[Array, " n"]:
        """E phi'(u)^2."""
        return self.alone(a).slope

    def angles(
        self, one: Marginal, two: Marginal, angle: Float[Array, "n1 n2"]
    ) -> tuple[Float[Array, "n1 n2"], Float[Array, "n1 n2"]]:
        """The two moments' angles of all pairs, from marginals whose last axes are n1 and n2."""
        return self.pair(
            jax.tree.map(lambda v: v[..., :, None], one),
            jax.tree.map(lambda v: v[..., None, :], two),
            angle,
        )
