"""The recursion over pairs of sequences: one step of all layers, at one cell.

A *cell* (s, s') pairs step s of one sequence with step s' of another. The cells of one diagonal
s - s' form a recursion of their own. With L the covariance of the pre-activations, T their tangent
kernel, K the states' covariance, Kd the derivatives' and B = Kd T, one step of a layer is

    L = w^2 K + u^2 <tokens> + b^2,          T = (trained parts of L) + w^2 B,
    K, Kd = moments of phi at L,             B = Kd T,

where K and B on the right are those of the cell before, and in a deeper layer the tokens are the
states below, whose u^2 B adds to T. All of them are carried as angles (``angles``); what depends
on one sequence alone stands in ``marginals``. Derivation: docs/theory/infinite.md.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rnntk.activations.safe import safe_sqrt
from rnntk.infinite.angles import Part, ang_of_product, ang_of_sum, ang_of_tokens, outer
from rnntk.infinite.marginals import LayerMarginals, Marginals
from rnntk.kernel import Kernel
from rnntk.network.elman import ElmanRNN
from rnntk.network.multipliers import Squares

Cell = tuple[Any, Any]  # (s, s'), of numbers or tracers


class Inside(NamedTuple):
    """A layer's pre-activations at a cell."""

    ang_L: Float[Array, "n1 n2"]
    ang_T: Float[Array, "n1 n2"]


class Behind(NamedTuple):
    """A layer's states behind a cell: what the next cell begins with."""

    ang_K: Float[Array, "n1 n2"]
    ang_B: Float[Array, "n1 n2"]


class Entered(NamedTuple):
    """The first layer where the next cell has begun: its tokens are added already."""

    ang_L: Float[Array, "n1 n2"]
    ang_B: Float[Array, "n1 n2"]


Layers = tuple[Behind | Entered, ...]  # below the first layer that has begun all are Behind


class Pairing(NamedTuple):
    """Two batches, and what stays the same from cell to cell."""

    rnn: ElmanRNN
    squares: Squares
    one: Marginals
    two: Marginals
    same: Bool[Array, "n1 n2"] | None  # pairs that are one and the same sequence, if there are any


def begin(pairing: Pairing, cell: Cell) -> tuple[Behind, ...]:
    """What a cell begins with where one of the two sequences has its first step.

    States of different age are uncorrelated, and so are their gradients. Initial states are equal
    if they are shared, or if they are one sequence's own.
    """
    state, same = pairing.rnn.initial_state, pairing.same
    found = []
    for number in range(pairing.rnn.depth):
        one, two = _at(pairing, cell, number)
        ang_K = 2 * outer(one.root_K_before, two.root_K_before)
        if state == "shared" or (state == "independent" and same is not None):
            first1, first2 = (
                s == (jnp.zeros(side.size, int) if side.start is None else side.start)
                for s, side in zip(cell, (pairing.one, pairing.two), strict=True)
            )
            equal = first1[:, None] & first2[None, :]
            ang_K = jnp.where(equal if state == "shared" else equal & same, 0, ang_K)
        found.append(Behind(ang_K, 2 * outer(one.root_B_before, two.root_B_before)))
    return tuple(found)


def restart(pairing: Pairing, cell: Cell, before: tuple[Behind, ...]) -> tuple[Behind, ...]:
    """Begin anew at the pairs for which this cell is the first with two existing steps."""
    start1, start2 = pairing.one.start, pairing.two.start
    fresh1 = cell[0] <= (0 if start1 is None else start1[:, None])
    fresh2 = cell[1] <= (0 if start2 is None else start2[None, :])
    begun = begin(pairing, cell)
    return jax.tree.map(lambda new, old: jnp.where(fresh1 | fresh2, new, old), begun, before)


def enter(pairing: Pairing, cell: Cell, before: tuple[Behind, ...]) -> Layers:
    """Begin a cell in the first layer by adding its tokens; a loop does it one turn ahead.

    Two short chains of operations keep more in registers than a long one. Where not all groups
    are trained T needs the parts of L, and nothing is added.
    """
    if not _all_trained(pairing.rnn):
        return before
    first, *deeper = before
    ang_L = _ang_of_L(pairing, cell, 0, _parts_of_L(pairing, cell, 0, first.ang_K, None))
    return Entered(ang_L, first.ang_B), *deeper


def advance(
    pairing: Pairing, cell: Cell, before: Layers
) -> tuple[tuple[Inside, ...], tuple[Behind, ...]]:
    """One step of all layers, from before a cell to behind it."""
    inside: list[Inside] = []
    behind: list[Behind] = []
    for number, old in enumerate(before):
        below = behind[-1] if behind else None
        parts: list[Part] = []
        if isinstance(old, Entered):
            ang_L = old.ang_L
        else:
            parts = _parts_of_L(pairing, cell, number, old.ang_K, below)
            ang_L = _ang_of_L(pairing, cell, number, parts)
        ang_T = _ang_of_T(pairing, cell, number, ang_L, parts, old.ang_B, below)
        one, two = _at(pairing, cell, number)
        ang_K, ang_Kd = moments(pairing.rnn, one, two, ang_L)
        constant = pairing.rnn.phi.constant_slope
        roots_Kd = outer(one.root_Kd, two.root_Kd) if constant is None else constant
        ang_B = ang_of_product(ang_Kd, roots_Kd, ang_T, outer(one.root_T, two.root_T))
        inside.append(Inside(ang_L, ang_T))
        behind.append(Behind(ang_K, ang_B))
    return tuple(inside), tuple(behind)


def moments(
    rnn: ElmanRNN, one: LayerMarginals, two: LayerMarginals, ang_L: Array
) -> tuple[Array, Array]:
    """The angles of K and Kd."""
    return rnn.phi.angles(one.marginal, two.marginal, ang_L)


def kernel_at(pairing: Pairing, cell: Cell, top: Behind) -> Kernel:
    """What an output at a cell sees of the top layer: v^2 (K + B) and v^2 K."""
    one, two = _at(pairing, cell, pairing.rnn.depth - 1)
    state = Part(top.ang_K, one.root_K, two.root_K)
    parts = [Part(top.ang_B, one.root_B, two.root_B)]
    if "V" in pairing.rnn.trainable:
        parts.append(state)
    root1, root2 = (
        safe_sqrt(sum(map(jnp.square, roots), jnp.zeros_like(roots[0])))
        for roots in zip(*(part[1:] for part in parts), strict=True)
    )
    v2 = pairing.squares.v2
    ntk = outer(root1, root2) - ang_of_sum(parts, None, root1, root2) / 2
    return Kernel(v2 * ntk, v2 * (outer(state.root1, state.root2) - state.ang / 2))


def _at(pairing: Pairing, cell: Cell, layer: int) -> tuple[LayerMarginals, LayerMarginals]:
    return pairing.one.at(layer, cell[0]), pairing.two.at(layer, cell[1])


def _all_trained(rnn: ElmanRNN) -> bool:
    return {"W", "U", "b"} <= set(rnn.trainable)


def _parts_of_L(
    pairing: Pairing, cell: Cell, number: int, ang_K: Array, below: Behind | None
) -> list[Part]:
    """The summands of L that W and U make: states, and tokens or the states below."""
    squares, (one, two) = pairing.squares, _at(pairing, cell, number)
    tokens = _ang_of_tokens(pairing, cell) if below is None else squares.u2 * below.ang_K
    return [
        Part(squares.w2 * ang_K, squares.w * one.root_K_before, squares.w * two.root_K_before),
        Part(tokens, one.root_token, two.root_token),
    ]


def _ang_of_tokens(pairing: Pairing, cell: Cell) -> Float[Array, "n1 n2"]:
    one, two = pairing.one, pairing.two
    roots = one.at(0, cell[0]).root_token, two.at(0, cell[1]).root_token
    tokens, directions = (one.tokens, two.tokens), (one.directions, two.directions)
    return ang_of_tokens(tokens, directions, roots, cell, one.steps)


def _ang_of_L(
    pairing: Pairing, cell: Cell, number: int, parts: list[Part]
) -> Float[Array, "n1 n2"]:
    one, two = _at(pairing, cell, number)
    return ang_of_sum(parts, pairing.squares.b2, one.root_L, two.root_L)


def _ang_of_T(
    pairing: Pairing,
    cell: Cell,
    number: int,
    ang_L: Array,
    parts: list[Part],
    ang_B: Array,
    below: Behind | None,
) -> Float[Array, "n1 n2"]:
    """(trained parts of L) + w^2 B, and in a deeper layer u^2 B of that below."""
    rnn, squares, (one, two) = pairing.rnn, pairing.squares, _at(pairing, cell, number)
    own, bias2 = [Part(ang_L, one.root_L, two.root_L)], None
    if not _all_trained(rnn):
        own = [part for group, part in zip("WU", parts, strict=True) if group in rnn.trainable]
        bias2 = squares.b2 if "b" in rnn.trainable else None
    w, u = squares.w, squares.u
    own.append(Part(squares.w2 * ang_B, w * one.root_B_before, w * two.root_B_before))
    if below is not None:
        below1, below2 = _at(pairing, cell, number - 1)
        own.append(Part(squares.u2 * below.ang_B, u * below1.root_B, u * below2.root_B))
    return ang_of_sum(own, bias2, one.root_T, two.root_T)
