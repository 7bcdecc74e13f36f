"""Theorems 2.1 and 2.2 of Zou, Wu, Braverman, Gu & Kakade (2021), as numbers."""

from dataclasses import dataclass

import numpy as np

from rnntk import checks
from rnntk.sgd_risk.problem import LeastSquares, check_step

GAUSSIAN = 3.0
"""alpha of Gaussian features: E x x' A x x' = 2 H A H + tr(HA) H, at most 3 tr(HA) H."""
LEAST = 500
"""Fewest samples of Theorem 2.2."""


@dataclass(frozen=True)
class RiskBound:
    r"""A bound on the expected excess risk of averaged SGD, and its parts.

    Attributes:
        value: the bound, the sum of the other two.
        bias: what the initial error contributes, with the theorem's factor.
        variance: what the noise of the gradients contributes, with the theorem's factor.
        head: :math:`k^*`, the number of eigenvalues of at least :math:`1 / (\gamma N)`.
        dimension: the effective dimension over the number of samples,
            :math:`D = k^*/N + N \gamma^2 \sum_{i > k^*} \lambda_i^2`.
    """

    value: float
    bias: float
    variance: float
    head: int
    dimension: float


def step_limit(problem: LeastSquares, alpha: float = GAUSSIAN) -> float:
    r"""Step size below which Theorem 2.1 holds, :math:`1 / (\alpha\, \mathrm{tr} H)`.

    Args:
        problem: the regression.
        alpha: of the fourth moments; 3 for Gaussian features.

    Raises:
        ValueError: for an alpha below 1, which no features have.

    Example:
        >>> import numpy as np, rnntk
        >>> rnntk.sgd_risk.step_limit(rnntk.sgd_risk.LeastSquares(np.ones(2), np.ones(2)))
        0.16666666666666666
    """
    if not 1 <= alpha < np.inf:
        raise ValueError(f"alpha must be finite and at least 1, got {alpha}.")
    return 1 / (alpha * problem.trace)


def upper_bound(
    problem: LeastSquares, step_size: float, n: int, *, alpha: float = GAUSSIAN
) -> RiskBound:
    r"""Theorem 2.1: the expected excess risk of the mean of N iterates is at most this.

    With :math:`e = w_0 - w^*` in eigenvectors, :math:`\gamma` the step,
    :math:`S = \sum_{i \le k^*} e_i^2 + N \gamma \sum_{i > k^*} \lambda_i e_i^2`,

    .. math::

        2 \Bigl( \frac{1}{\gamma^2 N^2} \sum_{i \le k^*} \frac{e_i^2}{\lambda_i}
          + \sum_{i > k^*} \lambda_i e_i^2 \Bigr)
        + 2 \Bigl( \frac{2 \alpha S}{N \gamma (1 - \gamma \alpha\, \mathrm{tr} H)}
          + \frac{\sigma^2}{1 - \gamma \alpha\, \mathrm{tr} H} \Bigr) D .

    The iterates are :math:`w_0, \dots, w_{N-1}`, each made of one more fresh sample.

    Args:
        problem: the regression.
        step_size: below :func:`step_limit`.
        n: number of iterates N.
        alpha: :math:`E\,x x^\top A\,x x^\top \preceq \alpha\, \mathrm{tr}(HA)\, H` for all positive
            semidefinite A; 3 for Gaussian features.

    Raises:
        ValueError: for a step at or above the limit, which is named, or what is out of range.

    Example:
        >>> import numpy as np, rnntk
        >>> problem = rnntk.sgd_risk.LeastSquares(1 / np.arange(1.0, 9) ** 2, np.ones(8), noise=0.1)
        >>> rnntk.sgd_risk.upper_bound(problem, 0.1, 1000).head
        8
    """
    limit = step_limit(problem, alpha)
    step = check_step(step_size, limit, "1 / (alpha trace H) of Theorem 2.1")
    bias, spread, head, dimension = _parts(problem, step, checks.check_size("n", n))
    left = 1 - step * alpha * problem.trace
    variance = (2 * alpha * spread / (n * step) + problem.noise) / left * dimension
    return RiskBound(2 * bias + 2 * variance, 2 * bias, 2 * variance, head, dimension)


def lower_bound(problem: LeastSquares, step_size: float, n: int, *, beta: float = 1.0) -> RiskBound:
    r"""Theorem 2.2: the expected excess risk of the mean of N iterates is at least this.

    With the symbols of :func:`upper_bound`, for noise that is independent of the features,

    .. math::

        \frac{1}{100} \Bigl( \frac{1}{\gamma^2 N^2} \sum_{i \le k^*} \frac{e_i^2}{\lambda_i}
          + \sum_{i > k^*} \lambda_i e_i^2 \Bigr)
        + \Bigl( \frac{\beta S}{1000 N \gamma} + \frac{\sigma^2}{50} \Bigr) D .

    Args:
        problem: the regression.
        step_size: below 1 over the largest eigenvalue.
        n: number of iterates N, at least 500.
        beta: :math:`E\,x x^\top A\,x x^\top - H A H \succeq \beta\, \mathrm{tr}(HA)\, H`; 1 for
            Gaussian features.

    Raises:
        ValueError: for a step at or above the limit, which is named, fewer than 500 samples, or
            what is out of range.

    Example:
        >>> import numpy as np, rnntk
        >>> problem = rnntk.sgd_risk.LeastSquares(1 / np.arange(1.0, 9) ** 2, np.ones(8), noise=0.1)
        >>> low, high = (
        ...     f(problem, 0.1, 1000).value
        ...     for f in (rnntk.sgd_risk.lower_bound, rnntk.sgd_risk.upper_bound))
        >>> bool(low < rnntk.sgd_risk.exact_risk(problem, 0.1, 1000)[0] < high)
        True
    """
    limit = 1 / float(problem.eigenvalues[0])
    step = check_step(step_size, limit, "1 / (largest eigenvalue) of Theorem 2.2")
    if checks.check_size("n", n) < LEAST:
        raise ValueError(f"n must be at least {LEAST} for Theorem 2.2, got {n}.")
    if not 0 <= beta < np.inf:
        raise ValueError(f"beta must be finite and not negative, got {beta}.")
    bias, spread, head, dimension = _parts(problem, step, n)
    variance = (beta * spread / (1000 * n * step) + problem.noise / 50) * dimension
    return RiskBound(bias / 100 + variance, bias / 100, variance, head, dimension)


def _parts(problem: LeastSquares, step: float, n: int) -> tuple[float, float, int, float]:
    """Bias, S, k* and D; eigenvalues are in descending order."""
    values, squares = problem.eigenvalues, problem.errors**2
    head = int(np.sum(values >= 1 / (step * n)))
    top, rest = slice(None, head), slice(head, None)
    tail = float(values[rest] @ squares[rest])
    bias = float(np.sum((problem.errors[top] / (step * n)) ** 2 / values[top])) + tail
    spread = float(squares[top].sum()) + n * step * tail
    dimension = head / n + n * step**2 * float(np.sum(values[rest] ** 2))
    return bias, spread, head, dimension
