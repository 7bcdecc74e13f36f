"""Predictions of kernels: regression, Gaussian processes, gradient flow, classification."""

from rnntk.predict.classification import KernelClassifier
from rnntk.predict.descent import gradient_descent, largest_stable_step
from rnntk.predict.fitting import SequenceRegression, fit
from rnntk.predict.flow import gradient_flow
from rnntk.predict.gaussian_process import GaussianProcess
from rnntk.predict.iterative import Solution
from rnntk.predict.likelihood import (
    Hyperparameters,
    MarginalLikelihood,
    fit_hyperparameters,
    log_marginal_likelihood,
)
from rnntk.predict.regression import KernelRegression
from rnntk.predict.ridges import RidgePath, ridge_path
from rnntk.predict.stored import solve
from rnntk.predict.trained import Posterior, trained_ensemble

__all__ = [
    "GaussianProcess",
    "Hyperparameters",
    "KernelClassifier",
    "KernelRegression",
    "MarginalLikelihood",
    "Posterior",
    "RidgePath",
    "SequenceRegression",
    "Solution",
    "fit",
    "fit_hyperparameters",
    "gradient_descent",
    "gradient_flow",
    "largest_stable_step",
    "log_marginal_likelihood",
    "ridge_path",
    "solve",
    "trained_ensemble",
]
