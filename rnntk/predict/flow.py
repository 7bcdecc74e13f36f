"""The function that gradient flow has learnt by some time."""

import numpy as np
import scipy.integrate
import scipy.special
from jax.typing import ArrayLike
from jaxtyping import Float, Real
from tqdm import tqdm

from rnntk.predict.arguments import check_times
from rnntk.predict.dynamics import Problem, prepare, refuse_unresolved, spectrum
from rnntk.predict.losses import LOSSES, Loss

# An explicit solver takes a step for about every 4 units of time x curvature x eigenvalue. Beyond
# this the implicit one, with (n o)^3 operations for a step, takes over where its matrix fits.
_STIFF = 2000.0
_IMPLICIT_SIZE = 1500
_TOLERANCE = 1e-11  # of the solver, relative and absolute to labels of size 1


def gradient_flow(
    kernel: Float[ArrayLike, "n n"],
    y: Real[ArrayLike, " n"] | Real[ArrayLike, "n o"],
    kernel_test_train: Float[ArrayLike, "n_test n"],
    time: Real[ArrayLike, "*k"],
    *,
    initial_train: Real[ArrayLike, "..."] | None = None,
    initial_test: Real[ArrayLike, "..."] | None = None,
    loss: str = "squared",
) -> Float[np.ndarray, "*k n_test"] | Float[np.ndarray, "*k n_test o"]:
    r"""What gradient flow has learnt by some time, from the zero function or a given one.

    A network with constant tangent kernel that descends :math:`\frac1n \sum_i \ell(f(x_i), y_i)`
    moves by :math:`\dot f(x) = -\frac1n K(x, X)\, \nabla\ell(f(X))`. For the squared loss
    :math:`\ell = \frac12 |f - y|^2`

    .. math::

        f_\tau(x) = f_0(x) + K(x, X)\, K^{-1} (1 - e^{-K \tau / n})\, (y - f_0(X))

    (Lee et al. 2019, equations 8-11). Gradient descent with a small step is near :math:`\tau =`
    step size times steps. Evaluated in float64 through the eigendecomposition of K, where
    :math:`(1 - e^{-\lambda \tau / n}) / \lambda` keeps its value :math:`\tau / n` as :math:`\lambda
    \to 0`, so that K may be singular; eigenvalues that rounding made negative count as zero.

    For the other losses SciPy integrates the coefficients a of :math:`f = f_0 + K(\cdot, X)\, a`,
    :math:`\dot a = -\nabla\ell / n`, to a tolerance of 1e-11 a step. The time they take grows with
    :math:`\tau \lambda_{\max} / n`, and a bar shows the progress.

    Args:
        kernel: train kernel K, shape (n, n), symmetric, positive semidefinite.
        y: labels, shape (n,), or (n, o) for o outputs.
        kernel_test_train: kernel of the points of interest (rows) with the training points.
        time: one time, or an ascending vector of times.
        initial_train: outputs at the training points at time 0, the shape of ``y``; zeros if None.
        initial_test: outputs at the points of interest at time 0; comes with ``initial_train``.
        loss: ``"squared"``; ``"cross_entropy"`` of a softmax, y rows of class probabilities; or
            ``"logistic"``, the cross-entropy of a sigmoid in each output, y between 0 and 1.

    Returns:
        Predictions, shape (n_test,) or (n_test, o) as the labels have one axis or two, with a
        leading axis for a vector of times; float64. For the losses of classification they are
        what softmax or sigmoid would take.

    Raises:
        TypeError: if a kernel is not floating point or the labels are not real numbers.
        ValueError: for wrong shapes, NaN or infinity, an asymmetric kernel, a negative, infinite
            or unsorted time, labels that do not fit the loss, or an eigenvalue of the kernel that
            is negative beyond rounding (docs/theory/spectrum.md), or so small, and the time so
            long, that rounding would decide.
        FloatingPointError: if the solver gives up.

    Example:
        >>> import numpy as np
        >>> y, times = np.array([1.0, -1.0]), np.array([0.0, 2 * np.log(2)])
        >>> gradient_flow(np.eye(2), y, np.eye(2), times).round(12)
        array([[ 0. ,  0. ],
               [ 0.5, -0.5]])
        >>> gradient_flow(np.eye(1), np.ones(1), np.eye(1), 2.0, loss="logistic").round(6)
        array([0.79206])
    """
    problem = prepare(kernel, y, kernel_test_train, initial_train, initial_test, loss)
    remedy = "; the limit of infinite time is KernelRegression with ridge=0"
    times = check_times(time, "time", remedy)
    values, vectors = spectrum(problem.kernel, problem.rounding)
    if loss == "squared":
        weights = vectors.T @ (problem.labels - problem.initial)
        filters = flow_filter(values, times.ravel() / len(values))
        refuse_unresolved(filters, weights, values, problem.rounding, "time")
        return problem.outputs(filters[..., None] * weights, times, basis=vectors)
    coefficients = _integrate(problem, LOSSES[loss], times.ravel(), float(values[-1]))
    return problem.outputs(coefficients, times)


def flow_filter(
    values: Float[np.ndarray, " n"], elapsed: Float[np.ndarray, " k"]
) -> Float[np.ndarray, "k n"]:
    r""":math:`(1 - e^{-\lambda s}) / \lambda` of eigenvalues, for each of the times s.

    Example:
        >>> import numpy as np
        >>> flow_filter(np.array([0.0, 1.0]), np.array([np.log(2)])).round(3)
        array([[0.693, 0.5  ]])
    """
    times = elapsed[:, None]
    with np.errstate(over="ignore"):
        exponents = values * times
    # exprel(z) = (e^z - 1) / z has the limit 1 built in; a product with 1 / z ends at z = infinity
    early = times * scipy.special.exprel(-np.minimum(exponents, 1.0))
    return np.where(
        exponents < 1, early, -np.expm1(-exponents) / np.where(exponents < 1, 1, values)
    )


def _integrate(
    problem: Problem, loss: Loss, times: Float[np.ndarray, " k"], largest: float
) -> Float[np.ndarray, "k n o"]:
    """Coefficients at each time, by an explicit solver or, where that would crawl, Radau's."""
    n, outputs = problem.labels.shape
    stiffness = largest * loss.curvature * float(times[-1]) / n
    implicit = stiffness > _STIFF and n * outputs <= _IMPLICIT_SIZE

    def velocity(_: float, state: np.ndarray) -> np.ndarray:
        f = problem.initial + problem.kernel @ state.reshape(n, outputs)
        return ((problem.labels - loss.link(f)) / n).ravel()

    def jacobian(_: float, state: np.ndarray) -> np.ndarray:
        p = loss.link(problem.initial + problem.kernel @ state.reshape(n, outputs))
        slope = _slope(p, softmax=loss is LOSSES["cross_entropy"])
        product = np.einsum("iab,ij->iajb", slope, problem.kernel)
        return -product.reshape(n * outputs, n * outputs) / n

    state, now, found = np.zeros(n * outputs), 0.0, []
    with tqdm(total=float(times[-1]), desc="gradient flow", delay=5) as bar:
        for time in times:
            if time > now:
                solved = scipy.integrate.solve_ivp(
                    velocity,
                    (now, time),
                    state,
                    method="Radau" if implicit else "DOP853",
                    t_eval=[time],
                    rtol=_TOLERANCE,
                    atol=_TOLERANCE,
                    **({"jac": jacobian} if implicit else {}),
                )
                if not solved.success:
                    raise FloatingPointError(f"The solver stopped before time {time}: {solved}.")
                bar.update(float(time - now))
                state, now = solved.y[:, -1], float(time)
            found.append(state.reshape(n, outputs))
    return np.array(found)


def _slope(p: Float[np.ndarray, "n o"], softmax: bool) -> Float[np.ndarray, "n o o"]:
    """Derivative of the link at each point, from its value."""
    if softmax:
        return p[:, :, None] * (np.eye(p.shape[1]) - p[:, None, :])
    return (p * (1 - p))[:, :, None] * np.eye(p.shape[1])
