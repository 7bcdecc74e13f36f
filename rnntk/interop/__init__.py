"""neural-tangents beside this library."""

from rnntk.interop.loading import neural_tangents

__all__ = ["neural_tangents"]
