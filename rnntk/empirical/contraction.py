"""Inner products of gradients that are given as thin factors, without ever forming a Jacobian.

Two exact ways to contract sum_{s,s'} <delta_s, delta'_s'> <a_s, a'_s'> over two batches:

- :func:`contract_gram`: the two thin Gram matrices, multiplied entrywise and summed over the steps,
  2 n1 n2 t1 t2 (c + k) operations;
- :func:`contract_jacobian`: the gradients sum_s delta_s a_s^T themselves, a few rows of all
  sequences at a time, 2 (n1 t1 + n2 t2) c k operations to form and 2 n1 n2 c k to multiply them.

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
from rnntk.tiling import tuning
from rnntk.tiling.threads import cores, in_threads
from rnntk.tiling.tiles import Cut, Grid, equal_cuts, even_cuts

Layers = tuple[Factors, ...]


@partial(jax.jit, static_argnames=("tile", "mirror"))
def contract_gram(
    parts1: tuple[Layers, ...], parts2: tuple[Layers, ...], tile: int, mirror: bool
) -> Float[Array, "n1 r1 n2 r2"]:
    """The sum over layers, ``tile`` sequences a side at a time, of batches in parts."""
    one, two = join(parts1), join(parts2)  # XLA cuts the tiles from the parts themselves
    n1, n2 = (len(layers[0].signals) for layers in (one, two))
    rows, columns = (even_cuts(n, tile, tuning.ALIGNED) for n in (n1, n2))
    if len(rows) * len(columns) <= tuning.UNROLLED:
        kernel = _unrolled(one, two, Grid(rows, columns, mirror))
    else:
        kernel = _looped(one, two, Grid(equal_cuts(n1, tile), equal_cuts(n2, tile), mirror))
    return symmetric(kernel) if mirror else kernel


def _unrolled(one: Layers, two: Layers, grid: Grid) -> Float[Array, "n1 r1 n2 r2"]:
    """All products one after another; each side is cut out once."""
    sides1 = {cut: _cut(one, *cut) for cut in grid.rows}
    sides2 = sides1 if grid.mirror else {cut: _cut(two, *cut) for cut in grid.columns}
    found = {(t.rows, t.columns): _sum(sides1[t.rows], sides2[t.columns]) for t in grid}
    r1, r2 = (layers[0].signals.shape[2] for layers in (one, two))

    def empty(row: Cut, column: Cut) -> Array:
        return jnp.zeros((row.size, r1, column.size, r2), one[0].signals.dtype)

    return jnp.concatenate(
        [
            jnp.concatenate(
                [found.get((row, column), empty(row, column)) for column in grid.columns], axis=2
            )
            for row in grid.rows
        ]
    )


def _looped(one: Layers, two: Layers, grid: Grid) -> Float[Array, "n1 r1 n2 r2"]:
    """A loop over tiles of one shape; the last ones of a side overlap those before, to keep it."""
    (n1, _, r1, _), (n2, _, r2, _) = (layers[0].signals.shape for layers in (one, two))
    size1, size2 = grid.rows[0].size, grid.columns[0].size

    def step(kernel: Array, corner: Int[Array, " 2"]) -> tuple[Array, None]:
        i, j = corner[0], corner[1]
        found = _sum(_cut(one, i, size1), _cut(two, j, size2))
        return jax.lax.dynamic_update_slice(kernel, found, (i, 0, j, 0)), None

    corners = jnp.asarray([(tile.rows.start, tile.columns.start) for tile in grid])
    empty = jnp.zeros((n1, r1, n2, r2), one[0].signals.dtype)
    return jax.lax.scan(step, empty, corners)[0]


def join(parts: tuple[Any, ...]) -> Any:
    """Arrays of all sequences, from those of some each."""
    return jax.tree.map(lambda *v: jnp.concatenate(v), *parts)


def _cut(layers: Layers, start: Any, size: int) -> Layers:
    return jax.tree.map(lambda v: jax.lax.dynamic_slice_in_dim(v, start, size), layers)


def _sum(one: Layers, two: Layers) -> Float[Array, "n1 r1 n2 r2"]:
    """The contraction of two batches, by Gram matrices, summed over layers."""
    return reduce(jnp.add, map(_product, one, two))


def _product(one: Factors, two: Factors) -> Float[Array, "n1 r1 n2 r2"]:
    signals = jnp.tensordot(one.signals, two.signals, axes=(-1, -1), precision=PRECISION)
    reads = jnp.tensordot(one.reads, two.reads, axes=(-1, -1), precision=PRECISION)
    # On a CPU, a product that is multiplied as it is written takes a fourth longer.
    signals, reads = jax.lax.optimization_barrier((signals, reads))
    return (signals * reads[:, :, None, :, :, None]).sum(axis=(1, 4))


def contract_jacobian(
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
        if mirror and len(rows1) >= tuning.HALVED:
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
