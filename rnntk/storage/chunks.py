"""Chunks of Zarr arrays as files: numbers in C order, little-endian, followed by their CRC-32C.

What a chunk at the edge lacks is filled up. Zarr itself takes a millisecond or more for each.
"""

import math
from pathlib import Path

import numpy as np

from rnntk.files import save_large

_CHECKSUM = 4  # bytes


def write_chunk(path: Path, block: np.ndarray, shape: tuple[int, ...]) -> None:
    """One chunk, which appears as a whole; it is NaN beyond the block."""
    dtype = block.dtype.newbyteorder("<")
    size = math.prod(shape) * dtype.itemsize

    def fill(content: np.ndarray) -> None:
        numbers = content[:size].view(dtype).reshape(shape)
        if block.shape != shape:
            numbers[...] = np.nan
        numbers[tuple(map(slice, block.shape))] = block
        content[size:] = _checksum(content[:size])

    save_large(path, size + _CHECKSUM, fill)


def read_chunk(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """One chunk, its checksum verified.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged.
    """
    content = np.fromfile(path, np.uint8)
    size = math.prod(shape) * dtype.itemsize
    if len(content) != size + _CHECKSUM:
        raise ValueError(f"it has {len(content)} bytes of {size + _CHECKSUM}")
    if (content[size:] != _checksum(content[:size])).any():
        raise ValueError("its checksum is another")
    return content[:size].view(dtype.newbyteorder("<")).reshape(shape).astype(dtype, copy=False)


def _checksum(content: np.ndarray) -> np.ndarray:
    import google_crc32c  # comes with zarr, which is optional

    return np.array([google_crc32c.value(content)], "<u4").view(np.uint8)
