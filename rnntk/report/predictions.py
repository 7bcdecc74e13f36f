"""The predictions' stage: kernel ridge regression, and what it is compared with."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from sklearn.metrics.pairwise import euclidean_distances
from tqdm import tqdm

from rnntk import plot
from rnntk.datasets import Dataset
from rnntk.predict import KernelRegression
from rnntk.report.kernels import Arrays, Outcome
from rnntk.report.problem import Problem
from rnntk.report.results import Method, Predictions

RIDGES = tuple(float(r) for r in np.logspace(-7, 1, 9))
"""Ridges tried for every kernel, relative to the mean of its diagonal."""
GAMMAS = 2.0 ** np.arange(-3, 4)
"""Gammas tried for the RBF kernel, relative to 1 / (median squared distance)."""


def predictions(problem: Problem, arrays: Arrays, bar: tqdm) -> Outcome:
    """Kernel ridge regression with the two kernels and with those of simpler methods."""
    bar.reset(3 + len(GAMMAS))
    ridges = RIDGES if problem.settings.ridge is None else (problem.settings.ridge,)
    pairs: dict[str, list[tuple[np.ndarray, np.ndarray, float | None]]] = {
        "NTK": [(arrays["ntk"], arrays["ntk_test_train"], None)],
        "NNGP": [(arrays["nngp"], arrays["nngp_test_train"], None)],
        "RBF": list(_rbf(problem)),
        "linear": [(*_linear(problem), None)],
    }
    methods: dict[str, Method] = {}
    predicted: dict[str, np.ndarray] = {}
    failed: dict[str, str] = {}
    for name, candidates in pairs.items():
        for kernel, cross, gamma in candidates:
            try:
                method, values = tune(problem, kernel, cross, ridges)
            except ValueError as error:
                failed[name] = str(error)
            else:
                best = methods.get(name)
                if best is None or _loss(method) < _loss(best):
                    methods[name], predicted[name] = replace(method, gamma=gamma), values
            bar.update()
    for name in methods:
        failed.pop(name, None)
    constant = np.tile(problem.targets.mean(axis=0), (len(problem.test), 1))
    methods["constant"] = Method(problem.score(constant))
    result = Predictions(
        metric=problem.metric,
        test_sequences=len(problem.test),
        ridges=ridges,
        methods=methods,
        failed=failed,
    )
    figure = plot.scores({name: m.score for name, m in methods.items()}, problem.metric)
    kept = {} if "NTK" not in predicted else {"ntk_predictions": predicted["NTK"]}
    return Outcome(result, kept, {"scores": figure})


def tune(
    problem: Problem,
    kernel: Float[np.ndarray, "n n"],
    cross: Float[np.ndarray, "n_test n"],
    ridges: tuple[float, ...],
) -> tuple[Method, Float[np.ndarray, "n_test o"]]:
    """The regression whose ridge has the least leave-one-out error, and its predictions.

    Raises:
        ValueError: if the kernel is singular with every ridge tried.
    """
    scale = float(np.mean(np.diag(kernel)))
    best: tuple[Method, np.ndarray] | None = None
    problems = []
    for relative in ridges:
        try:
            model = KernelRegression(kernel, problem.targets, relative * scale)
        except ValueError as error:  # singular to rounding with so small a ridge
            problems.append(error)
            continue
        loss = float(np.mean((model.leave_one_out() - problem.targets) ** 2))
        if best is None or loss < _loss(best[0]):
            values = model.predict(cross)
            method = Method(problem.score(values), relative * scale, relative, loss)
            best = method, values
    if best is None:
        raise problems[-1]
    return best


def _loss(method: Method) -> float:
    return float("inf") if method.leave_one_out is None else method.leave_one_out


def _standardized(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Each sequence as one vector, its features standardized by the training sequences."""
    flat, flat_test = (_flat(problem, data) for data in (problem.train, problem.test))
    mean, std = flat.mean(axis=0), flat.std(axis=0)
    # rounding of the mean leaves a constant feature a spread, as it does in scikit-learn
    constant = std <= 10 * np.finfo(float).eps * np.abs(mean)
    std = np.where(constant | (std == 0), 1.0, std)
    return (flat - mean) / std, (flat_test - mean) / std


def _flat(problem: Problem, data: Dataset) -> np.ndarray:
    steps = max(problem.train.x.shape[1], problem.test.x.shape[1])
    n, t, d = data.x.shape
    return np.concatenate([data.x, np.zeros((n, steps - t, d))], axis=1).reshape(n, -1)


def _rbf(problem: Problem) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """Kernel, cross kernel and gamma, for each gamma tried."""
    flat, flat_test = _standardized(problem)
    squared = euclidean_distances(flat, squared=True)
    squared = (squared + squared.T) / 2  # of which rounding leaves no more
    np.fill_diagonal(squared, 0)
    cross = euclidean_distances(flat_test, flat, squared=True)
    median = float(np.median(squared[np.triu_indices(len(flat), 1)]))
    for gamma in GAMMAS / max(median, 1e-300):
        yield np.exp(-gamma * squared), np.exp(-gamma * cross), float(gamma)


def _linear(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """With a constant feature of the features' mean size: the intercept."""
    flat, flat_test = _standardized(problem)
    kernel = flat @ flat.T
    kernel = (kernel + kernel.T) / 2
    offset = max(float(np.mean(np.diag(kernel))), 1e-300)
    return kernel + offset, flat_test @ flat.T + offset
