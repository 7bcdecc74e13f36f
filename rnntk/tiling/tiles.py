"""Large kernels tile by tile: one plan of tiles, one loop, one place where finished tiles go."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Int
from tqdm import tqdm

from rnntk.kernel import Kernel
from rnntk.tiling.threads import is_one_of_many


class Cut(NamedTuple):
    """Sequences of one batch, from ``start`` on."""

    start: int
    size: int


class Tile(NamedTuple):
    """A part of a kernel; ``diagonal`` if its rows and columns are the same sequences."""

    rows: Cut
    columns: Cut
    diagonal: bool


@dataclass(frozen=True)
class Grid:
    """All tiles of a kernel.

    Attributes:
        rows: how the first batch is cut.
        columns: how the second batch is cut.
        mirror: both batches are one, and tiles below the diagonal are transposes of others.
    """

    rows: tuple[Cut, ...]
    columns: tuple[Cut, ...]
    mirror: bool

    def __iter__(self) -> Iterator[Tile]:
        """Row by row, without what the mirror gives."""
        for row in self.rows:
            for column in self.columns:
                if not self.mirror or row <= column:
                    yield Tile(row, column, self.mirror and row == column)

    def __len__(self) -> int:
        """Number of tiles to compute."""
        rows, columns = len(self.rows), len(self.columns)
        return rows * (rows + 1) // 2 if self.mirror else rows * columns


class InMemory:
    """A kernel in arrays of the device, whose tiles are written in place.

    Args:
        mirror: whether tiles off the diagonal are written a second time, transposed.
        n1: sequences of the first batch, whose axis is 0.
        n2: sequences of the second batch, whose axis is the first of the second half.
    """

    def __init__(self, mirror: bool, n1: int, n2: int) -> None:
        self.kernel: Kernel | None = None
        self._mirror, self._sizes = mirror, (n1, n2)

    def put(self, tile: Tile, part: Kernel) -> None:
        """Keep a tile, and the mirror image of one off the diagonal."""
        if self.kernel is None:
            self.kernel = jax.tree.map(self._empty, part)
        mirrored = self._mirror and not tile.diagonal
        self.kernel = _write(self.kernel, part, tile.rows.start, tile.columns.start, mirrored)

    def _empty(self, part: Array) -> Array:
        inner, (n1, n2) = part.shape[1 : part.ndim // 2], self._sizes
        rest = part.shape[part.ndim // 2 + 1 :]
        return jnp.zeros((n1, *inner, n2, *rest), part.dtype)


def even_size(n: int, largest: int, multiple: int) -> int:
    """The size of cuts that are about equal, a multiple of a number if there are several."""
    size = -(-n // -(-n // largest))
    return min(-(-size // multiple) * multiple, largest) if n > largest else size


def even_cuts(n: int, largest: int, multiple: int) -> tuple[Cut, ...]:
    """Cuts of that size."""
    return cuts(n, even_size(n, largest, multiple))


def cuts(n: int, size: int) -> tuple[Cut, ...]:
    """Cuts of at most two sizes, so that few shapes are compiled; the last may be smaller."""
    return tuple(Cut(start, min(size, n - start)) for start in range(0, n, size))


def equal_cuts(n: int, size: int) -> tuple[Cut, ...]:
    """Cuts of one size, so that one shape is compiled; the last may reach back."""
    size = min(n, size)
    return tuple(Cut(min(start, n - size), size) for start in range(0, n, size))


def assemble(
    compute: Callable[[Tile], Kernel],
    grid: Grid,
    put: Callable[[Tile, Kernel], None],
    run: Callable[[Callable[[Tile], Kernel], Iterable[Tile]], Iterable[Kernel]],
    title: str,
) -> None:
    """Compute all tiles and put them where they go, showing the progress of long work.

    Of many kernels side by side none shows its own.

    Args:
        compute: gives one tile of the kernel.
        grid: the tiles.
        put: takes each finished tile, in memory :meth:`InMemory.put`.
        run: maps ``compute`` over tiles, in their order: ``map``, or in threads.
        title: of the progress bar.
    """
    tiles = list(grid)
    parts = zip(tiles, run(compute, tiles), strict=True)
    quiet = is_one_of_many()
    for tile, part in tqdm(parts, title, len(tiles), unit="tile", delay=5, disable=quiet):
        put(tile, part)


@partial(jax.jit, static_argnames="mirrored", donate_argnames="kernel")
def _write(
    kernel: Kernel, part: Kernel, i: Int[ArrayLike, ""], j: Int[ArrayLike, ""], mirrored: bool
) -> Kernel:
    """A tile, and its mirror image, into the kernel in place."""

    def put(full: Array, new: Array, i: Any, j: Any) -> Array:
        inner = (0,) * (full.ndim // 2 - 1)
        return jax.lax.dynamic_update_slice(full, new, (i, *inner, j, *inner))

    def both(full: Array, new: Array) -> Array:
        half = new.ndim // 2
        if mirrored:
            turned = new.transpose(*range(half, 2 * half), *range(half))
            full = put(full, turned, j, i)
        return put(full, new, i, j)

    return jax.tree.map(both, kernel, part)


@partial(jax.jit, static_argnames=("size", "axis"))
def cut(batch: Any, start: Int[ArrayLike, ""], size: int, axis: int) -> Any:
    """Sequences of a batch, a pytree whose leaves have them in one axis."""
    return jax.tree.map(
        lambda v: jax.lax.dynamic_slice_in_dim(v, start, size, axis=axis % v.ndim), batch
    )
