"""Pre-activations at infinite width, step by step: what bounds on the smallest eigenvalue see."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from rnntk.infinite.kernel import (
    AllPairs,
    Both,
    Where,
    advance,
    begin,
    diagonals,
    moments,
    product,
    restart,
)
from rnntk.infinite.marginals import prepare, squared_scales
from rnntk.kernel import symmetric
from rnntk.network.elman import ElmanRNN


class Preactivation(NamedTuple):
    """The pre-activations u of one layer at p points, each a step of a sequence, and what follows.

    Attributes:
        std: sqrt(E u_i^2).
        angle: 2 (std_i std_j - E u_i u_j).
        tangent: T, the tangent kernel of u over the trained groups among W, U and b.
        covariance: K = E phi(u_i) phi(u_j).
        slope: Kd = E phi'(u_i) phi'(u_j).
    """

    std: Float[Array, " p"]
    angle: Float[Array, "p p"]
    tangent: Float[Array, "p p"]
    covariance: Float[Array, "p p"]
    slope: Float[Array, "p p"]


def preactivations(rnn: ElmanRNN, x: Float[Array, "n t d"]) -> Iterator[tuple[Preactivation, ...]]:
    """All layers step by step, each sequence at the same step: what the "last" readout needs."""
    both = _with_itself(rnn, x)
    pairs = begin(both, (0, 0))
    for s in range(x.shape[1]):
        pairs, layers = _observed(both, pairs, jnp.asarray(s))
        yield layers


@jax.jit
def preactivation_grid(rnn: ElmanRNN, x: Float[Array, "n t d"]) -> tuple[Preactivation, ...]:
    """All layers at all steps of all sequences together; point s n + i is step s of sequence i."""
    both, (n, t, _) = _with_itself(rnn, x), x.shape
    cells = diagonals(t, t)

    def visit(pairs: AllPairs, cell: Array) -> tuple[AllPairs, tuple[Preactivation, ...]]:
        return _observe(both, (cell[0], cell[1]), restart(both, (cell[0], cell[1]), pairs))

    layers = jax.lax.scan(visit, begin(both, (0, 0)), jnp.asarray(cells))[1]
    order = np.argsort(cells[:, 0] * t + cells[:, 1])

    def arrange(v: Array) -> Array:
        square = v[order].reshape(t, t, n, n).transpose(0, 2, 1, 3).reshape(t * n, t * n)
        return symmetric(square)

    return tuple(
        Preactivation(side.std.reshape(-1), *(arrange(v) for v in layer[1:]))
        for side, layer in zip(both.one.layers, layers, strict=True)
    )


@jax.jit
def _with_itself(rnn: ElmanRNN, x: Float[Array, "n t d"]) -> Both:
    side = prepare(rnn, x, None)
    return Both(rnn, squared_scales(rnn, x.dtype), side, side, jnp.eye(len(x), dtype=bool))


@jax.jit
def _observed(
    both: Both, pairs: AllPairs, s: Int[Array, ""]
) -> tuple[AllPairs, tuple[Preactivation, ...]]:
    pairs, layers = _observe(both, (s, s), pairs)
    return pairs, tuple(
        Preactivation(layer.std, *(symmetric(v) for v in layer[1:])) for layer in layers
    )


def _observe(
    both: Both, where: Where, pairs: AllPairs
) -> tuple[AllPairs, tuple[Preactivation, ...]]:
    """One step of the recursion, with what it saw on the way."""
    inside, behind = advance(both, where, pairs)
    layers = []
    for side1, side2, into, out in zip(
        both.one.layers, both.two.layers, inside, behind, strict=True
    ):
        one = jax.tree.map(lambda v: v[where[0]], side1)
        two = jax.tree.map(lambda v: v[where[1]], side2)
        slope = moments(both.rnn, one, two, into.state)[1]
        layers.append(
            Preactivation(
                one.std,
                into.state,
                product(one.tangent, two.tangent) - into.tangent / 2,
                product(one.after, two.after) - out.state / 2,
                product(one.slope, two.slope) - slope / 2,
            )
        )
    return behind, tuple(layers)
