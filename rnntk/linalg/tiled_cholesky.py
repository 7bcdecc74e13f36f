"""Cholesky factors of matrices larger than memory: tiles on disk, each written once.

Tile by tile from the left: with all columns before j known,

    L_jj L_jj^T = A_jj - sum_k L_jk L_jk^T,    L_ij L_jj^T = A_ij - sum_k L_ik L_jk^T.

No tile is ever changed. So one that is there is right, a factorization that was stopped goes on,
and the tiles of a column can be computed in any order by anybody. It is one of the orders of
summation that theorem 1 of docs/theory/spectrum.md allows.
"""

import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import scipy.linalg
from jaxtyping import Float

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


class NotPositiveError(ArithmeticError):
    """A pivot is not positive: the factorization does not run to completion."""


@dataclass(frozen=True)
class TiledFactor:
    """The lower Cholesky factor of a matrix with another diagonal, in files.

    Attributes:
        folder: of the files, of this factor alone.
        source: the matrix.
        shift: subtracted from its diagonal.
    """

    folder: Path
    source: Source
    shift: float

    @property
    def _count(self) -> int:
        return len(self.source.starts) - 1

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
        self.folder.mkdir(parents=True, exist_ok=True)
        for j in range(self._count):
            for column in ([(j, j)], [(i, j) for i in range(j + 1, self._count)]):
                for _ in run(self._write, column):
                    done()

    def _write(self, index: Index) -> None:
        i, j = index
        file = self._file(index)
        if file.exists():
            return
        tile = self.source.lower(index)
        if i == j:
            np.fill_diagonal(tile, np.diagonal(tile) - self.shift)
        for k in range(j):
            left = self._tile((i, k))
            tile -= left @ (left if i == j else self._tile((j, k))).T
        if i == j:
            # LAPACK works on columns in place: the transpose has the lower triangle it needs
            factor, info = scipy.linalg.lapack.dpotrf(tile.T, lower=1, clean=1)
            if info or not np.isfinite(np.diagonal(factor)).all():
                raise NotPositiveError(f"The pivot in tile {j} is not positive.")
        else:
            triangle = self._tile((j, j))
            factor = scipy.linalg.solve_triangular(
                triangle, tile.T, lower=True, check_finite=False
            ).T
        part = file.with_suffix(f".{uuid.uuid4().hex}.part")
        with part.open("wb") as stream:
            np.save(stream, np.ascontiguousarray(factor))
        os.replace(part, file)

    def solve(self, right: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
        """The inverse of the factored matrix times columns, reading the factor twice."""
        x, ends = right.astype(np.float64), self.source.starts
        cuts = [slice(a, b) for a, b in pairwise(ends)]
        solve = partial(scipy.linalg.solve_triangular, lower=True, check_finite=False)
        for j, rows in enumerate(cuts):
            for k in range(j):
                x[rows] -= self._tile((j, k)) @ x[cuts[k]]
            x[rows] = solve(self._tile((j, j)), x[rows])
        for j in reversed(range(self._count)):
            x[cuts[j]] = solve(self._tile((j, j)), x[cuts[j]], trans="T")
            for k in range(j):
                x[cuts[k]] -= self._tile((j, k)).T @ x[cuts[j]]
        return x

    def indices(self) -> Iterator[Index]:
        """All tiles of the factor."""
        return ((i, j) for j in range(self._count) for i in range(j, self._count))

    def _tile(self, index: Index) -> Float[np.ndarray, "rows columns"]:
        tile: np.ndarray = np.load(self._file(index), allow_pickle=False)
        return tile

    def _file(self, index: Index) -> Path:
        return self.folder / f"{index[0]}-{index[1]}.npy"
