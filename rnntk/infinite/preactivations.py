"""Pre-activations at infinite width, step by step: what bounds on the smallest eigenvalue see."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from rnntk.infinite.angles import outer
from rnntk.infinite.cells import diagonals
from rnntk.infinite.marginals import prepare
from rnntk.infinite.recursion import Behind, Cell, Pairing, advance, begin, moments, restart
from rnntk.kernel import symmetric
from rnntk.network.elman import ElmanRNN
from rnntk.network.multipliers import Squares, squares


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
    pairing = _with_itself(rnn, squares(rnn, x.shape[-1], x.dtype), x)
    behind = begin(pairing, (0, 0))
    for s in range(x.shape[1]):
        behind, layers = _observed(pairing, behind, jnp.asarray(s))
        yield layers


def preactivation_grid(rnn: ElmanRNN, x: Float[Array, "n t d"]) -> tuple[Preactivation, ...]:
    """All layers at all steps of all sequences together; point s n + i is step s of sequence i."""
    return _grid(_with_itself(rnn, squares(rnn, x.shape[-1], x.dtype), x))


@jax.jit
def _grid(pairing: Pairing) -> tuple[Preactivation, ...]:
    t, n = pairing.one.steps, pairing.one.size
    cells = diagonals(t, t)

    def visit(
        behind: tuple[Behind, ...], cell: Array
    ) -> tuple[tuple[Behind, ...], tuple[Preactivation, ...]]:
        where = cell[0], cell[1]
        return _observe(pairing, where, restart(pairing, where, behind))

    layers = jax.lax.scan(visit, begin(pairing, (0, 0)), jnp.asarray(cells))[1]
    order = np.argsort(cells[:, 0] * t + cells[:, 1])

    def arrange(v: Array) -> Array:
        square = v[order].reshape(t, t, n, n).transpose(0, 2, 1, 3).reshape(t * n, t * n)
        return symmetric(square)

    return tuple(
        Preactivation(side.root_L.reshape(-1), *(arrange(v) for v in layer[1:]))
        for side, layer in zip(pairing.one.layers, layers, strict=True)
    )


@jax.jit
def _with_itself(rnn: ElmanRNN, scales: Squares, x: Float[Array, "n t d"]) -> Pairing:
    side = prepare(rnn, scales, x, None)
    return Pairing(rnn, scales, side, side, jnp.eye(len(x), dtype=bool))


@jax.jit
def _observed(
    pairing: Pairing, behind: tuple[Behind, ...], s: Int[Array, ""]
) -> tuple[tuple[Behind, ...], tuple[Preactivation, ...]]:
    behind, layers = _observe(pairing, (s, s), behind)
    return behind, tuple(
        Preactivation(layer.std, *(symmetric(v) for v in layer[1:])) for layer in layers
    )


def _observe(
    pairing: Pairing, cell: Cell, before: tuple[Behind, ...]
) -> tuple[tuple[Behind, ...], tuple[Preactivation, ...]]:
    """One step of the recursion, with what it saw on the way."""
    inside, behind = advance(pairing, cell, before)
    layers = []
    for number, (within, after) in enumerate(zip(inside, behind, strict=True)):
        one, two = pairing.one.at(number, cell[0]), pairing.two.at(number, cell[1])
        ang_Kd = moments(pairing.rnn, one, two, within.ang_L)[1]
        layers.append(
            Preactivation(
                std=one.root_L,
                angle=within.ang_L,
                tangent=outer(one.root_T, two.root_T) - within.ang_T / 2,
                covariance=outer(one.root_K, two.root_K) - after.ang_K / 2,
                slope=outer(one.root_Kd, two.root_Kd) - ang_Kd / 2,
            )
        )
    return behind, tuple(layers)
