"""The two kernels of a store together."""

import os
from typing import Any, cast

from rnntk.kernel import Kernel
from rnntk.storage.layout import Index, Layout, open_layout
from rnntk.storage.matrices import StoredMatrix
from rnntk.storage.places import place_of


class StoredKernel(Kernel):
    """A :class:`rnntk.Kernel` on disk: its matrices are :class:`rnntk.storage.StoredMatrix`.

    Attributes:
        ntk: the tangent kernel, None if it was not stored.
        nngp: the conjugate kernel, likewise.
    """

    __slots__ = ()

    @classmethod
    def of(cls, layout: Layout) -> "StoredKernel":
        """The kernels of a store."""
        # read like arrays, though they are none
        return cls(*(cast(Any, _matrix(layout, kind)) for kind in cls._fields))

    @property
    def matrices(self) -> tuple[StoredMatrix, ...]:
        """Those that are stored.

        Example:
            >>> rnntk.open_kernel("kernel.zarr").matrices[0].dtype  # doctest: +SKIP
        """
        return tuple(cast(StoredMatrix, one) for one in self if one is not None)

    @property
    def layout(self) -> Layout:
        """How it lies on disk.

        Example:
            >>> rnntk.open_kernel("kernel.zarr").layout.tile  # doctest: +SKIP
        """
        return self.matrices[0].layout

    @property
    def path(self) -> str:
        """Folder or URL of the store.

        Example:
            >>> rnntk.open_kernel("kernel.zarr").path  # doctest: +SKIP
        """
        return str(self.layout.place)

    @property
    def identity(self) -> dict[str, Any]:
        """What it is the kernel of: network, checksums of the tokens, versions.

        Example:
            >>> rnntk.open_kernel("kernel.zarr").identity["activation"]  # doctest: +SKIP
        """
        return dict(self.layout.identity)

    @property
    def tile_count(self) -> int:
        """Number of tiles that are computed: of a symmetric kernel those from the diagonal up.

        Example:
            >>> rnntk.open_kernel("kernel.zarr").tile_count  # doctest: +SKIP
        """
        return len(self.layout.tiles())

    def missing(self) -> list[Index]:
        """Indices of the tiles that are still to be computed.

        Example:
            >>> rnntk.open_kernel("kernel.zarr").missing()  # doctest: +SKIP
        """
        return self.layout.missing()

    def verify(self, *, discard: bool = False) -> list[Index]:
        """Indices of the tiles that are damaged, by the checksums of all that is stored.

        Args:
            discard: remove them, so that the call which began the store computes them anew.

        Example:
            >>> kernel = rnntk.open_kernel("kernel.zarr")  # doctest: +SKIP
            >>> if kernel.verify(discard=True):  # doctest: +SKIP
            ...     rnntk.infinite_kernel(rnn, x, out="kernel.zarr")
        """
        layout, damaged = self.layout, set()
        for matrix in self.matrices:
            for i, j in matrix.verify():
                damaged.add((min(i, j), max(i, j)) if layout.mirror else (i, j))
        if discard:
            for index in damaged:
                for kind in layout.kinds:
                    for image in layout.images(index):
                        layout.place.remove(layout.chunk(kind, image))
        return sorted(damaged)


def _matrix(layout: Layout, kind: str) -> StoredMatrix | None:
    return StoredMatrix(layout, kind) if kind in layout.kinds else None


def open_kernel(path: str | os.PathLike[str]) -> StoredKernel:
    """A kernel that :func:`rnntk.infinite_kernel` or :func:`rnntk.empirical_kernel` has stored.

    Nothing but its description is read. Tiles that are still missing raise where they are needed.

    Args:
        path: folder or URL of the store, the ``out`` of the call that made it.

    Raises:
        FileNotFoundError: if there is nothing.
        ValueError: if there is something else.
        TypeError: for what is no path.
        ImportError: if the package zarr is missing, or what reaches the URL.

    Example:
        >>> kernel = rnntk.open_kernel("kernel.zarr")  # doctest: +SKIP
        >>> kernel.ntk[:10, :10]  # doctest: +SKIP
    """
    return StoredKernel.of(open_layout(place_of(path, "path")))
