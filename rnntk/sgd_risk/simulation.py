"""One pass of SGD on random features, averaged: what the theorems are about, carried out."""

import math
from collections.abc import Sequence

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
    counts = check_samples(n)
    step = check_step(step_size, np.inf, "")
    rng = generator(key)
    roots = np.sqrt(problem.eigenvalues)
    error = np.tile(problem.errors, (checks.check_size("runs", runs), 1))
    total, found, wanted = np.zeros_like(error), [], set(counts)
    sigma = math.sqrt(problem.noise)
    with np.errstate(over="ignore", invalid="ignore"):
        for count in range(1, counts[-1] + 1):
            total += error
            if count in wanted:
                found.append(np.square(total / count) @ problem.eigenvalues / 2)
            x = roots * rng.standard_normal(error.shape)
            gap = np.einsum("rd,rd->r", error, x) - sigma * rng.standard_normal(len(error))
            error -= step * gap[:, None] * x
    result = np.stack(found, axis=1)
    if not np.isfinite(result).all():
        raise FloatingPointError(
            f"{int((~np.isfinite(result[:, -1])).sum())} of {runs} runs diverge at step size "
            f"{step:.6g}."
        )
    return result
