"""Checks of numbers among the arguments: standard deviations, sizes, arrays that are finite."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rnntk.sequences import is_concrete


def check_std(name: str, value: Any) -> None:
    """Refuse what is no standard deviation; of a tracer only the type is known."""
    number = isinstance(value, int | float | np.ndarray | np.generic | jax.Array)
    dtype = getattr(value, "dtype", np.dtype(type(value) if number else object))
    if not (jnp.issubdtype(dtype, np.floating) or jnp.issubdtype(dtype, np.integer)):
        raise TypeError(f"{name} must be a real number, got {value!r}.")
    if is_concrete(value) and (not np.all(np.isfinite(value)) or np.any(np.asarray(value) < 0)):
        raise ValueError(f"{name} must be finite and not negative, got {value}.")


def check_single(owner: Any, names: Iterable[str]) -> None:
    """Refuse attributes of several numbers, which would broadcast against an axis of sequences."""
    for name in names:
        shape = np.shape(getattr(owner, name))
        if shape != ():
            raise ValueError(
                f"{name} must be one number, got shape {shape}; to run over several use jax.vmap."
            )


def check_size(name: str, value: Any) -> int:
    """Return a whole number of at least 1 as a Python integer."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}.")
    return int(value)


def check_finite(name: str, value: Any) -> None:
    """Refuse NaN and infinity in an array; tracers pass, as their values are not known yet."""
    if is_concrete(value) and not np.isfinite(np.asarray(value)).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity.")


def overflow(what: str, dtype: Any) -> str:
    """The message for what a recurrence has driven out of the range of its dtype."""
    return (
        f"{what} overflows {dtype}: states or gradients grow by a constant factor a step. Reduce "
        "w_std, the other weights or the tokens, or use shorter sequences."
    )
