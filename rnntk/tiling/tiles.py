"""Large kernels tile by tile, in bounded work space and on all cores."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Int
from tqdm import tqdm

from rnntk.kernel import Kernel
from rnntk.tiling.threads import in_threads

TILE = 208  # sequences on a side of a tile: its few work arrays stay in a core's cache
WIDE_TILE = 2048  # on accelerators, where a step of one tile has to keep every core busy
LANES = 16  # of a vector register; what is left of a row is done one by one


def assemble(
    block: Callable[..., Kernel],
    one: Any,
    two: Any,
    shape: tuple[int, ...],
    dtype: jnp.dtype,
    mirror: bool,
) -> Kernel:
    """The kernel of two batches, from the kernels of their parts.

    A tile is one XLA program of elementwise passes, which one core runs; the tiles keep all busy.

    Args:
        block: ``block(part of one, part of two, mirror=...)`` gives one tile of the kernel;
            ``mirror`` says that both parts are the same.
        one: first batch, a pytree whose leaves have the sequences in the last axis.
        two: second batch, likewise.
        shape: shape of the whole kernel, sequences in axis 0 and in the first axis of its second
            half.
        dtype: of the kernel.
        mirror: both batches are the same; the tiles below the diagonal are transposes.
    """
    half = len(shape) // 2
    device = next(iter(jax.tree.leaves(one)[0].devices()))
    tile = TILE if device.platform == "cpu" else WIDE_TILE
    rows, columns = _cuts(shape[0], tile), _cuts(shape[half], tile)
    if len(rows) == len(columns) == 1:
        return block(one, two, mirror=mirror)
    tiles = [(r, c) for r in rows for c in columns if not mirror or r <= c]

    def compute(tile: tuple[tuple[int, int], tuple[int, int]]) -> Kernel:
        (i, height), (j, width) = tile
        return block(_cut(one, i, height), _cut(two, j, width), mirror=mirror and i == j)

    parts = zip(tiles, in_threads(compute, tiles, device), strict=True)
    kernel = Kernel(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))
    for ((i, _), (j, _)), part in tqdm(
        parts, desc="infinite kernel", total=len(tiles), unit="tile", delay=5
    ):
        kernel = _store(kernel, part, i, j)
        if mirror and i != j:
            kernel = _store(kernel, jax.tree.map(partial(_transpose, half=half), part), j, i)
    return kernel


def _cuts(n: int, tile: int) -> list[tuple[int, int]]:
    """Starts and sizes of tiles of at most two sizes, so that few shapes are compiled."""
    size = -(-n // -(-n // tile))
    if n > tile:
        size = min(-(-size // LANES) * LANES, tile)
    return [(start, min(size, n - start)) for start in range(0, n, size)]


@partial(jax.jit, static_argnames="size")
def _cut(batch: Any, start: Int[ArrayLike, ""], size: int) -> Any:
    return jax.tree.map(
        lambda v: jax.lax.dynamic_slice_in_dim(v, start, size, axis=v.ndim - 1), batch
    )


def _transpose(tile: Array, half: int) -> Array:
    return tile.transpose(*range(half, 2 * half), *range(half))


@partial(jax.jit, donate_argnums=0)
def _store(kernel: Kernel, tile: Kernel, i: Int[ArrayLike, ""], j: Int[ArrayLike, ""]) -> Kernel:
    """Write a tile into the kernel in place."""

    def put(full: Array, part: Array) -> Array:
        inner = (0,) * (full.ndim // 2 - 1)
        return jax.lax.dynamic_update_slice(full, part, (i, *inner, j, *inner))

    return jax.tree.map(put, kernel, tile)
