"""Kernel systems whose matrix is on disk."""

import os
from pathlib import Path

from jax.typing import ArrayLike
from jaxtyping import Real

from rnntk import checks
from rnntk.predict import iterative
from rnntk.predict.arguments import check_ridge
from rnntk.predict.iterative import Solution
from rnntk.predict.stored_system import StoredSystem
from rnntk.storage import StoredMatrix

_RANK = 300  # of the preconditioner, unless told


def solve(
    K: StoredMatrix,
    y: Real[ArrayLike, " n"] | Real[ArrayLike, "n o"],
    ridge: float = 0.0,
    *,
    tolerance: float = 1e-8,
    rank: int | None = None,
    seed: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Solution:
    r"""Coefficients :math:`(K + \lambda I)^{-1} y` of a kernel on disk, by conjugate gradients.

    Each step reads the kernel once, for all outputs. Predictions at new sequences are
    ``cross @ coefficients``, with a cross kernel (n_test, n) that may be on disk as well. A kernel
    that fits in memory: :class:`KernelRegression`, which takes one on disk too.

    Args:
        K: symmetric kernel, from :func:`rnntk.open_kernel`.
        y: labels.
        ridge: :math:`\lambda \ge 0`.
        tolerance: of the relative residual; products with a float32 kernel are in float32.
        rank: of the preconditioner, by randomly pivoted Cholesky; 300, or n if that is less.
        seed: of the random pivots.
        checkpoint: file for the state, replaced at each step, from which a repeated call goes on.
        progress: show a bar.

    Returns:
        Coefficients of shape (n, o), their residual, and the work.

    Raises:
        TypeError, ValueError: for a matrix that is not on disk, not symmetric or not complete, for
            bad labels or options, or a checkpoint of another problem.
        FloatingPointError: if the matrix is not positive definite, or the iteration does not
            converge.

    Example:
        >>> kernel = rnntk.open_kernel("kernel.zarr")  # doctest: +SKIP
        >>> a = rnntk.predict.solve(kernel.ntk, y, ridge=1e-3).coefficients  # doctest: +SKIP
    """
    if not isinstance(K, StoredMatrix):
        raise TypeError(f"K must be a kernel on disk, got {type(K).__name__}.")
    if not K.symmetric:
        raise ValueError(f"K must be the kernel of one batch with itself, got {K!r}.")
    labels = checks.check_labels(y, len(K))
    checks.check_positive("tolerance", tolerance, most=1.0)
    return iterative.solve(
        StoredSystem(K),
        labels.reshape(len(labels), -1),
        check_ridge(ridge),
        method="matrix-free",
        tolerance=tolerance,
        rank=min(_RANK, len(K)) if rank is None else checks.check_size("rank", rank),
        seed=seed,
        path=None if checkpoint is None else Path(checkpoint),
        progress=progress,
    )
