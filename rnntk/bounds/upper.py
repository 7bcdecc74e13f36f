"""Upper bounds on the smallest eigenvalue of a kernel matrix, in either arithmetic."""

import numpy as np
import scipy.linalg
from jaxtyping import Float

from rnntk.bounds.arithmetic import Arithmetic, Matrix


def upper_bounds(matrix: Matrix, real: Arithmetic) -> dict[str, float]:
    """By name: the smallest diagonal entry, of any two points, and a Rayleigh quotient.

    An entry of the matrix is known to a relative error of the mean of its two diagonal entries.
    """
    n, diagonal = len(matrix), np.diagonal(matrix)
    bounds = {"diagonal": real.above(diagonal, diagonal)}
    if n > 1:
        i, j = np.triu_indices(n, 1)
        mean = (diagonal[i] + diagonal[j]) / 2
        gap = real.hypot((diagonal[i] - diagonal[j]) / 2, matrix[i, j])
        bounds["pair"] = real.above(mean - gap, mean)
        vector = residual(real.floats(matrix))
        size = np.abs(vector) @ real.floats(diagonal) * np.abs(vector).sum()
        exact = real.numbers(vector)
        quotient = exact.dot(matrix.dot(exact)) / exact.dot(exact)
        bounds["residual"] = real.above(np.array([quotient]), np.array([size]), n)
    return bounds


def residual(matrix: Float[np.ndarray, "n n"]) -> Float[np.ndarray, " n"]:
    """A vector whose Rayleigh quotient is small: one sequence less the best mixture of the others.

    The vector is a column of the inverse, up to a factor, the one whose quotient is the least.
    """
    n = len(matrix)
    size = float(np.diagonal(matrix).max())
    # any vector gives a bound, so that a shift does no harm, and singular matrices need one
    shifted = matrix / (size or 1.0) + 4 * n * np.finfo(np.float64).eps * np.eye(n)
    values, vectors = scipy.linalg.eigh(shifted)
    columns = (vectors / np.maximum(np.abs(values), 2.0**-52)) @ vectors.T
    columns = columns / np.linalg.norm(columns, axis=0)
    quotients = np.sum(columns * (matrix @ columns), axis=0)
    return columns[:, int(np.argmin(quotients))]
