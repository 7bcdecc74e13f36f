"""The forward pass of Elman networks, with what a backward pass needs of it."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rnntk import sequences
from rnntk.network.elman import GROUPS, PRECISION, STDS, ElmanRNN, Params, layers, networks


def multipliers(rnn: ElmanRNN, network: Params, index: int, dtype: jnp.dtype) -> dict[str, Array]:
    """What stands before the matrices that a layer reads with, and before V."""
    w_std, u_std, b_std, v_std = (jnp.asarray(getattr(rnn, name), dtype) for name in STDS)
    m, k = layers(rnn, network)[index]["U"].shape
    root = math.sqrt(m)
    u_scale = u_std / root if index else rnn.u_scale(k, dtype)
    return {"W": w_std / root, "U": u_scale, "b": b_std, "V": v_std / root}


def scaled(rnn: ElmanRNN, network: Params, index: int, dtype: jnp.dtype) -> dict[str, Array]:
    """The matrices of a layer, and V, with what stands before them."""
    matrices = layers(rnn, network)[index] | {"V": network["V"]}
    scales = multipliers(rnn, network, index, dtype)
    return {group: scales[group] * matrices[group].astype(dtype) for group in GROUPS}


class Trace(NamedTuple):
    """What one layer of one network computed, steps first in the order in which it reads.

    Attributes:
        tokens: what U reads, (t, n, d) or (t, n, m).
        initial: what W reads at the first step, (n, m); None if it is zero.
        preactivations: shape (t, n, m).
    """

    tokens: Float[Array, "t n k"]
    initial: Float[Array, "n m"] | None
    preactivations: Float[Array, "t n m"]


class Forward(NamedTuple):
    """A forward pass, network by network (one, or two if bidirectional).

    Attributes:
        output: shape (n, o), or (n, t, o) for "sequence".
        features: what each readout matrix V reads, shape (1, n, m), or (t, n, m) for "sequence".
        traces: for each network and layer, what it computed.
    """

    output: Array
    features: list[Array]
    traces: list[list[Trace]]


def forward(
    rnn: ElmanRNN,
    params: Params,
    x: Float[Array, "n t d"],
    lengths: Int[Array, " n"] | None,
    keys: Array | None,
) -> Forward:
    """Run the network. A backward one gives its outputs, but not its traces, in time's order."""
    output = jnp.zeros((), x.dtype)
    result = Forward(output, [], [])
    for direction, network in enumerate(networks(rnn, params)):
        tokens = (sequences.reverse(x, lengths) if direction else x).swapaxes(0, 1)
        result.traces.append([])
        for index, layer in enumerate(layers(rnn, network)):
            h0 = _initial_state(rnn, layer, x.shape[0], x.dtype, keys, 2 * index + direction)
            matrices = scaled(rnn, network, index, x.dtype)
            last, trace = _layer(rnn, matrices, tokens, h0)
            result.traces[-1].append(trace)
            tokens = rnn.phi.fn(trace.preactivations)
        if direction and rnn.readout == "sequence":
            tokens = sequences.reverse(tokens.swapaxes(0, 1), lengths).swapaxes(0, 1)
        final = rnn.readout == "last" and lengths is None
        result.features.append(last[None] if final else _readout(rnn, tokens, lengths))
        output = output + jnp.matmul(result.features[-1], matrices["V"].T, precision=PRECISION)
    output = output.swapaxes(0, 1) if rnn.readout == "sequence" else output[0]
    return result._replace(output=output)


def _initial_state(
    rnn: ElmanRNN, layer: Params, n: int, dtype: jnp.dtype, keys: Array | None, number: int
) -> Float[Array, "n m"] | None:
    (m,) = layer["b"].shape
    if rnn.initial_state == "shared":
        return jnp.broadcast_to(rnn.initial_state_std * layer["h0"].astype(dtype), (n, m))
    if keys is None:
        return None
    draw = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, number), (m,), dtype))
    return rnn.initial_state_std * draw(keys)


def _layer(
    rnn: ElmanRNN,
    matrices: dict[str, Array],
    tokens: Float[Array, "t n k"],
    h0: Float[Array, "n m"] | None,
) -> tuple[Float[Array, "n m"], Trace]:
    """The last state, and all else; the tokens' share of all steps is one matrix product."""
    w, u, bias = matrices["W"], matrices["U"], matrices["b"][None]
    # The first step by itself: without an initial state, W has nothing to multiply.
    first, drive = (jnp.matmul(part, u.T, precision=PRECISION) for part in (tokens[0], tokens[1:]))
    first = first + bias
    if h0 is not None:
        first = first + jnp.matmul(h0, w.T, precision=PRECISION)

    def step(h: Array, drive: Array) -> tuple[Array, Array]:
        preactivation = jnp.matmul(h, w.T, precision=PRECISION) + (drive + bias)
        return rnn.phi.fn(preactivation), preactivation

    last, rest = jax.lax.scan(step, rnn.phi.fn(first), drive)
    return last, Trace(tokens, h0, jnp.concatenate([first[None], rest]))


def _readout(
    rnn: ElmanRNN, states: Float[Array, "t n m"], lengths: Int[Array, " n"] | None
) -> Float[Array, "s n m"]:
    """What the output weights read: r(h)."""
    count = jnp.full(states.shape[1], len(states)) if lengths is None else lengths
    if rnn.readout == "last":
        return jnp.take_along_axis(states, (count - 1)[None, :, None], axis=0)
    if lengths is not None:
        states = jnp.where(sequences.mask(lengths, len(states)).T[..., None], states, 0)
    if rnn.readout == "sequence":
        return states
    return states.sum(axis=0, keepdims=True) / count[None, :, None].astype(states.dtype)
