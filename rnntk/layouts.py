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
        ValueError: for a wrong rank, a sequence of padding alone, or NaN within a sequence.
        TypeError: for what is not floating point.

    Example:
        >>> import numpy as np, rnntk
        >>> x, lengths = rnntk.layouts.from_nan_padded(np.array([[1.0, 2.0], [3.0, np.nan]]))
        >>> x[..., 0].tolist(), lengths.tolist()
        ([[1.0, 2.0], [3.0, 0.0]], [2, 1])
    """
    array = _floating("x", x)
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3:
        raise ValueError(
            f"x must have shape (sequences, steps, channels) or (sequences, steps), got "
            f"{np.shape(x)}."
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
                f"sequence {i}, whose last step is {end - 1}: fill missing values in first."
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
    turned = []
    for i, one in enumerate(x):  # type: ignore[arg-type]
        array = np.ma.asanyarray(one)
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
        ValueError: for a column that is missing or of another length, no columns, a step that
            occurs twice, or missing values.
        TypeError: for columns that are not real numbers.

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
    names = _column(frame, sequence)
    each = [_floating(f"column {name!r}", _column(frame, name)) for name in columns]
    for name, values in zip(columns, each, strict=True):
        if values.shape != names.shape:
            raise ValueError(f"column {name!r} must have {len(names)} rows, got {values.shape}.")
        if np.isnan(values).any():
            row = int(np.argmax(np.isnan(values)))
            raise ValueError(f"column {name!r} must have no missing values, got NaN in row {row}.")
    _, firsts, codes = np.unique(names, return_index=True, return_inverse=True)
    place = np.argsort(np.argsort(firsts))[codes]  # of each row's sequence
    if step is None:
        order = np.argsort(place, kind="stable")
    else:
        steps = _column(frame, step)
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


def _column(frame: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(frame[name])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"frame must have the column {name!r}: {error}.") from None


def _floating(name: str, value: Any) -> np.ndarray:
    if np.ma.is_masked(value):
        raise ValueError(f"{name} must have no masked entries: fill them in first.")
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be real numbers, got {array.dtype}.")
    return array if array.dtype.kind == "f" else array.astype(np.float64)
