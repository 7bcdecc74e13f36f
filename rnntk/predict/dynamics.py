"""What gradient flow and gradient descent on a kernel share: arguments, spectra, outputs."""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from jax.typing import ArrayLike
from jaxtyping import Float, Real

from rnntk import checks
from rnntk.linalg import matrices
from rnntk.predict.arguments import check_cross, check_initial
from rnntk.predict.factorization import resolution
from rnntk.predict.losses import check_loss, check_probabilities


@dataclass(frozen=True, eq=False)
class Problem:
    """A function that moves by a kernel, from initial outputs towards labels.

    Its change is spanned by the kernel: :math:`f(x) = f_0(x) + K(x, X) a`, so that coefficients a,
    shape (n, o), say all of it.

    Attributes:
        kernel: train kernel, float64.
        rounding: how far rounding may have moved its eigenvalues.
        labels: shape (n, o).
        cross: kernel of the points of interest with the training points.
        initial: outputs at the training points before training, shape (n, o).
        initial_test: likewise at the points of interest.
        trailing: axes of the labels behind the first, () or (o,).
    """

    kernel: Float[np.ndarray, "n n"]
    rounding: float
    labels: Float[np.ndarray, "n o"]
    cross: Float[np.ndarray, "n_test n"]
    initial: Float[np.ndarray, "n o"]
    initial_test: Float[np.ndarray, "n_test o"]
    trailing: tuple[int, ...]

    def outputs(
        self,
        coefficients: Float[np.ndarray, "k n o"],
        times: np.ndarray,
        basis: Float[np.ndarray, "n n"] | None = None,
    ) -> Float[np.ndarray, "..."]:
        """Outputs at the points of interest, in the shape of the times and of the labels.

        The coefficients may be those in a ``basis``, whose columns are its vectors.
        """
        cross = self.cross if basis is None else self.cross @ basis
        predictions = self.initial_test + cross @ coefficients
        return predictions.reshape(times.shape + self.cross.shape[:1] + self.trailing)


def prepare(
    kernel: Float[ArrayLike, "n n"],
    y: Real[ArrayLike, " n"] | Real[ArrayLike, "n o"],
    kernel_test_train: Float[ArrayLike, "n_test n"],
    initial_train: Real[ArrayLike, "..."] | None,
    initial_test: Real[ArrayLike, "..."] | None,
    loss: str,
) -> Problem:
    """Check the arguments of gradient flow and descent."""
    check_loss(loss)
    matrix = matrices.check_symmetric(kernel, "kernel")
    labels = checks.check_labels(y, len(matrix))
    check_probabilities(labels, loss)
    cross = check_cross(kernel_test_train, len(matrix))
    if (initial_train is None) != (initial_test is None):
        raise ValueError("initial_train and initial_test must come together, got one of them.")
    return Problem(
        kernel=matrix,
        rounding=resolution(matrix, kernel),
        labels=labels.reshape(len(labels), -1),
        cross=cross,
        initial=check_initial(initial_train, len(matrix), labels, "initial_train"),
        initial_test=check_initial(initial_test, len(cross), labels, "initial_test"),
        trailing=labels.shape[1:],
    )


def spectrum(
    matrix: Float[np.ndarray, "n n"], rounding: float, name: str = "kernel"
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n n"]]:
    """Eigenvalues and vectors of a positive semidefinite matrix, those below 0 set to 0.

    Raises:
        ValueError: if rounding does not explain a negative eigenvalue.
    """
    values, vectors = scipy.linalg.eigh(matrix, driver="evd", check_finite=False)
    check_semidefinite(float(values[0]), float(values[-1]), rounding, name)
    return np.maximum(values, 0.0), vectors


def check_semidefinite(smallest: float, largest: float, rounding: float, name: str) -> None:
    """Refuse a smallest eigenvalue that is negative beyond rounding."""
    if smallest < -rounding:
        raise ValueError(
            f"{name} must be positive semidefinite, got an eigenvalue {smallest:.3g}; the "
            f"largest is {largest:.3g}, and rounding explains one down to {-rounding:.3g}."
        )


def refuse_unresolved(
    filters: Float[np.ndarray, "k n"],
    weights: Float[np.ndarray, "n o"],
    values: Float[np.ndarray, " n"],
    rounding: float,
    name: str,
) -> None:
    """Refuse coefficients, filters times weights, of which rounding makes more than the kernel.

    The weights are the targets in the eigenbasis, whose eigenvalues are ``values``.

    Where an eigenvalue is 0 to rounding, as for equal points with different labels, they grow
    without end: times a kernel wrong by ``rounding``, they outgrow the targets and all outputs.
    """
    # the largest entries, whose squares, unlike these, might overflow
    coefficients = np.abs(filters) * np.abs(weights).max(axis=1)
    size = np.linalg.norm(weights) + (values * coefficients).max(axis=1)
    error = rounding * coefficients.max(axis=1)
    if (error > size).any():
        raise ValueError(
            f"{name} must not be so long that rounding decides: the kernel has eigenvalues that "
            f"are 0 within its rounding error {rounding:.3g}, and coefficients grew along them "
            f"until that may move predictions by {error.max():.3g}. Stop earlier, or use "
            "KernelRegression with a ridge."
        )
