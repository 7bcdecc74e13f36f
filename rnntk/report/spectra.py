"""The spectrum's stage: eigenvalues, the smallest one, its bounds, and finite widths."""

from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from rnntk import bounds, plot
from rnntk import spectrum as spectra
from rnntk.linalg import matrices
from rnntk.report.kernels import Arrays, Outcome
from rnntk.report.problem import Problem
from rnntk.report.results import Spectrum


def spectrum(problem: Problem, arrays: Arrays, bar: tqdm) -> Outcome:
    """Eigenvalues of the infinite-width NTK, its smallest one, bounds, and finite widths."""
    bar.reset(4)
    ntk = arrays["ntk"]
    eigenvalues = spectra.eigenvalues(ntk)
    bar.update()
    smallest = spectra.min_eigenvalue(ntk)
    bar.update()
    x, lengths = problem.arrays(problem.train)
    # the bounds are stated for sequences of one length
    bound = None if lengths is not None else bounds.min_eigenvalue(problem.rnn, x)
    lower, upper = (dict(bound.lower), dict(bound.upper)) if bound else ({}, {})
    bar.update()
    certificate = None
    if problem.settings.certify:
        found = spectra.certify(problem.rnn, problem.train.x, lengths=problem.train.lengths)
        certificate = (found.lower, found.upper)
        found.save(f"{problem.settings.out}/certificate.npz")
    bar.update()
    finite, minima = arrays.get("empirical_ntk_eigenvalues"), arrays.get("empirical_minima")
    ratio = None
    if minima is not None and smallest.resolved:
        ratio = minima / smallest.value
    floor = matrices.resolution(len(ntk), matrices.size_of_spectrum(eigenvalues), ntk.dtype)
    result = Spectrum(
        eigenvalues=eigenvalues,
        unresolved=int(np.sum(np.abs(eigenvalues) <= floor)),
        trace=float(np.trace(ntk)),
        min_eigenvalue=smallest,
        certificate=certificate,
        lower_bounds=lower,
        upper_bounds=upper,
        over_limit=ratio,
    )
    chosen = problem.settings.widths
    rows = {} if finite is None else _finite_rows(chosen, finite)
    figures = {
        "spectrum": plot.spectrum(eigenvalues, rows, dtype=ntk.dtype),
        "min_eigenvalue": plot.bounds(
            smallest.value, (smallest.lower, smallest.upper), lower, upper
        ),
    }
    if ratio is not None and np.isfinite(ratio).any():  # others rounding may have made
        figures["min_eigenvalue_by_width"] = plot.min_eigenvalue_by_width(
            chosen, ratio * smallest.value, smallest.value
        )
    return Outcome(result, {"ntk_eigenvalues": eigenvalues}, figures)


def _finite_rows(chosen: Sequence[int], finite: np.ndarray) -> dict[int, np.ndarray]:
    """Spectra by width, of the widths at which no network overflowed."""
    return {
        width: values
        for width, values in zip(chosen, finite, strict=True)
        if np.isfinite(values).all()
    }
