"""Checks of arguments: numbers, sizes, tokens, lengths. Each names the argument and the remedy."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from rnntk import sequences


def is_concrete(value: object) -> bool:
    """Whether ``value`` holds numbers that can be looked at, rather than a tracer."""
    return not isinstance(value, jax.core.Tracer)


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


def check_size(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """Return a whole number from ``least`` to ``most`` as a Python integer.

    Raises:
        ValueError: for anything else, True and 2.0 among it.

    Example:
        >>> check_size("depth", np.int64(3))
        3
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool | np.bool_)
    if not whole or value < least or (most is not None and value > most):
        bounds = f"of at least {least}" if most is None else f"in {least}..{most}"
        raise ValueError(f"{name} must be a whole number {bounds}, got {value!r}.")
    return int(value)


def check_positive(name: str, value: Any, most: float = np.inf) -> float:
    """Return one number between 0 and ``most``, both excluded, as a float.

    Raises:
        TypeError: for what is no real number, True and "1" among it.
        ValueError: for numbers outside, NaN among them.

    Example:
        >>> check_positive("tolerance", 1e-3, most=1.0)
        0.001
    """
    given = np.asarray(value)
    if given.shape != () or given.dtype.kind not in "fiu":
        raise TypeError(f"{name} must be a number, got {value!r}.")
    if not 0 < given < most:
        bounds = "be finite and positive" if most == np.inf else f"lie between 0 and {most:g}"
        raise ValueError(f"{name} must {bounds}, got {value!r}.")
    return float(given)


def check_key(key: Any) -> None:
    """Refuse what is not one JAX random key, typed or of raw numbers; tracers pass as such.

    Raises:
        TypeError: for anything else, seeds among it.
        ValueError: for several keys.

    Example:
        >>> check_key(jax.random.key(0))
        >>> check_key(jax.random.PRNGKey(0))
    """
    dtype = key.dtype if isinstance(key, jax.Array | np.ndarray) else np.dtype(object)
    typed = jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if not (typed or dtype == np.uint32):
        raise TypeError(f"key must be a JAX random key, such as jax.random.key(0), got {key!r}.")
    single = key.shape == () if typed else key.ndim == 1 and key.size in (2, 4)
    if not single:
        raise ValueError(f"key must be one JAX random key, got an array of shape {key.shape}.")


def refuse_masked(name: str, value: Any) -> None:
    """Refuse an array with masked entries, whose values would be used in silence."""
    if np.ma.is_masked(value):
        raise ValueError(f"{name} must have no masked entries: fill them in or leave them out.")


def check_finite(name: str, value: Any, axes: str | None = None) -> None:
    """Refuse NaN and infinity in an array; tracers pass, as their values are not known yet.

    ``axes`` says what the axes are, where the message is to tell the first such entry.
    """
    if not is_concrete(value):
        return
    finite = np.isfinite(np.asarray(value))
    if finite.all():
        return
    if axes is None:
        raise ValueError(f"{name} must be finite, got NaN or infinity.")
    index = tuple(int(i) for i in np.argwhere(~finite)[0])
    raise ValueError(
        f"{name} must be finite, got {float(np.asarray(value)[index])} at {axes} = {index}, "
        f"{finite.size - int(finite.sum())} such values in all."
    )


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
    refuse_masked(name, x)
    dtype = x.dtype if hasattr(x, "dtype") else np.asarray(x).dtype
    if np.dtype(dtype).newbyteorder("=") not in (np.float32, np.float64):
        raise TypeError(
            f"{name} must be float32 or float64, got {dtype}; convert with {name}.astype(float)."
        )
    if isinstance(x, jax.Array):
        return x
    return jnp.asarray(np.asarray(x).astype(np.dtype(dtype).newbyteorder("="), copy=False))


def check_lengths(lengths: ArrayLike, shape: tuple[int, ...], name: str) -> Int[Array, " n"]:
    """Return ``lengths`` as (n,) integers between 1 and the number of steps of ``shape``."""
    n, t = shape[:2]
    refuse_masked(name, lengths)
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
            x = jnp.where(sequences.mask(lengths, x.shape[1])[..., None], x, jnp.zeros((), x.dtype))
    check_finite(f"x{suffix}", x, "(sequence, step, entry)")
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


def check_labels(y: ArrayLike, n: int) -> Float[np.ndarray, " n"] | Float[np.ndarray, "n o"]:
    """Return labels of ``n`` points as float64 of shape (n,) or (n, o), or say what is wrong."""
    refuse_masked("y", y)
    labels = np.asarray(y)
    if labels.ndim not in (1, 2) or len(labels) != n or labels.size == 0:
        raise ValueError(
            f"y must hold one label for each of the {n} training points, shape ({n},) or "
            f"({n}, outputs), got {labels.shape}."
        )
    values = check_values(labels)
    refuse_unsquarable("y", values)
    return values


def check_values(labels: np.ndarray, name: str = "y") -> Float[np.ndarray, "..."]:
    """Return labels of any shape as float64, refusing what is not a finite real number."""
    if not (np.issubdtype(labels.dtype, np.integer) or np.issubdtype(labels.dtype, np.floating)):
        raise TypeError(f"{name} must be real numbers, got {labels.dtype}.")
    finite = np.isfinite(labels)
    if not finite.all():
        index = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise ValueError(
            f"{name} must be finite, got {labels[index]} at {index}, "
            f"{finite.size - int(finite.sum())} such values in all."
        )
    return labels.astype(np.float64)


def refuse_unsquarable(name: str, values: Float[np.ndarray, "..."]) -> None:
    """Refuse what least squares cannot sum up: squares beyond the range of float64."""
    with np.errstate(over="ignore"):
        total = np.square(values).sum()
    if not np.isfinite(total):
        raise ValueError(
            f"{name} must have a sum of squares within float64, got a largest entry of size "
            f"{np.abs(values).max():.3g}: scale it down."
        )


def overflow(what: str, dtype: Any) -> str:
    """The message for what a recurrence has driven out of the range of its dtype."""
    return (
        f"{what} overflows {dtype}: states or gradients grow by a constant factor a step. Reduce "
        "w_std, the other weights or the tokens, or use shorter sequences."
    )
