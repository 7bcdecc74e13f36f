"""erf and gelu: the normal distribution function of one scale."""

from typing import Any

import jax
from jaxtyping import Array

from rnntk.activations import mixtures
from rnntk.activations.activation import Ball, BallMoments
from rnntk.activations.mixtures import Mixture
from rnntk.activations.scales import single


def _gelu(u: Array) -> Array:
    return jax.nn.gelu(u, approximate=False)


def _erf_balls(flint: Any) -> BallMoments:
    """Arcsine kernel (Williams 1997)."""
    arb = flint.arb
    two = 2 / arb.pi()

    def pair(a1: Ball, a2: Ball, c: Ball) -> tuple[Ball, Ball]:
        root = ((1 + 2 * a1) * (1 + 2 * a2) - 4 * c * c).sqrt()
        return two * arb.atan2(2 * c, root), 2 * two / root

    def own(a: Ball) -> tuple[Ball, Ball]:
        root = (1 + 4 * a).sqrt()
        return two * arb.atan2(2 * a, root), 2 * two / root

    return BallMoments(own, pair)


def _gelu_balls(flint: Any) -> BallMoments:
    """With p = 1 + a, w^2 = p p' - c^2 and sin g = c / sqrt(p p'): docs/theory/activations.md."""
    arb = flint.arb
    share = 1 / (2 * arb.pi())

    def moments(a1: Ball, a2: Ball, c: Ball, square: Ball) -> tuple[Ball, Ball]:
        p1, p2, w = 1 + a1, 1 + a2, square.sqrt()
        turn = arb.atan2(c, w)
        state = c * turn + (a1 * a2 * w + c * c / w) / (p1 * p2)
        slope = turn + c / w * (1 / p1 + 1 / p2 + 1 / square)
        return c / 4 + share * state, arb(1) / 4 + share * slope

    return BallMoments(
        lambda a: moments(a, a, a, 1 + 2 * a),
        lambda a1, a2, c: moments(a1, a2, c, (1 + a1) * (1 + a2) - c * c),
    )


ERF = mixtures.activation(
    "erf",
    jax.scipy.special.erf,
    Mixture(single(0.5), 1.0, 0.0, mixtures.zero_mean, even=True),
    _erf_balls,
)
GELU = mixtures.activation(
    "gelu",
    _gelu,
    Mixture(single(1.0), 0.5, 0.5, mixtures.gated_mean, odd=True, gated=True),
    _gelu_balls,
)
