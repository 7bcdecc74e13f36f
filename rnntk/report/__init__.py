"""The report: kernels, spectrum, predictions and training of one data set, on one page."""

from rnntk.report.pipeline import run
from rnntk.report.results import Results
from rnntk.report.settings import Settings

__all__ = ["Results", "Settings", "run"]
