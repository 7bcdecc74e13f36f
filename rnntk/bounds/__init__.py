"""Bounds on the smallest eigenvalue of the NTK, and what follows from it."""

from rnntk.bounds.concentration import FiniteWidth, finite_width
from rnntk.bounds.eigenvalue import Bounds, min_eigenvalue
from rnntk.bounds.population_loss import SOURCE, Generalization, generalization

__all__ = [
    "SOURCE",
    "Bounds",
    "FiniteWidth",
    "Generalization",
    "finite_width",
    "generalization",
    "min_eigenvalue",
]
