"""The forward pass of Elman networks, with what a backward pass needs of it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rnntk import sequences
from rnntk.network.elman import GROUPS, PRECISION, ElmanRNN, Params
from rnntk.network.multipliers import Multipliers
from rnntk.network.parameters import layers, networks


def scaled(
    rnn: ElmanRNN, network: Params, index: int, scales: Multipliers, dtype: jnp.dtype
) -> dict[str, Array]:
    """The matrices of a layer, and V, with what stands before them."""
    matrices = layers(rnn, network)[index] | {"V": network["V"]}
    before = scales.layer(index)
    return {group: before[group] * matrices[group].astype(dtype) for group in GROUPS}


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
    scales: Multipliers,
    unroll: int = 1,
) -> Forward:
    """Run the network. A backward one gives its outputs, but not its traces, in time's order.

    ``unroll`` steps are one turn of the loop, which costs compilation and saves the loop's work.
    """
    output = jnp.zeros((), x.dtype)
    result = Forward(output, [], [])
    for direction, network in enumerate(networks(rnn, params)):
        tokens = (sequences.reverse(x, lengths) if direction else x).swapaxes(0, 1)
        result.traces.append([])
        for index, layer in enumerate(layers(rnn, network)):
            number = 2 * index + direction
            h0 = _initial_state(rnn, layer, x.shape[0], keys, number, scales, x.dtype)
            matrices = scaled(rnn, network, index, scales, x.dtype)
            last, trace = _layer(rnn, matrices, tokens, h0, unroll)
            result.traces[-1].append(trace)
            tokens = rnn.phi.fn(trace.preactivations)
        if direction and rnn.r.per_step:
            tokens = sequences.reverse(tokens.swapaxes(0, 1), lengths).swapaxes(0, 1)
        # the loop gives the last state by itself, without a pass over all of them
        final = rnn.r.ends_only and lengths is None
        result.features.append(last[None] if final else rnn.r.features(tokens, lengths))
        output = output + jnp.matmul(result.features[-1], matrices["V"].T, precision=PRECISION)
    output = output.swapaxes(0, 1) if rnn.r.per_step else output[0]
    return result._replace(output=output)


def _initial_state(
    rnn: ElmanRNN,
    layer: Params,
    n: int,
    keys: Array | None,
    number: int,
    scales: Multipliers,
    dtype: jnp.dtype,
) -> Float[Array, "n m"] | None:
    (m,) = layer["b"].shape
    if rnn.initial_state == "shared":
        return jnp.broadcast_to(scales.initial * layer["h0"].astype(dtype), (n, m))
    if keys is None:
        return None
    draw = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, number), (m,), dtype))
    return scales.initial * draw(keys)


def _layer(
    rnn: ElmanRNN,
    matrices: dict[str, Array],
    tokens: Float[Array, "t n k"],
    h0: Float[Array, "n m"] | None,
    unroll: int,
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

    last, rest = jax.lax.scan(step, rnn.phi.fn(first), drive, unroll=unroll)
    return last, Trace(tokens, h0, jnp.concatenate([first[None], rest]))
