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

from rnntk.network import backward
from rnntk.network.elman import ElmanRNN, Params
from rnntk.network.forward import Trace, forward, scaled
from rnntk.network.multipliers import Multipliers
from rnntk.network.parameters import networks
from rnntk.tiling import tuning


class Batch(NamedTuple):
    """Sequences, with what belongs to each of them."""

    x: Float[Array, "n t d"]
    lengths: Int[Array, " n"] | None
    keys: Array | None  # of independent initial states, (n,)


class Network(NamedTuple):
    """A network of finite width, with the scalars that stand before its parameters."""

    rnn: ElmanRNN
    params: Params
    scales: Multipliers

    @property
    def outputs(self) -> int:
        """Number of outputs."""
        return int(networks(self.rnn, self.params)[0]["V"].shape[0])


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
    network: Network,
    batch: Batch,
    average: bool,
    start: Int[ArrayLike, ""] = 0,
    size: int | None = None,
) -> Gradients:
    """One forward pass, and one backward pass over time for all sequences.

    Args:
        network: the network.
        batch: the sequences.
        average: contract the outputs, to average the kernel over them.
        start: the first sequence of which gradients are wanted.
        size: how many; all if omitted.
    """
    if size is not None:
        batch = jax.tree.map(lambda v: jax.lax.dynamic_slice_in_dim(v, start, size), batch)
    x, lengths, keys = batch
    rnn, params, scales = network
    result = forward(rnn, params, x, lengths, keys, scales)
    found: list[Factors] = []
    features = []
    for direction, one in enumerate(networks(rnn, params)):
        traces = result.traces[direction]
        features.append(scales.V * result.features[direction].swapaxes(0, 1))
        if set(rnn.trainable) == {"V"}:
            continue
        matrices = [scaled(rnn, one, index, scales, x.dtype) for index in range(rnn.depth)]
        v, (t, n, _) = matrices[-1]["V"], traces[0].preactivations.shape
        given, last = backward.seeds(rnn, v, lengths, (t, n), direction)
        reached = backward.signals(rnn, matrices, traces, given, last)
        averaged = len(v) if average else 1
        found += [
            _factors(rnn, averaged, signals, trace, scales.layer(index))
            for index, (signals, trace) in enumerate(zip(reached, traces, strict=True))
        ]
    return Gradients(tuple(found), tuple(features))


def _factors(
    rnn: ElmanRNN,
    averaged: int,
    signals: Float[Array, "t n coordinates m"],
    trace: Trace,
    scales: dict[str, Any],
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
    return -(-k // tuning.ALIGNED) * tuning.ALIGNED
