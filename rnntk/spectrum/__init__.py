"""Eigenvalues of kernel matrices, each smallest one with its interval, and certificates."""

from rnntk.spectrum.certificate import Certificate, certify
from rnntk.spectrum.intervals import (
    METHODS,
    MinEigenvalue,
    Summary,
    eigenvalues,
    min_eigenvalue,
    summary,
)
from rnntk.spectrum.stored import largest_eigenvalues

__all__ = [
    "METHODS",
    "Certificate",
    "MinEigenvalue",
    "Summary",
    "certify",
    "eigenvalues",
    "largest_eigenvalues",
    "min_eigenvalue",
    "summary",
]
