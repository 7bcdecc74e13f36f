"""Networks beside what kernels and bounds predict: over widths, and over lengths of sequences."""

from rnntk.compare.comparison import Comparison, Slope, load
from rnntk.compare.experiment import with_kernel
from rnntk.compare.laws import Growth, Law, growth
from rnntk.compare.sample_table import SampleComplexity
from rnntk.compare.samples import sample_complexity

__all__ = [
    "Comparison",
    "Growth",
    "Law",
    "SampleComplexity",
    "Slope",
    "growth",
    "load",
    "sample_complexity",
    "with_kernel",
]
