"""The state of a long solve on disk, written in one step and bound to its problem."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rnntk.files import save_arrays

_FINGERPRINT = "fingerprint"


def write(path: Path, of: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Replace a checkpoint."""
    save_arrays(path, {_FINGERPRINT: np.array(of), **arrays})


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
