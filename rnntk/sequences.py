"""Batches of token sequences: checks, padding, masks and reversal."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int


def is_concrete(value: object) -> bool:
    """Whether ``value`` holds numbers that can be looked at, rather than a tracer."""
    return not isinstance(value, jax.core.Tracer)


def check_tokens(x: ArrayLike, name: str = "x") -> Float[Array, "n t d"]:
    """Return ``x`` as a floating JAX array of shape (n, t, d), or say what is wrong with it."""
    if x is None:
        raise TypeError(f"{name} must be an array of tokens, got None.")
    try:
        shape = np.shape(x)
    except ValueError as error:
        raise ValueError(
            f"{name} must be one array (sequences, steps, token size); rnntk.pad makes one of "
            f"sequences of different lengths."
        ) from error
    if len(shape) != 3:
        missing = {
            2: "the sequence, step or token axis is missing; one sequence is x[None], "
            "scalar tokens are x[..., None]",
            1: "two axes are missing",
        }.get(len(shape), f"it has {len(shape)} axes")
        raise ValueError(
            f"{name} must have shape (sequences, steps, token size), got {shape}: {missing}."
        )
    if 0 in shape:
        raise ValueError(
            f"{name} must have at least one sequence, one step and one token entry, got {shape}."
        )
    dtype = x.dtype if hasattr(x, "dtype") else np.asarray(x).dtype
    if dtype not in (np.float32, np.float64):
        raise TypeError(
            f"{name} must be float32 or float64, got {dtype}; convert with {name}.astype(float)."
        )
    return x if isinstance(x, jax.Array) else jnp.asarray(x)


def check_finite(x: Float[Array, "n t d"], name: str = "x") -> None:
    """Refuse NaN and infinity in ``x``; tracers pass, as their values are not known yet."""
    if not is_concrete(x):
        return
    finite = np.isfinite(np.asarray(x))
    if not finite.all():
        i, s, k = np.argwhere(~finite)[0]
        raise ValueError(
            f"{name} must be finite, got {float(x[i, s, k])} at "
            f"(sequence, step, entry) = ({i}, {s}, {k}), "
            f"{np.size(finite) - int(finite.sum())} such values in all."
        )


def check_lengths(lengths: ArrayLike, shape: tuple[int, ...], name: str) -> Int[Array, " n"]:
    """Return ``lengths`` as (n,) integers between 1 and the number of steps of ``shape``."""
    n, t = shape[:2]
    if np.shape(lengths) != (n,):
        raise ValueError(
            f"{name} must hold one length per sequence, shape ({n},), got {np.shape(lengths)}."
        )
    dtype = lengths.dtype if hasattr(lengths, "dtype") else np.asarray(lengths).dtype
    if not jnp.issubdtype(dtype, jnp.integer):
        raise TypeError(f"{name} must be integers, got {dtype}.")
    if is_concrete(lengths):
        bad = (np.asarray(lengths) < 1) | (np.asarray(lengths) > t)
        if bad.any():
            i = int(np.argmax(bad))
            raise ValueError(
                f"{name} must lie in 1..{t} (the steps of the array), "
                f"got {int(np.asarray(lengths)[i])} for sequence {i}."
            )
    return jnp.asarray(lengths).astype(int)  # unsigned ones cannot be subtracted from


def check_batch(
    x: ArrayLike, lengths: ArrayLike | None, suffix: str = ""
) -> tuple[Float[Array, "n t d"], Int[Array, " n"] | None]:
    """Check tokens and lengths together; padded steps come back as zeros.

    ``suffix`` completes the argument names in messages: "1" for ``x1`` and ``lengths1``.
    Lengths that all equal the number of steps come back as ``None``.
    """
    x = check_tokens(x, f"x{suffix}")
    if lengths is not None:
        lengths = check_lengths(lengths, x.shape, f"lengths{suffix}")
        if is_concrete(lengths) and bool((np.asarray(lengths) == x.shape[1]).all()):
            lengths = None
        else:
            x = jnp.where(mask(lengths, x.shape[1])[..., None], x, jnp.zeros((), x.dtype))
    check_finite(x, f"x{suffix}")
    return x, lengths


def check_second(
    x1: Float[Array, "n1 t1 d"], x2: ArrayLike | None, lengths2: ArrayLike | None
) -> tuple[Float[Array, "n2 t2 d"] | None, Int[Array, " n2"] | None]:
    """Check a second batch that may be left out, and that it fits the first."""
    if x2 is None:
        if lengths2 is not None:
            raise ValueError("lengths2 must come with x2, got lengths2 alone.")
        return None, None
    x2, lengths2 = check_batch(x2, lengths2, "2")
    if x1.shape[-1] != x2.shape[-1]:
        raise ValueError(
            "x1 and x2 must have tokens of one size, got x1 with "
            f"{x1.shape[-1]} entries a token and x2 with {x2.shape[-1]}."
        )
    if x1.dtype != x2.dtype:
        raise TypeError(f"x1 and x2 must have one dtype, got {x1.dtype} and {x2.dtype}.")
    return x2, lengths2


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
        sequences: arrays of shape (steps, token size), with one token size for all.

    Returns:
        The tokens, shape (n, longest, d), in the widest dtype given, and the lengths, shape (n,).

    Raises:
        ValueError: for an empty list, an empty sequence, a wrong rank, or unequal token sizes.

    Example:
        >>> import numpy as np, rnntk
        >>> x, lengths = rnntk.pad([np.ones((3, 2)), np.ones((1, 2))])
        >>> x.shape, lengths.tolist()
        ((2, 3, 2), [3, 1])
    """
    arrays = [np.asarray(sequence) for sequence in sequences]
    if not arrays:
        raise ValueError("sequences must hold at least one array, got none.")
    for i, array in enumerate(arrays):
        if array.ndim != 2 or 0 in array.shape:
            raise ValueError(
                f"sequences[{i}] must have shape (steps, token size) with at least one of each, "
                f"got {array.shape}."
            )
        if array.shape[1] != arrays[0].shape[1]:
            raise ValueError(
                f"all sequences must have one token size: sequences[0] has {arrays[0].shape[1]}, "
                f"sequences[{i}] has {array.shape[1]}."
            )
    lengths = np.array([len(array) for array in arrays])
    dtype = np.result_type(*arrays)
    if not np.issubdtype(dtype, np.floating):
        dtype = np.dtype(np.float64)
    x = np.zeros((len(arrays), lengths.max(), arrays[0].shape[1]), dtype)
    for row, array in zip(x, arrays, strict=True):
        row[: len(array)] = array
    return jnp.asarray(x), jnp.asarray(lengths)
