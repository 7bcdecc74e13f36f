"""elu, whose derivative is made of exp(-|u|): a mixture of normal densities with a kink."""

import jax

from rnntk.activations import mixtures
from rnntk.activations.mixtures import Mixture
from rnntk.activations.scales import exponential

ELU = mixtures.activation(
    "elu", jax.nn.elu, Mixture(exponential(), 0.5, 0.5, mixtures.elu_mean, even=True, odd=True)
)
