"""First stages: the infinite-width kernels, and how far those of finite networks are from them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float
from matplotlib.figure import Figure
from tqdm import tqdm

from rnntk import plot
from rnntk.empirical.kernel import empirical_kernel
from rnntk.infinite.kernel import infinite_kernel
from rnntk.linalg import matrices
from rnntk.report.problem import Problem
from rnntk.report.results import Convergence, Kernels, Widths

KINDS = ("ntk", "nngp")
Arrays = dict[str, np.ndarray]


class Outcome(NamedTuple):
    """What a stage adds to the files."""

    result: Any
    arrays: Arrays
    figures: dict[str, Figure]


class Slope(NamedTuple):
    """A fitted exponent and its standard error, ``None`` where there is no residual."""

    value: float
    standard_error: float | None


def kernels(problem: Problem, arrays: Arrays, bar: tqdm) -> Outcome:
    """Infinite-width kernels of the training sequences, and of the test sequences with them."""
    x, lengths = problem.arrays(problem.train)
    x_test, lengths_test = problem.arrays(problem.test)
    bar.reset(2)
    limit = infinite_kernel(problem.rnn, x, lengths1=lengths)
    ntk, nngp = np.asarray(limit.ntk), np.asarray(limit.nngp)
    if not ntk.any():
        raise ArithmeticError(
            "the NTK is zero: with these stds no trained group changes the outputs; choose other "
            "stds, or train more groups."
        )
    bar.update()
    cross = infinite_kernel(problem.rnn, x_test, x, lengths1=lengths_test, lengths2=lengths)
    bar.update()
    result = Kernels(float(np.trace(ntk)), float(np.trace(nngp)))
    return Outcome(
        result,
        {
            "ntk": ntk,
            "nngp": nngp,
            "ntk_test_train": np.asarray(cross.ntk),
            "nngp_test_train": np.asarray(cross.nngp),
        },
        {},
    )


def widths(problem: Problem, arrays: Arrays, bar: tqdm) -> Outcome:
    """Kernels of finite networks beside the limit."""
    x, lengths = problem.arrays(problem.train)
    chosen, seeds = problem.settings.widths, problem.settings.seeds
    limits = {kind: np.asarray(arrays[kind], np.float64) for kind in KINDS}
    names = [*KINDS, *(f"{kind}_unit_diagonal" for kind in KINDS)]
    found = {name: np.full((len(chosen), seeds), np.nan) for name in names}
    traces = np.full((len(chosen), seeds), np.nan)
    eigenvalues = np.full((len(chosen), seeds, len(problem.train)), np.nan)
    bar.reset(len(chosen) * seeds)
    for i, width in enumerate(chosen):
        for seed in range(seeds):
            params = problem.rnn.init(problem.key(width, seed), input_dim=x.shape[-1], width=width)
            try:
                finite = empirical_kernel(problem.rnn, params, x, lengths1=lengths)
            except FloatingPointError:
                bar.update()
                continue  # counted as overflowed
            for kind, limit in limits.items():
                matrix = np.asarray(getattr(finite, kind), np.float64)
                found[kind][i, seed] = relative(matrix, limit)
                found[f"{kind}_unit_diagonal"][i, seed] = relative(
                    unit_diagonal(matrix), unit_diagonal(limit)
                )
            ntk = np.asarray(finite.ntk, np.float64)
            traces[i, seed] = np.trace(ntk) / np.trace(limits["ntk"])
            eigenvalues[i, seed] = np.linalg.eigvalsh(ntk)
            bar.update()
    resolved = np.zeros((len(chosen), seeds), bool)
    for index in np.argwhere(np.isfinite(traces)):
        values = eigenvalues[tuple(index)]
        floor = matrices.resolution(
            len(values), matrices.size_of_spectrum(values), arrays["ntk"].dtype
        )
        resolved[tuple(index)] = values[0] > floor
    kinds = {name: convergence(chosen, values) for name, values in found.items()}
    result = Widths(
        widths=tuple(chosen),
        seeds=seeds,
        overflowed=tuple(np.isnan(traces).sum(axis=1).tolist()),
        trace_over_limit=traces,
        kinds=kinds,
        min_eigenvalues=np.where(resolved, eigenvalues[:, :, 0], np.nan),
        unresolved=tuple((np.isfinite(traces) & ~resolved).sum(axis=1).tolist()),
    )
    shown = {"NTK": "ntk", "NTK, unit diagonal": "ntk_unit_diagonal"}
    slopes = {label: kinds[name].slope for label, name in shown.items()}
    fitted = {label: slope for label, slope in slopes.items() if slope is not None}
    figure = plot.width_convergence(
        chosen,
        {label: found[name] for label, name in shown.items()},
        slopes=fitted if len(fitted) == len(shown) else None,
    )
    spectra = {
        "empirical_ntk_eigenvalues": eigenvalues,
        "empirical_minima": result.min_eigenvalues,
    }
    return Outcome(result, spectra, {"convergence": figure})


def convergence(chosen: Sequence[int], deviations: Float[np.ndarray, "w s"]) -> Convergence:
    """Means and slope of the deviations that are finite and positive."""
    logs = np.log(np.where(usable(deviations), deviations, np.nan))
    counts = np.isfinite(logs).sum(axis=1)
    means = np.where(counts > 0, np.nansum(logs, axis=1) / np.maximum(counts, 1), np.nan)
    slope = fit_slope(chosen, deviations) if np.sum(counts > 0) > 1 else None
    return Convergence(
        deviations=deviations,
        geometric_mean=np.exp(means),
        slope=slope and slope.value,
        slope_standard_error=slope and slope.standard_error,
    )


def usable(values: Float[np.ndarray, "..."]) -> np.ndarray:
    """What has a logarithm."""
    return np.isfinite(values) & (values > 0)


def fit_slope(chosen: Sequence[int], deviations: Float[np.ndarray, "w s"]) -> Slope:
    """Least-squares slope of log deviation on log width over all networks.

    Logarithms, because the deviation is heavy-tailed: a ReLU network that happens to have a large
    scale can deviate twenty times as much as the next, and a root mean square would show little
    else.

    Args:
        chosen: at least two different widths with a deviation that is finite and positive.
        deviations: a row for each width and a column for each seed.

    Example:
        >>> import numpy as np
        >>> deviations = 1 / np.sqrt([[16.0, 16.0], [64.0, 64.0]])
        >>> round(fit_slope([16, 64], deviations).value, 12)
        -0.5
    """
    log_width = np.repeat(np.log(np.asarray(chosen, float)), deviations.shape[1])
    keep = usable(deviations).ravel()
    fit = scipy.stats.linregress(log_width[keep], np.log(deviations.ravel()[keep]))
    # of deviations that are all equal the error comes out as NaN
    error = float(fit.stderr) if keep.sum() > 2 and np.isfinite(fit.stderr) else None
    return Slope(float(fit.slope), error)


def unit_diagonal(kernel: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """Entries divided by the square roots of the two diagonal ones; zero where those are zero.

    Example:
        >>> import numpy as np
        >>> unit_diagonal(np.array([[4.0, 1.0], [1.0, 1.0]]))
        array([[1. , 0.5],
               [0.5, 1. ]])
    """
    root = np.sqrt(np.diag(kernel))
    inverse = np.divide(1.0, root, out=np.zeros_like(root), where=root > 0)
    return kernel * inverse[:, None] * inverse[None, :]


def relative(a: Float[np.ndarray, "..."], b: Float[np.ndarray, "..."]) -> float:
    """|a - b| / |b| in the Frobenius norm, of numbers whose squares leave the range."""
    size = max(float(np.abs(a).max(initial=0.0)), float(np.abs(b).max(initial=0.0)))
    if not 0 < size < np.inf:
        return float("nan") if size else 0.0
    norm = float(np.linalg.norm(b / size))
    # norms of what is far smaller than a come out as zero
    return float(np.linalg.norm(a / size - b / size)) / norm if norm > 0 else float("inf")
