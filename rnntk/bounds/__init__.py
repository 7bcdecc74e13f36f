"""Bounds on the smallest eigenvalue of the NTK, and what follows from it."""

from rnntk.bounds.concentration import FiniteWidth, finite_width
from rnntk.bounds.concept_complexity import ComplexityBound, complexity_bound
from rnntk.bounds.effective_rank import Capacity, capacity
from rnntk.bounds.eigenvalue import Bounds, min_eigenvalue
from rnntk.bounds.population_loss import SOURCE, Generalization, generalization

__all__ = [
    "SOURCE",
    "Bounds",
    "Capacity",
    "ComplexityBound",
    "FiniteWidth",
    "Generalization",
    "capacity",
    "complexity_bound",
    "finite_width",
    "generalization",
    "min_eigenvalue",
]
