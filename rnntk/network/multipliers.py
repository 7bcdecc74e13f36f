"""The scalars that stand before the weights, rounded once.

A recurrence raises the multiplier of W to the power of the steps, so that of t steps a relative
error of one rounding comes out 2 t times as large in a kernel. Standard deviations that are numbers
are therefore combined in float64 on the host, whatever the dtype of the tokens; inside of a trace
they are what JAX makes of them.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from rnntk.network.elman import ElmanRNN
from rnntk.sequences import is_concrete

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


def multipliers(rnn: ElmanRNN, width: int, input_dim: int, dtype: jnp.dtype) -> Multipliers:
    """The multipliers of ``rnn`` at a width, for tokens of a size, in the dtype of the tokens."""
    root = math.sqrt(width)

    def values(w: Any, u: Any, b: Any, v: Any, h: Any) -> Multipliers:
        return Multipliers(w / root, _token(rnn, u, input_dim), u / root, b, v / root, h)

    return Multipliers(*_in(dtype, rnn, values))


def squares(rnn: ElmanRNN, input_dim: int, dtype: jnp.dtype) -> Squares:
    """The variances of ``rnn`` for tokens of a size, in the dtype of the tokens."""

    def values(w: Any, u: Any, b: Any, v: Any, h: Any) -> Squares:
        return Squares(w, u, _token(rnn, u, input_dim), w * w, u * u, b * b, v * v, h * h)

    return Squares(*_in(dtype, rnn, values))


def _token(rnn: ElmanRNN, u: Any, input_dim: int) -> Any:
    return u / math.sqrt(input_dim) if rnn.input_scaling == "fan_in" else u


def _in(dtype: jnp.dtype, rnn: ElmanRNN, values: Callable[..., Any]) -> Any:
    stds = (rnn.w_std, rnn.u_std, rnn.b_std, rnn.v_std, rnn.initial_state_std)
    if all(map(is_concrete, stds)):
        exact = values(*(np.float64(np.asarray(std)) for std in stds))
        return (np.asarray(value, dtype)[()] for value in exact)
    return values(*(jnp.asarray(std, dtype) for std in stds))
