"""Conjugate gradients for many right-hand sides at once, preconditioned, in steps that can stop."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from jaxtyping import Float

from rnntk.linalg.pivoted_cholesky import PartialCholesky

Product = Callable[[Float[np.ndarray, "n k"]], Float[np.ndarray, "n k"]]


@dataclass(frozen=True, eq=False)
class Iterate:
    """All that the iteration knows: it goes on from here to the same numbers.

    Attributes:
        solution: shape (n, k).
        residual: right-hand side minus matrix times solution, as the recurrence has it.
        direction: of the next step.
        energy: of each column, residual times preconditioned residual.
        steps: made so far.
    """

    solution: Float[np.ndarray, "n k"]
    residual: Float[np.ndarray, "n k"]
    direction: Float[np.ndarray, "n k"]
    energy: Float[np.ndarray, " k"]
    steps: int


def begin(right: Float[np.ndarray, "n k"], precondition: Product) -> Iterate:
    """The iteration before its first step, from the solution zero."""
    direction = precondition(right)
    energy = np.einsum("nk,nk->k", right, direction)
    return Iterate(np.zeros_like(right), right.copy(), direction, energy, 0)


def iterate(multiply: Product, precondition: Product, state: Iterate) -> Iterator[Iterate]:
    """Steps of preconditioned conjugate gradients (Saad 2003, algorithm 9.1), without end.

    Each column of the right-hand side has an iteration of its own; one product serves all.
    Columns whose residual has become 0 stay.

    Raises:
        FloatingPointError: if the matrix turns out not to be positive definite.

    Example:
        >>> import numpy as np
        >>> A, b = np.diag([1.0, 2.0]), np.ones((2, 1))
        >>> steps = iterate(lambda v: A @ v, lambda v: v, begin(b, lambda v: v))
        >>> next(steps); next(steps).solution.round(12)  # doctest: +ELLIPSIS
        Iterate(...)
        array([[1. ],
               [0.5]])
    """
    while True:
        product = multiply(state.direction)
        curvature = np.einsum("nk,nk->k", state.direction, product)
        moving = state.energy > 0
        if (curvature[moving] <= 0).any():
            raise FloatingPointError(
                "conjugate gradients need a positive definite matrix, got a direction v with "
                f"v' A v = {curvature[moving].min():.3g}: a larger ridge makes it one."
            )
        length = np.divide(state.energy, curvature, out=np.zeros_like(curvature), where=moving)
        solution = state.solution + length * state.direction
        residual = state.residual - length * product
        conditioned = precondition(residual)
        energy = np.einsum("nk,nk->k", residual, conditioned)
        ratio = np.divide(energy, state.energy, out=np.zeros_like(energy), where=moving)
        direction = conditioned + ratio * state.direction
        state = Iterate(solution, residual, direction, energy, state.steps + 1)
        yield state


@dataclass(frozen=True, eq=False)
class LowRankPreconditioner:
    r"""The inverse of :math:`F F^\top + \mu I`, for a partial Cholesky factor F.

    With :math:`F = U \Sigma V^\top` it is :math:`U (\Sigma^2 + \mu)^{-1} U^\top + (I - U U^\top) /
    \mu`, here multiplied by :math:`\mu`. With a ridge :math:`\mu` is the ridge plus the mean of
    what F leaves of each diagonal entry, so that it fits the rest of the matrix.
    """

    basis: Float[np.ndarray, "n rank"]
    weights: Float[np.ndarray, " rank"]

    @classmethod
    def of(cls, part: PartialCholesky, ridge: float) -> "LowRankPreconditioner":
        """The preconditioner of a matrix whose low-rank part is known, plus a ridge."""
        n = len(part.factor)
        values, vectors = scipy.linalg.eigh(part.factor.T @ part.factor, check_finite=False)
        kept = values > 1e-12 * values.max(initial=0.0)
        basis = part.factor @ (vectors[:, kept] / np.sqrt(values[kept]))
        shift = ridge + part.remainder / n
        return cls(basis, values[kept] / (values[kept] + shift))

    def __call__(self, v: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
        """The inverse times v, up to a factor that the iteration does not see."""
        return v - self.basis @ (self.weights[:, None] * (self.basis.T @ v))
