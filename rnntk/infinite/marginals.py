"""The recursion of each sequence with itself: what the recursion over pairs needs of one alone."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from rnntk.activations.safe import safe_sqrt
from rnntk.network.elman import ElmanRNN

CHUNK = 8  # token entries whose squared differences XLA adds up in one pass over the pairs


class Layer(NamedTuple):
    """What one layer's recursion over pairs needs of each sequence alone, at every step.

    Norms, square roots of diagonal entries of the kernels, as these are inner products.
    """

    before: Float[Array, "t n"]  # of the state h_{s-1}
    back_before: Float[Array, "t n"]  # sqrt(B_ii) one step earlier
    drive: Float[Array, "t n"]  # u |token|
    std: Float[Array, "t n"]  # of the pre-activation u_s
    tangent: Float[Array, "t n"]  # sqrt(T_ii)
    after: Float[Array, "t n"]  # of the state h_s
    back: Float[Array, "t n"]  # sqrt(B_ii)
    slope: Float[Array, "t n"]  # of phi'(u_s)
    marginal: Any  # of the activation at E u_s^2, leaves (t, ..., n)


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
        layer = _alone(rnn, scales, drive, below, start, lengths)
        layers.append(layer)
        u = jnp.asarray(rnn.u_std, x.dtype)
        drive, below = u * layer.after, u * layer.back
    lengths = lengths if start is None else None
    return Side(_chunked(x), _chunked(directions), start, lengths, tuple(layers))


def _chunked(x: Float[Array, "n t d"]) -> Tokens:
    n, _, d = x.shape
    chunk = min(d, CHUNK)
    x = jnp.pad(x, ((0, 0), (0, 0), (0, -d % chunk)))
    return tuple(x.transpose(1, 2, 0).reshape(-1, chunk, n).swapaxes(0, 1))


def _alone(
    rnn: ElmanRNN,
    scales: Scales,
    drive: Array,
    below: Array,
    start: Array | None,
    lengths: Array | None,
) -> Layer:
    """One layer's recursion of each sequence with itself; ``below`` is u sqrt(B) of that below."""

    def step(carry: tuple[Array, Array], inputs: tuple[Array, ...]) -> tuple[Any, Layer]:
        before, back_before = carry
        s, norm, norm_below = inputs
        recurrent, token = scales.w2 * before, norm * norm
        a = recurrent + token + scales.b2
        ours = trained(rnn, recurrent, token, jnp.broadcast_to(scales.b2, a.shape))
        tangent = ours + scales.w2 * back_before + norm_below * norm_below
        own = rnn.phi.alone(a)
        after, back = own.variance, own.slope * tangent
        if start is not None:
            after = jnp.where(s < start, scales.h2, after)
            back = jnp.where(s < start, 0, back)
        elif lengths is not None:  # padding stays as it was: it must not overflow
            after = jnp.where(s < lengths, after, before)
            back = jnp.where(s < lengths, back, back_before)
        layer = Layer(
            before=safe_sqrt(before),
            back_before=safe_sqrt(back_before),
            drive=norm,
            std=safe_sqrt(a),
            tangent=safe_sqrt(tangent),
            after=safe_sqrt(after),
            back=safe_sqrt(back),
            slope=safe_sqrt(own.slope),
            marginal=own.marginal,
        )
        return (after, back), layer

    first = jnp.broadcast_to(scales.h2, drive.shape[1:])
    inputs = (jnp.arange(len(drive)), drive, below)
    return jax.lax.scan(step, (first, jnp.zeros_like(first)), inputs)[1]


def trained(rnn: ElmanRNN, recurrent: Array, token: Array, bias: Array) -> Array:
    """The sum of the parts of L that belong to trained groups."""
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


def check_range(rnn: ElmanRNN, side: Side) -> None:
    """Raise where the recursion has left the range of the dtype, naming the step."""
    info = np.finfo(side.layers[0].drive.dtype)
    t, n = side.layers[0].drive.shape
    w, u = (float(np.asarray(std)) for std in (rnn.w_std, rnn.u_std))
    token = np.any([np.asarray(v) != 0 for v in side.tokens], axis=0).reshape(t, -1, n).any(1)
    first = np.zeros(n, int) if side.start is None else np.asarray(side.start)
    end = np.full(n, t) if side.lengths is None else np.asarray(side.lengths)
    real = (np.arange(t)[:, None] >= first) & (np.arange(t)[:, None] < end)
    for number, layer in enumerate(side.layers, 1):
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            a = np.square(layer.std)
            sizes = a, *(np.square(v) for v in (layer.tangent, layer.after, layer.back))
            large = ~np.all([v < info.max / 64 for v in sizes], axis=0)
            signal = token | (w * np.asarray(layer.before) > 0)
            token = u * np.asarray(layer.after) > 0  # of the layer above
        small = (a < info.tiny / info.eps) & signal
        for bad, word in ((large & real, "overflows"), (small & real, "underflows")):
            if bad.any():
                s, i = map(int, np.argwhere(bad)[0])
                raise FloatingPointError(
                    f"The kernel {word} {info.dtype} at step {s - first[i]} of sequence {i}, layer "
                    f"{number}: variance {a[s, i]:.3g}, of which {rnn.phi.name} makes "
                    f"{sizes[2][s, i]:.3g}. Signals grow or shrink by a constant factor a step: "
                    f"choose w_std so that w_std^2 E phi(u)^2 stays near E u^2 (sqrt(2) for relu), "
                    f"rescale the tokens, use shorter sequences"
                    f"{', or float64' if info.bits == 32 else ''}."
                )
