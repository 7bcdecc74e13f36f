"""Parameters of Elman networks: where they are, whether they fit, which of them are trained."""

from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import keystr, tree_leaves_with_path, tree_map_with_path
from jaxtyping import Array, PRNGKeyArray

from rnntk import checks
from rnntk.network.elman import STDS, ElmanRNN, Params

# Folded into a key, so that initial states, and those of x2, share no draw with init.
STATES, SECOND = 2**31 - 2, 2**31 - 3


def networks(rnn: ElmanRNN, params: Params) -> tuple[Params, ...]:
    """The one or two (bidirectional) unidirectional networks that make up ``params``."""
    return (params["forward"], params["backward"]) if rnn.bidirectional else (params,)


def layers(rnn: ElmanRNN, network: Params) -> tuple[Params, ...]:
    """The parameters of each layer of one network, input layer first."""
    return (network,) if rnn.depth == 1 else network["layers"]


def check_params(rnn: ElmanRNN, params: Params, input_dim: int) -> int:
    """Check ``rnn``, and ``params`` against what ``rnn.init`` would draw; returns the width."""
    checks.check_single(rnn, STDS)
    try:
        output_dim, width = networks(rnn, params)[0]["V"].shape
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ValueError(
            "params must come from init of the same architecture: no matrix V (outputs, width) "
            f"found where depth={rnn.depth}, bidirectional={rnn.bidirectional} put it."
        ) from None
    leaves, tree = jax.tree.flatten(params)
    architecture = (rnn.depth, rnn.bidirectional, rnn.initial_state)
    shapes = tuple(map(jnp.shape, leaves))
    _check_shapes(architecture, tree, shapes, (input_dim, width, output_dim))
    return int(width)


@lru_cache  # as a look at every leaf's name takes longer than a small kernel
def _check_shapes(
    architecture: tuple[int, bool, Any], tree: Any, shapes: tuple[Any, ...], sizes: tuple[int, ...]
) -> None:
    (depth, both, state), (d, m, o) = architecture, sizes
    std = float(state != "zero")
    rnn = ElmanRNN(depth=depth, bidirectional=both, initial_state=state, initial_state_std=std)
    draw = partial(rnn.init, input_dim=d, width=m, output_dim=o)
    structs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    got = dict(tree_leaves_with_path(jax.tree.unflatten(tree, structs)))
    drawn = dict(tree_leaves_with_path(jax.eval_shape(draw, jax.random.key(0))))
    for path in drawn | got:
        need, found = (getattr(v.get(path), "shape", "no such leaf") for v in (drawn, got))
        if need != found:
            must = f"have shape {need}" if path in drawn else "not be there"
            raise ValueError(
                f"params{keystr(path)} must {must} for tokens of size {d} and V of width {m}, "
                f"got {found}."
            )


def sequence_keys(rnn: ElmanRNN, key: PRNGKeyArray | None, n: int) -> Array | None:
    """One key for each sequence's own initial state, where the network draws them."""
    if rnn.initial_state != "independent":
        return None
    if key is None:
        raise ValueError("key is needed to draw independent initial states, got None.")
    return jax.random.split(jax.random.fold_in(key, STATES), n)


def hold_untrained(rnn: ElmanRNN, params: Params) -> Params:
    """No gradient reaches the groups that are not trained, nor a shared initial state."""

    def hold(path: tuple[Any, ...], leaf: Array) -> Array:
        return leaf if path[-1].key in rnn.trainable else jax.lax.stop_gradient(leaf)

    return tree_map_with_path(hold, params)
