"""Activations and their Gaussian moments, the only thing that an infinite width sees of them."""

from rnntk.activations.registry import NAMES, Activation, check_accuracy, leaky_relu, resolve

__all__ = ["NAMES", "Activation", "check_accuracy", "leaky_relu", "resolve"]
