"""The scalars that stand before the weights, rounded once.

A recurrence raises the multiplier of W to the power of the steps, so that of t steps a relative
error of one rounding comes out 2 t times as large in a kernel. Standard deviations that are numbers
are therefore combined in float64 on the host, whatever the dtype of the tokens; inside of a trace
they are what JAX makes of them.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from rnntk.checks import is_concrete
from rnntk.network.elman import ElmanRNN

Scalar = Any  # one number of a dtype: of NumPy, or of JAX within a trace


class Multipliers(NamedTuple):
    """What stands before each random matrix or vector of a network of finite width.

    Attributes:
        W: of the recurrent weights, w / sqrt(m).
        tokens: of the first layer's input weights.
        states: of the deeper layers' input weights, u / sqrt(m).
        b: of the biases.
        V: of the readout, v / sqrt(m).
        initial: of a random initial state.
    """

    W: Scalar
    tokens: Scalar
    states: Scalar
    b: Scalar
    V: Scalar
    initial: Scalar

    def layer(self, index: int) -> dict[str, Scalar]:
        """Those of one layer's groups, and of V."""
        return {"W": self.W, "U": self.states if index else self.tokens, "b": self.b, "V": self.V}


class Squares(NamedTuple):
    """Variances, the squares of the multipliers, and the two multipliers that norms need.

    Attributes:
        w: multiplier of the recurrent weights.
        u: multiplier of the input weights of deeper layers.
        token: multiplier of the tokens.
        w2: square of ``w``.
        u2: square of ``u``.
        b2: variance of the bias.
        v2: square of the readout's multiplier.
        h2: variance of a random initial state.
    """

    w: Scalar
    u: Scalar
    token: Scalar
    w2: Scalar
    u2: Scalar
    b2: Scalar
    v2: Scalar
    h2: Scalar


class _Stds(NamedTuple):
    """The standard deviations of a network."""

    w: Any
    u: Any
    b: Any
    v: Any
    h: Any


def multipliers(rnn: ElmanRNN, width: int, input_dim: int, dtype: jnp.dtype) -> Multipliers:
    """The multipliers of ``rnn`` at a width, for tokens of a size, in the dtype of the tokens."""
    fan_in = input_dim if rnn.input_scaling == "fan_in" else 1
    return Multipliers(*_in(dtype, rnn, _at_width, (width, fan_in)))


def squares(rnn: ElmanRNN, input_dim: int, dtype: jnp.dtype) -> Squares:
    """The variances of ``rnn`` for tokens of a size, in the dtype of the tokens."""
    fan_in = input_dim if rnn.input_scaling == "fan_in" else 1
    return Squares(*_in(dtype, rnn, _squared, (fan_in,)))


def _at_width(std: _Stds, width: int, fan_in: int) -> Multipliers:
    root = math.sqrt(width)
    return Multipliers(
        W=std.w / root,
        tokens=std.u / math.sqrt(fan_in),
        states=std.u / root,
        b=std.b,
        V=std.v / root,
        initial=std.h,
    )


def _squared(std: _Stds, fan_in: int) -> Squares:
    w, u, b, v, h = std
    token = u / math.sqrt(fan_in)
    return Squares(w=w, u=u, token=token, w2=w * w, u2=u * u, b2=b * b, v2=v * v, h2=h * h)


def _in(dtype: jnp.dtype, rnn: ElmanRNN, values: Callable[..., Any], sizes: Any) -> Any:
    std = _Stds(rnn.w_std, rnn.u_std, rnn.b_std, rnn.v_std, rnn.initial_state_std)
    if all(map(is_concrete, std)):
        return _rounded(np.dtype(dtype), values, _Stds(*map(float, std)), sizes)
    return values(_Stds(*(jnp.asarray(value, dtype) for value in std)), *sizes)


@lru_cache  # as the conversions take as long as a small kernel
def _rounded(dtype: Any, values: Callable[..., Any], std: _Stds, sizes: Any) -> tuple[Any, ...]:
    return tuple(np.asarray(value, dtype)[()] for value in values(std, *sizes))
