"""How a kernel lies on disk: a Zarr group of format 3, in which every tile is one chunk, a file.

::

    kernel.zarr/zarr.json        attributes: what kernel it is of
    kernel.zarr/ntk/c/0/1        tile (0, 1), uncompressed, followed by its CRC-32C
    kernel.zarr/nngp/c/0/1
    kernel.zarr/one/x, two/x     tokens and what else belongs to each sequence of the two batches
    kernel.zarr/shared/0         parameters of a finite network

A chunk is written beside its place and then renamed, so that one which is there is whole. Chunks
are not gathered in shards: two processes that write into one shard lose data (zarr-python issue
3682). The mirror image of a tile is stored as well, so that any reader of Zarr sees a matrix.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from types import ModuleType
from typing import Any

import numpy as np

from rnntk.storage.chunks import read_chunk, write_chunk
from rnntk.storage.identity import check_same
from rnntk.storage.places import Place

FORMAT = 1
KINDS = ("ntk", "nngp")
_ATTRIBUTES = "rnntk"
_KEYS = {"identity", "mirror", "tile", "kinds", "folders"}
Index = tuple[int, int]


def zarr() -> ModuleType:
    """The package that reads and writes the stores.

    Raises:
        ImportError: if it is missing, saying how to get it.
    """
    try:
        import zarr as package
    except ImportError:
        raise ImportError(
            "Kernels on disk need the package zarr: pip install 'rnntk[scale]'."
        ) from None
    return package


@dataclass(frozen=True, eq=False)
class Layout:
    """A store: its arrays and which tiles it has.

    Attributes:
        place: where it lies.
        attributes: ``format``, ``identity``, ``mirror``, ``tile``, ``kinds``, and the names of the
            arrays in each of the ``folders``.
    """

    place: Place
    attributes: Mapping[str, Any]

    @property
    def identity(self) -> Mapping[str, Any]:
        """What the kernel is of."""
        return self.attributes["identity"]

    @property
    def mirror(self) -> bool:
        """Whether both batches are one, and tiles below the diagonal are images of others."""
        return bool(self.attributes["mirror"])

    @property
    def tile(self) -> tuple[int, int]:
        """Sequences a side of a tile, for both batches."""
        rows, columns = self.attributes["tile"]
        return rows, columns

    @property
    def kinds(self) -> tuple[str, ...]:
        """Which kernels it holds."""
        return tuple(self.attributes["kinds"])

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Sequences of the two batches."""
        rows, columns = self.array(self.kinds[0]).shape
        return rows, columns

    @cached_property
    def dtype(self) -> np.dtype:
        """Of the kernels."""
        return np.dtype(self.array(self.kinds[0]).dtype)

    @property
    def counts(self) -> Index:
        """Tiles along the two axes."""
        return math.ceil(self.shape[0] / self.tile[0]), math.ceil(self.shape[1] / self.tile[1])

    @cached_property
    def _group(self) -> Any:
        return zarr().open_group(self.place.zarr_store(), mode="r")

    def array(self, name: str) -> Any:
        """An array of the store, whose description is read once.

        Raises:
            ValueError: if it is not there, or its description damaged.
        """
        if name not in self._arrays:
            try:
                self._arrays[name] = self._group[name]
            except (KeyError, ValueError) as error:
                raise ValueError(
                    f"{self.place} lacks its array {name}: remove the store."
                ) from error
        return self._arrays[name]

    @cached_property
    def _arrays(self) -> dict[str, Any]:
        return {}

    def names(self, folder: str) -> tuple[str, ...]:
        """Arrays of one of the folders ``one``, ``two`` and ``shared``."""
        return tuple(self.attributes["folders"][folder])

    def chunk(self, kind: str, index: Index) -> str:
        """The name of a chunk."""
        return f"{kind}/c/{index[0]}/{index[1]}"

    def images(self, index: Index) -> tuple[Index, ...]:
        """The chunks that a tile fills of each kernel; its own is the last."""
        i, j = index
        return ((j, i), (i, j)) if self.mirror and i != j else ((i, j),)

    def tiles(self) -> list[Index]:
        """All tiles that are computed, row by row."""
        rows, columns = self.counts
        return [(i, j) for i in range(rows) for j in range(i if self.mirror else 0, columns)]

    def has(self, index: Index) -> bool:
        """Whether every chunk of a tile is there."""
        chunks = (self.chunk(kind, at) for kind in self.kinds for at in self.images(index))
        return all(map(self.place.has, chunks))

    def missing(self) -> list[Index]:
        """The tiles of which a chunk is not there."""
        there = {kind: self.listed(kind) for kind in self.kinds}
        return [
            index
            for index in self.tiles()
            if not all(at in there[kind] for kind in self.kinds for at in self.images(index))
        ]

    def listed(self, kind: str) -> set[Index]:
        """The chunks that are there."""
        found = set()
        for row in range(self.counts[0]):
            names = self.place.names(f"{kind}/c/{row}")
            # what a killed process left half-written has another ending
            found |= {(row, int(name)) for name in names if name.isdigit()}
        return found

    def read(self, kind: str, index: Index) -> np.ndarray:
        """One chunk, its checksum verified.

        Raises:
            ValueError: if it is not there, or damaged.
        """
        try:
            block = read_chunk(self.place, self.chunk(kind, index), self.dtype, self.tile)
        except FileNotFoundError:
            raise ValueError(
                f"{self.place} lacks tile {index} of {kind}; the call that began it goes on "
                "with it."
            ) from None
        except (ValueError, OSError) as error:
            raise ValueError(
                f"{self.place} has a damaged tile {index} of {kind} ({error}): "
                "verify(discard=True) drops such tiles, the call that began it computes them anew."
            ) from error
        ends = (n - i * size for n, i, size in zip(self.shape, index, self.tile, strict=True))
        return block[tuple(map(slice, ends))]

    def part(self, folder: str, number: int) -> dict[str, np.ndarray]:
        """What is kept of the sequences of one tile, of the folder ``one`` or ``two``.

        Raises:
            ValueError: if any of it is damaged.
        """
        found = {}
        for name in self.names(folder):
            array = self.array(f"{folder}/{name}")
            file = "/".join((folder, name, "c", str(number), *"0" * (array.ndim - 1)))
            try:
                chunk = read_chunk(self.place, file, np.dtype(array.dtype), array.chunks)
            except (ValueError, OSError) as error:
                raise ValueError(
                    f"{self.place} has damaged sequences, {file} ({error}): remove the store."
                ) from error
            found[name] = chunk[: array.shape[0] - number * len(chunk)]
        return found

    def write(self, kind: str, index: Index, block: np.ndarray) -> None:
        """One chunk, which appears as a whole."""
        write_chunk(self.place, self.chunk(kind, index), block, self.tile)


def open_layout(place: Place) -> Layout:
    """A store that is there.

    Raises:
        FileNotFoundError: if there is nothing.
        ValueError: if there is something else.
    """
    if not place.exists():
        raise FileNotFoundError(f"There is no kernel at {place}.")
    try:
        attributes = dict(zarr().open_group(place.zarr_store(), mode="r").attrs)[_ATTRIBUTES]
        version, lacking = attributes["format"], _KEYS - attributes.keys()
    # also of a description that is cut short, which is no JSON
    except (FileNotFoundError, NotADirectoryError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{place} is no stored kernel: it lacks rnntk's attributes.") from error
    if version != FORMAT or lacking:
        found = f"{version!r} and {sorted(attributes)}"
        raise ValueError(f"{place} must have the format {FORMAT} and {sorted(_KEYS)}, got {found}.")
    return Layout(place, attributes)


@lru_cache(maxsize=16)
def opened(place: Place, mark: str) -> Layout:
    """A store that many tasks of a process use; ``mark`` tells apart what came to one place."""
    return open_layout(place)


def create(
    place: Place,
    attributes: Mapping[str, Any],
    dtype: np.dtype,
    shape: tuple[int, int],
    folders: Mapping[str, Mapping[str, np.ndarray]],
) -> Layout:
    """A store without tiles, or the one of the same run that is there.

    Raises:
        ValueError: if the place holds something else.
    """

    def check() -> Layout:
        layout = open_layout(place)
        check_same(place, _flat(layout.attributes), _flat(attributes))
        return layout

    place.begin(
        partial(_make, attributes=attributes, dtype=dtype, shape=shape, folders=folders), check
    )
    return check()


def _flat(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {**attributes["identity"], "tile": attributes["tile"], "kinds": attributes["kinds"]}


def _make(
    store: Any,
    attributes: Mapping[str, Any],
    dtype: np.dtype,
    shape: tuple[int, int],
    folders: Mapping[str, Mapping[str, np.ndarray]],
) -> None:
    package, tile = zarr(), attributes["tile"]
    checksum = package.codecs.Crc32cCodec()
    names = {folder: sorted(arrays) for folder, arrays in folders.items()}
    told = {"format": FORMAT, **attributes, "folders": names}
    group = package.create_group(store, attributes={_ATTRIBUTES: told})
    for kind in attributes["kinds"]:
        group.create_array(
            kind,
            shape=shape,
            chunks=tuple(tile),
            dtype=dtype,
            compressors=checksum,
            fill_value=np.nan,  # of no kernel, so that no tile is left out for being empty
            dimension_names=("sequence1", "sequence2"),
        )
    for folder, arrays in folders.items():
        for name, array in arrays.items():
            # tasks read the sequences of a tile, parameters as a whole
            rows = array.shape[:1] if folder == "shared" else (tile[folder == "two"],)
            group.create_array(
                f"{folder}/{name}",
                data=array,
                chunks=(*rows, *array.shape[1:]),
                compressors=checksum,
                config={"write_empty_chunks": True},  # else zeros would be left out
            )
