"""Arrays of NumPy in files: one ``.npz`` archive, or ``.npy`` files."""

import textwrap
from pathlib import Path

import numpy as np

from rnntk.datasets.dataset import Dataset, Task, checked


def read_npz(path: Path, task: Task | None) -> Dataset:
    """Tokens x, labels y and maybe lengths of one archive."""
    arrays: dict[str, np.ndarray] = {}
    with path.open("rb") as file:  # a file that may not be read is an OSError that names it
        try:
            archive = np.load(file, allow_pickle=False)
        except Exception:  # whatever zipfile and NumPy meet in a damaged file
            archive = None
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError(
                f"{path}: not a .npz archive, or a damaged one; write one with "
                "numpy.savez(path, x=x, y=y)."
            )
        for key in ("x", "y", "lengths"):
            if key in archive.files:
                arrays[key] = _read_array(path, archive, key)
            elif key != "lengths":
                raise ValueError(
                    f"{path}: array {key!r} is missing; expected x, y and optionally lengths, "
                    f"found {', '.join(archive.files) or 'nothing'}."
                )
    return checked(str(path), arrays["x"], arrays["y"], arrays.get("lengths"), task)


def _read_array(path: Path, archive: np.lib.npyio.NpzFile, key: str) -> np.ndarray:
    try:
        return np.asarray(archive[key])
    # A damaged file ends in any of a dozen errors of zipfile, zlib and NumPy, down to MemoryError
    # for a header that claims a huge shape and RuntimeError for encryption.
    except Exception as error:
        # zipfile quotes the bytes it met, however many.
        said = textwrap.shorten(str(error), 120, placeholder=" ...") or type(error).__name__
        reason = (
            "holds pickled Python objects, which are not read"
            if "pickle" in str(error)
            else f"cannot be read ({said})"
        )
        raise ValueError(
            f"{path}: array {key!r} {reason}; expected plain numbers"
            + (" or text." if key == "y" else ".")
        ) from None


def read_npy(paths: list[Path], task: Task | None) -> Dataset:
    """One array of tokens and one of labels, told apart by their axes."""
    arrays = {path: _load_npy(path) for path in paths}
    tokens = [path for path, array in arrays.items() if array.ndim in (2, 3)]
    labels = [path for path, array in arrays.items() if array.ndim == 1]
    if len(paths) != 2 or not tokens or not labels:
        shapes = ", ".join(f"{path} {array.shape}" for path, array in arrays.items())
        raise ValueError(
            "data: .npy files come in pairs, tokens of shape (sequences, steps, token size) and "
            f"labels of shape (sequences,), got {shapes}."
        )
    x = arrays[tokens[0]]
    x = x[..., None] if x.ndim == 2 else x  # one channel
    return checked(f"{tokens[0]} + {labels[0].name}", x, arrays[labels[0]], None, task)


def _load_npy(path: Path) -> np.ndarray:
    try:
        with path.open("rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # as above
        said = textwrap.shorten(str(error), 120, placeholder=" ...") or type(error).__name__
        raise ValueError(f"{path}: not a .npy file, or a damaged one ({said}).") from None
