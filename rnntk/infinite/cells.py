"""Which cells a readout needs, and the loops that go through them.

The "last" readout needs the diagonal of cells through the ends of both sequences, the others all
cells, diagonal by diagonal.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex

from rnntk import sequences
from rnntk.infinite.marginals import Marginals, exists
from rnntk.infinite.recursion import (
    Behind,
    Cell,
    Layers,
    Pairing,
    advance,
    begin,
    enter,
    kernel_at,
    restart,
)
from rnntk.kernel import Kernel

# XLA computes what one output of a loop needs in one pass over the pairs, but shares no work
# between two: a loop that carries two arrays computes everything that both depend on twice. So two
# arrays travel as one, the first as the real part and the second as the imaginary part.
Packed = tuple[Complex[Array, "n1 n2"], ...]  # one for each layer


def diagonals(t1: int, t2: int) -> np.ndarray:
    """All cells, diagonal after diagonal, each from its first cell on; shape (t1 t2, 2)."""
    s1, s2 = np.divmod(np.arange(t1 * t2), t2)
    order = np.lexsort((s1, s1 - s2))
    return np.stack([s1[order], s2[order]], axis=1)


def pair_kernel(pairing: Pairing) -> Kernel:
    """Kernel of all pairs of sequences of two batches."""
    if pairing.rnn.r.ends_only:
        return _at_the_ends(pairing)
    t1, t2 = pairing.one.steps, pairing.two.steps
    cells = diagonals(t1, t2)

    def visit(packed: Packed, cell: Array) -> tuple[Packed, Kernel]:
        where = cell[0], cell[1]
        behind = advance(pairing, where, restart(pairing, where, _behind(packed)))[1]
        there = exists(pairing.one, cell[0])[:, None] & exists(pairing.two, cell[1])[None, :]
        packed = jax.tree.map(lambda v: jnp.where(there, v, 0), _pack(behind))
        kernel = kernel_at(pairing, where, _behind(packed)[-1])
        return packed, jax.tree.map(lambda k: jnp.where(there, k, 0), kernel)

    start = _pack(begin(pairing, (0, 0)))
    if pairing.rnn.r.per_step:
        kernel = jax.lax.scan(visit, start, jnp.asarray(cells))[1]
        order = np.argsort(cells[:, 0] * t2 + cells[:, 1])
        return jax.tree.map(
            lambda k: k[order].reshape(t1, t2, *k.shape[1:]).transpose(2, 0, 3, 1), kernel
        )

    shares1, shares2 = (_shares(pairing, side) for side in (pairing.one, pairing.two))

    def add(carry: tuple[Packed, Array], cell: Array) -> tuple[tuple[Packed, Array], None]:
        packed, kernel = visit(carry[0], cell)
        share = shares1[cell[0]][:, None] * shares2[cell[1]][None, :]
        return (packed, carry[1] + jax.lax.complex(share * kernel.ntk, share * kernel.nngp)), None

    total = jax.lax.scan(add, (start, jnp.zeros_like(start[0])), jnp.asarray(cells))[0][1]
    return Kernel(jnp.real(total), jnp.imag(total))


def _at_the_ends(pairing: Pairing) -> Kernel:
    """The diagonal through both ends."""
    t1, t2 = pairing.one.steps, pairing.two.steps
    steps = min(t1, t2)
    first = t1 - steps, t2 - steps
    ragged = pairing.one.start is not None or pairing.two.start is not None

    def cell(s: Any) -> Cell:
        return s + first[0], s + first[1]

    begun = enter(pairing, first, begin(pairing, first))
    carried = type(begun[0])

    def step(packed: Packed, s: Array) -> tuple[Packed, None]:
        layers: Layers = (carried(*_unpack(packed[0])), *_behind(packed[1:]))
        behind = advance(pairing, cell(s), layers)[1]
        upcoming = cell(jnp.minimum(s + 1, steps - 1))
        following = restart(pairing, upcoming, behind) if ragged else behind
        entered = enter(pairing, upcoming, following)
        more = s + 1 < steps  # else what is behind the last cell is the result
        return _pack(_choose(more, entered, behind)), None

    packed = jax.lax.scan(step, _pack(begun), jnp.arange(steps))[0]
    return kernel_at(pairing, (t1 - 1, t2 - 1), _behind(packed)[-1])


def _choose(more: Array, one: Layers, two: Layers) -> list[tuple[Array, Array]]:
    """Layers of the one or of the other kind, as pairs of arrays."""
    return [
        (jnp.where(more, a1, a2), jnp.where(more, b1, b2))
        for (a1, b1), (a2, b2) in zip(one, two, strict=True)
    ]


def _pack(layers: Any) -> Packed:
    return tuple(jax.lax.complex(*two) for two in layers)


def _unpack(packed: Complex[Array, "n1 n2"]) -> tuple[Array, Array]:
    return jnp.real(packed), jnp.imag(packed)


def _behind(packed: Packed) -> tuple[Behind, ...]:
    return tuple(Behind(*_unpack(both)) for both in packed)


def _shares(pairing: Pairing, side: Marginals) -> Array:
    """Shares of the steps of each sequence in what the readout sees, (t, n) or (t, 1)."""
    return pairing.rnn.r.shares(side.steps, side.lengths, side.dtype)


def reverse_steps(kernel: Kernel, lengths1: Array | None, lengths2: Array | None) -> Kernel:
    """Back to forward time: the reading direction of a "sequence" kernel's steps turned round."""

    def turn(k: Array) -> Array:
        n1, t1, n2, t2 = k.shape
        k = sequences.reverse(k.reshape(n1, t1, n2 * t2), lengths1)
        k = k.reshape(n1, t1, n2, t2).transpose(2, 3, 0, 1).reshape(n2, t2, n1 * t1)
        return sequences.reverse(k, lengths2).reshape(n2, t2, n1, t1).transpose(2, 3, 0, 1)

    return jax.tree.map(turn, kernel)
