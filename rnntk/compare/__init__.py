"""Networks trained at several widths beside what their kernels predict: one call, one table."""

from rnntk.compare.comparison import Comparison, Slope, load
from rnntk.compare.experiment import with_kernel

__all__ = ["Comparison", "Slope", "load", "with_kernel"]
