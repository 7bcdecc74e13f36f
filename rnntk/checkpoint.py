"""The state of long work on disk, replaced in one step and bound to the problem it belongs to."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rnntk.files import save_arrays

_PROBLEM = "problem"


def save(path: Path, problem: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Replace a checkpoint; ``problem`` tells the work by names and printed values."""
    save_arrays(path, {_PROBLEM: np.array(json.dumps(_printed(problem))), **arrays})


def load(path: Path, problem: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
    """The arrays of a checkpoint, or None where there is none.

    Raises:
        ValueError: if it is of another problem, naming what differs, or no checkpoint.
    """
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        saved = json.loads(str(arrays.pop(_PROBLEM)))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"checkpoint must be a file that this wrote, got {path}.") from error
    expected = _printed(problem)
    for name in {**expected, **saved}:
        if (got := saved.get(name)) != (need := expected.get(name)):
            raise ValueError(
                f"checkpoint {path} is of other work: {name} was {got}, and is {need}; give "
                "another path, or delete the file."
            )
    return arrays


def _printed(problem: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in problem.items()}
