"""The state of a long solve on disk, written in one step and bound to its problem."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_FINGERPRINT = "fingerprint"


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


def write(path: Path, of: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Replace a checkpoint; whoever reads sees the old one or the new one, whole."""
    part = path.with_name(path.name + ".part")
    contents: dict[str, Any] = {_FINGERPRINT: np.array(of), **arrays}
    with part.open("wb") as file:
        np.savez(file, **contents)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def read(path: Path, of: str) -> dict[str, np.ndarray] | None:
    """The arrays of a checkpoint, or None where there is none.

    Raises:
        ValueError: if it belongs to another problem.
    """
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    if str(arrays.pop(_FINGERPRINT)) != of:
        raise ValueError(
            f"checkpoint {path} belongs to another problem: other data, network, ridge or "
            "method. Remove it, or give another path."
        )
    return arrays
