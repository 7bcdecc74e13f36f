"""The expected risk of averaged one-pass SGD on Gaussian features, exactly.

With b_t the diagonal of the error's second moment in the eigenbasis of H,

    b_(t+1) = (1 - 2 g l + 2 g^2 l^2) b_t + g^2 l (sum_j l_j b_tj) + g^2 s^2 l

is closed, and so is the risk of the mean of iterates: docs/theory/sgd_risk.md.
"""

from collections.abc import Callable, Sequence

import numpy as np
import scipy.optimize
from jaxtyping import Float

from rnntk.sgd_risk.problem import LeastSquares, check_samples, check_step


def exact_risk(
    problem: LeastSquares, step_size: float, n: int | Sequence[int]
) -> Float[np.ndarray, " k"]:
    r"""Expected excess risk of the mean of the iterates :math:`w_0, \dots, w_{N-1}`.

    For features that are Gaussian, and noise that is independent of them. No approximation is
    made: the second moments of one pass of SGD follow a linear recursion in the eigenvalues. Its
    cost is that of N steps of vectors of d numbers. For steps up to one over the largest eigenvalue
    all terms are sums of numbers that are not negative, so that rounding is N roundings at most.

    Args:
        problem: the regression.
        step_size: positive; from :func:`largest_stable_step` on the risk grows with N.
        n: numbers of iterates N, ascending, or one.

    Returns:
        The risk for each of them.

    Raises:
        ValueError: for what is out of range.
        FloatingPointError: where the risk exceeds the range of float64.

    Example:
        >>> import numpy as np, rnntk
        >>> problem = rnntk.sgd_risk.LeastSquares(np.ones(1), np.ones(1))
        >>> # the mean error after two, 1 - g x^2 / 2, has the square 1 - g + 3 g^2 / 4 on average
        >>> rnntk.sgd_risk.exact_risk(problem, 0.5, [1, 2])
        array([0.5    , 0.34375])
    """
    counts = check_samples(n)
    step = check_step(step_size, np.inf, "")
    return risks(problem, np.array([step]), counts)[:, 0]


def largest_stable_step(problem: LeastSquares) -> float:
    r"""Step size from which the second moments of SGD on Gaussian features grow without bound.

    It solves :math:`\sum_i \gamma \lambda_i / (2 (1 - \gamma \lambda_i)) = 1`, and lies between
    :math:`2 / (3\, \mathrm{tr} H)` and :math:`2 / \mathrm{tr} H`.

    Args:
        problem: the regression.

    Example:
        >>> import numpy as np, rnntk
        >>> step = rnntk.sgd_risk.largest_stable_step(
        ...     rnntk.sgd_risk.LeastSquares(np.ones(1), np.ones(1)))
        >>> round(step, 12)
        0.666666666667
    """
    values = problem.eigenvalues / problem.eigenvalues[0]

    def excess(share: float) -> float:
        return float(np.sum(share * values / (2 * (1 - share * values)))) - 1

    share = scipy.optimize.brentq(excess, 0.0, 1 - 2.0**-52, xtol=1e-300, rtol=1e-14)
    return float(share / problem.eigenvalues[0])


def risks(
    problem: LeastSquares, steps: Float[np.ndarray, " s"], counts: list[int]
) -> Float[np.ndarray, "k s"]:
    """The risk for each number of samples and each step size, all in one run of the recursion."""
    values = problem.eigenvalues

    def spread(b: np.ndarray) -> np.ndarray:
        return values**2 * b + values * ((b @ values)[:, None] + problem.noise)

    result = mean_risks(values, problem.errors**2, steps, counts, spread)
    if not np.isfinite(result).all():
        raise FloatingPointError(
            f"the risk exceeds the range of float64; steps below {largest_stable_step(problem):.6g}"
            " are stable."
        )
    return result


def mean_risks(
    values: Float[np.ndarray, " d"],
    squares: Float[np.ndarray, " d"],
    steps: Float[np.ndarray, " s"],
    counts: list[int],
    spread: Callable[[Float[np.ndarray, "s d"]], Float[np.ndarray, "s d"]],
) -> Float[np.ndarray, "k s"]:
    """Risks of means of iterates whose squares follow b_(t+1) = (1 - g l)^2 b_t + g^2 spread(b_t).

    ``total`` holds the sum of all b_t, ``faded`` that of r^(N-1-t) b_t, and ``crossed`` that of
    b_t (r + ... + r^(N-1-t)), r = 1 - g l: what pairs of iterates have in common.
    """
    g = steps[:, None]
    r = 1 - g * values
    b = np.broadcast_to(squares, r.shape).copy()
    total, faded, crossed = (np.zeros_like(b) for _ in range(3))
    found, wanted = [], set(counts)
    with np.errstate(over="ignore", invalid="ignore"):
        for n in range(1, counts[-1] + 1):
            crossed += r * faded
            faded *= r
            faded += b
            total += b
            if n in wanted:
                found.append((total + 2 * crossed) @ values / (2 * n**2))
            b = r**2 * b + g**2 * spread(b)
    return np.array(found)
