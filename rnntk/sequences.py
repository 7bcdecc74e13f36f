"""Batches of token sequences of different lengths: padding, masks and reversal."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int


def mask(lengths: Int[Array, " n"], steps: int) -> Bool[Array, "n t"]:
    """True where a step belongs to its sequence, False where it is padding."""
    return jnp.arange(steps)[None, :] < lengths[:, None]


def reverse(x: Float[Array, "n t k"], lengths: Int[Array, " n"] | None) -> Float[Array, "n t k"]:
    """Each sequence read backwards within its own length; padding stays at the end."""
    if lengths is None:
        return x[:, ::-1]
    steps = jnp.arange(x.shape[1])[None, :]
    source = jnp.where(mask(lengths, x.shape[1]), lengths[:, None] - 1 - steps, steps)
    return jnp.take_along_axis(x, source[..., None], axis=1)


def pad(
    sequences: Sequence[ArrayLike],
) -> tuple[Float[Array, "n t d"], Int[Array, " n"]]:
    """Stack sequences of different lengths, zeros at the end of the shorter ones.

    Args:
        sequences: arrays of shape (steps, token size), with one token size for all, or (steps,)
            for tokens of size 1.

    Returns:
        The tokens, shape (n, longest, d), in the widest dtype given, and the lengths, shape (n,).

    Raises:
        ValueError: for an empty list, an empty sequence, masked entries, a wrong rank, or unequal
            token sizes.
        TypeError: for what is not real numbers.

    Example:
        >>> import numpy as np, rnntk
        >>> x, lengths = rnntk.pad([np.ones((3, 2)), np.ones((1, 2))])
        >>> x.shape, lengths.tolist()
        ((2, 3, 2), [3, 1])
    """
    if not np.iterable(sequences):
        raise TypeError(f"sequences must be a list of arrays, got {sequences!r}.")
    arrays: list[np.ndarray] = []
    for i, sequence in enumerate(sequences):
        if np.ma.is_masked(sequence):
            raise ValueError(f"sequences[{i}] must have no masked entries: fill them in first.")
        try:
            array = np.asarray(sequence)
        except ValueError:
            raise ValueError(
                f"sequences[{i}] must be one array (steps, token size), got parts of unequal "
                "lengths."
            ) from None
        array = array[:, None] if array.ndim == 1 else array
        if array.dtype.kind not in "fiub":
            raise TypeError(
                f"sequences[{i}] must be real numbers, got {array.dtype}"
                + (": convert with astype(float)." if array.dtype.name == "bfloat16" else ".")
            )
        if array.ndim != 2 or 0 in array.shape:
            raise ValueError(
                f"sequences[{i}] must have shape (steps, token size) with at least one of each, "
                f"got {np.shape(sequence)}."
            )
        if arrays and array.shape[1] != arrays[0].shape[1]:
            raise ValueError(
                f"all sequences must have one token size: sequences[0] has {arrays[0].shape[1]}, "
                f"sequences[{i}] has {array.shape[1]}."
            )
        arrays.append(array)
    if not arrays:
        raise ValueError("sequences must hold at least one array, got none.")
    x, lengths = stacked(arrays)
    return jnp.asarray(x), jnp.asarray(lengths)


def stacked(
    arrays: Sequence[np.ndarray],
) -> tuple[Float[np.ndarray, "n t d"], Int[np.ndarray, " n"]]:
    """Arrays (steps, d) in one, zeros behind the shorter ones; floating point, if they are not."""
    lengths = np.array([len(array) for array in arrays])
    dtype = np.result_type(*arrays)
    if not np.issubdtype(dtype, np.floating):
        dtype = np.dtype(np.float64)
    x = np.zeros((len(arrays), lengths.max(), arrays[0].shape[1]), dtype)
    for row, array in zip(x, arrays, strict=True):
        row[: len(array)] = array
    return x, lengths
