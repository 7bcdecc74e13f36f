"""Finite networks trained by gradient descent, and their linearizations."""

from rnntk.train.functions import Linearized, linearize
from rnntk.train.losses import LOSSES, Loss
from rnntk.train.rates import stable_rate
from rnntk.train.trained import Trained
from rnntk.train.training import fit

__all__ = ["LOSSES", "Linearized", "Loss", "Trained", "fit", "linearize", "stable_rate"]
