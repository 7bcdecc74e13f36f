"""Cholesky factors of matrices larger than memory: tiles kept elsewhere, each written once.

Tile by tile from the left: with all columns before j known,

    L_jj L_jj^T = A_jj - sum_k L_jk L_jk^T,    L_ij L_jj^T = A_ij - sum_k L_ik L_jk^T.

No tile is ever changed. So one that is there is right, a factorization that was stopped goes on,
and the tiles of a column can be computed in any order by anybody. It is one of the orders of
summation that theorem 1 of docs/theory/spectrum.md allows.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from scipy.linalg import blas, lapack

Index = tuple[int, int]
Run = Callable[[Callable[[Index], Any], Iterable[Index]], Iterable[Any]]


@runtime_checkable
class Source(Protocol):
    """A symmetric matrix by its tiles."""

    @property
    def starts(self) -> tuple[int, ...]:
        """Where the tiles begin, and the number of rows at the end."""

    def lower(self, index: Index) -> Float[np.ndarray, "rows columns"]:
        """A tile on or below the diagonal, in float64, which the caller may change."""


@runtime_checkable
class Store(Protocol):
    """Where the tiles of one factor are kept, each as a whole. It pickles, if calls do."""

    def has(self, index: Index) -> bool:
        """Whether a tile is there."""

    def read(self, index: Index, shape: tuple[int, int]) -> Float[np.ndarray, "rows columns"]:
        """A tile, as it was written."""

    def write(self, index: Index, tile: Float[np.ndarray, "rows columns"]) -> None:
        """Keep a tile."""


class NotPositiveError(ArithmeticError):
    """A pivot is not positive: the factorization does not run to completion."""


@dataclass(frozen=True)
class TiledFactor:
    """The lower Cholesky factor of a matrix with another diagonal.

    Attributes:
        store: of its tiles.
        source: the matrix.
        shift: subtracted from its diagonal.
    """

    store: Store
    source: Source
    shift: float

    @cached_property
    def _cuts(self) -> tuple[slice, ...]:
        return tuple(slice(*ends) for ends in pairwise(self.source.starts))

    @property
    def _count(self) -> int:
        return len(self._cuts)

    def diagonal(self, number: int) -> Float[np.ndarray, " rows"]:
        """The shifted diagonal in one tile, as it is factored."""
        return np.diagonal(self.source.lower((number, number))) - self.shift

    def compute(self, run: Run, done: Callable[[], Any] = lambda: None) -> None:
        """Compute the tiles that are missing.

        Args:
            run: maps a picklable call over tiles, in any order.
            done: called after each tile.

        Raises:
            NotPositiveError: if a pivot is not positive, or not finite.
        """
        for j in range(self._count):
            for column in ([(j, j)], [(i, j) for i in range(j + 1, self._count)]):
                for _ in run(self._write, column):
                    done()

    def _write(self, index: Index) -> None:
        i, j = index
        if self.store.has(index):
            return
        # BLAS and LAPACK work on columns in place, so on the transpose of a tile
        tile = self.source.lower(index).T
        if i == j:
            np.fill_diagonal(tile, np.diagonal(tile) - self.shift)
        for k in range(j):
            left = self._tile((i, k)).T
            if i == j:
                tile = blas.dsyrk(-1.0, left, 1.0, tile, trans=1, lower=1, overwrite_c=1)
            else:
                above = self._tile((j, k)).T
                tile = blas.dgemm(-1.0, above, left, 1.0, tile, trans_a=1, overwrite_c=1)
        if i == j:
            tile, info = lapack.dpotrf(tile, lower=1, clean=1, overwrite_a=1)
            if info or not np.isfinite(np.diagonal(tile)).all():
                raise NotPositiveError(f"The pivot in tile {j} is not positive.")
        else:
            tile = _divided(self._tile((j, j)), tile)
        self.store.write(index, tile if i == j else tile.T)

    def solve(self, right: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
        """The inverse of the factored matrix times columns, reading the factor twice."""
        x = right.astype(np.float64)
        for j, rows in enumerate(self._cuts):
            for k in range(j):
                x[rows] -= self._tile((j, k)) @ x[self._cuts[k]]
            x[rows] = _divided(self._tile((j, j)), x[rows])
        for j, rows in reversed(list(enumerate(self._cuts))):
            x[rows] = _divided(self._tile((j, j)), x[rows], transposed=True)
            for k in range(j):
                x[self._cuts[k]] -= self._tile((j, k)).T @ x[rows]
        return x

    def indices(self) -> Iterator[Index]:
        """All tiles of the factor."""
        return ((i, j) for j in range(self._count) for i in range(j, self._count))

    def _tile(self, index: Index) -> Float[np.ndarray, "rows columns"]:
        shape = tuple(cut.stop - cut.start for cut in (self._cuts[k] for k in index))
        return self.store.read(index, (shape[0], shape[1]))


def _divided(
    lower: Float[np.ndarray, "m m"], b: Float[np.ndarray, "m k"], *, transposed: bool = False
) -> Float[np.ndarray, "m k"]:
    """The inverse of a lower triangle, or of its transpose, times columns, which may be lost."""
    # in the order of columns the triangle is an upper one
    return blas.dtrsm(1.0, lower.T, b, trans_a=not transposed, overwrite_b=1)
