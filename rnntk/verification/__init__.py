"""Certificates proved anew, by arithmetic that shares nothing with what made them.

No module of the rest of this package and no ball arithmetic is used: kernels are evaluated again by
mpmath's intervals, in half-angles or by sums of whole numbers, pair by pair; eigenvalues are
bounded by exact whole numbers of Python. docs/theory/spectrum.md has the two lemmas.
"""

from rnntk.verification.proof import verify

__all__ = ["verify"]
