"""Certificates proved anew, by arithmetic that shares nothing with what made them.

No other part of rnntk and no ball arithmetic is used: kernels are evaluated again by mpmath's
intervals, in half-angles or by sums of whole numbers, pair by pair.
"""

from rnntk.verification.proofs import verify

__all__ = ["verify"]
