"""Activations and their Gaussian moments, the only thing that an infinite width sees of them."""

from rnntk.activations.accuracy import check_accuracy
from rnntk.activations.activation import Activation, Alone, BallMoments, Expansion
from rnntk.activations.functions import from_function
from rnntk.activations.piecewise_linear import leaky_relu
from rnntk.activations.registry import NAMES, resolve

__all__ = [
    "NAMES",
    "Activation",
    "Alone",
    "BallMoments",
    "Expansion",
    "check_accuracy",
    "from_function",
    "leaky_relu",
    "resolve",
]
