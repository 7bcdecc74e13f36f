"""Inner products of gradients that are given as thin factors, without ever forming a Jacobian.

Two exact ways to contract sum_{s,s'} <delta_s, delta'_s'> <a_s, a'_s'> over two batches:

- :func:`gram`: the two thin Gram matrices, multiplied entrywise and summed over the steps,
  2 n1 n2 t1 t2 (c + k) operations;
- :func:`jacobian`: the gradients sum_s delta_s a_s^T themselves, a few rows of all sequences at a
  time, 2 (n1 t1 + n2 t2) c k operations to form and 2 n1 n2 c k to multiply them.

Neither needs memory for n c k numbers. docs/theory/empirical.md compares the two.
"""

from collections.abc import Iterator
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from rnntk.empirical.backprop import Factors
from rnntk.kernel import symmetric
from rnntk.network.elman import PRECISION
from rnntk.tiling.threads import cores, in_threads

Layers = tuple[Factors, ...]
HALVED = 256  # rows from which on the upper half of a product takes less time than all of it
UNROLLED = 64  # products of tiles; in a loop each tile would be cut out again and again


@partial(jax.jit, static_argnames=("tile", "mirror"))
def gram(
    parts1: tuple[Layers, ...], parts2: tuple[Layers, ...], tile: int, mirror: bool
) -> Float[Array, "n1 r1 n2 r2"]:
    """The sum over layers, ``tile`` sequences a side at a time, of batches in parts.

    Where it is a loop, the last tile reaches back over the one before it, to have one shape.
    """
    one, two = join(parts1), join(parts2)  # XLA cuts the tiles from the parts themselves
    (n1, _, r1, _), (n2, _, r2, _) = (layers[0].signals.shape for layers in (one, two))
    dtype = one[0].signals.dtype
    tile1, tile2 = min(tile, n1), min(tile, n2)
    rows, columns = range(0, n1, tile1), range(0, n2, tile2)

    def part(side1: list[Factors], side2: list[Factors]) -> Float[Array, "m1 r1 m2 r2"]:
        return sum(map(_product, side1[1:], side2[1:]), _product(side1[0], side2[0]))

    def step(kernel: Array, corner: Int[Array, " 2"]) -> tuple[Array, None]:
        i, j = corner[0], corner[1]
        found = part(_cut(one, i, tile1), _cut(two, j, tile2))
        return jax.lax.dynamic_update_slice(kernel, found, (i, 0, j, 0)), None

    if len(rows) * len(columns) <= UNROLLED:
        sides1 = [_cut(one, i, min(tile1, n1 - i)) for i in rows]
        sides2 = sides1 if mirror else [_cut(two, j, min(tile2, n2 - j)) for j in columns]
        blocks = [
            [
                jnp.zeros((min(tile1, n1 - i), r1, min(tile2, n2 - j), r2), dtype)
                if mirror and j < i
                else part(side1, side2)
                for j, side2 in zip(columns, sides2, strict=True)
            ]
            for i, side1 in zip(rows, sides1, strict=True)
        ]
        kernel = jnp.concatenate([jnp.concatenate(row, axis=2) for row in blocks])
    else:
        corners = [
            (i, j) for i in starts(n1, tile1) for j in starts(n2, tile2) if not mirror or i <= j
        ]
        empty = jnp.zeros((n1, r1, n2, r2), dtype)
        kernel = jax.lax.scan(step, empty, jnp.asarray(corners))[0]
    return symmetric(kernel) if mirror else kernel


def join(parts: tuple[Any, ...]) -> Any:
    """Arrays of all sequences, from those of some each."""
    return jax.tree.map(lambda *v: jnp.concatenate(v), *parts)


def starts(n: int, size: int) -> list[int]:
    """Starts of parts of equal size that cover n; the last may reach back."""
    return [min(start, n - size) for start in range(0, n, size)]


def _cut(layers: Layers, start: Any, size: int) -> list[Factors]:
    return [
        jax.tree.map(lambda v: jax.lax.dynamic_slice_in_dim(v, start, size), factors)
        for factors in layers
    ]


def _product(one: Factors, two: Factors) -> Float[Array, "n1 r1 n2 r2"]:
    signals = jnp.tensordot(one.signals, two.signals, axes=(-1, -1), precision=PRECISION)
    reads = jnp.tensordot(one.reads, two.reads, axes=(-1, -1), precision=PRECISION)
    # On a CPU, a product that is multiplied as it is written takes a fourth longer.
    signals, reads = jax.lax.optimization_barrier((signals, reads))
    return (signals * reads[:, :, None, :, :, None]).sum(axis=(1, 4))


def jacobian(
    one: tuple[Layers, ...], two: tuple[Layers, ...], units: int, mirror: bool
) -> Float[Array, "n1 r1 n2 r2"]:
    """The sum over layers, ``units`` rows of the gradients at a time, of batches in parts.

    XLA forms the gradients of a batch on one core of a CPU, so every core gets rows of its own.
    """
    r1, r2 = (parts[0][0].signals.shape[2] for parts in (one, two))
    workers = cores((one, two))

    def found() -> Iterator[Float[Array, "n1_r1 n2_r2"]]:
        for side1, side2 in zip(zip(*one, strict=True), zip(*two, strict=True), strict=True):
            c = side1[0].signals.shape[-1]
            size = min(units, c)
            firsts = np.arange(0, c, size)
            share = -(-len(firsts) // workers)
            firsts = np.pad(firsts, (0, share * workers - len(firsts)), constant_values=c)
            even = len(firsts) * size == c
            rows = partial(_rows, side1, side2, size=size, even=even, mirror=mirror)
            if workers == 1:
                yield rows(firsts)
            else:
                (device,) = side1[0].signals.devices()
                yield from in_threads(rows, firsts.reshape(workers, share), device)

    total = reduce(jnp.add, found())
    total = symmetric(total) if mirror else total
    return total.reshape(total.shape[0] // r1, r1, -1, r2)


@partial(jax.jit, static_argnames=("size", "even", "mirror"))
def _rows(
    one: Layers,
    two: Layers,
    firsts: Int[ArrayLike, " chunks"],
    size: int,
    even: bool,
    mirror: bool,
) -> Float[Array, "n1_r1 n2_r2"]:
    """Inner products of one layer's gradients in rows from each of ``firsts`` on, ``size`` of them.

    Unless the chunks are ``even``, the last rows reach back, without those that were counted
    before. If ``mirror``, only the upper half of the result is complete.
    """
    c = one[0].signals.shape[-1]

    def form(factors: Factors, first: Array) -> Float[Array, "n_r size_k"]:
        start = jnp.minimum(first, c - size)
        signals = jax.lax.dynamic_slice_in_dim(factors.signals, start, size, axis=3)
        if not even:
            signals = jnp.where(start + jnp.arange(size) >= first, signals, 0)
        n, t, r, _ = signals.shape
        signals = signals.reshape(n, t, r * size)  # side by side, as a matrix's axis
        gradient = jnp.einsum("itc,itk->ick", signals, factors.reads, precision=PRECISION)
        return gradient.reshape(n * r, -1)

    def step(total: Array, first: Array) -> tuple[Array, None]:
        rows1 = jnp.concatenate([form(part, first) for part in one])
        rows2 = rows1 if mirror else jnp.concatenate([form(part, first) for part in two])
        if mirror and len(rows1) >= HALVED:
            half = len(rows1) // 2
            upper = jnp.matmul(rows1[:half], rows2.T, precision=PRECISION)
            lower = jnp.matmul(rows1[half:], rows2[half:].T, precision=PRECISION)
            return total.at[:half].add(upper).at[half:, half:].add(lower), None
        return total + jnp.matmul(rows1, rows2.T, precision=PRECISION), None

    rows, columns = (
        sum(len(part.signals) * part.signals.shape[2] for part in parts) for parts in (one, two)
    )
    start = jnp.zeros((rows, columns), one[0].signals.dtype)
    return jax.lax.scan(step, start, jnp.asarray(firsts))[0]
