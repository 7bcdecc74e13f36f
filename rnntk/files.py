"""Files that are replaced in one step: whoever reads sees the old one or the new one, whole."""

import errno
import hashlib
import mmap
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import local
from typing import Any, BinaryIO

import numpy as np

_LARGE = 2**20  # bytes from which a file is written past the system's cache
_here = local()


def _replace(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Replace a file by what ``write`` puts into it, its folder made if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Replace an ``.npz`` file."""
    _replace(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]


def save_bytes(path: Path, content: bytes) -> None:
    """Replace a file of any kind."""
    _replace(path, lambda file: file.write(content))


def save_large(path: Path, size: int, fill: Callable[[np.ndarray], Any]) -> None:
    """Replace a file that nobody needs soon; any number of processes may write it at once.

    It goes past the system's cache where the file system allows that: a file of 17 MB took 5 ms of
    the disk and half a millisecond of a core, and through the cache 38 ms of a core
    (benchmarks/scale.py). Files below 1 MiB are faster through it.

    Args:
        path: of the file; its folder is made if there is none.
        size: bytes of the file.
        fill: puts them into an array, which the thread keeps for its next file.
    """
    pages = _pages(size)
    fill(pages[:size])
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        past = getattr(os, "O_DIRECT", 0) if size >= _LARGE else 0
        try:
            _write(part, pages, size, past)
        except OSError as error:
            if not past or error.errno != errno.EINVAL:
                raise
            _write(part, pages, size, 0)  # of a file system that has but its cache
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _pages(size: int) -> np.ndarray:
    """Whole pages of the memory, as writing past the cache needs them, for so many bytes."""
    page = mmap.PAGESIZE
    rounded = -(-size // page) * page
    if len(getattr(_here, "pages", ())) < rounded:
        more = np.empty(rounded + page, np.uint8)
        _here.pages = more[-more.ctypes.data % page :]
    pages: np.ndarray = _here.pages
    return pages[:rounded]


def _write(path: Path, pages: np.ndarray, size: int, flag: int) -> None:
    content = (pages if flag else pages[:size]).data

    def opened(name: str, flags: int) -> int:
        return os.open(name, flags | flag, 0o666)

    with open(path, "wb", buffering=0, opener=opened) as file:
        done = 0
        while done < len(content):
            done += file.write(content[done:])
        file.truncate(size)


def fingerprint(*parts: Any) -> str:
    """A hash of arrays and of whatever else has a telling representation.

    Example:
        >>> import numpy as np
        >>> fingerprint(np.ones(2), 1) == fingerprint(np.ones(2), 2)
        False
    """
    digest = hashlib.sha256()
    for part in parts:
        if hasattr(part, "shape") and hasattr(part, "dtype"):
            array = np.ascontiguousarray(part)
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(array.tobytes())
        else:
            digest.update(repr(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()
