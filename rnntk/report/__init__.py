"""The report: kernels, spectrum, predictions and training of one data set, on one page."""

from rnntk.report.pipeline import run
from rnntk.report.stages import Settings

__all__ = ["Settings", "run"]
