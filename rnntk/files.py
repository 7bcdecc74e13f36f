"""Files that are replaced in one step: whoever reads sees the old one or the new one, whole."""

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np


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
