"""One pass of SGD on random features, averaged: what the theorems are about, carried out."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, PRNGKeyArray

from rnntk import checks
from rnntk.keys import generator
from rnntk.sgd_risk.problem import LeastSquares, check_samples, check_step


def simulate(
    key: PRNGKeyArray,
    problem: LeastSquares,
    step_size: float,
    n: int | Sequence[int],
    *,
    runs: int = 32,
) -> Float[np.ndarray, "runs k"]:
    r"""Excess risk of the mean of :math:`w_0, \dots, w_{N-1}`, of independent runs.

    Features are Gaussian with the problem's covariance, the noise is Gaussian and independent.

    Args:
        key: JAX random key.
        problem: the regression.
        step_size: positive.
        n: numbers of iterates N, ascending, or one.
        runs: how many.

    Returns:
        Risks, a row for each run.

    Raises:
        ValueError: for what is out of range.
        FloatingPointError: for runs that diverge.

    Example:
        >>> import jax, numpy as np, rnntk
        >>> problem = rnntk.sgd_risk.LeastSquares(np.array([1.0, 0.1]), np.ones(2), noise=0.1)
        >>> found = rnntk.sgd_risk.simulate(jax.random.key(0), problem, 0.1, [10, 100], runs=200)
        >>> exact = rnntk.sgd_risk.exact_risk(problem, 0.1, [10, 100])
        >>> bool((abs(found.mean(axis=0) / exact - 1) < 0.1).all())
        True
    """
    rng = generator(key)
    roots, sigma = np.sqrt(problem.eigenvalues), math.sqrt(problem.noise)

    def gradient(error: np.ndarray) -> np.ndarray:
        x = roots * rng.standard_normal(error.shape)
        gap = np.einsum("rd,rd->r", error, x) - sigma * rng.standard_normal(len(error))
        return gap[:, None] * x

    start = np.tile(problem.errors, (checks.check_size("runs", runs), 1))
    return averaged_risks(gradient, start, problem.eigenvalues, step_size, check_samples(n))


def averaged_risks(
    gradient: Callable[[np.ndarray], np.ndarray],
    start: Float[np.ndarray, "runs d"],
    eigenvalues: Float[np.ndarray, " d"],
    step_size: float,
    counts: list[int],
) -> Float[np.ndarray, "runs k"]:
    """Risks of the means of SGD's iterates, for random gradients of the errors of all runs."""
    step = check_step(step_size, np.inf, "")
    error, total = start.copy(), np.zeros_like(start)
    found: list[np.ndarray] = []
    with np.errstate(over="ignore", invalid="ignore"):
        for count in range(1, counts[-1] + 1):
            total += error
            if count == counts[len(found)]:
                found.append(np.square(total / count) @ eigenvalues / 2)
            error -= step * gradient(error)
    result = np.stack(found, axis=1)
    if not np.isfinite(result).all():
        bad = int((~np.isfinite(result[:, -1])).sum())
        raise FloatingPointError(f"{bad} of {len(start)} runs diverge at step size {step:.6g}.")
    return result
