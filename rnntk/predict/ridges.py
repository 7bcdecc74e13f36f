"""A grid of ridges judged by one eigendecomposition: leave-one-out, marginal likelihood."""

import math
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Real

from rnntk import checks
from rnntk.linalg import matrices
from rnntk.predict.arguments import check_ridge
from rnntk.predict.factorization import refuse_indefinite, resolution

CRITERIA = ("leave_one_out", "marginal_likelihood")
RELATIVE = np.logspace(-8, 2, 21)
"""Ridges tried by default, relative to the mean of the kernel's diagonal."""


@dataclass(frozen=True, eq=False)
class RidgePath:
    """What each ridge of a grid does; made by :func:`ridge_path`.

    Attributes:
        ridges: ascending, shape (g,).
        resolved: whether the kernel with that ridge is invertible beyond rounding, shape (g,).
        leave_one_out: mean squared error, over points and outputs, of the prediction at each
            point by the regression fitted to all others, shape (g,); infinite where not resolved.
        log_marginal_likelihood: of the labels as outputs of independent Gaussian processes with
            this kernel and the ridge as the variance of the noise, shape (g,); minus infinity
            where not resolved.
        effective_dimension: of the fit, shape (g,).
    """

    ridges: Float[np.ndarray, " g"]
    resolved: Bool[np.ndarray, " g"]
    leave_one_out: Float[np.ndarray, " g"]
    log_marginal_likelihood: Float[np.ndarray, " g"]
    effective_dimension: Float[np.ndarray, " g"]

    def best(self, criterion: str = "leave_one_out") -> float:
        """The ridge of the least leave-one-out error, or of the greatest marginal likelihood.

        Raises:
            ValueError: for an unknown criterion.

        Example:
            >>> import numpy as np
            >>> ridge_path(np.eye(3), np.array([1.0, -1.0, 1.0]), np.array([0.1, 10.0])).best()
            0.1
        """
        if criterion not in CRITERIA:
            raise ValueError(f"criterion must be one of {CRITERIA}, got {criterion!r}.")
        score = -self.leave_one_out if criterion == CRITERIA[0] else self.log_marginal_likelihood
        return float(self.ridges[int(np.argmax(score))])


def ridge_path(
    kernel: Float[ArrayLike, "n n"],
    y: Real[ArrayLike, " n"] | Real[ArrayLike, "n o"],
    ridges: Float[ArrayLike, " g"] | None = None,
) -> RidgePath:
    r"""Leave-one-out error and marginal likelihood for a whole grid of ridges.

    With :math:`K = Q \Lambda Q^\top` the coefficients are :math:`Q (\Lambda + \lambda)^{-1} Q^\top
    y` and the diagonal of the inverse :math:`\sum_k Q_{ik}^2 / (\lambda_k + \lambda)`, from which
    the error left out follows (Rasmussen & Williams 2006, equations 5.12 and 2.30): one
    eigendecomposition, then n^2 operations for each ridge and output.

    Args:
        kernel: train kernel K, shape (n, n), symmetric, positive semidefinite.
        y: labels, shape (n,), or (n, o) for o outputs.
        ridges: not negative; by default 21 from 1e-8 to 1e2 times the mean of K's diagonal.

    Raises:
        TypeError: if the kernel is not floating point or the labels are not real numbers.
        ValueError: for wrong shapes, NaN or infinity, an asymmetric kernel, a negative ridge, or
            if the kernel is singular to rounding with every ridge.

    Example:
        >>> import numpy as np
        >>> path = ridge_path(np.eye(2), np.array([1.0, 2.0]), np.array([0.0, 1.0]))
        >>> path.leave_one_out, path.effective_dimension
        (array([2.5, 2.5]), array([2., 1.]))
    """
    matrix = matrices.check_symmetric(kernel, "kernel")
    labels = checks.check_labels(y, len(matrix)).reshape(len(matrix), -1)
    if ridges is None:
        grid = RELATIVE * float(np.mean(np.diagonal(matrix)))
    else:
        grid = np.sort(np.array([check_ridge(r, "ridges") for r in np.asarray(ridges).ravel()]))
        if grid.size == 0:
            raise ValueError("ridges must hold at least one number, got none.")
    values, vectors = scipy.linalg.eigh(matrix, driver="evd", check_finite=False)
    rounding = resolution(matrix, kernel)
    refuse_indefinite(float(values[0]), rounding)
    resolved = values[0] + grid > rounding
    if not resolved.any():
        raise ValueError(
            f"kernel + ridge I is singular to rounding with every ridge up to {grid[-1]:.3g}: the "
            f"smallest eigenvalue of the kernel is {values[0]:.3g}, its rounding error up to "
            f"{rounding:.3g}. Try larger ridges."
        )
    weights = vectors.T @ labels
    n, outputs = labels.shape
    inverse = 1 / (values[:, None] + grid[resolved])  # (n, kept)
    filtered = (weights[:, None, :] * inverse[:, :, None]).reshape(n, -1)
    coefficients = (vectors @ filtered).reshape(n, -1, outputs)
    left_out = coefficients / (vectors**2 @ inverse)[:, :, None]
    errors, likelihood = np.full(len(grid), np.inf), np.full(len(grid), -np.inf)
    errors[resolved] = (left_out**2).mean(axis=(0, 2))
    quadratic = np.einsum("ko,kg->g", weights**2, inverse)
    logarithm = -np.log(inverse).sum(axis=0) + n * math.log(2 * math.pi)
    likelihood[resolved] = -(quadratic + outputs * logarithm) / 2
    kept = np.maximum(values, 0)[:, None]
    share = np.divide(kept, kept + grid, out=np.ones((n, len(grid))), where=kept + grid > 0)
    return RidgePath(grid, resolved, errors, likelihood, share.sum(axis=0))
