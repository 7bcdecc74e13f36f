"""Predictions of kernels: ridge regression, and the function that gradient flow has learnt."""

from rnntk.predict.regression import KernelRegression, gradient_flow

__all__ = ["KernelRegression", "gradient_flow"]
