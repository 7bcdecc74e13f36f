"""The function that gradient descent has learnt after some steps, and how large steps may be."""

from typing import Any

import numpy as np
import scipy.linalg
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Real
from tqdm import tqdm

from rnntk import checks
from rnntk.linalg import lanczos, matrices
from rnntk.predict.arguments import check_ridge
from rnntk.predict.dynamics import (
    Problem,
    check_semidefinite,
    prepare,
    refuse_unresolved,
    spectrum,
)
from rnntk.predict.factorization import resolution
from rnntk.predict.losses import LOSSES, Loss, check_loss

_DENSE = 300  # rows up to which all eigenvalues cost nothing


def gradient_descent(
    kernel: Float[ArrayLike, "n n"],
    y: Real[ArrayLike, " n"] | Real[ArrayLike, "n o"],
    kernel_test_train: Float[ArrayLike, "n_test n"],
    steps: Int[ArrayLike, "*k"],
    *,
    step_size: float,
    momentum: float = 0.0,
    initial_train: Real[ArrayLike, "..."] | None = None,
    initial_test: Real[ArrayLike, "..."] | None = None,
    loss: str = "squared",
) -> Float[np.ndarray, "*k n_test"] | Float[np.ndarray, "*k n_test o"]:
    r"""What full-batch gradient descent has learnt after some steps, with a constant kernel.

    The parameters of the linearized network descend :math:`\frac1n \sum_i \ell(f(x_i), y_i)` by
    :math:`m_{k+1} = \mu m_k + g_k`, :math:`\theta_{k+1} = \theta_k - \eta m_{k+1}` (heavy ball,
    as ``optax.sgd`` does it). In function space, with :math:`f = f_0 + K(\cdot, X)\, a`, the same
    steps are :math:`m_{k+1} = \mu m_k + \nabla\ell(f_k(X)) / n`, :math:`a_{k+1} = a_k - \eta
    m_{k+1}`. For the squared loss each eigenvector of K has an affine recursion of two numbers,
    whose powers are formed by squaring: any number of steps costs one eigendecomposition. For the
    other losses the steps are made one by one, n^2 operations for each output.

    Args:
        kernel: train kernel K, shape (n, n), symmetric, positive semidefinite.
        y: labels, shape (n,), or (n, o) for o outputs.
        kernel_test_train: kernel of the points of interest (rows) with the training points.
        steps: one number of steps, or an ascending vector of them.
        step_size: :math:`\eta > 0`.
        momentum: :math:`\mu` in [0, 1).
        initial_train: outputs at the training points before training, the shape of ``y``; zeros
            if None.
        initial_test: likewise at the points of interest; comes with ``initial_train``.
        loss: see :func:`gradient_flow`.

    Returns:
        As :func:`gradient_flow`, at each number of steps.

    Raises:
        TypeError: if a kernel is not floating point, or labels or steps are not real numbers.
        ValueError: for wrong shapes, NaN or infinity, an asymmetric kernel, steps that are
            negative or unsorted, a step size that is not positive, a momentum outside of [0, 1),
            labels that do not fit the loss, or a kernel that is not positive semidefinite.
        FloatingPointError: if the descent leaves the range of float64, as it does for steps beyond
            :func:`largest_stable_step`.

    Example:
        >>> import numpy as np
        >>> y, cross = np.array([1.0, -1.0]), np.eye(2)
        >>> gradient_descent(np.eye(2), y, cross, np.arange(3), step_size=1.0)
        array([[ 0.  ,  0.  ],
               [ 0.5 , -0.5 ],
               [ 0.75, -0.75]])
    """
    problem = prepare(kernel, y, kernel_test_train, initial_train, initial_test, loss)
    counts = _check_steps(steps)
    checks.check_positive("step_size", step_size)
    _check_momentum(momentum)
    values, vectors = spectrum(problem.kernel, problem.rounding)
    with np.errstate(over="ignore", invalid="ignore"):
        if loss == "squared":
            weights = vectors.T @ (problem.labels - problem.initial)
            rates = values * (step_size / len(values))
            filters = _powers(rates, momentum, counts.ravel()) * (step_size / len(values))
            refuse_unresolved(filters, weights, values, problem.rounding, "steps")
            outputs = problem.outputs(filters[..., None] * weights, counts, basis=vectors)
        else:
            coefficients = _iterate(problem, LOSSES[loss], counts.ravel(), step_size, momentum)
            outputs = problem.outputs(coefficients, counts)
    if not np.isfinite(outputs).all():
        curvature = max(float(values[-1]), 0.0) * LOSSES[loss].curvature
        stable = 2 * (1 + momentum) * len(values) / curvature if curvature else np.inf
        raise FloatingPointError(
            f"Gradient descent with step_size={step_size:.6g} left the range of float64; steps up "
            f"to largest_stable_step, {stable:.6g}, do not diverge."
        )
    return outputs


def largest_stable_step(
    kernel: Float[ArrayLike, "n n"], momentum: float = 0.0, loss: str = "squared"
) -> float:
    r"""The step size beyond which gradient descent diverges.

    :math:`2 (1 + \mu)\, n / (\lambda_{\max} \beta)`, with :math:`\lambda_{\max}` of the train
    kernel and :math:`\beta` the largest curvature of the loss in the outputs of one point: 1 for
    the squared loss, 1/2 for cross-entropy, 1/4 for logistic. For those two it is a step that is
    safe everywhere; larger ones may converge where the curvature has become small.

    Args:
        kernel: train kernel, shape (n, n), symmetric, positive semidefinite.
        momentum: :math:`\mu` in [0, 1).
        loss: see :func:`gradient_flow`.

    Raises:
        TypeError: if the kernel is not floating point.
        ValueError: for a wrong shape, NaN or infinity, an asymmetric kernel, one that is zero, or
            a momentum outside of [0, 1).

    Example:
        >>> import numpy as np
        >>> largest_stable_step(np.diag([4.0, 1.0]))
        1.0
    """
    matrix = matrices.check_symmetric(kernel, "kernel")
    _check_momentum(momentum)
    curvature = check_loss(loss).curvature
    if len(matrix) <= _DENSE:
        values = scipy.linalg.eigvalsh(matrix, check_finite=False)
    else:
        values = lanczos.ritz(lambda v: matrix @ v, len(matrix), -1, 1e-12)[0]
    check_semidefinite(float(values[0]), float(values[-1]), resolution(matrix, kernel), "kernel")
    if not values[-1] > 0:
        raise ValueError("kernel must not be zero: every step size is stable, and nothing moves.")
    return float(2 * (1 + momentum) * len(matrix) / (values[-1] * curvature))


def _check_steps(steps: Any) -> Int[np.ndarray, "*k"]:
    counts = np.asarray(steps)
    if counts.ndim > 1 or counts.size == 0:
        raise ValueError(f"steps must be one number or a vector, got shape {counts.shape}.")
    if counts.dtype.kind not in "iu":
        raise TypeError(f"steps must be whole numbers, got {counts.dtype}.")
    if (counts < 0).any() or (counts.ndim and (np.diff(counts.astype(np.int64)) < 0).any()):
        raise ValueError(f"steps must be sorted and not negative, got {steps}.")
    return counts.astype(np.int64)


def _check_momentum(momentum: float) -> None:
    if not check_ridge(momentum, "momentum") < 1:
        raise ValueError(f"momentum must lie in [0, 1), got {momentum}.")


def _powers(
    rates: Float[np.ndarray, " n"], momentum: float, counts: Int[np.ndarray, " k"]
) -> Float[np.ndarray, "k n"]:
    """What the coefficients have become, for a residual of 1 at the start, in steps of eta / n.

    One step is (a, m, 1) -> (a - m', m', 1), m' = momentum m + rate a - 1.
    """
    step = np.zeros((len(rates), 3, 3))
    step[:, 1, 0], step[:, 1, 1], step[:, 1, 2] = rates, momentum, -1.0
    step[:, 0] = -step[:, 1]
    step[:, 0, 0] += 1
    step[:, 2, 2] = 1
    found, now = [], np.zeros(len(rates) * 3).reshape(-1, 3, 1)
    now[:, 2] = 1
    done = 0
    for count in counts.tolist():
        remaining, power = count - done, step
        while remaining:
            if remaining % 2:
                now = power @ now
            remaining //= 2
            if remaining:
                power = power @ power
        done = count
        found.append(now[:, 0, 0])
    return np.array(found)


def _iterate(
    problem: Problem, loss: Loss, counts: Int[np.ndarray, " k"], step_size: float, momentum: float
) -> Float[np.ndarray, "k n o"]:
    """The coefficients after each number of steps, made one by one."""
    a, m = np.zeros_like(problem.labels), np.zeros_like(problem.labels)
    wanted, found = set(counts.tolist()), {0: a}
    for k in tqdm(range(1, int(counts[-1]) + 1), desc="gradient descent", delay=5):
        gradient = loss.link(problem.initial + problem.kernel @ a) - problem.labels
        m = momentum * m + gradient / len(gradient)
        a = a - step_size * m
        if k in wanted:
            found[k] = a
    return np.array([found[count] for count in counts.tolist()])
