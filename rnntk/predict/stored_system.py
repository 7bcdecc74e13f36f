"""A kernel on disk as an operator that reads its tiles."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from rnntk.linalg.tiles import MatrixTile
from rnntk.storage import StoredMatrix


@dataclass(frozen=True, eq=False)
class StoredSystem:
    """A stored kernel as what :func:`rnntk.predict.iterative.solve` multiplies by."""

    matrix: StoredMatrix

    def __len__(self) -> int:
        return len(self.matrix)

    @property
    def problem(self) -> Mapping[str, Any]:
        """What it is the kernel of."""
        return {**self.matrix.layout.identity, "kernel": self.matrix.kind}

    @cached_property
    def diagonal(self) -> Float[np.ndarray, " n"]:
        """In float64."""
        return self.matrix.diagonal().astype(np.float64)

    @property
    def dtype(self) -> np.dtype:
        """Of its tiles."""
        return self.matrix.dtype

    @property
    def tile_count(self) -> int:
        """How many tiles :meth:`tiles` yields."""
        return len(self.matrix.layout.tiles())

    def tiles(self) -> Iterator[MatrixTile]:
        """The tiles on and above the diagonal."""
        return self.matrix.tiles()

    def columns(self, index: Int[np.ndarray, " k"]) -> Float[np.ndarray, "n k"]:
        """Columns, in float64: rows, as the matrix is symmetric."""
        return self.matrix[index].T.astype(np.float64)
