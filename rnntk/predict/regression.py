"""Predictions of kernels: ridge regression, and the function that gradient flow has learnt."""

from dataclasses import InitVar, dataclass, field

import numpy as np
import scipy.linalg
import scipy.special
from jax.typing import ArrayLike
from jaxtyping import Float, Real

from rnntk import checks
from rnntk.linalg import matrices


@dataclass(frozen=True, eq=False)
class KernelRegression:
    r"""Kernel ridge regression, :math:`f(x) = K(x, X) (K + \lambda I)^{-1} y`.

    With the infinite-width NTK and ``ridge=0`` this is the mean of what networks learn that start
    at the zero function and train to convergence (Jacot, Gabriel & Hongler 2018, section 5); with
    the NNGP kernel it is the posterior mean under noise of variance ``ridge``. Everything is
    computed in float64 on the host by one Cholesky factorization, whatever the kernel's dtype.

    Args:
        kernel: train kernel K, shape (n, n), symmetric; not kept.
        y: labels, shape (n,), or (n, o) for o outputs.
        ridge: :math:`\lambda \ge 0`, added to the diagonal. Not divided by n.

    Attributes:
        coefficients: :math:`(K + \lambda I)^{-1} y`, the shape of ``y``, float64.

    Raises:
        TypeError: if the kernel is not floating point or the labels are not real numbers.
        ValueError: for wrong shapes, NaN or infinity, an asymmetric kernel, a negative ridge, or
            a kernel with ridge that is not positive definite beyond the rounding error
            n u ||K||_F, u the unit roundoff of the kernel's own dtype.

    Example:
        >>> import numpy as np
        >>> model = KernelRegression(np.array([[2.0, 1.0], [1.0, 2.0]]), y=np.array([3.0, 0.0]))
        >>> model.predict(np.array([[1.0, 1.0], [2.0, 1.0]])).round(12)
        array([1., 3.])
        >>> model.leave_one_out()
        array([0. , 1.5])
    """

    kernel: InitVar[Float[ArrayLike, "n n"]]
    y: Real[ArrayLike, " n"] | Real[ArrayLike, "n o"] = field(repr=False)
    ridge: float = 0.0
    coefficients: Float[np.ndarray, " n"] | Float[np.ndarray, "n o"] = field(init=False, repr=False)
    _factor: Float[np.ndarray, "n n"] = field(init=False, repr=False)

    def __post_init__(self, kernel: Float[ArrayLike, "n n"]) -> None:
        matrix = matrices.check_symmetric(kernel, "kernel")
        y = checks.check_labels(self.y, len(matrix))
        if not np.isfinite(self.ridge) or self.ridge < 0:
            raise ValueError(f"ridge must be finite and not negative, got {self.ridge}.")
        factor = _cholesky(matrix, self.ridge, _rounding(matrix, kernel))
        object.__setattr__(self, "y", y)
        object.__setattr__(self, "_factor", factor)
        object.__setattr__(self, "coefficients", scipy.linalg.cho_solve((factor, True), y))

    def predict(
        self, kernel_test_train: Float[ArrayLike, "n_test n"]
    ) -> Float[np.ndarray, " n_test"] | Float[np.ndarray, "n_test o"]:
        """Predictions at new points.

        Args:
            kernel_test_train: kernel of the new points (rows) with the training points.

        Returns:
            Shape (n_test,) if the labels had one axis, (n_test, o) if they had two, float64.

        Raises:
            TypeError: if the kernel is not floating point.
            ValueError: for a wrong shape, NaN or infinity.

        Example:
            >>> import numpy as np
            >>> KernelRegression(np.eye(2), np.array([1.0, 2.0]), ridge=1.0).predict(np.eye(2))
            array([0.5, 1. ])
        """
        return _check_cross(kernel_test_train, len(self._factor)) @ self.coefficients

    def leave_one_out(self) -> Float[np.ndarray, " n"] | Float[np.ndarray, "n o"]:
        r"""Prediction at each training point of the regression fitted to all the others.

        In closed form, :math:`y_i - a_i / [(K + \lambda I)^{-1}]_{ii}` with a the coefficients
        (Rasmussen & Williams 2006, equation 5.12), at the cost of one more factorization.

        Returns:
            The shape of the labels, float64.

        Example:
            >>> import numpy as np
            >>> KernelRegression(np.eye(2), np.array([1.0, 2.0])).leave_one_out()
            array([0., 0.])
        """
        identity = np.eye(len(self._factor))
        root = scipy.linalg.solve_triangular(self._factor, identity, lower=True)
        inverse_diagonal = (root**2).sum(axis=0)
        return np.asarray(self.y) - (self.coefficients.T / inverse_diagonal).T


def gradient_flow(
    kernel: Float[ArrayLike, "n n"],
    y: Real[ArrayLike, " n"] | Real[ArrayLike, "n o"],
    kernel_test_train: Float[ArrayLike, "n_test n"],
    time: Real[ArrayLike, "*k"],
) -> Float[np.ndarray, "*k n_test"] | Float[np.ndarray, "*k n_test o"]:
    r"""What gradient flow has learnt by some time, starting from the zero function.

    A network with constant tangent kernel that descends :math:`\frac{1}{2n} \sum_i |f(x_i) -
    y_i|^2` moves by :math:`\dot f(x) = -\frac1n K(x, X) (f(X) - y)`, so that

    .. math::

        f_\tau(x) = K(x, X)\, K^{-1} (1 - e^{-K \tau / n})\, y

    (Lee et al. 2019, equations 8-11, with initial output zero). Gradient descent with learning
    rate :math:`\eta` is near :math:`\tau = \eta \cdot` steps. Evaluated in float64 through the
    eigendecomposition of K, where :math:`(1 - e^{-\lambda \tau / n}) / \lambda` keeps its value
    :math:`\tau / n` as :math:`\lambda \to 0`, so that K may be singular; eigenvalues that
    rounding made negative count as zero.

    Args:
        kernel: train kernel K, shape (n, n), symmetric, positive semidefinite.
        y: labels, shape (n,), or (n, o) for o outputs.
        kernel_test_train: kernel of the points of interest (rows) with the training points.
        time: one time, or a vector of times.

    Returns:
        Predictions, shape (n_test,) or (n_test, o) as the labels have one axis or two, with a
        leading axis for a vector of times; float64.

    Raises:
        TypeError: if a kernel is not floating point or the labels are not real numbers.
        ValueError: for wrong shapes, NaN or infinity, an asymmetric kernel, a negative or
            infinite time, or an eigenvalue of the kernel below minus its rounding error
            n u ||K||_F, u the unit roundoff of the kernel's own dtype.

    Example:
        >>> import numpy as np
        >>> y, times = np.array([1.0, -1.0]), np.array([0.0, 2 * np.log(2)])
        >>> gradient_flow(np.eye(2), y, np.eye(2), times).round(12)
        array([[ 0. ,  0. ],
               [ 0.5, -0.5]])
    """
    matrix = matrices.check_symmetric(kernel, "kernel")
    n = len(matrix)
    labels = checks.check_labels(y, n)
    cross = _check_cross(kernel_test_train, n)
    times = np.asarray(time, np.float64)
    if times.ndim > 1:
        raise ValueError(f"time must be one number or a vector, got shape {times.shape}.")
    if not np.isfinite(times).all() or (times < 0).any():
        raise ValueError(
            f"time must be finite and not negative, got {time}; the limit of infinite time is "
            "KernelRegression with ridge=0."
        )
    eigenvalues, vectors = scipy.linalg.eigh(matrix)
    rounding = _rounding(matrix, kernel)
    if eigenvalues[0] < -rounding:
        raise ValueError(
            f"kernel must be positive semidefinite, got an eigenvalue {eigenvalues[0]:.3g}; the "
            f"largest is {eigenvalues[-1]:.3g}, and rounding explains one down to {-rounding:.3g}."
        )
    elapsed = times[..., None] / n
    # exprel(z) = (e^z - 1) / z has the limit 1 built in: this is (1 - e^{-l tau/n}) / l.
    filters = elapsed * scipy.special.exprel(-np.maximum(eigenvalues, 0.0) * elapsed)
    weights = vectors.T @ labels.reshape(n, -1)
    predictions = (cross @ vectors) @ (filters[..., None] * weights)
    return predictions.reshape(times.shape + cross.shape[:1] + labels.shape[1:])


def _check_cross(kernel_test_train: ArrayLike, n: int) -> Float[np.ndarray, "n_test n"]:
    cross = np.asarray(kernel_test_train)
    if cross.ndim != 2 or cross.shape[1] != n:
        raise ValueError(
            "kernel_test_train must have a row for each new point and a column for each of the "
            f"{n} training points, shape (n_test, {n}), got {cross.shape}."
        )
    if not np.issubdtype(cross.dtype, np.floating):
        raise TypeError(f"kernel_test_train must be floating point, got {cross.dtype}.")
    finite = np.isfinite(cross)
    if not finite.all():
        i, j = (int(index) for index in np.argwhere(~finite)[0])
        raise ValueError(f"kernel_test_train must be finite, got {cross[i, j]} at ({i}, {j}).")
    return cross.astype(np.float64)


def _rounding(matrix: Float[np.ndarray, "n n"], kernel: ArrayLike) -> float:
    """How far rounding in the kernel's own dtype may have moved its eigenvalues."""
    roundoff = matrices.unit_roundoff(np.asarray(kernel).dtype)
    return float(len(matrix) * roundoff * np.linalg.norm(matrix))


def _cholesky(
    matrix: Float[np.ndarray, "n n"], ridge: float, rounding: float
) -> Float[np.ndarray, "n n"]:
    """Lower Cholesky factor of matrix + ridge I, refused unless its smallest eigenvalue is real."""
    shifted = matrix + ridge * np.eye(len(matrix))
    remedy = (
        ". Duplicate points or rounding make a kernel singular; a larger ridge, which is added to "
        "every eigenvalue, makes the problem solvable."
    )
    try:
        factor = scipy.linalg.cholesky(shifted, lower=True)
    except np.linalg.LinAlgError:
        raise ValueError(
            f"kernel + ridge I is not positive definite with ridge={ridge:.3g}" + remedy
        ) from None
    # Inverse iteration: the norms approach 1 / (smallest eigenvalue) from below, and ten steps
    # from a random vector come within a small factor, as much as a threshold needs.
    vector = np.random.default_rng(0).standard_normal(len(matrix))
    for _ in range(10):
        vector = scipy.linalg.cho_solve((factor, True), vector / np.linalg.norm(vector))
    smallest = 1 / float(np.linalg.norm(vector))
    if not smallest > rounding:
        raise ValueError(
            f"kernel + ridge I is singular to rounding with ridge={ridge:.3g}: its smallest "
            f"eigenvalue is about {smallest:.3g}, its rounding error up to {rounding:.3g}" + remedy
        )
    return factor
