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

__all__ = [
    "METHODS",
    "Certificate",
    "MinEigenvalue",
    "Summary",
    "certify",
    "eigenvalues",
    "min_eigenvalue",
    "summary",
]
