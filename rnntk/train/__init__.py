"""Finite networks trained by stochastic gradient descent."""

from rnntk.train.sgd import Trained, fit

__all__ = ["Trained", "fit"]
