"""A kernel with its ridge in Cholesky factors, refused where it is singular to rounding."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.linalg
from jax.typing import ArrayLike
from jaxtyping import Float

from rnntk.linalg import lanczos, matrices

_REMEDY = (
    ". Duplicate points or rounding make a kernel singular; a larger ridge, which is added to "
    "every eigenvalue, makes the problem solvable."
)

# Of the residual of Lanczos on the inverse; the eigenvalue itself came within 5 % on kernels. Each
# of its steps costs a twentieth of the factorization at n = 1000.
_TOLERANCE = 0.1


@dataclass(frozen=True, eq=False)
class Factorization:
    r""":math:`K + \lambda I = L L^\top`, and how well it can be inverted.

    Attributes:
        factor: L, lower triangular.
        smallest: smallest eigenvalue of :math:`K + \lambda I`, to about a twentieth.
        largest: largest eigenvalue, likewise.
        resolution: how far rounding may have moved the eigenvalues.
    """

    factor: Float[np.ndarray, "n n"]
    smallest: float
    largest: float
    resolution: float

    @property
    def uncertainty(self) -> float:
        r"""Relative error that rounding can have made in a solution, in the 2-norm.

        From :math:`a - \tilde a = -(A + E)^{-1} E \tilde a` with :math:`\|E\|` at most the
        resolution.
        """
        return self.resolution / (self.smallest - self.resolution)

    @cached_property
    def inverse_diagonal(self) -> Float[np.ndarray, " n"]:
        """Diagonal of the inverse."""
        inverse, _ = scipy.linalg.lapack.dtrtri(self.factor, lower=1)
        return (inverse**2).sum(axis=0)

    @property
    def log_determinant(self) -> float:
        """Natural logarithm of the determinant."""
        return 2 * float(np.log(np.diagonal(self.factor)).sum())

    def solve(self, right: Float[np.ndarray, "n *o"]) -> Float[np.ndarray, "n *o"]:
        """The inverse times ``right``."""
        return scipy.linalg.cho_solve((self.factor, True), right, check_finite=False)

    def half_solve(self, right: Float[np.ndarray, "n *o"]) -> Float[np.ndarray, "n *o"]:
        """The inverse of L times ``right``."""
        return scipy.linalg.solve_triangular(self.factor, right, lower=True, check_finite=False)


def resolution(matrix: Float[np.ndarray, "n n"], kernel: ArrayLike) -> float:
    """How far rounding may have moved the eigenvalues of ``kernel``, by its own dtype."""
    dtype = np.asarray(kernel).dtype
    return matrices.resolution(len(matrix), matrices.size_of(matrix), dtype)


def refuse_indefinite(smallest: float, rounding: float) -> None:
    """Refuse a kernel one of whose eigenvalues is at most ``smallest``."""
    if smallest < -rounding:
        raise ValueError(
            f"kernel must be positive semidefinite, got an eigenvalue of {smallest:.3g} or less, "
            f"where rounding explains {-rounding:.3g}."
        )


def factorize(matrix: Float[np.ndarray, "n n"], ridge: float, rounding: float) -> Factorization:
    """Factorize matrix + ridge I.

    Raises:
        ValueError: if its smallest eigenvalue is within ``rounding`` of zero.
    """
    # LAPACK's order, by a plain copy: the transpose of a symmetric matrix is the same numbers
    shifted = np.array(matrix.T if matrix.flags.c_contiguous else matrix, order="F")
    shifted[np.diag_indices(len(matrix))] += ridge
    try:
        factor = scipy.linalg.cholesky(shifted, lower=True, overwrite_a=True, check_finite=False)
    except np.linalg.LinAlgError:
        refuse_indefinite(float(scipy.linalg.eigvalsh(matrix, subset_by_index=[0, 0])[0]), rounding)
        raise ValueError(
            f"kernel + ridge I is not positive definite with ridge={ridge:.3g}" + _REMEDY
        ) from None
    n = len(matrix)
    largest = float(np.abs(lanczos.ritz(lambda v: matrix @ v, n, -1, 1e-2)[0]).max())

    scale = largest + ridge  # of numbers that Lanczos squares, which must not underflow

    def inverse(v: np.ndarray) -> np.ndarray:
        return scale * scipy.linalg.cho_solve((factor, True), v, check_finite=False)

    smallest = scale / float(lanczos.ritz(inverse, n, -1, _TOLERANCE)[0][-1])
    # a Ritz value of the inverse is below its largest eigenvalue, so this is above the smallest;
    # a large ridge leaves less of it than its own rounding
    refuse_indefinite(smallest - ridge, rounding + matrices.resolution(n, ridge, np.float64))
    if not smallest > rounding:
        raise ValueError(
            f"kernel + ridge I is singular to rounding with ridge={ridge:.3g}: its smallest "
            f"eigenvalue is about {smallest:.3g}, its rounding error up to {rounding:.3g}" + _REMEDY
        )
    return Factorization(factor, smallest, largest + ridge, rounding)
