"""Kernel ridge regression with a matrix that fits in memory."""

from dataclasses import InitVar, dataclass, field
from typing import Literal

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Real

from rnntk import checks
from rnntk.linalg import matrices
from rnntk.predict.arguments import check_cross, check_ridge
from rnntk.predict.factorization import Factorization, factorize, resolution
from rnntk.predict.ridges import CRITERIA, ridge_path
from rnntk.storage import StoredMatrix


@dataclass(frozen=True, eq=False)
class KernelRegression:
    r"""Kernel ridge regression, :math:`f(x) = K(x, X) (K + \lambda I)^{-1} y`.

    With the infinite-width NTK and ``ridge=0`` this is the mean of what networks learn that start
    at the zero function and train to convergence (Jacot, Gabriel & Hongler 2018, section 5); with
    the NNGP kernel it is the posterior mean under noise of variance ``ridge``. Everything is
    computed in float64 on the host by one Cholesky factorization, whatever the kernel's dtype.
    From sequences, at any number of them: :class:`SequenceRegression`.

    Args:
        kernel: train kernel K, shape (n, n), symmetric; not kept. One on disk is read, if it fits
            in memory; else :func:`solve`.
        y: labels, shape (n,), or (n, o) for o outputs.
        ridge: :math:`\lambda \ge 0`, added to the diagonal, not divided by n; or a criterion of
            :func:`ridge_path`, ``"leave_one_out"`` or ``"marginal_likelihood"``, which chooses one
            from its default grid. After construction it is the number.

    Attributes:
        coefficients: :math:`(K + \lambda I)^{-1} y`, the shape of ``y``, float64.
        residual: :math:`|y - (K + \lambda I) a| / |y|` of the coefficients a, as computed; the
            largest over the outputs.

    Raises:
        TypeError: if the kernel is not floating point or the labels are not real numbers.
        ValueError: for wrong shapes, NaN or infinity, an asymmetric kernel, a negative ridge, or
            a kernel with ridge that is singular to rounding (docs/theory/spectrum.md).

    Example:
        >>> import numpy as np
        >>> model = KernelRegression(np.array([[2.0, 1.0], [1.0, 2.0]]), y=np.array([3.0, 0.0]))
        >>> model.predict(np.array([[1.0, 1.0], [2.0, 1.0]])).round(12)
        array([1., 3.])
        >>> model.leave_one_out()
        array([0. , 1.5])
    """

    kernel: InitVar[Float[ArrayLike, "n n"] | StoredMatrix]
    y: Real[ArrayLike, " n"] | Real[ArrayLike, "n o"] = field(repr=False)
    ridge: float | Literal["leave_one_out", "marginal_likelihood"] = 0.0
    coefficients: Float[np.ndarray, " n"] | Float[np.ndarray, "n o"] = field(init=False, repr=False)
    residual: float = field(init=False)
    _factorization: Factorization = field(init=False, repr=False)

    def __post_init__(self, kernel: Float[ArrayLike, "n n"] | StoredMatrix) -> None:
        if isinstance(kernel, StoredMatrix):  # read once
            kernel = np.asarray(kernel)
        matrix = matrices.check_symmetric(kernel, "kernel")
        y = checks.check_labels(self.y, len(matrix))
        if isinstance(self.ridge, str):
            if self.ridge not in CRITERIA:
                raise ValueError(
                    f"ridge must be a number or one of {CRITERIA}, got {self.ridge!r}."
                )
            ridge = ridge_path(kernel, y).best(self.ridge)
        else:
            ridge = check_ridge(self.ridge)
        factorization = factorize(matrix, ridge, resolution(matrix, kernel))
        coefficients = factorization.solve(y)
        gap = np.linalg.norm(y - matrix @ coefficients - ridge * coefficients, axis=0)
        size = np.linalg.norm(y, axis=0)
        residual = np.divide(gap, size, out=np.zeros_like(gap), where=size > 0)
        for name, value in (
            ("y", y),
            ("ridge", ridge),
            ("coefficients", coefficients),
            ("residual", float(np.max(residual))),
            ("_factorization", factorization),
        ):
            object.__setattr__(self, name, value)

    def predict(
        self, kernel_test_train: Float[ArrayLike, "n_test n"] | StoredMatrix
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
        # as it is given: an array of it alone would have lost its mask
        return check_cross(kernel_test_train, len(self.coefficients)) @ self.coefficients

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
        return np.asarray(self.y) - (self.coefficients.T / self._factorization.inverse_diagonal).T

    @property
    def fitted(self) -> Float[np.ndarray, " n"] | Float[np.ndarray, "n o"]:
        r"""Predictions at the training points, :math:`y - \lambda a`.

        Example:
            >>> import numpy as np
            >>> KernelRegression(np.eye(2), np.array([1.0, 2.0]), ridge=1.0).fitted
            array([0.5, 1. ])
        """
        return np.asarray(self.y) - self.ridge * self.coefficients

    @property
    def condition_number(self) -> float:
        r"""Of :math:`K + \lambda I`, to about a twentieth.

        Example:
            >>> import numpy as np
            >>> KernelRegression(np.diag([3.0, 0.0]), np.ones(2), ridge=1.0).condition_number
            4.0
        """
        return self._factorization.largest / self._factorization.smallest

    @property
    def uncertainty(self) -> float:
        """What rounding of the kernel's entries and of the solution can have done to it.

        A bound on the relative error of the coefficients in the 2-norm, from the threshold of
        docs/theory/spectrum.md. Predictions are often better: the directions that are least
        certain are those that a kernel smooths away.

        Example:
            >>> import numpy as np
            >>> KernelRegression(np.eye(2), np.ones(2)).uncertainty < 1e-14
            True
        """
        return self._factorization.uncertainty

    @property
    def effective_dimension(self) -> float:
        r"""Degrees of freedom of the fit, :math:`\mathrm{tr}\, K (K + \lambda I)^{-1}`.

        Example:
            >>> import numpy as np
            >>> round(KernelRegression(np.eye(4), np.ones(4), ridge=1.0).effective_dimension, 12)
            2.0
        """
        inverse = self._factorization.inverse_diagonal
        # above the whole kernel's size, the ridge leaves nothing but rounding
        return max(float(len(inverse) - float(self.ridge) * inverse.sum()), 0.0)
