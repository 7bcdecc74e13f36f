"""Gradients of a network's outputs, as the thin factors that backpropagation finds them in.

The gradient with respect to a weight matrix is a sum over steps of outer products, sum_s delta_s
a_s^T, of the signal that reaches the pre-activations and of what the matrix reads.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from rnntk.elman import ElmanRNN, Forward, Params, forward, networks


class Batch(NamedTuple):
    """Sequences, with what belongs to each of them."""

    x: Float[Array, "n t d"]
    lengths: Int[Array, " n"] | None
    keys: Array | None  # of independent initial states, (n,)


class Factors(NamedTuple):
    """Gradients with respect to the trained weights of one layer, sum_s signal_s read_s^T.

    Attributes:
        signals: backpropagated to the pre-activations. Axis r holds the output coordinates that
            stay apart (steps of the output, and outputs if they are not averaged); axis c is
            contracted (units, and outputs if they are averaged).
        reads: what W, U and the bias of the layer read, scaled, side by side.
    """

    signals: Float[Array, "n t r c"]
    reads: Float[Array, "n t k"]


class Gradients(NamedTuple):
    """All gradients of a batch.

    Attributes:
        layers: of every layer of every direction; none if neither W nor U nor b is trained.
        features: for each direction, what V reads, scaled, shape (n, 1, m), or (n, t, m) for the
            "sequence" readout.
    """

    layers: tuple[Factors, ...]
    features: tuple[Float[Array, "n s m"], ...]


@partial(jax.jit, static_argnames=("average", "size"))
def gradients(
    rnn: ElmanRNN,
    params: Params,
    batch: Batch,
    average: bool,
    start: Int[ArrayLike, ""] = 0,
    size: int | None = None,
) -> Gradients:
    """One forward pass, and one backward pass over time for all sequences.

    Args:
        rnn: the architecture.
        params: its parameters.
        batch: the sequences.
        average: contract the outputs, to average the kernel over them.
        start: the first sequence of which gradients are wanted.
        size: how many; all if omitted.
    """
    if size is not None:
        batch = jax.tree.map(lambda v: jax.lax.dynamic_slice_in_dim(v, start, size), batch)
    x = batch.x
    n, t, _ = x.shape
    o, m = networks(rnn, params)[0]["V"].shape
    shifts = [[jnp.zeros((t, n, m), x.dtype)] * rnn.depth for _ in networks(rnn, params)]

    def run(shifts: list[list[Array]]) -> tuple[Array, Forward]:
        result = forward(rnn, params, x, batch.lengths, batch.keys, shifts)
        return result.output, result

    def arrange(signal: Float[Array, "coordinates t n m"]) -> Float[Array, "n t r c"]:
        signal = signal.transpose(2, 1, 0, 3)
        return signal.reshape(n, t, -1, o * m) / math.sqrt(o) if average else signal

    v_scale = jnp.asarray(rnn.v_std, x.dtype) / math.sqrt(m)
    if set(rnn.trainable) == {"V"}:
        result = run(shifts)[1]
        return Gradients((), _features(result, v_scale))
    output, pull, result = jax.vjp(run, shifts, has_aux=True)
    coordinates = math.prod(output.shape[1:])
    basis = jnp.eye(coordinates, dtype=x.dtype).reshape(coordinates, 1, *output.shape[1:])
    basis = jnp.broadcast_to(basis, (coordinates, *output.shape))
    signals = jax.vmap(lambda cotangent: pull(cotangent)[0])(basis)
    layers = tuple(
        Factors(arrange(signals[direction][layer]), _reads(rnn, result, direction, layer))
        for direction in range(len(signals))
        for layer in range(rnn.depth)
    )
    return Gradients(layers, _features(result, v_scale))


def _features(result: Forward, scale: Array) -> tuple[Float[Array, "n s m"], ...]:
    return tuple(scale * features.swapaxes(0, 1) for features in result.features)


def _reads(rnn: ElmanRNN, result: Forward, direction: int, layer: int) -> Float[Array, "n t k"]:
    states, tokens = result.states[direction][layer], result.tokens[direction][layer]
    states, tokens = states.swapaxes(0, 1), tokens.swapaxes(0, 1)
    dtype, m = states.dtype, states.shape[-1]
    fan_in = jnp.asarray(rnn.u_std, dtype) / math.sqrt(m)
    reads = {
        "W": states * (jnp.asarray(rnn.w_std, dtype) / math.sqrt(m)),
        "U": tokens * (fan_in if layer else rnn.u_scale(tokens.shape[-1], dtype)),
        "b": jnp.broadcast_to(jnp.asarray(rnn.b_std, dtype), (*states.shape[:2], 1)),
    }
    return jnp.concatenate([reads[g] for g in rnn.trainable if g in reads], axis=-1)


@partial(jax.jit, static_argnames="n")
def join(parts: tuple[Gradients, ...], n: int) -> Gradients:
    """The gradients of n sequences, from parts of one size, the last of which may reach back."""
    size = len(parts[0].features[0])
    skipped = len(parts) * size - n
    return jax.tree.map(lambda *v: jnp.concatenate([*v[:-1], v[-1][skipped:]]), *parts)
