"""Moments of saturating mixtures scale by scale, for variances beyond the rules of few orders.

For phi = mean + f E erf(u / (sqrt(2) s)) and two scales, A = a/(a + s^2) and delta = 1 - A, the
arcsine kernel (Williams 1997) says

    E erf erf' = (2/pi) asin(rho sqrt(A A')),
    E G_s G_s' = (2/pi) / sqrt((a + s^2) (a' + s'^2) d),
    d = delta + delta' - delta delta' + A A' q,

with q = 1 - rho^2. Nothing cancels between parallel sequences, at any variance. The average over
both scales has as many terms as there are pairs of nodes, so this is slow.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rnntk.activations.scales import Scales

_SHARE = 2 / math.pi


class _Terms(NamedTuple):
    """Of one sequence and all scales, leaves (scales, ...)."""

    delta: Array
    root: Array  # sqrt(A)
    share: Array  # probability of the scale
    weight: Array  # probability / sqrt(a + s^2)


def _terms(scales: Scales, std: Float[Array, "..."]) -> _Terms:
    v, shares = (
        jnp.asarray(part.astype(std.dtype)).reshape(-1, *(1,) * std.ndim)
        for part in scales(std.dtype)
    )
    per = 1 / jnp.sqrt(std[None] ** 2 + v)
    return _Terms(v * per**2, std[None] * per, jnp.broadcast_to(shares, per.shape), shares * per)


def own(scales: Scales, a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """E phi^2 less the square of the mean, and E phi'^2, for f = 1, on the host."""
    v, shares = (part[:, None] for part in scales(np.float64))
    delta, root = v / (a + v), np.sqrt(a / (a + v))
    state, slope = np.zeros_like(a), np.zeros_like(a)
    for i, share in enumerate(shares):
        depth = np.sqrt(delta[i] + delta - delta[i] * delta)
        state += share * np.sum(shares * np.arctan2(root[i] * root, depth), axis=0)
        slope += share * np.sum(shares / (depth * np.sqrt((a + v[i]) * (a + v))), axis=0)
    return _SHARE * state, _SHARE * slope


def pair(
    scales: Scales,
    std1: Float[Array, "_ 1"],
    std2: Float[Array, "1 _"],
    e: Float[Array, "n1 n2"],
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """E of the products at correlation 1, and by how much those at 1 - e are smaller, for f = 1.

    Returns:
        The two of phi, and the two of its derivative.
    """
    one, two = _terms(scales, std1), _terms(scales, std2)
    count = len(one.delta)
    rho, q = 1 - e, e * (2 - e)
    zero = jnp.zeros_like(e)

    def term(i: Array, j: Array) -> tuple[Array, ...]:
        first = jax.tree.map(lambda v: v[i], one)
        second = jax.tree.map(lambda v: v[j], two)
        depth0 = first.delta + second.delta - first.delta * second.delta
        sine0 = first.root * second.root
        deeper = sine0**2 * q
        root0, root = jnp.sqrt(depth0), jnp.sqrt(depth0 + deeper)
        sine = rho * sine0
        # sin of asin(sine0) - asin(sine), whose two products are of one sign or cancel
        turn = sine0 * root + jnp.abs(sine) * root0
        turn = jnp.where(rho > 0, deeper / jnp.where(turn > 0, turn, 1), turn)
        fall = jnp.arctan2(turn, root0 * root + sine0 * sine)
        shares, weights = first.share * second.share, first.weight * second.weight
        parallel, gap = weights / root0, (deeper / root) / (root0 + root)
        return (
            shares * jnp.arctan2(sine0, root0) + zero,
            shares * fall,
            parallel + zero,
            parallel * gap,
        )

    def add(sums: tuple[Array, ...], index: Array) -> tuple[tuple[Array, ...], None]:
        # outside of what is checkpointed, so that reverse mode keeps nothing of any step
        return _plus(sums, jax.checkpoint(term)(index // count, index % count)), None

    begin: tuple[Array, ...] = (zero,) * 4
    found = jax.lax.scan(add, begin, jnp.arange(count**2))[0]
    state0, state, slope0, slope = (_SHARE * v for v in found)
    return (state0, state), (slope0, slope)


def _plus(one: tuple[Array, ...], two: tuple[Array, ...]) -> tuple[Array, ...]:
    return tuple(v + w for v, w in zip(one, two, strict=True))
