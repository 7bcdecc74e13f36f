"""A recurrent network as the three functions that users of neural-tangents know."""

from collections import namedtuple
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from rnntk.infinite.kernel import infinite_kernel
from rnntk.network.elman import ElmanRNN, Params
from rnntk.network.parameters import hold_untrained

KINDS = ("nngp", "ntk")
Get = str | Sequence[str] | None


Triple = tuple[
    Callable[..., tuple[tuple[int, ...], Params]], Callable[..., Array], Callable[..., Any]
]


def stax(rnn: ElmanRNN, width: int, output_dim: int) -> Triple:
    """The functions that :meth:`rnntk.ElmanRNN.stax` describes."""
    if rnn.initial_state == "independent":
        raise ValueError(
            "initial_state must be 'zero' or 'shared' for stax, got 'independent': neural-tangents "
            "does not tell its functions which sequences of x1 and x2 are the same one, and so "
            "share their initial state. Use infinite_kernel and empirical_kernel."
        )

    def parameters(key: PRNGKeyArray, input_dim: int) -> Params:
        return rnn.init(key, input_dim=input_dim, width=width, output_dim=output_dim)

    jax.eval_shape(lambda key: parameters(key, 1), jax.random.key(0))  # refuses wrong sizes now

    def init_fn(key: PRNGKeyArray, input_shape: Sequence[int]) -> tuple[tuple[int, ...], Params]:
        if len(input_shape) != 3:
            raise ValueError(
                "input_shape must be (sequences, steps, token size), of which the first two may "
                f"be -1, got {tuple(input_shape)}."
            )
        n, t, d = input_shape
        return rnn.r.output_shape(n, t, output_dim), parameters(key, d)

    def apply_fn(
        params: Params,
        x: Float[ArrayLike, "n t d"],
        *,
        lengths: Any = None,
        rng: PRNGKeyArray | None = None,
    ) -> Float[Array, "n o"] | Float[Array, "n t o"]:
        # neural-tangents hands a key to every network; this one has no use for it.
        return rnn.apply(hold_untrained(rnn, params), x, lengths)

    def kernel_fn(
        x1: Float[ArrayLike, "n1 t1 d"],
        x2: Float[ArrayLike, "n2 t2 d"] | None = None,
        get: Get = None,
        *,
        lengths: Any = None,
    ) -> Any:
        kinds = _kinds(get)
        lengths1, lengths2 = _pair(lengths)
        kernel = infinite_kernel(
            rnn, x1, x2, lengths1=lengths1, lengths2=None if x2 is None else lengths2
        )
        results = [_batch_first(getattr(kernel, kind)) for kind in kinds]
        return results[0] if isinstance(get, str) else _tuple_type(kinds)(*results)

    return init_fn, apply_fn, kernel_fn


def _kinds(get: Get) -> tuple[str, ...]:
    asked = KINDS if get is None else get if isinstance(get, tuple | list) else (get,)
    kinds = tuple(str(kind).lower() for kind in asked)
    if not kinds or set(kinds) - set(KINDS) or len(set(kinds)) < len(kinds):
        raise ValueError(f"get must be one of {KINDS}, a tuple of both, or None, got {get!r}.")
    return kinds


def _pair(lengths: Any) -> tuple[Any, Any]:
    """neural-tangents passes a keyword that belongs to both batches as a tuple of two."""
    if not isinstance(lengths, tuple | list):
        return lengths, lengths
    if all(np.ndim(part) == 0 and part is not None for part in lengths):
        return jnp.asarray(lengths), jnp.asarray(lengths)
    if not isinstance(lengths, tuple) or len(lengths) != 2:
        raise ValueError(
            "lengths must be those of one batch, shape (n,), or a tuple of both batches', "
            f"got a {type(lengths).__name__} of {len(lengths)}."
        )
    return lengths


def _batch_first(kernel: Array) -> Array:
    """(n1, t1, n2, t2) as (n1, n2, t1, t2)."""
    return kernel if kernel.ndim == 2 else kernel.swapaxes(1, 2)


@cache
def _tuple_type(kinds: tuple[str, ...]) -> Callable[..., Any]:
    return namedtuple("InfiniteKernel", kinds)
