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
from rnntk.network import backward
from rnntk.network.elman import PRECISION, ElmanRNN, Params
from rnntk.network.forward import Forward, Trace, forward, scaled
from rnntk.network.multipliers import Multipliers
from rnntk.network.parameters import networks
from rnntk.tiling import tuning

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
    scales: Multipliers,
    params: Params,
    x: Float[Array, "n t d"],
    lengths: Int[Array, " n"] | None,
) -> tuple[Float[Array, "n o"] | Float[Array, "n t o"], Pullback]:
    """Outputs, and what multiplies arrays of their shape by the transpose of their Jacobian."""
    result = forward(rnn, params, x, lengths, None, scales, _unroll(x.shape[1]))

    def pull(cotangent: Array) -> Weights:
        found: list[Params] = [
            _network(rnn, scales, network, result, cotangent, lengths, direction)
            for direction, network in enumerate(networks(rnn, params))
        ]
        both = dict(zip(("forward", "backward"), found, strict=False))
        return trained(rnn, both if rnn.bidirectional else found[0])

    return result.output, pull


def _network(
    rnn: ElmanRNN,
    scales: Multipliers,
    network: Params,
    result: Forward,
    cotangent: Float[Array, "n o"] | Float[Array, "n t o"],
    lengths: Int[Array, " n"] | None,
    direction: int,
) -> Params:
    """Gradients of one of the networks, in the tree of its parameters; of trained groups only."""
    traces, features = result.traces[direction], result.features[direction]
    given = cotangent.swapaxes(0, 1) if rnn.r.per_step else cotangent[None]
    gradient: Params = {}
    if "V" in rnn.trainable:
        gradient["V"] = scales.V * _outer(_steps(given), _steps(features), given.shape[1])
    if set(rnn.trainable) == {"V"}:
        return gradient
    dtype = features.dtype
    matrices = [scaled(rnn, network, index, scales, dtype) for index in range(rnn.depth)]
    reached = _to_states(rnn, given, matrices[-1]["V"], lengths, len(traces[0].tokens), direction)
    signals = backward.signals(rnn, matrices, traces, *reached, _unroll(len(traces[0].tokens)))
    layers = tuple(
        _layer(rnn, signal, trace, scales.layer(index))
        for index, (signal, trace) in enumerate(zip(signals, traces, strict=True))
    )
    return gradient | (layers[0] if rnn.depth == 1 else {"layers": layers})


def _to_states(
    rnn: ElmanRNN,
    given: Float[Array, "s n o"],
    v: Float[Array, "o m"],
    lengths: Int[Array, " n"] | None,
    t: int,
    direction: int,
) -> tuple[Float[Array, "t n 1 m"] | None, Float[Array, "n 1 m"]]:
    """What reaches the states of the top layer, as ``backward.signals`` takes it."""
    reached = jnp.matmul(given, v, precision=PRECISION)
    if rnn.r.ends_only and lengths is None:
        return None, reached[0][:, None]
    if direction and rnn.r.per_step:  # the outputs are in the order of time
        reached = sequences.reverse(reached.swapaxes(0, 1), lengths).swapaxes(0, 1)
    share = rnn.r.shares(t, lengths, v.dtype)[..., None]
    return (share * reached)[:, :, None], jnp.zeros_like(reached[0])[:, None]


def _layer(
    rnn: ElmanRNN, signals: Float[Array, "t n 1 m"], trace: Trace, scales: dict[str, Any]
) -> Params:
    found: Params = {}
    n = signals.shape[1]
    # the first step by itself, as in the forward pass: W reads nothing there, or the initial state
    first, later = signals[0, :, 0], _steps(signals[1:])
    if "W" in rnn.trainable:
        states = [rnn.phi.fn(some) for some in _steps(trace.preactivations[:-1])]
        found["W"] = _outer(later, states, n)
        if trace.initial is not None:
            found["W"] = found["W"] + _product(first, trace.initial)
    if "U" in rnn.trainable:
        tokens = trace.tokens[1:].reshape(-1, trace.tokens.shape[2])
        found["U"] = _outer(later, [tokens], n) + _product(first, trace.tokens[0])
    if "b" in rnn.trainable:
        found["b"] = signals.sum(axis=(0, 1, 2))
    return {group: scales[group] * value for group, value in found.items()}


def _steps(v: Float[Array, "t n *one k"]) -> list[Float[Array, "_ k"]]:
    """Steps of unrolled loops one by one, else all together.

    XLA takes a step from where it was computed; a slice of several would be a copy of their copy.
    """
    alone = 1 < len(v) == _unroll(len(v))
    return [some.reshape(-1, v.shape[-1]) for some in (v if alone else (v,))]


def _outer(
    signals: list[Float[Array, "_ i"]], reads: list[Float[Array, "_ j"]], n: int
) -> Float[Array, "i j"]:
    """sum_s sum_n signal read^T: products of so many rows that their factors stay in the cache.

    Both factors hold ``n`` rows for every step.
    """
    left, right = (jnp.concatenate(v) for v in (signals, reads))
    t, width = len(left) // n, left.shape[1]
    steps = max(1, tuning.PRODUCT_ROWS // n, -(-t // tuning.PRODUCTS))
    if width * width * left.dtype.itemsize > tuning.PRODUCT_BYTES:
        steps = t
    rows = max(1, steps * n)
    parts = [  # of no steps, zeros
        _product(left[start : start + rows], right[start : start + rows])
        for start in range(0, max(1, len(left)), rows)
    ]
    return sum(parts[1:], parts[0])


def _product(signal: Float[Array, "n i"], read: Float[Array, "n j"]) -> Float[Array, "i j"]:
    return jnp.matmul(signal.T, read, precision=PRECISION)


def _unroll(t: int) -> int:
    """Steps of a turn of the loops over time: all of a short sequence, else one."""
    return t if t <= tuning.UNROLLED_STEPS else 1
