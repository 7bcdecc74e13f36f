"""The backward pass of Elman networks: what reaches the pre-activations from the outputs."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rnntk import sequences
from rnntk.network.elman import PRECISION, ElmanRNN
from rnntk.network.forward import Trace


def seeds(
    rnn: ElmanRNN,
    v: Float[Array, "o m"],
    lengths: Int[Array, " n"] | None,
    shape: tuple[int, int],
    direction: int,
) -> tuple[Float[Array, "t n coordinates m"] | None, Float[Array, "n coordinates m"]]:
    """Gradients of all output coordinates with respect to the states of the top layer.

    Args:
        rnn: the architecture.
        v: output weights, with what stands before them.
        lengths: steps of each sequence.
        shape: steps t and sequences n.
        direction: 1 for a network that reads backwards, in whose order the steps are.

    Returns:
        What :func:`signals` takes: those of every state, None if they are zero, and those that
        add to the last state.
    """
    t, n = shape
    if rnn.r.ends_only and lengths is None:
        return None, jnp.broadcast_to(v, (n, *v.shape))
    share = rnn.r.features_transposed(t, n, lengths, v.dtype)
    if direction and rnn.r.per_step:  # the outputs are in the order of time
        share = sequences.reverse(share.swapaxes(0, 1), lengths).swapaxes(0, 1)
    given = (share[..., None, None] * v[None, None, None]).reshape(t, n, -1, v.shape[1])
    return given, jnp.zeros_like(given[0])


def signals(
    rnn: ElmanRNN,
    matrices: list[dict[str, Array]],
    traces: list[Trace],
    given: Float[Array, "t n coordinates m"] | None,
    last: Float[Array, "n coordinates m"],
    unroll: int = 1,
) -> list[Float[Array, "t n coordinates m"]]:
    """Signals at the pre-activations of each layer of one network, input layer first.

    Args:
        rnn: the architecture.
        matrices: of each layer, with what stands before them.
        traces: what each layer computed.
        given: gradients with respect to each state of the top layer; None if zero.
        last: added to that of the last state.
        unroll: steps that are one turn of the loop.
    """
    found: list[Array] = []
    for index in reversed(range(rnn.depth)):
        if found:
            given = jnp.matmul(found[0], matrices[index + 1]["U"], precision=PRECISION)
            last = jnp.zeros_like(last)
        w, preactivations = matrices[index]["W"], traces[index].preactivations
        layer = _through_time(rnn, w, preactivations, given, last, unroll)
        found.insert(0, layer)
    return found


def _through_time(
    rnn: ElmanRNN,
    w: Float[Array, "m m"],
    preactivations: Float[Array, "t n m"],
    given: Float[Array, "t n coordinates m"] | None,
    last: Float[Array, "n coordinates m"],
    unroll: int,
) -> Float[Array, "t n coordinates m"]:
    """Backwards through the steps of a layer; ``given`` is without what later steps add."""

    def signal(at: Any, gradient: Array) -> Array:
        preactivation, given = at
        gradient = gradient if given is None else gradient + given
        pull = jax.vjp(rnn.phi.fn, preactivation)[1]
        return jax.vmap(lambda one: pull(one)[0], 1, 1)(gradient)

    def step(gradient: Array, at: Any) -> tuple[Array, Array]:
        found = signal(at, gradient)
        return jnp.matmul(found, w, precision=PRECISION), found

    steps = (preactivations, given)
    rest = jax.tree.map(lambda v: v[1:], steps)
    gradient, later = jax.lax.scan(step, last, rest, reverse=True, unroll=unroll)
    first = signal(jax.tree.map(lambda v: v[0], steps), gradient)  # and no further
    return jnp.concatenate([first[None], later])
