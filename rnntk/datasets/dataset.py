"""Labelled sequences, and what every source of them must satisfy.

Labels that are integers or text are classes; labels that are floating point are values to be
fitted. The kind is decided by the dtype of ``y``, unless the caller declares it.
"""

import warnings
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, Shaped

Task = Literal["classification", "regression"]
TASKS = ("classification", "regression")


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


def checked(
    name: str,
    x: np.ndarray,
    y: np.ndarray,
    lengths: np.ndarray | None,
    task: Task | None,
) -> Dataset:
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
    if x.shape[2] >= 32 and x.shape[2] >= 8 * t:
        warnings.warn(
            f"{name}: x of shape {x.shape} is read as (sequences, steps, token size), {t} steps of "
            f"tokens of size {x.shape[2]}; if it is (sequences, channels, steps), write "
            "x.swapaxes(1, 2), as rnntk.layouts.from_channels_first returns it.",
            stacklevel=4,
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
            f"({i}, {s}, {k})"
            + (
                "; sequences that NaN fills up are converted by rnntk.layouts.from_nan_padded."
                if lengths is None and np.isnan(x[i, s:]).all()
                else "."
            )
        )
    return Dataset(name, x, _checked_labels(name, y, task), lengths)


def _checked_labels(name: str, y: np.ndarray, task: Task | None) -> np.ndarray:
    if y.dtype.kind == "b":
        y = y.astype(np.int64)
    if task == "regression":
        if y.dtype.kind == "U":
            raise ValueError(
                f"{name}: y must be numbers for a regression, got text, {str(y[0])!r}."
            )
        y = y.astype(np.float64)
    elif task == "classification" and y.dtype.kind == "f":
        whole = (y == np.round(y)) & (np.abs(y) < 2.0**63)  # what int64 holds
        if not whole.all():
            raise ValueError(
                f"{name}: y must be whole numbers or text for a classification, got "
                f"{y[np.argmin(whole)]}."
            )
        y = y.astype(np.int64)
    if y.dtype.kind == "f":
        y = y.astype(np.float64)
        if not np.isfinite(y).all():
            i = int(np.argmax(~np.isfinite(y)))
            raise ValueError(f"{name}: y must be finite, got {y[i]} for sequence {i}.")
    return y


def check_learnable(data: Dataset) -> Dataset:
    """Return data whose labels can be learnt from; test data may hold one label alone.

    Raises:
        ValueError: for a single label, or a class of its own for every sequence.
    """
    name, y = data.name, data.y
    distinct = len(np.unique(y))
    if distinct < 2:
        raise ValueError(f"{name}: y holds one label only, {y[0]}; two or more are needed.")
    if data.is_classification and len(y) > 2 and distinct == len(y):
        raise ValueError(
            f"{name}: y holds a different class for each of the {len(y)} sequences; labels to be "
            "fitted as values must be floating point, or declared as a regression."
        )
    return data
