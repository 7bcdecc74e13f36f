"""The NTK of Elman networks of finite width, without ever forming a Jacobian.

The gradient of an output with respect to a weight matrix is a sum over steps of outer products,
sum_s delta_s a_s^T, of the backpropagated signal and of what the matrix reads. So an inner product
of two gradients is sum_{s,s'} <delta_s, delta'_s'> <a_s, a'_s'>: products of thin Gram matrices.
The cost is about 4 n1 n2 t1 t2 m operations a layer, the work space a few n1 n2 t2 numbers.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, PRNGKeyArray

from rnntk import sequences
from rnntk.elman import (
    PRECISION,
    ElmanRNN,
    Forward,
    Params,
    check_params,
    forward,
    networks,
)
from rnntk.kernel import Kernel, symmetric

METHODS = ("auto", "gram")
OUTPUTS = ("mean", "full")


def empirical_kernel(
    rnn: ElmanRNN,
    params: Params,
    x1: Float[ArrayLike, "n1 t1 d"],
    x2: Float[ArrayLike, "n2 t2 d"] | None = None,
    *,
    lengths1: Int[ArrayLike, " n1"] | None = None,
    lengths2: Int[ArrayLike, " n2"] | None = None,
    outputs: str = "mean",
    method: str = "auto",
    key: PRNGKeyArray | None = None,
) -> Kernel:
    """Tangent and conjugate kernel of one network: inner products of its output's gradients.

    Args:
        rnn: the network's architecture; only the gradients of ``rnn.trainable`` count.
        params: its parameters, from ``rnn.init``.
        x1: tokens of the first batch; their dtype is the kernel's.
        x2: tokens of the second batch; omitted, the kernel is that of ``x1`` with itself and
            exactly symmetric.
        lengths1: steps of each sequence of ``x1``; the rest is padding.
        lengths2: likewise for ``x2``.
        outputs: ``"mean"`` averages the kernel over the o outputs, each with itself;
            ``"full"`` gives all pairs of outputs.
        method: ``"gram"``, entrywise products of Gram matrices; ``"auto"`` chooses.
        key: draws the states of ``initial_state="independent"``; those of ``x2`` come from
            ``jax.random.fold_in(key, 1)``.

    Returns:
        Kernel of shape (n1, n2), or (n1, t1, n2, t2) for the "sequence" readout, zero at padded
        steps; ``outputs="full"`` appends (o, o) to ``ntk``. ``nngp`` is v^2/m <r(h), r(h')>.

    Raises:
        ValueError: for wrong shapes, unequal token sizes, lengths out of range, NaN or infinity,
            parameters of another architecture, an unknown name, a missing ``key``.
        TypeError: for tokens that are not floating point or of two dtypes.
        FloatingPointError: where the kernel overflows its dtype.

    Example:
        >>> import jax, rnntk
        >>> rnn = rnntk.ElmanRNN()
        >>> x = jax.random.normal(jax.random.key(0), (5, 4, 3))
        >>> params = rnn.init(jax.random.key(1), input_dim=3, width=64)
        >>> rnntk.empirical_kernel(rnn, params, x).ntk.shape
        (5, 5)
    """
    for name, value, valid in (("outputs", outputs, OUTPUTS), ("method", method, METHODS)):
        if value not in valid:
            raise ValueError(f"{name} must be one of {valid}, got {value!r}.")
    x1, lengths1 = sequences.check_batch(x1, lengths1, "1")
    x2, lengths2 = sequences.check_second(x1, x2, lengths2)
    check_params(rnn, params, x1.shape[-1])
    kernel = _kernel(rnn, params, x1, x2, lengths1, lengths2, key, outputs)
    if sequences.is_concrete(kernel.ntk) and not bool(jnp.isfinite(kernel.ntk).all()):
        raise FloatingPointError(
            f"The empirical kernel overflows {x1.dtype}: states or gradients grow by a constant "
            "factor a step. Reduce w_std or the tokens, or use shorter sequences."
        )
    return kernel


@partial(jax.jit, static_argnames="outputs")
def _kernel(
    rnn: ElmanRNN,
    params: Params,
    x1: Array,
    x2: Array | None,
    lengths1: Array | None,
    lengths2: Array | None,
    key: PRNGKeyArray | None,
    outputs: str,
) -> Kernel:
    one, signals1 = backpropagate(rnn, params, x1, lengths1, key, outputs)
    if x2 is None:
        two, signals2 = one, signals1
    else:
        key = None if key is None else jax.random.fold_in(key, 1)
        two, signals2 = backpropagate(rnn, params, x2, lengths2, key, outputs)
    m, o = one.features[0].shape[-1], one.output.shape[-1]
    v2 = jnp.square(jnp.asarray(rnn.v_std, x1.dtype)) / m
    nngp = v2 * sum(map(_inner, one.features, two.features), jnp.zeros((), x1.dtype))
    ntk = jnp.zeros(_shape(one, outputs) + _shape(two, outputs), x1.dtype)
    if "V" in rnn.trainable:
        ntk = ntk + (nngp if outputs == "mean" else _each_output(nngp, o))
    for direction, layers in enumerate(signals1):
        for layer in range(len(layers)):
            read1, read2 = (_reads(rnn, side, direction, layer) for side in (one, two))
            if read1 is not None and read2 is not None:
                total = _contract(layers[layer], signals2[direction][layer], read1, read2)
                ntk = ntk + total.reshape(ntk.shape) / (o if outputs == "mean" else 1)
    if x2 is None:
        ntk, nngp = symmetric(ntk), symmetric(nngp)
    if outputs == "full":
        half = ntk.ndim // 2  # (n1, [t1,] o, n2, [t2,] o): both output axes to the end
        ntk = jnp.moveaxis(ntk, half - 1, -2)
    return Kernel(ntk, nngp)


def _shape(side: Forward, outputs: str) -> tuple[int, ...]:
    return side.output.shape if outputs == "full" else side.output.shape[:-1]


def _each_output(nngp: Array, o: int) -> Array:
    """The kernel of V for all pairs of outputs, which share no weight: (..., o, ..., o)."""
    half = nngp.ndim // 2
    full = nngp[..., None, None] * jnp.eye(o, dtype=nngp.dtype).reshape((1,) * nngp.ndim + (o, o))
    return jnp.moveaxis(full, -2, half)


def _inner(one: Array, two: Array) -> Array:
    return jnp.tensordot(one, two, axes=(-1, -1), precision=PRECISION)


def backpropagate(
    rnn: ElmanRNN,
    params: Params,
    x: Float[Array, "n t d"],
    lengths: Int[Array, " n"] | None,
    key: PRNGKeyArray | None,
    outputs: str,
) -> tuple[Forward, list[list[Float[Array, "n r t c"]]]]:
    """Forward pass, and the signals that reach each layer's pre-activations.

    One backward pass over time serves all sequences. Axis r holds the output coordinates that
    stay apart (steps of the output, and outputs if ``"full"``); axis c is contracted: units, and
    outputs if ``"mean"``.
    """
    n, t, _ = x.shape
    first = next(iter(networks(rnn, params)))
    o, m = first["V"].shape
    shifts = [[jnp.zeros((n, t, m), x.dtype)] * rnn.depth for _ in networks(rnn, params)]

    def run(shifts: list[list[Array]]) -> tuple[Array, Forward]:
        result = forward(rnn, params, x, lengths, key, shifts)
        return result.output, result

    output, pull, result = jax.vjp(run, shifts, has_aux=True)
    coordinates = math.prod(output.shape[1:])
    basis = jnp.eye(coordinates, dtype=x.dtype).reshape(coordinates, 1, *output.shape[1:])
    basis = jnp.broadcast_to(basis, (coordinates, *output.shape))
    signals = jax.vmap(lambda cotangent: pull(cotangent)[0])(basis)

    def arrange(signal: Float[Array, "coordinates n t m"]) -> Float[Array, "n r t c"]:
        signal = signal.reshape(-1, o, n, t, m)
        if outputs == "full":
            return signal.reshape(-1, n, t, m).swapaxes(0, 1)
        return signal.transpose(2, 0, 3, 1, 4).reshape(n, -1, t, o * m)

    return result, jax.tree.map(arrange, signals)


def _reads(
    rnn: ElmanRNN, side: Forward, direction: int, layer: int
) -> Float[Array, "n t k"] | None:
    """What the trained matrices of one layer read, scaled, side by side."""
    states, tokens = side.states[direction][layer], side.tokens[direction][layer]
    dtype, m = states.dtype, states.shape[-1]
    fan_in = jnp.asarray(rnn.u_std, dtype) / math.sqrt(m)
    reads = {
        "W": states * (jnp.asarray(rnn.w_std, dtype) / math.sqrt(m)),
        "U": tokens * (fan_in if layer else rnn.u_scale(tokens.shape[-1], dtype)),
        "b": jnp.broadcast_to(jnp.asarray(rnn.b_std, dtype), (*states.shape[:2], 1)),
    }
    trained = [reads[group] for group in rnn.trainable if group in reads]
    return jnp.concatenate(trained, axis=-1) if trained else None


def _contract(
    delta1: Float[Array, "n1 r1 t1 c"],
    delta2: Float[Array, "n2 r2 t2 c"],
    read1: Float[Array, "n1 t1 k"],
    read2: Float[Array, "n2 t2 k"],
) -> Float[Array, "n1 r1 n2 r2"]:
    """sum_{s,s'} <delta_s, delta'_s'> <a_s, a'_s'>, one step s at a time."""

    def step(total: Array, at: tuple[Array, Array]) -> tuple[Array, None]:
        delta, read = at
        signals = jnp.tensordot(delta, delta2, axes=(-1, -1), precision=PRECISION)
        reads = jnp.tensordot(read, read2, axes=(-1, -1), precision=PRECISION)
        return total + jnp.einsum("irjkt,ijt->irjk", signals, reads, precision=PRECISION), None

    shape = (*delta1.shape[:2], *delta2.shape[:2])
    start = jnp.zeros(shape, delta1.dtype)
    return jax.lax.scan(step, start, (jnp.moveaxis(delta1, 2, 0), jnp.moveaxis(read1, 1, 0)))[0]
