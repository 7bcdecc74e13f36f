"""How the risk falls with the number of samples, between its bounds; and the best constant step."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from rnntk import checks
from rnntk.sgd_risk.problem import LeastSquares, check_samples, check_step
from rnntk.sgd_risk.recursion import exact_risk, largest_stable_step, risks
from rnntk.sgd_risk.theorems import GAUSSIAN, LEAST, lower_bound, step_limit, upper_bound

GRID = 33
"""Steps of each round of :func:`optimal_step`; five rounds narrow them down."""


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """Expected excess risk of averaged SGD for several numbers of samples.

    Attributes:
        n: numbers of samples.
        exact: for Gaussian features.
        upper: Theorem 2.1; NaN for a step that it does not cover.
        lower: Theorem 2.2; NaN where it says nothing, below 500 samples.
        step_size: the step.
    """

    n: Int[np.ndarray, " k"]
    exact: Float[np.ndarray, " k"]
    upper: Float[np.ndarray, " k"]
    lower: Float[np.ndarray, " k"]
    step_size: float


def learning_curve(
    problem: LeastSquares, step_size: float, n: Sequence[int], *, alpha: float = GAUSSIAN
) -> LearningCurve:
    """The exact risk with both bounds, where they hold.

    Args:
        problem: the regression.
        step_size: positive.
        n: numbers of samples, ascending.
        alpha: of the fourth moments, for the upper bound.

    Raises:
        ValueError: for what is out of range.
        FloatingPointError: where the risk exceeds the range of float64.

    Example:
        >>> import numpy as np, rnntk
        >>> problem = rnntk.sgd_risk.LeastSquares(1 / np.arange(1.0, 9) ** 2, np.ones(8), noise=0.1)
        >>> curve = rnntk.sgd_risk.learning_curve(problem, 0.1, [100, 1000])
        >>> bool(np.isnan(curve.lower[0])), bool(curve.lower[1] < curve.exact[1] < curve.upper[1])
        (True, True)
    """
    counts = check_samples(n)
    exact = exact_risk(problem, step_size, counts)
    upper, lower = np.full((2, len(counts)), np.nan)
    for i, count in enumerate(counts):
        if step_size < step_limit(problem, alpha):
            upper[i] = upper_bound(problem, step_size, count, alpha=alpha).value
        if count >= LEAST and step_size < 1 / problem.eigenvalues[0]:
            lower[i] = lower_bound(problem, step_size, count).value
    return LearningCurve(np.array(counts), exact, upper, lower, float(step_size))


def optimal_step(problem: LeastSquares, n: int) -> tuple[float, float]:
    """The constant step with the smallest expected risk after n samples, and that risk.

    For Gaussian features, by the exact recursion on grids of steps below
    :func:`largest_stable_step`, even in the logarithm, each around the best of the one before: the
    step is found to about a part in ten thousand, the risk to better than one in a million.

    Args:
        problem: the regression.
        n: number of samples.

    Raises:
        ValueError: for what is out of range.

    Example:
        >>> import numpy as np, rnntk
        >>> problem = rnntk.sgd_risk.LeastSquares(np.ones(4), np.ones(4), noise=1.0)
        >>> step, risk = rnntk.sgd_risk.optimal_step(problem, 200)
        >>> others = [rnntk.sgd_risk.exact_risk(problem, other, 200)[0] for other in (0.01, 0.3)]
        >>> bool(risk < min(others))
        True
    """
    counts = [checks.check_size("n", n)]
    limit = largest_stable_step(problem)
    # below the first, no eigenvalue is learnt at all
    low, high = np.log(min(1e-3 / (n * problem.eigenvalues[0]), 1e-3 * limit)), np.log(limit)
    step, risk, spacing = 0.0, np.inf, 0.0
    for _ in range(5):
        steps = np.exp(np.linspace(low, high, GRID))
        found = risks(problem, steps, counts)[0]
        best = int(np.argmin(found))
        if found[best] < risk:
            step, risk = float(steps[best]), float(found[best])
        spacing = (high - low) / (GRID - 1)
        low, high = np.log(step) - spacing, min(np.log(step) + spacing, np.log(limit))
    return check_step(step, np.inf, ""), risk
