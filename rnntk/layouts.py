"""Sequences as other libraries lay them out, without importing any of these libraries.

Each function returns tokens (n, t, d) and the lengths (n,), as :func:`rnntk.pad` does.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from rnntk.sequences import pad

__all__ = ["from_channels_first", "from_long_frame", "from_nan_padded"]

Padded = tuple[Float[Array, "n t d"], Int[Array, " n"]]


def from_nan_padded(x: ArrayLike) -> Padded:
    """Sequences that NaN fills up to the longest, as tslearn has them.

    Args:
        x: shape (n, t, d), or (n, t) for one channel; steps of NaN alone at the end are padding.

    Raises:
        ValueError: for a wrong rank, an axis of length 0, a sequence of padding alone, or NaN
            within a sequence.
        TypeError: for what is not floating point.

    Example:
        >>> import numpy as np, rnntk
        >>> x, lengths = rnntk.layouts.from_nan_padded(np.array([[1.0, 2.0], [3.0, np.nan]]))
        >>> x[..., 0].tolist(), lengths.tolist()
        ([[1.0, 2.0], [3.0, 0.0]], [2, 1])
    """
    array = _floating("x", x)
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(
            f"x must have shape (sequences, steps, channels) or (sequences, steps), none of them "
            f"0, got {np.shape(x)}."
        )
    there = ~np.isnan(array).all(axis=2)
    sequences = []
    for i, row in enumerate(there):
        if not row.any():
            raise ValueError(
                f"x must have a step in every sequence, got NaN alone in sequence {i}."
            )
        end = len(row) - int(np.argmax(row[::-1]))
        if np.isnan(array[i, :end]).any():
            s = int(np.argwhere(np.isnan(array[i, :end]))[0][0])
            raise ValueError(
                f"x must have NaN behind the end of a sequence only, got it at step {s} of "
                f"sequence {i}, whose last step is {end - 1}: fill missing values in first. Of "
                "(sequences, channels, steps) take x.swapaxes(1, 2)."
            )
        sequences.append(array[i, :end])
    return pad(sequences)


def from_channels_first(x: ArrayLike | Sequence[ArrayLike]) -> Padded:
    """Sequences whose channels come before their steps, as aeon and sktime (numpy3D) have them.

    Args:
        x: shape (n, channels, steps), or a list of arrays (channels, steps) of unequal length.

    Raises:
        ValueError: for a wrong rank or unequal numbers of channels.
        TypeError: for what is not real numbers.

    Example:
        >>> import numpy as np, rnntk
        >>> x, lengths = rnntk.layouts.from_channels_first([np.ones((2, 5)), np.ones((2, 3))])
        >>> x.shape, lengths.tolist()
        ((2, 5, 2), [5, 3])
    """
    if not np.iterable(x):
        raise TypeError(f"x must be an array or a list of arrays (channels, steps), got {x!r}.")
    turned = []
    for i, one in enumerate(x):
        array = one if np.ma.isMaskedArray(one) else _array(f"x[{i}]", one)
        if array.ndim != 2:
            raise ValueError(f"x[{i}] must have shape (channels, steps), got {array.shape}.")
        turned.append(array.T)
    return pad(turned)


def from_long_frame(
    frame: Any, *, sequence: str, columns: Sequence[str], step: str | None = None
) -> Padded:
    """Sequences from a table with a row for each step, as pandas' long frames are.

    Args:
        frame: anything that gives columns by name, ``frame["column"]``: a pandas or polars frame,
            or a dict of arrays.
        sequence: the column that names each row's sequence; sequences come in the order of their
            first rows.
        columns: the columns that make a token.
        step: the column that orders the rows of a sequence; as they are if omitted.

    Raises:
        ValueError: for a column that is missing or of another length, no rows, no columns, a step
            that occurs twice, or missing values.
        TypeError: for columns that are not real numbers, or steps that are text.

    Example:
        >>> import rnntk
        >>> frame = {"id": ["a", "b", "a"], "day": [2, 1, 1], "price": [3.0, 5.0, 4.0]}
        >>> x, lengths = rnntk.layouts.from_long_frame(
        ...     frame, sequence="id", columns=["price"], step="day")
        >>> x[..., 0].tolist(), lengths.tolist()
        ([[4.0, 3.0], [5.0, 0.0]], [2, 1])
    """
    if isinstance(columns, str) or not columns:
        raise ValueError(f"columns must list the columns of a token, got {columns!r}.")
    names = _complete(sequence, _column(frame, sequence))
    if names.ndim != 1 or not len(names):
        raise ValueError(f"column {sequence!r} must have a row for each step, got {names.shape}.")
    each = [_floating(f"column {name!r}", _column(frame, name)) for name in columns]
    for name, values in zip(columns, each, strict=True):
        _complete(name, _as_long(name, values, names))
    numbers: dict[Any, int] = {}  # of the sequences, in the order of their first rows
    place = np.array([numbers.setdefault(name, len(numbers)) for name in names.tolist()])
    if step is None:
        order = np.argsort(place, kind="stable")
    else:
        steps = _steps(step, _complete(step, _as_long(step, _column(frame, step), names)))
        order = np.lexsort((steps, place))
        twice = (np.diff(place[order]) == 0) & (steps[order][1:] == steps[order][:-1])
        if twice.any():
            row = order[int(np.argmax(twice))]
            raise ValueError(
                f"column {step!r} must order the rows of a sequence, got {steps[row]} twice for "
                f"{names[row]}."
            )
    ends = np.cumsum(np.bincount(place))[:-1]
    return pad(np.split(np.stack(each, axis=1)[order], ends))


def _as_long(name: str, values: np.ndarray, names: np.ndarray) -> np.ndarray:
    if values.shape != names.shape:
        raise ValueError(f"column {name!r} must have {len(names)} rows, got {values.shape}.")
    return values


def _complete(name: str, values: np.ndarray) -> np.ndarray:
    """Refuse missing values: NaN, NaT, None, and pandas' NA, none of which equals itself."""
    missing = [value is None or not _equals_itself(value) for value in values.ravel().tolist()]
    if values.dtype.kind == "M":
        missing = np.isnat(values).tolist()
    if any(missing):
        row = missing.index(True)
        raise ValueError(f"column {name!r} must have no missing values, got one in row {row}.")
    return values


def _equals_itself(value: Any) -> bool:
    try:
        return bool(value == value)
    except TypeError:  # pandas' NA is neither true nor false
        return False


def _steps(name: str, steps: np.ndarray) -> np.ndarray:
    """Numbers or times; text, of which "10" comes before "9", is refused."""
    if steps.dtype == object:  # of Python's numbers or times, as frames may have them
        steps = np.array(steps.tolist())
    if steps.dtype.kind not in "fiubMm":
        raise TypeError(f"column {name!r} must be numbers or times, got {steps.dtype}.")
    return steps


def _column(frame: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(frame[name])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"frame must have the column {name!r}: {error}.") from None


def _array(name: str, value: Any) -> np.ndarray:
    try:
        return np.asarray(value)
    except ValueError:
        raise ValueError(
            f"{name} must be one array, got parts of unequal lengths; rnntk.pad makes one of "
            "sequences (steps, channels)."
        ) from None


def _floating(name: str, value: Any) -> np.ndarray:
    if np.ma.is_masked(value):
        raise ValueError(f"{name} must have no masked entries: fill them in first.")
    array = _array(name, value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be real numbers, got {array.dtype}.")
    return array if array.dtype.kind == "f" else array.astype(np.float64)
