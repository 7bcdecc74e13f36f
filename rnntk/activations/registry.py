"""All activations that have a name, and what else stands for them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from rnntk.activations.activation import Activation
from rnntk.activations.exponential import ELU
from rnntk.activations.functions import from_function
from rnntk.activations.gaussian import ERF, GELU
from rnntk.activations.logistic import SIGMOID, SILU, SOFTPLUS, TANH
from rnntk.activations.piecewise_linear import ABS, LINEAR, RELU, leaky_relu
from rnntk.activations.waves import COS, SIN

_ALL = (RELU, ABS, LINEAR, ERF, GELU, SIN, COS, TANH, SIGMOID, SOFTPLUS, SILU, ELU)
_REGISTRY = {activation.name: activation for activation in _ALL}

NAMES = tuple(_REGISTRY)
"""Activations that a name selects."""

# JAX's other functions that are the same; not jax.nn.gelu, which approximates gelu by a tanh.
_KNOWN: dict[Any, Activation] = {
    **{activation.fn: activation for activation in _ALL},
    jax.nn.leaky_relu: leaky_relu(0.01),
    jnp.absolute: ABS,
    jax.lax.abs: ABS,
    jax.lax.erf: ERF,
    jax.lax.sin: SIN,
    jax.lax.cos: COS,
    jax.lax.tanh: TANH,
    jax.lax.logistic: SIGMOID,
    jax.scipy.special.expit: SIGMOID,
    jax.nn.celu: ELU,
}


def resolve(activation: str | Activation | Callable[[Array], Array]) -> Activation:
    """The :class:`Activation` meant by a name, an activation, or an elementwise function.

    JAX's own functions mean the activation of their name, where there is one. Any other becomes
    one by :func:`from_function`.

    Raises:
        ValueError: for an unknown name, where the message lists the valid ones, and for a function
            that is not elementwise, not finite, or not smooth.
        TypeError: for anything else, or a function that cannot be evaluated and differentiated on
            JAX arrays, does not return its argument's dtype, or is not hashable.

    Example:
        >>> resolve("relu").name
        'relu'
        >>> resolve(jnp.arctan).name
        'arctan'
    """
    if isinstance(activation, Activation):
        return activation
    if isinstance(activation, str):
        if activation not in _REGISTRY:
            raise ValueError(
                f"activation must be one of {NAMES}, rnntk.activations.leaky_relu(slope) or an "
                f"elementwise function, got {activation!r}."
            )
        return _REGISTRY[activation]
    if not callable(activation):
        raise TypeError(
            f"activation must be a name, an Activation or an elementwise function, "
            f"got {activation!r}."
        )
    try:
        known = _KNOWN.get(activation)
    except TypeError:  # not hashable, of which from_function tells
        known = None
    return known or from_function(activation)
