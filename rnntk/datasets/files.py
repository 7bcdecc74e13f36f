"""Data sets in files, told by their ending."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from rnntk.datasets.csv_files import read_csv
from rnntk.datasets.dataset import TASKS, Dataset, Task, check_learnable
from rnntk.datasets.npz_files import read_npy, read_npz
from rnntk.datasets.samples import digits
from rnntk.datasets.ts_files import read_ts

READERS: dict[str, Callable[[list[Path], str, Task | None], Dataset]] = {
    ".npz": lambda files, name, task: read_npz(files[0], task),
    ".npy": lambda files, name, task: read_npy(files, task),
    ".csv": read_csv,
    ".ts": read_ts,
}


def load(paths: str | Path | Sequence[str | Path], *, task: Task | None = None) -> Dataset:
    r"""Read ``"digits"``, or files that end in .npz, .npy, .csv or .ts.

    - One .npz file holds ``x`` of shape (n, t, d), ``y`` of shape (n,) and, for sequences of
      different lengths, integers ``lengths`` of shape (n,); steps past a length are ignored.
    - Two .npy files hold tokens (n, t, d), or (n, t) for one channel, and labels (n,).
    - A .csv file is in long format, one row for each step, under the header ``sequence``,
      ``step``, ``x1`` ... ``xd``, ``y`` (columns in any order, separated by commas, semicolons or
      tabs): ``sequence`` is any text that names the sequence, ``step`` a whole number that orders
      its rows, ``x1`` ... ``xd`` the token, and ``y`` the label, the same on all rows of a
      sequence. Several files are joined; each may number its own sequences.
    - A .ts file is in the text format of sktime and aeon, sequences of equal or unequal length,
      one channel or several, class labels or targets. Several are joined.

    Labels in text files that all read as whole numbers are classes, as is text; other numbers are
    values. Sequences may differ in length.

    Args:
        paths: one path or several of one ending.
        task: "classification" or "regression", where the labels do not say it: whole numbers may
            be values.

    Raises:
        ValueError: for anything else than the above, in one line that names the file, what is
            wrong with it, and what is expected.

    Warns:
        UserWarning: for tokens far longer than there are steps, which other libraries' layout
            (channels before steps) would be read as.

    Example:
        >>> import pathlib, tempfile, rnntk
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "two.csv"
        >>> rows = ["sequence,step,x1,y", "a,0,0.5,1", "a,1,0.25,1", "b,0,1.5,2"]
        >>> _ = path.write_text("\n".join(rows))
        >>> data = rnntk.datasets.load(path)
        >>> data.x[..., 0].tolist(), data.y.tolist(), data.lengths.tolist()
        ([[0.5, 0.25], [1.5, 0.0]], [1, 2], [2, 1])
    """
    return check_learnable(read(paths, task))


def read(paths: str | Path | Sequence[str | Path], task: Task | None = None) -> Dataset:
    """As :func:`load`, of test data too, whose labels may be all the same."""
    if task is not None and task not in TASKS:
        raise ValueError(f"task must be one of {TASKS} or None, got {task!r}.")
    listed = [paths] if isinstance(paths, str | Path) else list(paths)
    if listed == ["digits"]:
        found = digits()
        return found if task != "regression" else replace(found, y=found.y.astype(np.float64))
    files = [Path(path) for path in listed]
    if not files:
        raise ValueError("data must name digits or files, got nothing.")
    kinds = ", ".join(READERS)
    for path in files:
        if path.suffix.lower() not in READERS:
            raise ValueError(f"{path}: data must be digits, or files that end in {kinds}.")
        if path.is_dir():
            raise ValueError(f"{path}: expected a file, found a folder.")
        if not path.exists():
            raise ValueError(f"{path}: no such file.")
    endings = {path.suffix.lower() for path in files}
    if len(endings) > 1 or (len(files) > 1 and endings == {".npz"}):
        raise ValueError(
            "data: only .csv or .ts files can be joined, or a pair of .npy files, got "
            f"{', '.join(path.name for path in files)}."
        )
    name = " + ".join(path.name for path in files)
    return READERS[endings.pop()](files, name, task)
