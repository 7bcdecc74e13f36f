"""What training needs to go on where it was stopped, in one file that is replaced in one step."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rnntk.files import save_arrays


def save(path: Path, configuration: dict[str, str], values: Any) -> None:
    """Write the leaves of a pytree, and what run they belong to."""
    leaves = {f"leaf{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(values))}
    save_arrays(path, {"configuration": np.array(json.dumps(configuration)), **leaves})


def load(path: Path, configuration: dict[str, str], like: Any) -> Any:
    """The pytree that was saved, for the same run; None where there is no file.

    Raises:
        ValueError: if the file is of another run, or no checkpoint.
    """
    if not path.exists():
        return None
    tree = jax.tree.structure(like)
    try:
        with np.load(path) as file:
            saved = json.loads(str(file["configuration"]))
            leaves = [file[f"leaf{i}"] for i in range(len(file.files) - 1)]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"checkpoint must be a file that fit has written, got {path}.") from error
    for name in configuration | saved:
        got, need = saved.get(name), configuration.get(name)
        if got != need:
            raise ValueError(
                f"checkpoint {path} is of another run: {name} was {got}, and is {need}; give "
                "another path, or delete the file."
            )
    return jax.tree.unflatten(tree, leaves)
