"""Outputs of a network, and the transpose of their Jacobian, by the library's own two passes.

The gradient of a weight matrix is sum_s delta_s a_s^T over steps and sequences, of the signals that
arrive and of what the matrix reads: one product of two tall matrices, where differentiating a loop
over the steps adds up an m x m matrix at each of them.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rnntk import sequences
from rnntk.empirical.backprop import _through
from rnntk.network.elman import PRECISION, ElmanRNN, Params, networks
from rnntk.network.forward import Forward, Trace, forward, multipliers, scaled

Weights = dict[str, Array]
"""Some leaves of the parameters, by their paths in them."""
Tree = Any
"""Parameters of a network, or the pair of those of two."""
Pullback = Callable[[Array], Weights]


def trained(rnn: ElmanRNN, params: Tree) -> Weights:
    """The leaves that training moves."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {
        jax.tree_util.keystr(path): leaf
        for path, leaf in leaves
        if getattr(path[-1], "key", None) in rnn.trainable
    }


def replaced(params: Tree, weights: Weights) -> Tree:
    """The parameters with some of their leaves changed."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: weights.get(jax.tree_util.keystr(path), leaf), params
    )


def outputs_and_pullback(
    rnn: ElmanRNN,
    params: Params,
    x: Float[Array, "n t d"],
    lengths: Int[Array, " n"] | None,
) -> tuple[Float[Array, "n o"] | Float[Array, "n t o"], Pullback]:
    """Outputs, and what multiplies arrays of their shape by the transpose of their Jacobian."""
    result = forward(rnn, params, x, lengths, None)

    def pull(cotangent: Array) -> Weights:
        found: list[Params] = [
            _network(rnn, network, result, cotangent, lengths, direction)
            for direction, network in enumerate(networks(rnn, params))
        ]
        both = dict(zip(("forward", "backward"), found, strict=False))
        return trained(rnn, both if rnn.bidirectional else found[0])

    return result.output, pull


def _network(
    rnn: ElmanRNN,
    network: Params,
    result: Forward,
    cotangent: Float[Array, "n o"] | Float[Array, "n t o"],
    lengths: Int[Array, " n"] | None,
    direction: int,
) -> Params:
    """Gradients of one of the networks, in the tree of its parameters; of trained groups only."""
    traces, features = result.traces[direction], result.features[direction]
    dtype = traces[0].preactivations.dtype
    scales = [multipliers(rnn, network, index, dtype) for index in range(rnn.depth)]
    gradient: Params = {}
    if "V" in rnn.trainable:
        given = cotangent.swapaxes(0, 1) if rnn.readout == "sequence" else cotangent[None]
        gradient["V"] = scales[0]["V"] * _outer(given, features)
    if set(rnn.trainable) == {"V"}:
        return gradient
    matrices = [scaled(rnn, network, index, dtype) for index in range(rnn.depth)]
    signals = _signals(rnn, matrices, traces, cotangent, lengths, direction)
    layers = tuple(
        _layer(rnn, signal, trace, scale)
        for signal, trace, scale in zip(signals, traces, scales, strict=True)
    )
    return gradient | (layers[0] if rnn.depth == 1 else {"layers": layers})


def _layer(
    rnn: ElmanRNN, signals: Float[Array, "t n m"], trace: Trace, scales: dict[str, Array]
) -> Params:
    found: Params = {}
    if "W" in rnn.trainable:
        found["W"] = _outer(signals[1:], rnn.phi.fn(trace.preactivations[:-1]))
        if trace.initial is not None:
            found["W"] = found["W"] + _outer(signals[:1], trace.initial[None])
    if "U" in rnn.trainable:
        found["U"] = _outer(signals, trace.tokens)
    if "b" in rnn.trainable:
        found["b"] = signals.sum(axis=(0, 1))
    return {group: scales[group] * value for group, value in found.items()}


def _outer(signals: Float[Array, "t n i"], reads: Float[Array, "t n j"]) -> Float[Array, "i j"]:
    """sum_s sum_n signal read^T, as one product."""
    left, right = (v.reshape(-1, v.shape[-1]) for v in (signals, reads))
    return jnp.matmul(left.T, right, precision=PRECISION)


def _signals(
    rnn: ElmanRNN,
    matrices: list[dict[str, Array]],
    traces: list[Trace],
    cotangent: Float[Array, "n o"] | Float[Array, "n t o"],
    lengths: Int[Array, " n"] | None,
    direction: int,
) -> list[Float[Array, "t n m"]]:
    """What reaches the pre-activations of each layer."""
    t, n, m = traces[0].preactivations.shape
    reached = jnp.matmul(cotangent, matrices[-1]["V"], precision=PRECISION)
    given: Any = None
    last = reached
    if rnn.readout != "last" or lengths is not None:
        count = (jnp.full(n, t) if lengths is None else lengths)[None, :]
        step = jnp.arange(t)[:, None]
        inside = step < count
        if rnn.readout == "sequence":
            share = inside.astype(reached.dtype)
            reached = sequences.reverse(reached, lengths) if direction else reached
            reached = reached.swapaxes(0, 1)
        else:
            one = 1 / count if rnn.readout == "mean" else (step == count - 1)
            share = jnp.where(inside, one.astype(reached.dtype), 0)
            reached = reached[None]
        given, last = share[..., None] * reached, jnp.zeros((n, m), reached.dtype)
    found: list[Array] = []
    for index in reversed(range(rnn.depth)):
        if found:
            given = jnp.matmul(found[0], matrices[index + 1]["U"], precision=PRECISION)
            last = jnp.zeros((n, m), given.dtype)
        pre = traces[index].preactivations
        w = matrices[index]["W"]
        each = _through(rnn, w, pre, None if given is None else given[:, :, None], last[:, None])
        found.insert(0, each[:, :, 0])
    return found
