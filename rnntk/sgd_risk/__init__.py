"""The excess risk of one pass of SGD from a spectrum: its bounds, its exact value, its simulation.

The setting is that of Zou, Wu, Braverman, Gu & Kakade (Benign Overfitting of Constant-Stepsize SGD
for Linear Regression, COLT 2021, JMLR 24, 2023): one pass over independent samples, a constant
step, the mean of all iterates. It says nothing of several passes, nor of the last iterate.
"""

from rnntk.sgd_risk.adapted_moments import DesignMoments
from rnntk.sgd_risk.curves import LearningCurve, learning_curve, optimal_step
from rnntk.sgd_risk.meta import MetaRegression
from rnntk.sgd_risk.problem import LeastSquares
from rnntk.sgd_risk.recursion import exact_risk, largest_stable_step
from rnntk.sgd_risk.simulation import simulate
from rnntk.sgd_risk.spectrum_of_sample import Population, population
from rnntk.sgd_risk.theorems import LEAST, RiskBound, lower_bound, step_limit, upper_bound

__all__ = [
    "LEAST",
    "DesignMoments",
    "LearningCurve",
    "LeastSquares",
    "MetaRegression",
    "Population",
    "RiskBound",
    "exact_risk",
    "largest_stable_step",
    "learning_curve",
    "lower_bound",
    "optimal_step",
    "population",
    "simulate",
    "step_limit",
    "upper_bound",
]
