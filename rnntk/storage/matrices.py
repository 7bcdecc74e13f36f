"""A kernel matrix on disk that reads like an array, a few tiles at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from rnntk.linalg import tiles as tiled
from rnntk.linalg.tiles import MatrixTile
from rnntk.storage.layout import Index, Layout
from rnntk.tiling.memory import free_memory
from rnntk.tiling.threads import in_threads

Axis = slice | Int[np.ndarray, " _"]


@dataclass(frozen=True, eq=False)
class StoredMatrix:
    """One of the kernels of a store, from :func:`rnntk.open_kernel`.

    ``K[i, j]`` takes whole numbers, slices, and for one axis an array of indices or a mask, and
    gives NumPy arrays. ``K @ v`` reads every tile once, whatever the number of columns, and gives
    float64: products within a tile are in the kernel's dtype, sums over tiles in float64.
    ``np.asarray(K)`` gives all of it, where half of the free memory holds that. Other readers of
    Zarr read it as well: ``dask.array.from_zarr(K.path, component=K.kind)``.

    Every tile has a checksum, verified whenever it is read.

    Attributes:
        layout: the store.
        kind: ``"ntk"`` or ``"nngp"``.

    Example:
        >>> import tempfile, numpy as np, rnntk
        >>> x = np.random.default_rng(0).standard_normal((5, 4, 3)).astype("float32")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     K = rnntk.infinite_kernel(rnntk.ElmanRNN(), x, out=f"{folder}/k.zarr", tile=2).ntk
        ...     K.shape, K[1:3, 0].shape, (K @ np.ones(5)).shape, len(list(K.tiles()))
        ((5, 5), (2,), (5,), 6)
    """

    layout: Layout
    kind: str

    def __repr__(self) -> str:
        return f"<StoredMatrix {self.kind} of {self.path}, {self.shape} {self.dtype}>"

    @property
    def path(self) -> str:
        """Folder or URL of the store."""
        return str(self.layout.place)

    @property
    def shape(self) -> tuple[int, int]:
        """Sequences of the two batches."""
        return self.layout.shape

    @property
    def ndim(self) -> int:
        """Two."""
        return 2

    @property
    def size(self) -> int:
        """Number of entries."""
        return self.shape[0] * self.shape[1]

    @property
    def dtype(self) -> np.dtype:
        """Of the entries."""
        return self.layout.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of all entries."""
        return self.size * self.dtype.itemsize

    @property
    def symmetric(self) -> bool:
        """Whether it is the kernel of one batch with itself."""
        return self.layout.mirror

    @property
    def fits(self) -> bool:
        """Whether half of the free memory holds it."""
        return self.nbytes <= free_memory() // 2

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError(f"A copy of {self!r} cannot be avoided: it is on disk.")
        if not self.fits:
            raise MemoryError(
                f"{self!r} has {self.nbytes / 1e9:.3g} GB, more than half of the free memory: take "
                "slices, products (@) or tiles(), as rnntk.predict.solve, spectrum.min_eigenvalue "
                "and spectrum.largest_eigenvalues do."
            )
        found = self[:, :]
        return found if dtype is None else found.astype(dtype, copy=False)

    def __getitem__(self, index: Any) -> Any:
        given = index if isinstance(index, tuple) else (index,)
        dots = [at for at, part in enumerate(given) if part is Ellipsis]
        if len(dots) == 1:
            left = slice(None), slice(None)
            given = (*given[: dots[0]], *left[: 3 - len(given)], *given[dots[0] + 1 :])
        if len(given) > 2 or len(dots) > 1 or any(part is None for part in given):
            raise IndexError(f"{self!r} takes one or two indices, got {index!r}.")
        parts = (*given, slice(None), slice(None))[:2]
        axes = [_axis(part, n) for part, n in zip(parts, self.shape, strict=True)]
        if len(given) == 2 and all(np.ndim(part) for part in given):
            raise IndexError(f"{self!r} takes an array of indices for one axis only, got two.")
        block = self._gathered(axes[0], axes[1])
        single = (not isinstance(part, slice) and np.ndim(part) == 0 for part in given)
        return block[tuple(0 if one else slice(None) for one in single)]

    def _gathered(self, rows: Axis, columns: Axis) -> np.ndarray:
        """Rows and columns, from the tiles that hold any of them."""
        tile = self.layout.tile
        at = [
            np.arange(*a.indices(n)) if isinstance(a, slice) else a
            for a, n in zip((rows, columns), self.shape, strict=True)
        ]
        found = np.empty((len(at[0]), len(at[1])), self.dtype)
        number = [a // size for a, size in zip(at, tile, strict=True)]
        inner = [a % size for a, size in zip(at, tile, strict=True)]
        wanted = [(int(i), int(j)) for i in np.unique(number[0]) for j in np.unique(number[1])]
        for index, block in zip(wanted, self._blocks(wanted), strict=True):
            r, c = (np.flatnonzero(a == k) for a, k in zip(number, index, strict=True))
            found[np.ix_(r, c)] = block[np.ix_(inner[0][r], inner[1][c])]
        return found

    def __matmul__(self, v: Float[np.ndarray, "n2 *k"]) -> Float[np.ndarray, "n1 *k"]:
        values = np.asarray(v)
        if values.ndim not in (1, 2) or len(values) != self.shape[1]:
            raise ValueError(
                f"{self!r} must be multiplied by {self.shape[1]} rows, got shape {values.shape}."
            )
        if not np.can_cast(values.dtype, np.float64, "same_kind"):
            raise TypeError(f"{self!r} must be multiplied by real numbers, got {values.dtype}.")
        wide = values.astype(np.float64, copy=False).reshape(len(values), -1)
        if self.symmetric:
            product = tiled.multiply(self.tiles(), wide)
        else:
            product = np.zeros((self.shape[0], wide.shape[1]))
            wide, exponents = tiled.scaled(wide)
            for rows, columns, block in self.tiles():
                product[rows] += block @ wide[columns].astype(block.dtype)
            product = np.ldexp(product, exponents)
        return product.reshape(self.shape[0], *values.shape[1:])

    def tiles(self) -> Iterator[MatrixTile]:
        """Rows, columns and entries of each tile; of a symmetric kernel those from the diagonal up.

        The next tiles are read while one is used.

        Raises:
            ValueError: if tiles are missing or damaged.

        Example:
            >>> for rows, columns, block in kernel.ntk.tiles():  # doctest: +SKIP
            ...     total += block.sum()
        """
        wanted = self.layout.tiles()
        for (i, j), block in zip(wanted, self._blocks(wanted), strict=True):
            yield self._cut(i, 0), self._cut(j, 1), block

    def diagonal(self) -> Float[np.ndarray, " n"]:
        """The diagonal of a symmetric kernel, from the tiles that it crosses.

        Raises:
            ValueError: for a kernel of two batches.

        Example:
            >>> kernel.ntk.diagonal()  # doctest: +SKIP
        """
        if not self.symmetric:
            raise ValueError(f"{self!r} is a kernel of two batches, which has no diagonal.")
        crossed = [(i, i) for i in range(self.layout.counts[0])]
        return np.concatenate([np.diagonal(block) for block in self._blocks(crossed)])

    def missing(self) -> list[Index]:
        """Indices of the tiles that are still to be computed.

        Example:
            >>> kernel.ntk.missing()  # doctest: +SKIP
        """
        return self.layout.missing()

    def verify(self) -> list[Index]:
        """Indices of the chunks that are damaged, by their checksums; missing ones do not count.

        To have them computed anew: :meth:`rnntk.storage.StoredKernel.verify`.

        Example:
            >>> kernel.ntk.verify()  # doctest: +SKIP
        """
        there = sorted(self.layout.listed(self.kind))
        sound = in_threads(self._sound, there, jax.devices()[0])
        return [index for index, good in zip(there, sound, strict=True) if not good]

    def _sound(self, index: Index) -> bool:
        try:
            self.layout.read(self.kind, index)
        except ValueError:
            return False
        return True

    def _blocks(self, wanted: list[Index]) -> Iterator[np.ndarray]:
        def read(index: Index) -> np.ndarray:
            return self.layout.read(self.kind, index)

        return in_threads(read, wanted, jax.devices()[0])

    def _cut(self, index: int, axis: int) -> slice:
        start = index * self.layout.tile[axis]
        return slice(start, min(start + self.layout.tile[axis], self.shape[axis]))


def _axis(part: Any, n: int) -> Axis:
    """An index of one axis, a whole number as a slice of one."""
    if isinstance(part, slice):
        return part
    found = np.asarray(part)
    if found.dtype == bool and found.shape == (n,):
        return np.flatnonzero(found)
    if found.size == 0 and found.dtype != bool:
        found = found.astype(int)
    if found.ndim > 1 or not np.issubdtype(found.dtype, np.integer):
        given = f"{found.dtype} of shape {found.shape}"
        raise IndexError(
            f"indices must be whole numbers, slices, vectors of them or masks of {n}, got {given}."
        )
    found = np.atleast_1d(found)
    if ((found < -n) | (found >= n)).any():
        raise IndexError(f"indices must lie in -{n}..{n - 1}, got {part!r}.")
    return np.where(found < 0, found + n, found)
