"""Kernel regression from a network and sequences, with or without the matrix in memory."""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import scipy.linalg
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Real

from rnntk import checks
from rnntk.linalg.pivoted_cholesky import pivoted_cholesky
from rnntk.network.elman import ElmanRNN
from rnntk.predict import iterative
from rnntk.predict.arguments import check_ridge
from rnntk.predict.regression import KernelRegression
from rnntk.predict.sequence_kernel import SequenceKernel
from rnntk.tiling.memory import free_memory

METHODS = ("auto", "exact", "float32", "matrix-free", "nystrom")
_EXACT = 5 * 8  # bytes for an entry: two kernels, one in float64, one factored, one to spare
_SINGLE = 2.2  # half of the matrix in single precision
_RANK = 300  # of preconditioners and Nystrom features, unless told


@dataclass(frozen=True, eq=False)
class SequenceRegression:
    r"""A kernel regression that predicts sequences; made by :func:`fit`.

    Attributes:
        kernel: of the training sequences.
        ridge: :math:`\lambda`.
        method: ``"exact"``, ``"float32"``, ``"matrix-free"`` or ``"nystrom"``.
        reason: why this method.
        coefficients: shape (n,) or (n, o) as the labels, for Nystrom those of the landmarks.
        landmarks: of Nystrom, the indices of the training sequences that span the function, else
            None.
        residual: :math:`|y - (K + \lambda I) a| / |y|`, the largest over outputs; for Nystrom with
            the kernel's approximation in the place of K.
        prediction_bound: times the root of k(x, x), a bound on what the residual can have done to
            the prediction of each output at x: :math:`|y - (K + \lambda I) a| / \sqrt\lambda`.
            Infinite without a ridge, and for Nystrom, whose error is the kernel's.
        steps: of conjugate gradients.
        passes: how often the whole train kernel was computed.
        remainder: of Nystrom, the share of the kernel's trace that the landmarks do not span.
    """

    kernel: SequenceKernel
    ridge: float
    method: str
    reason: str
    coefficients: Float[np.ndarray, "k ..."]
    landmarks: Int[np.ndarray, " k"] | None
    residual: float
    prediction_bound: float
    steps: int
    passes: int
    remainder: float

    def predict(
        self, x: Float[ArrayLike, "n_test t d"], lengths: Int[ArrayLike, " n_test"] | None = None
    ) -> Float[np.ndarray, "n_test *o"]:
        """Predictions for new sequences.

        Args:
            x: tokens, in the dtype of the training ones.
            lengths: number of steps of each sequence; the rest is padding.

        Returns:
            Shape (n_test,) if the labels had one axis, (n_test, o) if they had two, float64.

        Raises:
            TypeError, ValueError: for bad tokens or lengths.

        Example:
            >>> import numpy as np, rnntk
            >>> x = np.random.default_rng(0).standard_normal((5, 4, 3)).astype("float32")
            >>> model = rnntk.predict.fit(rnntk.ElmanRNN(), x, x[:, -1, 0], ridge=1.0)
            >>> model.method, model.predict(x).shape
            ('exact', (5,))
        """
        trailing = self.coefficients.shape[1:]
        columns = self.coefficients.reshape(len(self.coefficients), -1)
        predictions = self.kernel.predict(x, lengths, columns, self.landmarks)
        return predictions.reshape(len(predictions), *trailing)


def fit(
    rnn: ElmanRNN,
    x: Float[ArrayLike, "n t d"],
    y: Real[ArrayLike, " n"] | Real[ArrayLike, "n o"],
    ridge: float | Literal["leave_one_out", "marginal_likelihood"] = 0.0,
    *,
    lengths: Int[ArrayLike, " n"] | None = None,
    kind: str = "ntk",
    method: str = "auto",
    memory: float | None = None,
    tolerance: float = 1e-8,
    rank: int | None = None,
    seed: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> SequenceRegression:
    r"""Kernel ridge regression with the infinite-width kernel of a network.

    - ``"exact"``: the matrix, and its Cholesky factors (:class:`KernelRegression`).
    - ``"float32"``: half of the matrix in single precision, 2 n^2 bytes, solved by conjugate
      gradients and refined by residuals in the dtype of the tokens.
    - ``"matrix-free"``: the kernel is computed anew for each step of conjugate gradients, tile by
      tile, all outputs at once; memory O(n rank).
    - ``"nystrom"``: ridge regression on the features of ``rank`` training sequences, an
      approximation whose error ``remainder`` bounds in the kernel and nothing bounds in the
      predictions; compare with another method on a part of the data.

    The preconditioner of conjugate gradients, and Nystrom's landmarks, come from randomly pivoted
    Cholesky.

    Args:
        rnn: the network, with one output a sequence.
        x: tokens; their dtype is that of the kernel.
        y: labels, shape (n,), or (n, o) for o outputs.
        ridge: :math:`\lambda \ge 0`, or for ``"exact"`` a criterion of :func:`ridge_path`.
        lengths: number of steps of each sequence; the rest is padding.
        kind: ``"ntk"`` or ``"nngp"``.
        method: one of the above, or ``"auto"``: the first of the first three that fits in
            ``memory``; :attr:`SequenceRegression.reason` says which and why.
        memory: bytes, half of what the machine has free if None.
        tolerance: of the relative residual, of the iterative methods; with tokens in float32 the
            matrix-free one comes to about 1e-6 at best, and tells how far in ``residual``.
        rank: of the preconditioner or the features; 300, or n if that is less, if None.
        seed: of the random pivots.
        checkpoint: file for the state of an iterative solve, replaced at each step. A solve that
            finds the file of its own problem goes on from there to the same numbers.
        progress: show a bar.

    Raises:
        TypeError, ValueError: for bad tokens, lengths, labels, ridge or options, a kernel that is
            singular to rounding (exact), or a checkpoint of another problem.
        FloatingPointError: if the kernel overflows, or an iteration does not converge.

    Example:
        >>> import numpy as np, rnntk
        >>> x = np.random.default_rng(0).standard_normal((8, 4, 3)).astype("float32")
        >>> rnn, y = rnntk.ElmanRNN(), x[:, -1, 0]
        >>> exact = fit(rnn, x, y, ridge=1.0)
        >>> other = fit(rnn, x, y, ridge=1.0, method="matrix-free", tolerance=1e-6)
        >>> bool(np.allclose(exact.predict(x), other.predict(x), atol=1e-5))
        True
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}.")
    kernel = SequenceKernel.of(rnn, x, lengths, kind)
    labels = checks.check_labels(y, len(kernel))
    size = min(_RANK, len(kernel)) if rank is None else checks.check_size("rank", rank)
    checks.check_positive("tolerance", tolerance, most=1.0)
    checks.check_size("seed", seed, 0)
    if memory is not None:
        checks.check_positive("memory", memory)
    chosen, reason = (
        (method, "as asked") if method != "auto" else choose_method(len(kernel), memory)
    )
    if chosen == "exact":
        model = KernelRegression(kernel.matrix(), labels, ridge)
        found = float(model.ridge)
        return SequenceRegression(
            kernel=kernel,
            ridge=found,
            method=chosen,
            reason=reason,
            coefficients=model.coefficients,
            landmarks=None,
            residual=model.residual,
            prediction_bound=_bound(model.residual, labels, found),
            steps=0,
            passes=1,
            remainder=0.0,
        )
    if isinstance(ridge, str):
        raise ValueError(
            f"ridge must be a number for method={chosen!r}, got {ridge!r}: choose it on a part "
            "of the data with predict.ridge_path."
        )
    value = check_ridge(ridge)
    if chosen == "nystrom":
        return _nystrom(kernel, labels, value, size, seed, reason)
    solution = iterative.solve(
        kernel,
        labels.reshape(len(labels), -1),
        value,
        method="float32" if chosen == "float32" else "matrix-free",
        tolerance=tolerance,
        rank=size,
        seed=seed,
        path=None if checkpoint is None else Path(checkpoint),
        progress=progress,
    )
    residual = float(solution.residual.max())
    return SequenceRegression(
        kernel=kernel,
        ridge=value,
        method=chosen,
        reason=reason,
        coefficients=solution.coefficients.reshape(labels.shape),
        landmarks=None,
        residual=residual,
        prediction_bound=_bound(residual, labels, value),
        steps=solution.steps,
        passes=solution.passes,
        remainder=0.0,
    )


def _bound(residual: float, labels: np.ndarray, ridge: float) -> float:
    """A residual's norm over the root of the ridge: docs/theory/predictions.md."""
    size = float(np.linalg.norm(labels.reshape(len(labels), -1), axis=0).max())
    return residual * size / math.sqrt(ridge) if ridge > 0 else math.inf


def choose_method(n: int, memory: float | None) -> tuple[str, str]:
    """The method for a number of sequences, and the reason in words."""
    if memory is None:
        memory = free_memory() / 2
    memory = checks.check_positive("memory", memory)
    for method, size in (("exact", _EXACT), ("float32", _SINGLE)):
        if size * n * n <= memory:
            return method, (
                f"{method} solving takes {size * n * n / 1e9:.3g} GB for {n} sequences, of "
                f"{memory / 1e9:.3g} GB"
            )
    return "matrix-free", (
        f"even in single precision the kernel of {n} sequences takes {_SINGLE * n * n / 1e9:.3g} "
        f"GB, of {memory / 1e9:.3g} GB"
    )


def _nystrom(
    kernel: SequenceKernel, labels: np.ndarray, ridge: float, rank: int, seed: int, reason: str
) -> SequenceRegression:
    """Ridge regression on Nystrom features, by their singular values: digits at any ridge."""
    if not kernel.diagonal.any():
        raise ValueError("x must not be zero throughout, as the kernel is: nothing has features.")
    part = pivoted_cholesky(kernel.columns, kernel.diagonal, rank, seed)
    width = part.factor.shape[1]
    y = labels.reshape(len(labels), -1)
    rotated, upper = scipy.linalg.qr_multiply(part.factor, y.T)
    left, sizes, right = scipy.linalg.svd(upper, check_finite=False)
    kept = sizes > np.finfo(float).eps * sizes[0]
    left, sizes, right = left[:, kept], sizes[kept], right[kept]
    weights = right.T @ ((rotated @ left) / (sizes + ridge / sizes)).T
    # features of x are L^-1 k(landmarks, x), L the factor's rows at the landmarks
    triangle = part.factor[part.pivots]
    coefficients = scipy.linalg.solve_triangular(triangle, weights, lower=True, trans="T")
    normal = part.factor.T @ (y - part.factor @ weights) - ridge * weights
    size = np.linalg.norm(part.factor.T @ y)
    return SequenceRegression(
        kernel=kernel,
        ridge=ridge,
        method="nystrom",
        reason=reason,
        coefficients=coefficients.reshape(width, *labels.shape[1:]),
        landmarks=part.pivots,
        residual=float(np.linalg.norm(normal) / size) if size > 0 else 0.0,
        prediction_bound=math.inf,
        steps=0,
        passes=0,
        remainder=part.remainder / float(kernel.diagonal.sum()),
    )
