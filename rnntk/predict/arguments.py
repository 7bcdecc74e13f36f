"""Checks of what predictors are given besides kernel and labels: cross kernels, times, ridges."""

from typing import Any

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float

from rnntk import checks


def check_cross(
    kernel_test_train: Any, n: int, name: str = "kernel_test_train"
) -> Float[np.ndarray, "n_test n"]:
    """Return a kernel of new points with the ``n`` training points as float64."""
    checks.refuse_masked(name, kernel_test_train)
    cross = np.asarray(kernel_test_train)
    if cross.ndim != 2 or cross.shape[1] != n:
        raise ValueError(
            f"{name} must have a row for each new point and a column for each of the "
            f"{n} training points, shape (n_test, {n}), got {cross.shape}."
        )
    if not np.issubdtype(cross.dtype, np.floating):
        raise TypeError(f"{name} must be floating point, got {cross.dtype}.")
    finite = np.isfinite(cross)
    if not finite.all():
        i, j = (int(index) for index in np.argwhere(~finite)[0])
        raise ValueError(f"{name} must be finite, got {cross[i, j]} at ({i}, {j}).")
    return cross.astype(np.float64)


def check_times(time: Any, name: str, remedy: str = "") -> Float[np.ndarray, "*k"]:
    """Return one time or an ascending vector of times as float64."""
    checks.refuse_masked(name, time)
    given = np.asarray(time)
    if not (np.issubdtype(given.dtype, np.integer) or np.issubdtype(given.dtype, np.floating)):
        raise TypeError(f"{name} must be real numbers, got {time!r}.")
    times = given.astype(np.float64)
    if times.ndim > 1 or times.size == 0:
        raise ValueError(f"{name} must be one number or a vector, got shape {times.shape}.")
    if not np.isfinite(times).all() or (times < 0).any():
        raise ValueError(f"{name} must be finite and not negative, got {time}{remedy}.")
    if times.ndim and (np.diff(times) < 0).any():
        raise ValueError(f"{name} must be sorted, got {time}.")
    return times


def check_ridge(ridge: Any, name: str = "ridge") -> float:
    """Return a finite number that is not negative as a float."""
    try:
        value = float(ridge)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {ridge!r}.") from None
    if isinstance(ridge, bool | np.bool_):
        raise TypeError(f"{name} must be a number, got {ridge!r}.")
    if not np.isfinite(value) or value < 0:
        raise ValueError(f"{name} must be finite and not negative, got {ridge}.")
    return value


def check_initial(
    initial: ArrayLike | None, rows: int, labels: np.ndarray, name: str
) -> Float[np.ndarray, "rows o"]:
    """Return initial outputs as two axes, zeros where none are given."""
    shape = (rows, *labels.shape[1:])
    flat = rows, int(np.prod(labels.shape[1:]))
    if initial is None:
        return np.zeros(flat)
    checks.refuse_masked(name, initial)
    values = np.asarray(initial)
    if values.shape != shape:
        raise ValueError(f"{name} must have shape {shape} like the labels, got {values.shape}.")
    values = checks.check_values(values, name)
    checks.refuse_unsquarable(name, values)
    return values.reshape(flat)
