"""Chunks of Zarr arrays as files: numbers in C order, little-endian, followed by their CRC-32C.

What a chunk at the edge lacks is filled up. Zarr itself takes a millisecond or more for each.
"""

import math

import numpy as np

from rnntk.storage.places import Place

_CHECKSUM = 4  # bytes


def write_chunk(place: Place, name: str, block: np.ndarray, shape: tuple[int, ...]) -> None:
    """One chunk, which appears as a whole; it is NaN beyond the block."""
    dtype = block.dtype.newbyteorder("<")
    size = math.prod(shape) * dtype.itemsize

    def fill(content: np.ndarray) -> None:
        numbers = content[:size].view(dtype).reshape(shape)
        if block.shape != shape:
            numbers[...] = np.nan
        numbers[tuple(map(slice, block.shape))] = block
        content[size:] = checksum(content[:size])

    place.write(name, size + _CHECKSUM, fill)


def read_chunk(place: Place, name: str, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """One chunk, its checksum verified.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged.
    """
    content = place.read(name)
    size = math.prod(shape) * dtype.itemsize
    if len(content) != size + _CHECKSUM:
        raise ValueError(f"it has {len(content)} bytes of {size + _CHECKSUM}")
    if (content[size:] != checksum(content[:size])).any():
        raise ValueError("its checksum is another")
    return content[:size].view(dtype.newbyteorder("<")).reshape(shape).astype(dtype, copy=False)


def checksum(content: np.ndarray) -> np.ndarray:
    """The CRC-32C of bytes, as bytes."""
    import google_crc32c  # comes with zarr, which is optional

    return np.array([google_crc32c.value(content)], "<u4").view(np.uint8)
