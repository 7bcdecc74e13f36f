"""The recursion of each sequence with itself: what the recursion over pairs needs of one alone."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from rnntk.activations.safe import safe_sqrt
from rnntk.infinite.angles import Tokens
from rnntk.network.elman import ElmanRNN
from rnntk.network.multipliers import Squares
from rnntk.tiling import tuning


class LayerMarginals(NamedTuple):
    """What one layer's recursion over pairs needs of each sequence alone, at every step.

    Roots of diagonal entries: ``root_K`` is sqrt(K_ii), the norm of the state. The names are those
    of docs/theory/infinite.md.
    """

    root_K_before: Float[Array, "*t n"]  # of the state h_{s-1}
    root_B_before: Float[Array, "*t n"]
    root_token: Float[Array, "*t n"]  # u |token|
    root_L: Float[Array, "*t n"]  # standard deviation of the pre-activation u_s
    root_T: Float[Array, "*t n"]
    root_K: Float[Array, "*t n"]  # of the state h_s
    root_B: Float[Array, "*t n"]
    root_Kd: Float[Array, "*t n"]
    marginal: Any  # what the activation keeps of variances L_ii, leaves (t, ..., n)


class Marginals(NamedTuple):
    """One batch of sequences, ready to be paired with another."""

    tokens: Tokens  # u x_s
    directions: Tokens  # x_s / |x_s|
    start: Int[Array, " n"] | None  # first step, where sequences are aligned at their ends
    lengths: Int[Array, " n"] | None  # of sequences aligned at their starts
    layers: tuple[LayerMarginals, ...]
    left: Bool[Array, " n"] | None = None  # whether the recursion has left the dtype's range

    @property
    def steps(self) -> int:
        """Steps t, padding included."""
        return int(self.layers[0].root_L.shape[0])

    @property
    def size(self) -> int:
        """Number of sequences n."""
        return int(self.layers[0].root_L.shape[1])

    @property
    def dtype(self) -> jnp.dtype:
        """That of the tokens."""
        return self.layers[0].root_L.dtype

    def at(self, layer: int, step: Any) -> LayerMarginals:
        """What is known of one layer at one step, leaves (..., n)."""
        return jax.tree.map(lambda v: v[step], self.layers[layer])


def prepare(
    rnn: ElmanRNN, squares: Squares, x: Float[Array, "n t d"], lengths: Int[Array, " n"] | None
) -> Marginals:
    """The recursion of each sequence with itself, and the tokens laid out for the pairs."""
    t = x.shape[1]
    start = None
    if rnn.r.ends_only and lengths is not None:
        start = t - lengths
        steps = jnp.arange(t)[None, :] - start[:, None]
        x = jnp.take_along_axis(x, jnp.maximum(steps, 0)[..., None], axis=1)
        x = jnp.where((steps >= 0)[..., None], x, 0)
    x = x * squares.token
    norms = safe_sqrt(jnp.sum(x * x, axis=2))
    directions = x / jnp.where(norms > 0, norms, 1)[..., None]
    root_token = norms.T
    root_below = jnp.zeros_like(root_token)
    layers = []
    for _ in range(rnn.depth):
        layer = _alone(rnn, squares, root_token, root_below, start, lengths)
        layers.append(layer)
        root_token, root_below = squares.u * layer.root_K, squares.u * layer.root_B
    lengths = lengths if start is None else None
    found = Marginals(_chunked(x), _chunked(directions), start, lengths, tuple(layers))
    # one program with the rest: another would take a tenth of the smallest call
    return found._replace(left=jnp.any(jnp.stack(_out_of_range(rnn, found)), axis=(0, 1, 2)))


def _chunked(x: Float[Array, "n t d"]) -> Tokens:
    n, _, d = x.shape
    chunk = min(d, tuning.TOKEN_CHUNK)
    x = jnp.pad(x, ((0, 0), (0, 0), (0, -d % chunk)))
    return tuple(x.transpose(1, 2, 0).reshape(-1, chunk, n).swapaxes(0, 1))


def _alone(
    rnn: ElmanRNN,
    squares: Squares,
    root_token: Float[Array, "t n"],
    root_below: Float[Array, "t n"],
    start: Int[Array, " n"] | None,
    lengths: Int[Array, " n"] | None,
) -> LayerMarginals:
    """One layer's recursion of each sequence with itself; ``root_below`` is u sqrt(B) below it."""

    def step(carry: tuple[Array, Array], inputs: tuple[Array, ...]) -> tuple[Any, LayerMarginals]:
        K_before, B_before = carry
        s, root, below = inputs
        recurrent, token = squares.w2 * K_before, root * root
        L = recurrent + token + squares.b2
        own = _trained(rnn, recurrent, token, jnp.full_like(L, squares.b2))
        T = own + squares.w2 * B_before + below * below
        K, Kd, _ = rnn.phi.alone(L)
        B = Kd * T
        if start is not None:
            K = jnp.where(s < start, squares.h2, K)
            B = jnp.where(s < start, 0, B)
        elif lengths is not None:  # padding stays as it was: it must not overflow
            K = jnp.where(s < lengths, K, K_before)
            B = jnp.where(s < lengths, B, B_before)
        layer = LayerMarginals(
            root_K_before=safe_sqrt(K_before),
            root_B_before=safe_sqrt(B_before),
            root_token=root,
            root_L=safe_sqrt(L),
            root_T=safe_sqrt(T),
            root_K=safe_sqrt(K),
            root_B=safe_sqrt(B),
            root_Kd=safe_sqrt(Kd),
            marginal=L,
        )
        return (K, B), layer

    first = jnp.full_like(root_token[0], squares.h2)
    inputs = (jnp.arange(len(root_token)), root_token, root_below)
    layer = jax.lax.scan(step, (first, jnp.zeros_like(first)), inputs)[1]
    # all steps at once: in the loop above each would be a dozen passes over a few sequences
    return layer._replace(marginal=jax.vmap(lambda L: rnn.phi.alone(L).marginal)(layer.marginal))


def _trained(rnn: ElmanRNN, recurrent: Array, token: Array, bias: Array) -> Array:
    """The sum of the parts of L that belong to trained groups."""
    parts = {"W": recurrent, "U": token, "b": bias}
    return sum((parts[g] for g in rnn.trainable if g in parts), jnp.zeros_like(recurrent))


def exists(side: Marginals, s: Int[Array, ""]) -> Bool[Array, " n"]:
    """The sequences that have a step s."""
    return jnp.ones(side.size, bool) if side.lengths is None else s < side.lengths


def check_range(rnn: ElmanRNN, side: Marginals, start: int = 0) -> None:
    """Raise where the recursion has left the range of the dtype, naming the step.

    ``start`` is the number of the first sequence.
    """
    if not np.asarray(side.left).any():
        return
    large, small = _out_of_range(rnn, side)
    first = np.zeros(side.size, int) if side.start is None else np.asarray(side.start)
    info = jnp.finfo(side.dtype)
    for number, layer in enumerate(side.layers):
        for bad, word in ((large[number], "overflows"), (small[number], "underflows")):
            for s, i in np.argwhere(bad)[:1]:
                with np.errstate(over="ignore", invalid="ignore", under="ignore"):
                    L, K = (float(np.square(root[s, i])) for root in (layer.root_L, layer.root_K))
                raise FloatingPointError(
                    f"The kernel {word} {info.dtype} at step {s - first[i]} of sequence "
                    f"{start + i}, layer {number + 1}: variance {L:.3g}, of which {rnn.phi.name} "
                    f"makes {K:.3g}. Signals grow or shrink by a constant factor a step: choose "
                    f"w_std so that w_std^2 E phi(u)^2 stays near E u^2 (sqrt(2) for relu), "
                    f"rescale the tokens, use shorter sequences"
                    f"{', or float64' if info.bits == 32 else ''}."
                )


def _out_of_range(
    rnn: ElmanRNN, side: Marginals
) -> tuple[Bool[Array, "layers t n"], Bool[Array, "layers t n"]]:
    """Where variances are too large, and where they are too small."""
    info, t, n = jnp.finfo(side.dtype), side.steps, side.size
    nonzero = jnp.any(jnp.stack(side.tokens) != 0, axis=0)
    token: Array = jnp.any(nonzero.reshape(t, -1, n), axis=1)
    s = jnp.arange(t)[:, None]
    real = jnp.ones((t, n), bool)
    if side.start is not None:
        real = s >= side.start[None, :]
    if side.lengths is not None:
        real = s < side.lengths[None, :]
    recurrent, fed = (jnp.asarray(std) > 0 for std in (rnn.w_std, rnn.u_std))
    too_large, too_small = [], []
    for layer in side.layers:
        roots = layer.root_L, layer.root_T, layer.root_K, layer.root_B
        within = [jnp.square(root) < info.max / 64 for root in roots]  # nor NaN
        too_large.append(real & ~jnp.all(jnp.stack(within), axis=0))
        signal = token | (recurrent & (layer.root_K_before > 0))
        too_small.append(real & signal & (jnp.square(layer.root_L) < info.tiny / info.eps))
        token = fed & (layer.root_K > 0)  # of the layer above
    return jnp.stack(too_large), jnp.stack(too_small)
