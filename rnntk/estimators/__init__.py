"""Infinitely wide recurrent networks as scikit-learn estimators."""

from rnntk.estimators.classifier import RNTKClassifier
from rnntk.estimators.regressor import RNTKRegressor
from rnntk.estimators.transformer import RNTKTransformer

__all__ = ["RNTKClassifier", "RNTKRegressor", "RNTKTransformer"]
