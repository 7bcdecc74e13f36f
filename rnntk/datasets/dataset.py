"""Sequences: scikit-learn's digits, the user's own .npz and .csv files, and random ones.

Labels that are integers or text are classes; labels that are floating point are values to be
fitted. The kind is decided by the dtype of ``y`` and by nothing else.
"""

import csv
import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray, Shaped

MIN_TRAIN = 8
"""Fewest training sequences that :func:`split` accepts: below it nothing can be tuned."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled sequences on the host.

    Args:
        name: what to call the data in reports.
        x: float64 tokens, shape (n, t, d); zero at padded steps.
        y: labels, shape (n,): integers or text for classes, float64 for values.
        lengths: number of steps of each sequence, or ``None`` if all have t.
    """

    name: str
    x: Float[np.ndarray, "n t d"]
    y: Shaped[np.ndarray, " n"]
    lengths: Int[np.ndarray, " n"] | None = None

    def __len__(self) -> int:
        return len(self.y)

    @property
    def is_classification(self) -> bool:
        """Whether ``y`` holds classes rather than values."""
        return self.y.dtype.kind != "f"

    @property
    def classes(self) -> Shaped[np.ndarray, " c"]:
        """The distinct labels, ascending; meaningful for classes only."""
        return np.unique(self.y)

    def take(self, index: Int[np.ndarray, " k"]) -> "Dataset":
        """The sequences at ``index``, in that order."""
        lengths = None if self.lengths is None else self.lengths[index]
        return replace(self, x=self.x[index], y=self.y[index], lengths=lengths)


def digits() -> Dataset:
    """Scikit-learn's handwritten digits, each image read as a sequence of 8 rows of 8 pixels.

    The pixels 0..16 are divided by 16. Many rows of an image are blank: those tokens are zero.

    Returns:
        1797 sequences of 8 tokens of size 8, and their ten classes.

    Example:
        >>> import rnntk
        >>> data = rnntk.datasets.digits()
        >>> data.x.shape, float(data.x.max()), data.classes.tolist()
        ((1797, 8, 8), 1.0, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    from sklearn.datasets import load_digits  # half a second, and only this data needs it

    images, labels = load_digits(return_X_y=True)
    return Dataset("digits", images.reshape(-1, 8, 8).astype(np.float64) / 16.0, labels)


def unit_tokens(
    key: PRNGKeyArray, n: int, t: int, d: int, *, correlation: float = 0.0
) -> Float[np.ndarray, "n t d"]:
    """Random sequences of tokens of norm 1.

    Args:
        key: JAX random key.
        n: number of sequences.
        t: steps.
        d: token size.
        correlation: square root of a token's share that all sequences have in common, in [0, 1):
            tokens are directions of c g_s + sqrt(1 - c^2) g_is with Gaussian g.

    Returns:
        float64 tokens.

    Raises:
        ValueError: for sizes below 1 or a correlation out of range.

    Example:
        >>> import jax, numpy as np, rnntk
        >>> x = rnntk.datasets.unit_tokens(jax.random.key(0), 5, 4, 3)
        >>> x.shape, bool(np.allclose(np.linalg.norm(x, axis=2), 1))
        ((5, 4, 3), True)
    """
    _check_sizes(n=n, t=t, d=d)
    if not 0 <= correlation < 1:
        raise ValueError(f"correlation must lie in [0, 1), got {correlation}.")
    bits = jax.random.bits(key, (4,), "uint32")
    rng = np.random.default_rng(np.asarray(bits).tolist())  # float64 whatever JAX is set to
    own = rng.standard_normal((n, t, d))
    common = rng.standard_normal((1, t, d))
    x = correlation * common + math.sqrt(1 - correlation**2) * own
    return x / np.linalg.norm(x, axis=2, keepdims=True)


def fixed_first_token(
    key: PRNGKeyArray, n: int, t: int, d: int, eps: float
) -> Float[np.ndarray, "n t d"]:
    """Small norms behind a fixed first token: the setting of papers that assume small norms.

    Every sequence begins with the same unit token (Allen-Zhu & Li 2019, as others restate it), and
    the smallest eigenvalue falls faster than the trace with eps: see docs/theory/bounds.md.

    Args:
        key: JAX random key.
        n: number of sequences.
        t: steps, the first one included.
        d: token size.
        eps: norm of the tokens after the first.

    Returns:
        float64 tokens.

    Raises:
        ValueError: for sizes below 1 or an eps that is negative or not finite.

    Example:
        >>> import jax, rnntk
        >>> x = rnntk.datasets.fixed_first_token(jax.random.key(0), 5, 4, 3, eps=0.1)
        >>> bool((x[:, 0] == x[0, 0]).all()), round(float((x[1, 2] ** 2).sum()), 9)
        (True, 0.01)
    """
    if not 0 <= eps < math.inf:
        raise ValueError(f"eps must be finite and not negative, got {eps}.")
    x = unit_tokens(key, n, t, d)
    return np.concatenate([np.broadcast_to(x[:1, :1], (n, 1, d)), eps * x[:, 1:]], axis=1)


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}.")


def load(paths: str | Path | Sequence[str | Path]) -> Dataset:
    r"""Read one .npz file, or one or more .csv files, or ``"digits"``.

    A .npz file holds ``x`` of shape (n, t, d), ``y`` of shape (n,) and, for sequences of
    different lengths, integers ``lengths`` of shape (n,); steps past a length are ignored.

    A .csv file is in long format, one row for each step, under the header ``sequence``,
    ``step``, ``x1`` ... ``xd``, ``y`` (columns in any order): ``sequence`` is any text that
    names the sequence, ``step`` a whole number that orders its rows, ``x1`` ... ``xd`` the
    token, and ``y`` the label, the same on all rows of a sequence. Sequences may differ in
    length. Labels that all read as whole numbers are classes, as is text; other numbers are
    values. Several files are joined; a sequence lies within one file, so that each file may
    number its own.

    Args:
        paths: one path or several, all .csv if more than one.

    Raises:
        ValueError: for anything else than the above, in one line that names the file, what is
            wrong with it, and what is expected.

    Example:
        >>> import pathlib, tempfile, rnntk
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "two.csv"
        >>> rows = ["sequence,step,x1,y", "a,0,0.5,1", "a,1,0.25,1", "b,0,1.5,2"]
        >>> _ = path.write_text("\n".join(rows))
        >>> data = rnntk.datasets.load(path)
        >>> data.x[..., 0].tolist(), data.y.tolist(), data.lengths.tolist()
        ([[0.5, 0.25], [1.5, 0.0]], [1, 2], [2, 1])
    """
    listed = [paths] if isinstance(paths, str | Path) else list(paths)
    if listed == ["digits"]:
        return digits()
    files = [Path(path) for path in listed]
    if not files:
        raise ValueError("data must name digits, one .npz file or .csv files, got nothing.")
    for path in files:
        if path.suffix.lower() not in (".npz", ".csv"):
            raise ValueError(f"{path}: data must be digits, a .npz file or .csv files.")
        if path.is_dir():
            raise ValueError(f"{path}: expected a file, found a folder.")
        if not path.exists():
            raise ValueError(f"{path}: no such file.")
    if len(files) > 1 and any(path.suffix.lower() == ".npz" for path in files):
        raise ValueError("data: a .npz file stands alone; only .csv files can be joined.")
    name = " + ".join(path.name for path in files)
    return _read_npz(files[0]) if files[0].suffix.lower() == ".npz" else _read_csv(files, name)


def split(
    data: Dataset, n: int, *, n_test: int | None = None, seed: int = 0
) -> tuple[Dataset, Dataset]:
    """Draw disjoint training and test sequences at random.

    Args:
        data: the sequences.
        n: number of training sequences.
        n_test: number of test sequences; all the rest by default.
        seed: the same seed gives the same split.

    Raises:
        ValueError: if ``n`` is below :data:`MIN_TRAIN`, the data has too few sequences, or
            the training labels come out all equal.

    Example:
        >>> import rnntk
        >>> train, test = rnntk.datasets.split(rnntk.datasets.digits(), 200)
        >>> len(train), len(test)
        (200, 1597)
    """
    wanted = n + (1 if n_test is None else n_test)
    if len(data) < MIN_TRAIN + 1:
        raise ValueError(
            f"{data.name}: at least {MIN_TRAIN} training sequences and a test sequence are "
            f"needed, got {len(data)} in all."
        )
    if n < MIN_TRAIN:
        raise ValueError(f"n must be at least {MIN_TRAIN} training sequences, got {n}.")
    if wanted > len(data):
        raise ValueError(
            f"n={n} training and {wanted - n} or more test sequences are asked for, but "
            f"{data.name} holds {len(data)} in all."
        )
    order = np.random.default_rng(seed).permutation(len(data))
    stop = len(data) if n_test is None else wanted
    train, test = data.take(order[:n]), data.take(order[n:stop])
    if len(np.unique(train.y)) < 2:
        raise ValueError(
            f"{data.name}: all {n} training labels drawn are {train.y[0]}; "
            "two or more different labels are needed."
        )
    return train, test


def log2_norm(data: Dataset) -> float:
    """Base-2 logarithm of the root mean square norm of the tokens, of any size but zero.

    Example:
        >>> import dataclasses, rnntk
        >>> data = rnntk.datasets.digits()
        >>> huge = dataclasses.replace(data, x=data.x * 2.0**900)
        >>> round(rnntk.datasets.log2_norm(huge) - rnntk.datasets.log2_norm(data), 9)
        900.0
    """
    tokens = len(data) * data.x.shape[1] if data.lengths is None else int(data.lengths.sum())
    largest = int(np.frexp(np.abs(data.x).max())[1])  # first, so that squares cannot overflow
    square = np.sum(np.ldexp(data.x, -largest) ** 2) / tokens
    return largest + float(np.log2(square)) / 2


def _checked(name: str, x: np.ndarray, y: np.ndarray, lengths: np.ndarray | None) -> Dataset:
    """What every source of data must satisfy once its arrays are read."""
    if x.ndim != 3 or 0 in x.shape:
        raise ValueError(
            f"{name}: x must have shape (sequences, steps, token size), got {x.shape}."
        )
    if x.dtype.kind not in "fiub":
        raise ValueError(f"{name}: x must be real numbers, got {x.dtype}.")
    n, t = x.shape[:2]
    if y.shape != (n,):
        raise ValueError(
            f"{name}: y must hold one label for each of the {n} sequences of x, shape ({n},), "
            f"got {y.shape}."
        )
    if y.dtype.kind not in "fiubU":
        raise ValueError(
            f"{name}: y must be integers or text (classes) or floats (values), got {y.dtype}."
        )
    x = x.astype(np.float64)
    if lengths is not None:
        if lengths.shape != (n,) or lengths.dtype.kind not in "iu":
            raise ValueError(
                f"{name}: lengths must be {n} integers, one for each sequence of x, got "
                f"{lengths.dtype} of shape {lengths.shape}."
            )
        if lengths.min() < 1 or lengths.max() > t:
            raise ValueError(
                f"{name}: lengths must lie in 1..{t}, the steps of x, got "
                f"{lengths.min()} to {lengths.max()}."
            )
        x = np.where((np.arange(t) < lengths[:, None])[..., None], x, 0.0)
        lengths = None if (lengths == t).all() else lengths.astype(np.int64)
    if not np.isfinite(x).all():
        i, s, k = np.argwhere(~np.isfinite(x))[0]
        raise ValueError(
            f"{name}: x must be finite, got {x[i, s, k]} at (sequence, step, entry) = "
            f"({i}, {s}, {k})."
        )
    return Dataset(name, x, _checked_labels(name, y), lengths)


def _checked_labels(name: str, y: np.ndarray) -> np.ndarray:
    if y.dtype.kind == "b":
        y = y.astype(np.int64)
    if y.dtype.kind == "f":
        y = y.astype(np.float64)
        if not np.isfinite(y).all():
            i = int(np.argmax(~np.isfinite(y)))
            raise ValueError(f"{name}: y must be finite, got {y[i]} for sequence {i}.")
    distinct = len(np.unique(y))
    if distinct < 2:
        raise ValueError(f"{name}: y holds one label only, {y[0]}; two or more are needed.")
    if y.dtype.kind != "f" and len(y) > 2 and distinct == len(y):
        raise ValueError(
            f"{name}: y holds a different class for each of the {len(y)} sequences; labels to be "
            "fitted as values must be floating point."
        )
    return y


def _read_npz(path: Path) -> Dataset:
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
    return _checked(str(path), arrays["x"], arrays["y"], arrays.get("lengths"))


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


def _read_csv(paths: Iterable[Path], name: str) -> Dataset:
    sequences: list[np.ndarray] = []
    labels: list[tuple[str, str]] = []  # text of the label, and where it stands
    size = 0
    for path in paths:
        found, d = _read_one_csv(path)
        if size and d != size:
            raise ValueError(
                f"{path}: tokens have {d} columns x1..x{d}, those of the files before {size}."
            )
        size = d
        for tokens, label in found:
            sequences.append(tokens)
            labels.append(label)
    lengths = np.array([len(tokens) for tokens in sequences])
    x = np.zeros((len(sequences), lengths.max(), size))
    for row, tokens in zip(x, sequences, strict=True):
        row[: len(tokens)] = tokens
    return _checked(name, x, _parse_labels(labels), lengths)


def _read_one_csv(path: Path) -> tuple[list[tuple[np.ndarray, tuple[str, str]]], int]:
    """Tokens in the order of their steps, and label, of each sequence; and the token size."""
    rows: dict[str, dict[int, list[float]]] = {}
    labels: dict[str, tuple[str, str]] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            columns = [column.strip() for column in next(reader, [])]
            tokens = _token_columns(path, columns)
            for cells in reader:
                where = f"{path}, line {reader.line_num}"
                if not cells:
                    continue
                if len(cells) != len(columns):
                    raise ValueError(
                        f"{where}: expected {len(columns)} cells as in the header, "
                        f"got {len(cells)}."
                    )
                row = {column: cell.strip() for column, cell in zip(columns, cells, strict=True)}
                if not row["sequence"]:
                    raise ValueError(f"{where}: sequence is empty; expected its name.")
                steps = rows.setdefault(row["sequence"], {})
                step = _number(int, row["step"], "step", where)
                if step in steps:
                    raise ValueError(
                        f"{where}: sequence {row['sequence']!r} has step {step} twice."
                    )
                steps[step] = [_number(float, row[column], column, where) for column in tokens]
                label = labels.setdefault(row["sequence"], (row["y"], where))[0]
                if row["y"] != label:
                    raise ValueError(
                        f"{where}: y is {row['y']!r} where earlier rows of sequence "
                        f"{row['sequence']!r} have {label!r}; expected one label a sequence."
                    )
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not a text file in UTF-8.") from None
    except csv.Error as error:
        raise ValueError(f"{path}: not a .csv file ({error}).") from None
    if not rows:
        raise ValueError(f"{path}: no rows below the header.")
    found = [
        (np.array([steps[step] for step in sorted(steps)]), labels[sequence])
        for sequence, steps in rows.items()
    ]
    return found, len(tokens)


def _token_columns(path: Path, columns: list[str]) -> list[str]:
    """The names x1..xd, once the header is known to be complete."""
    d = max(1, len(columns) - 3)
    tokens = [f"x{k}" for k in range(1, d + 1)]
    expected = ["sequence", "step", *tokens, "y"]
    if sorted(columns) != sorted(expected):
        twice = [column for column in columns if columns.count(column) > 1]
        missing = [column for column in expected if column not in columns]
        problem = (
            f"column {twice[0]!r} is given twice" if twice else f"column {missing[0]!r} is missing"
        )
        raise ValueError(
            f"{path}: {problem}; expected the header sequence,step,x1,...,xd,y, "
            f"got {','.join(columns) or 'an empty file'}."
        )
    return tokens


def _number(kind: type, cell: str, column: str, where: str) -> Any:
    try:
        value = kind(cell)
        if kind is int or math.isfinite(value):
            return value
    except ValueError:
        pass
    wanted = "a whole number" if kind is int else "a finite number"
    raise ValueError(f"{where}: {column} must be {wanted}, got {cell!r}.")


def _parse_labels(labels: list[tuple[str, str]]) -> np.ndarray:
    """Whole numbers, other numbers, or text; a mixture of numbers and text is refused.

    Whole numbers beyond int64 are classes like others, named by their text.
    """
    texts = [text for text, _ in labels]
    for text, where in labels:
        if not text:
            raise ValueError(f"{where}: y is empty; expected a label.")
    try:
        whole = [int(text) for text in texts]
        try:
            return np.array(whole, np.int64)
        except OverflowError:
            return np.array([str(value) for value in whole])
    except ValueError:
        pass
    try:
        return np.array([float(text) for text in texts])
    except ValueError:
        pass
    numeric = [_is_number(text) for text in texts]
    if any(numeric):
        text, where = labels[numeric.index(False)]
        raise ValueError(
            f"{where}: y is {text!r} where other sequences have numbers; expected all numbers "
            "or all text."
        )
    return np.array(texts)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
