"""Gradients of a network's outputs, as the thin factors that backpropagation finds them in.

The gradient with respect to a weight matrix is a sum over steps of outer products, sum_s delta_s
a_s^T, of the signal that reaches the pre-activations and of what the matrix reads.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from rnntk.network.elman import PRECISION, ElmanRNN, Params, networks
from rnntk.network.forward import Trace, forward, multipliers, scaled

ALIGNED = 16  # columns: on a CPU, products of so many times a whole number are a seventh faster


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
        reads: what W, U and the bias of the layer read, scaled, side by side; zeros may follow.
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
    x, lengths, keys = batch
    result = forward(rnn, params, x, lengths, keys)
    found: list[Factors] = []
    features = []
    for direction, network in enumerate(networks(rnn, params)):
        traces = result.traces[direction]
        scales = [multipliers(rnn, network, index, x.dtype) for index in range(rnn.depth)]
        features.append(scales[0]["V"] * result.features[direction].swapaxes(0, 1))
        if set(rnn.trainable) == {"V"}:
            continue
        signals = _backpropagate(rnn, network, traces, lengths, direction)
        averaged = len(network["V"]) if average else 1
        found += map(partial(_factors, rnn, averaged), signals, traces, scales)
    return Gradients(tuple(found), tuple(features))


def _backpropagate(
    rnn: ElmanRNN,
    network: Params,
    traces: list[Trace],
    lengths: Int[Array, " n"] | None,
    direction: int,
) -> list[Float[Array, "t n coordinates m"]]:
    """Signals at the pre-activations of each layer, from all coordinates of the output."""
    t, n, m = traces[0].preactivations.shape
    matrices = [scaled(rnn, network, index, traces[0].tokens.dtype) for index in range(rnn.depth)]
    v = matrices[-1]["V"]
    given, last = None, jnp.broadcast_to(v, (n, *v.shape))
    if rnn.readout != "last" or lengths is not None:
        share = _shares(rnn, lengths, n, t, direction, v.dtype)
        given = (share[..., None, None] * v[None, None, None]).reshape(t, n, -1, m)
        last = jnp.zeros_like(given[0])
    signals: list[Array] = []
    for index in reversed(range(rnn.depth)):
        if signals:
            given = jnp.matmul(signals[0], matrices[index + 1]["U"], precision=PRECISION)
            last = jnp.zeros_like(last)
        found = _through(rnn, matrices[index]["W"], traces[index].preactivations, given, last)
        signals.insert(0, found)
    return signals


def _through(
    rnn: ElmanRNN,
    w: Float[Array, "m m"],
    preactivations: Float[Array, "t n m"],
    given: Float[Array, "t n coordinates m"] | None,
    last: Float[Array, "n coordinates m"],
) -> Float[Array, "t n coordinates m"]:
    """Backwards through the steps of a layer.

    Args:
        rnn: the architecture.
        w: what multiplies the states.
        preactivations: of the layer.
        given: gradients with respect to each state, but through later steps; None if zero.
        last: added to that of the last state.
    """

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
    gradient, later = jax.lax.scan(step, last, rest, reverse=True)
    first = signal(jax.tree.map(lambda v: v[0], steps), gradient)  # and no further
    return jnp.concatenate([first[None], later])


def _shares(
    rnn: ElmanRNN,
    lengths: Int[Array, " n"] | None,
    n: int,
    t: int,
    direction: int,
    dtype: jnp.dtype,
) -> Float[Array, "t n s"]:
    """Shares of the states, in the order in which they are read, in what V reads at its s steps."""
    count = jnp.full(n, t) if lengths is None else lengths
    count, steps = count[None, :, None], jnp.arange(t)[:, None, None]
    if rnn.readout == "last":
        return (steps == count - 1).astype(dtype)
    inside = steps < count
    if rnn.readout == "mean":
        return jnp.where(inside, 1 / count.astype(dtype), 0)
    at = count - 1 - steps if direction else steps
    return (inside & (at == jnp.arange(t)[None, None])).astype(dtype)


def _factors(
    rnn: ElmanRNN,
    averaged: int,
    signals: Float[Array, "t n coordinates m"],
    trace: Trace,
    scales: dict[str, Array],
) -> Factors:
    """Signals and reads of a layer, sequences first; so many outputs are contracted."""
    t, n, m = trace.preactivations.shape
    signals, tokens, dtype = signals.swapaxes(0, 1), trace.tokens.swapaxes(0, 1), signals.dtype
    signals = signals.reshape(n, t, -1, averaged * m) / math.sqrt(averaged)
    initial = jnp.zeros((n, m), dtype) if trace.initial is None else trace.initial
    states = jnp.concatenate([initial[None], rnn.phi.fn(trace.preactivations[:-1])])
    reads = {
        "W": scales["W"] * states.swapaxes(0, 1),
        "U": scales["U"] * tokens,
        "b": jnp.broadcast_to(scales["b"], (n, t, 1)),
    }
    trained = [reads[group] for group in rnn.trainable if group in reads]
    k = sum(read.shape[-1] for read in trained)
    padding = jnp.zeros((n, t, aligned(k) - k), dtype)
    return Factors(signals, jnp.concatenate([*trained, padding], axis=-1))


def aligned(k: int) -> int:
    """Columns of ``Factors.reads`` that have k numbers to hold."""
    return -(-k // ALIGNED) * ALIGNED
