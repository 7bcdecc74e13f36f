"""What training sees of a network: its outputs, less or not what they were, and their gradients.

A function is a network, or its Taylor expansion at initialization; centred by subtraction, by
doubling, or not.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from rnntk import checks
from rnntk.network.elman import ElmanRNN, Params
from rnntk.network.forward import forward
from rnntk.network.multipliers import Multipliers, multipliers
from rnntk.network.parameters import check_params, sequence_keys
from rnntk.train.gradients import Pullback, Tree, Weights, outputs_and_pullback, replaced, trained

CENTRES = ("subtract", "double", "none")
Centre = Literal["subtract", "double", "none"]


@partial(jax.tree_util.register_dataclass, data_fields=["rnn"], meta_fields=[])
@dataclass(frozen=True)
class Linearized:
    r"""A network's Taylor expansion at its initial parameters; made by :func:`linearize`.

    Attributes:
        rnn: the network.
    """

    rnn: ElmanRNN

    def apply(
        self,
        params: Params,
        x: Float[ArrayLike, "n t d"],
        lengths: Int[ArrayLike, " n"] | None = None,
        *,
        initial_params: Params,
    ) -> Float[Array, "n o"] | Float[Array, "n t o"]:
        r"""Outputs :math:`f_{\theta_0}(x) + J_{\theta_0}(x) (\theta - \theta_0)`.

        Costs about two forward passes; the Jacobian is never formed.

        Args:
            params: the parameters :math:`\theta`; those of untrained groups are not looked at.
            x: tokens.
            lengths: number of steps of each sequence; the rest is padding.
            initial_params: the parameters :math:`\theta_0` of the expansion.

        Raises:
            TypeError, ValueError: as :meth:`rnntk.ElmanRNN.apply`.

        Example:
            >>> import jax, jax.numpy as jnp, rnntk
            >>> rnn, x = rnntk.ElmanRNN(trainable=("V",)), jnp.ones((2, 3, 1))
            >>> keys = jax.random.split(jax.random.key(0))
            >>> start, end = (rnn.init(key, input_dim=1, width=8) for key in keys)
            >>> found = linearize(rnn).apply(end, x, initial_params=start)
            >>> bool(jnp.allclose(found, rnn.apply(start | {"V": end["V"]}, x), atol=1e-5))
            True
        """
        x, lengths = checks.check_batch(x, lengths)
        check_params(self.rnn, initial_params, x.shape[-1])
        width = check_params(self.rnn, params, x.shape[-1])
        sequence_keys(self.rnn, None, len(x))
        model = model_of(self, width, x, "none")
        return outputs(model, params, initial_params, x, lengths)


def linearize(rnn: ElmanRNN) -> Linearized:
    """The Taylor expansion of a network at its initial parameters, to be trained like it.

    :func:`fit` and all that takes a network to train takes it as well. Gradient flow of its squared
    loss is that of the empirical kernel at initialization, exactly and for all times, so what
    separates it from the network is the change of that kernel, and what separates it from the
    infinite width is the randomness of the kernel.

    Args:
        rnn: the network.

    Example:
        >>> import jax, jax.numpy as jnp, rnntk
        >>> x, y = jnp.ones((2, 3, 1)), jnp.array([1.0, 1.0])
        >>> line = rnntk.train.linearize(rnntk.ElmanRNN())
        >>> trained = rnntk.train.fit(line, jax.random.key(0), x, y, width=16, learning_rate=0.1,
        ...                           steps=50)
        >>> bool(abs(trained.predict(x) - 1).max() < 0.01)
        True
    """
    if not isinstance(rnn, ElmanRNN):
        raise TypeError(f"rnn must be an ElmanRNN, got {type(rnn).__name__}.")
    return Linearized(rnn)


Function = ElmanRNN | Linearized


def network(function: Function) -> ElmanRNN:
    """The network that is trained, or whose expansion is."""
    return function.rnn if isinstance(function, Linearized) else function


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["rnn", "scales"],
    meta_fields=["linear", "centre"],
)
@dataclass(frozen=True)
class Model:
    """A function of some width.

    Attributes:
        rnn: the network.
        scales: what stands before its weights.
        linear: whether its expansion is meant.
        centre: how outputs are made zero at initialization.
    """

    rnn: ElmanRNN
    scales: Multipliers
    linear: bool
    centre: Centre


def model_of(function: Function, width: int, x: Float[Array, "n t d"], centre: Centre) -> Model:
    """The function at a width, for tokens such as these."""
    rnn = network(function)
    scales = multipliers(rnn, width, x.shape[-1], x.dtype)
    return Model(rnn, scales, isinstance(function, Linearized), centre)


def outputs(
    model: Model,
    params: Tree,
    initial: Tree,
    x: Float[Array, "n t d"],
    lengths: Int[Array, " n"] | None,
) -> Float[Array, "n o"] | Float[Array, "n t o"]:
    """Outputs of what is trained; those at initialization are not subtracted."""
    if model.centre == "double":
        half = replace(model, centre="none")
        one, two = (
            outputs(half, last, first, x, lengths)
            for last, first in zip(params, initial, strict=True)
        )
        return (one - two) / jnp.sqrt(jnp.asarray(2, x.dtype))
    rnn, scales = model.rnn, model.scales
    if not model.linear:
        return forward(rnn, params, x, lengths, None, scales).output
    start = trained(rnn, initial)
    moved = {path: leaf - start[path] for path, leaf in trained(rnn, params).items()}

    def at(weights: Weights) -> Array:
        return forward(rnn, replaced(initial, weights), x, lengths, None, scales).output

    value, change = jax.jvp(at, (start,), (moved,))
    return value + change


def evaluate(
    model: Model,
    params: Tree,
    initial: Tree,
    x: Float[Array, "n t d"],
    lengths: Int[Array, " n"] | None,
) -> tuple[Float[Array, "n o"] | Float[Array, "n t o"], Pullback]:
    """As :func:`outputs`, with the transpose of the Jacobian in the trained parameters."""
    if model.centre == "double":
        half = replace(model, centre="none")
        (one, pull1), (two, pull2) = (
            evaluate(half, last, first, x, lengths)
            for last, first in zip(params, initial, strict=True)
        )
        root = jnp.sqrt(jnp.asarray(2, x.dtype))

        def pull(cotangent: Array) -> Weights:
            share = cotangent / root
            pairs = enumerate((pull1(share), pull2(-share)))
            return {f"[{i}]{path}": leaf for i, part in pairs for path, leaf in part.items()}

        return (one - two) / root, pull
    if not model.linear:
        return outputs_and_pullback(model.rnn, model.scales, params, x, lengths)
    found = outputs(model, params, initial, x, lengths)
    return found, outputs_and_pullback(model.rnn, model.scales, initial, x, lengths)[1]
