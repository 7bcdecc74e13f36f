"""neural-tangents beside this library, and jaxmg behind it."""

from rnntk.interop import jaxmg
from rnntk.interop.loading import neural_tangents

__all__ = ["jaxmg", "neural_tangents"]
