"""The function classes that papers prove recurrent networks learn, as targets to compute with."""

from rnntk.concepts.complexity import CONSTANT, Complexity
from rnntk.concepts.joint import NVariable
from rnntk.concepts.scalar_functions import NAMES, ScalarFunction, polynomial
from rnntk.concepts.sums import Additive, PerToken

__all__ = [
    "CONSTANT",
    "NAMES",
    "Additive",
    "Complexity",
    "NVariable",
    "PerToken",
    "ScalarFunction",
    "polynomial",
]
