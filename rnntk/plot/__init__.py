"""Figures of deviations, spectra, bounds, scores and training; each function returns a figure."""

from rnntk.plot.comparisons import training, widths
from rnntk.plot.learning import losses, predictions, scores
from rnntk.plot.lengths import growth, sample_complexity
from rnntk.plot.matrices import kernel_matrix
from rnntk.plot.spectra import (
    bounds,
    min_eigenvalue,
    min_eigenvalue_by_width,
    spectrum,
    width_convergence,
)

__all__ = [
    "bounds",
    "growth",
    "kernel_matrix",
    "losses",
    "min_eigenvalue",
    "min_eigenvalue_by_width",
    "predictions",
    "sample_complexity",
    "scores",
    "spectrum",
    "training",
    "width_convergence",
    "widths",
]
