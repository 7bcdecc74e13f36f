"""The recursion of each sequence with itself: what the recursion over pairs needs of one alone."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from rnntk.activations import safe_sqrt
from rnntk.elman import ElmanRNN

CHUNK = 8  # token entries whose squared differences XLA adds up in one pass over the pairs


class Layer(NamedTuple):
    """What one layer's recursion over pairs needs of each sequence alone, at every step."""

    before: Float[Array, "t n"]  # sqrt(E h_{s-1}^2)
    back_before: Float[Array, "t n"]  # B_ii one step earlier
    drive: Float[Array, "t n"]  # u |token|
    std: Float[Array, "t n"]  # sqrt(a), a = E u_s^2
    tangent: Float[Array, "t n"]  # T_ii
    after: Float[Array, "t n"]  # sqrt(E h_s^2)
    variance: Float[Array, "t n"]  # E h_s^2
    back: Float[Array, "t n"]  # B_ii
    slope: Float[Array, "t n"]  # E phi'(u_s)^2
    marginal: Any  # of the activation at a, leaves (t, ..., n)


# Entry c * CHUNK + k of the token at step s, of C chunks in all, is row s * C + c of array k.
Tokens = tuple[Float[Array, "t_chunks n"], ...]


class Side(NamedTuple):
    """One batch of sequences, ready to be paired with another."""

    tokens: Tokens  # u x_s
    directions: Tokens  # x_s / |x_s|
    start: Int[Array, " n"] | None  # first step, where sequences are aligned at their ends
    lengths: Int[Array, " n"] | None  # of sequences aligned at their starts
    layers: tuple[Layer, ...]


class Scales(NamedTuple):
    """Squared multipliers, and variance of the initial state, in the dtype of the tokens."""

    w2: Array
    u2: Array
    b2: Array
    v2: Array
    h2: Array


def squared_scales(rnn: ElmanRNN, dtype: jnp.dtype) -> Scales:
    """The squares of all standard deviations of ``rnn``."""
    stds = (rnn.w_std, rnn.u_std, rnn.b_std, rnn.v_std, rnn.initial_state_std)
    return Scales(*(jnp.square(jnp.asarray(std, dtype)) for std in stds))


def prepare(rnn: ElmanRNN, x: Float[Array, "n t d"], lengths: Int[Array, " n"] | None) -> Side:
    """The recursion of each sequence with itself, and the tokens laid out for the pairs."""
    _, t, d = x.shape
    start = None
    if rnn.readout == "last" and lengths is not None:
        start = t - lengths
        steps = jnp.arange(t)[None, :] - start[:, None]
        x = jnp.take_along_axis(x, jnp.maximum(steps, 0)[..., None], axis=1)
        x = jnp.where((steps >= 0)[..., None], x, 0)
    x = x * rnn.u_scale(d, x.dtype)
    scales = squared_scales(rnn, x.dtype)
    norms = safe_sqrt(jnp.sum(x * x, axis=2))
    directions = x / jnp.where(norms > 0, norms, 1)[..., None]
    drive = norms.T
    below = jnp.zeros_like(drive)
    layers = []
    for _ in range(rnn.depth):
        layer = _alone(rnn, scales, drive, below, start)
        layers.append(layer)
        drive, below = jnp.asarray(rnn.u_std, x.dtype) * layer.after, scales.u2 * layer.back
    lengths = lengths if start is None else None
    return Side(_chunked(x), _chunked(directions), start, lengths, tuple(layers))


def _chunked(x: Float[Array, "n t d"]) -> Tokens:
    n, _, d = x.shape
    chunk = min(d, CHUNK)
    x = jnp.pad(x, ((0, 0), (0, 0), (0, -d % chunk)))
    return tuple(x.transpose(1, 2, 0).reshape(-1, chunk, n).swapaxes(0, 1))


def _alone(rnn: ElmanRNN, scales: Scales, drive: Array, below: Array, start: Array | None) -> Layer:
    """One layer's recursion of each sequence with itself; ``below`` is u^2 B of the layer below."""

    def step(carry: tuple[Array, Array], inputs: tuple[Array, ...]) -> tuple[Any, Layer]:
        before, back_before = carry
        s, norm, tangent_below = inputs
        recurrent, token = scales.w2 * before, norm * norm
        a = recurrent + token + scales.b2
        own = trained(rnn, recurrent, token, jnp.broadcast_to(scales.b2, a.shape))
        tangent = own + scales.w2 * back_before + tangent_below
        constant = rnn.phi.slope
        slope = jnp.full_like(a, constant) if isinstance(constant, float) else constant(a)
        after, back = rnn.phi.variance(a), slope * tangent
        if start is not None:
            after = jnp.where(s < start, scales.h2, after)
            back = jnp.where(s < start, 0, back)
        std_before, std, std_after = (safe_sqrt(v) for v in (before, a, after))
        marginal = rnn.phi.marginal(a)
        layer = Layer(
            std_before, back_before, norm, std, tangent, std_after, after, back, slope, marginal
        )
        return (after, back), layer

    first = jnp.broadcast_to(scales.h2, drive.shape[1:])
    inputs = (jnp.arange(len(drive)), drive, below)
    return jax.lax.scan(step, (first, jnp.zeros_like(first)), inputs)[1]


def trained(rnn: ElmanRNN, recurrent: Array, token: Array, bias: Array) -> Array:
    """The sum of the parts of L (or of its distances) that belong to trained groups."""
    parts = {"W": recurrent, "U": token, "b": bias}
    return sum((parts[g] for g in rnn.trainable if g in parts), jnp.zeros_like(recurrent))


def exists(side: Side, s: Array) -> Bool[Array, " n"]:
    """The sequences that have a step s."""
    n = side.layers[0].drive.shape[1]
    return jnp.ones(n, bool) if side.lengths is None else s < side.lengths


def count(side: Side) -> Float[Array, " n"]:
    """Steps of each sequence."""
    t, n = side.layers[0].drive.shape
    lengths = jnp.full(n, t) if side.lengths is None else side.lengths
    return lengths.astype(side.layers[0].drive.dtype)


def check_range(side: Side) -> None:
    """Raise where the recursion has left the range of the dtype, naming the step."""
    info = np.finfo(side.layers[0].drive.dtype)
    t, n = side.layers[0].drive.shape
    signal = np.any([np.asarray(v) != 0 for v in side.tokens], axis=0).reshape(t, -1, n).any(1)
    for number, layer in enumerate(side.layers, 1):
        with np.errstate(over="ignore", invalid="ignore"):
            a, tangent = np.asarray(layer.std) ** 2, np.abs(layer.tangent)
            large = ~((a < info.max / 64) & (tangent < info.max / 64))
        small = (a < info.tiny / info.eps) & (signal | (np.asarray(layer.before) > 0))
        signal = np.asarray(layer.after) > 0
        for bad, word in ((large, "overflows"), (small, "underflows")):
            if bad.any():
                s, i = np.argwhere(bad)[0]
                s -= 0 if side.start is None else int(side.start[i])
                raise FloatingPointError(
                    f"The kernel {word} {info.dtype} at step {s} of sequence {i}, layer {number}: "
                    f"variance {a[tuple(np.argwhere(bad)[0])]:.3g}. Signals grow or shrink by a "
                    f"constant factor a step: choose w_std so that w_std^2 E phi(u)^2 stays near "
                    f"E u^2 (sqrt(2) for relu), rescale the tokens, use shorter sequences"
                    f"{', or float64' if info.bits == 32 else ''}."
                )
