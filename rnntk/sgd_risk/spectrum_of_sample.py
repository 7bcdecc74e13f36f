"""The regression that SGD on a linearized network is: eigenvalues of its kernel, from a sample."""

import math
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from jax.typing import ArrayLike
from jaxtyping import Float, Real

from rnntk import checks
from rnntk.linalg import matrices
from rnntk.sgd_risk.problem import LeastSquares


@dataclass(frozen=True, eq=False)
class Population:
    r"""A kernel's regression problem, as a sample shows it; made by :func:`population`.

    Attributes:
        problem: eigenvalues of K/n for those of the kernel's integral operator, and the coordinates
            :math:`-\langle y, u_i \rangle / \sqrt{n \lambda_i}` of the error of the zero function.
        error: with probability 1 - delta, the square root of the sum of the squares of all
            eigenvalues' errors is at most this, and so is each error. The problem's eigenvalues
            below it are not known relative to their size.
        resolved: how many eigenvalues exceed twice the error.
        left_out: share of the mean square of y that belongs to eigenvalues that rounding made,
            and is not in the problem.
    """

    problem: LeastSquares
    error: float
    resolved: int
    left_out: float


def population(
    K: Float[ArrayLike, "n n"],
    y: Real[ArrayLike, " n"],
    *,
    noise: float = 0.0,
    delta: float = 0.05,
) -> Population:
    r"""The least-squares problem in the features of a kernel, from n independent inputs.

    With the tangent kernel, the features are the gradients of the linearized network. As inputs
    are sampled, the eigenvalues have errors of up to
    :math:`\kappa (1 + \sqrt{2 \log(1/\delta)}) / \sqrt n` all together, :math:`\kappa` the largest
    entry of K's diagonal: docs/theory/sgd_risk.md.

    Args:
        K: kernel matrix of the sample, the larger the better.
        y: targets without noise.
        noise: variance of the noise that labels will have.
        delta: probability with which the error may be larger, in (0, 1).

    Raises:
        TypeError, ValueError: for a matrix that is no kernel, targets of another length, or what is
            out of range.

    Example:
        >>> import jax, numpy as np, rnntk
        >>> x = rnntk.datasets.unit_tokens(jax.random.key(0), 300, 1, 2)
        >>> K = x[:, 0] @ x[:, 0].T  # whose eigenvalues are 1/2, twice
        >>> found = rnntk.sgd_risk.population(K, x[:, 0, 0])
        >>> found.resolved, bool(abs(found.problem.eigenvalues[0] - 0.5) < found.error)
        (2, True)
    """
    A = matrices.check_symmetric(K)
    n = len(A)
    targets = checks.check_labels(y, n)
    if targets.ndim != 1:
        raise ValueError(f"y must hold one number for each of the {n} inputs, got {targets.shape}.")
    checks.check_positive("delta", delta, most=1.0)
    values, vectors = scipy.linalg.eigh(A / n, check_finite=False)
    floor = matrices.resolution(n, matrices.size_of_spectrum(values), np.asarray(K).dtype)
    kept = values > floor
    if not kept.any():
        raise ValueError(f"K must have a positive eigenvalue, got {values[-1]:.3g} as the largest.")
    shares = (vectors.T @ targets) / math.sqrt(n)
    size = float(shares @ shares)
    error = float(A.diagonal().max()) * (1 + math.sqrt(2 * math.log(1 / delta))) / math.sqrt(n)
    return Population(
        problem=LeastSquares(values[kept], -shares[kept] / np.sqrt(values[kept]), noise),
        error=error,
        resolved=int(np.sum(values > 2 * error)),
        left_out=float(np.sum(shares[~kept] ** 2)) / size if size else 0.0,
    )
