"""tanh and what is made of the logistic function: mixtures over Kolmogorov's distribution.

A logistic variable is a normal one times a random scale (Andrews & Mallows 1974), so that its
distribution function, the sigmoid, mixes normal ones.
"""

from functools import partial

import jax

from rnntk.activations import mixtures
from rnntk.activations.logistic_balls import balls
from rnntk.activations.mixtures import Mixture
from rnntk.activations.scales import kolmogorov

_HALVED = kolmogorov(2.0)  # of a function of u/2

TANH = mixtures.activation(
    "tanh",
    jax.numpy.tanh,
    Mixture(kolmogorov(1.0), 1.0, 0.0, mixtures.zero_mean, even=True),
    partial(balls, "tanh"),
)
SIGMOID = mixtures.activation(
    "sigmoid",
    jax.nn.sigmoid,
    Mixture(_HALVED, 0.5, 0.0, mixtures.half_mean, even=True),
    partial(balls, "sigmoid"),
)
SOFTPLUS = mixtures.activation(
    "softplus",
    jax.nn.softplus,
    Mixture(_HALVED, 0.5, 0.5, mixtures.smooth_relu_mean, odd=True),
    partial(balls, "softplus"),
)
SILU = mixtures.activation(
    "silu",
    jax.nn.silu,
    Mixture(_HALVED, 0.5, 0.5, mixtures.gated_mean, odd=True, gated=True),
    partial(balls, "silu"),
)
