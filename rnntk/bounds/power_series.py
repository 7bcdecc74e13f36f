"""Kernels as power series in the correlation, and the diagonal matrices below them.

With h_k the orthonormal Hermite polynomials and d_k(a) = E phi'(sqrt(a) z) h_k(z), pre-activations
of variances a_i and correlations R have

    Kd_ij = sum_k d_k(a_i) d_k(a_j) R_ij^k,      K_ij = sum_k c_k(a_i) c_k(a_j) R_ij^k,

c_0 = E phi, c_(k+1) = sqrt(a) d_k / sqrt(k + 1). Each term is a positive semidefinite matrix that
lies above b_k diag(d_k^2), or b_k diag(c_k^2), for any b_k below the smallest eigenvalue of the
k-th entrywise power of R. docs/theory/bounds.md has the proofs and the constants.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from rnntk.activations import hermite
from rnntk.activations.activation import Activation

TERMS = 256  # coefficients kept; what is left out only weakens a bound
GRID = 64  # orders beyond the first 16 at which brackets are taken
# Relative rounding of what this module computes in float64 from given variances and correlations:
# some hundreds of operations on numbers of one sign, and exponentials of arguments up to 745.
MARGIN = 2.0**-36


@dataclass(frozen=True)
class Coefficients:
    """Hermite coefficients at the variances of p points.

    Attributes:
        slopes: d_k, k < ``TERMS``.
        squares: of c_0, ..., c_TERMS.
        beyond: bounds what follows: sum_(l >= k) d_l^2 >= beyond / sqrt(k + 1), and
            sum_(l > k) c_l^2 >= beyond a / (3 (k + 2)^(3/2)).
        variance: a.
    """

    slopes: Float[np.ndarray, "terms p"]
    squares: Float[np.ndarray, "terms_and_one p"]
    beyond: float
    variance: Float[np.ndarray, " p"]


def coefficients(phi: Activation, a: Float[np.ndarray, " p"]) -> Coefficients:
    """The coefficients of ``phi`` at variances ``a``, in float64."""
    a = np.asarray(a, np.float64)
    found = phi.expansion(a, TERMS) if phi.expansion else hermite.expand(phi.fn, a, TERMS)
    squares = a[None, :] * found.slopes**2 / np.arange(1, TERMS + 1)[:, None]
    squares = np.concatenate([found.mean[None] ** 2, squares])
    return Coefficients(found.slopes, squares, found.beyond, a)


def tails(
    one: Coefficients, orders: Float[np.ndarray, " k"]
) -> tuple[Float[np.ndarray, "k p"], Float[np.ndarray, "k p"]]:
    """Lower bounds on the sums of d_l^2, and of c_l^2, over l >= k, for each order k."""
    slope, state = _kept(one.slopes**2, orders), _kept(one.squares, orders)
    slope += (one.beyond / np.sqrt(np.maximum(orders, TERMS) + 1))[:, None]
    late = one.beyond / 3 / (np.maximum(orders, TERMS + 1) + 1) ** 1.5
    state += late[:, None] * one.variance[None, :]
    return slope * (1 - MARGIN), state * (1 - MARGIN)


def _kept(squares: np.ndarray, orders: np.ndarray) -> np.ndarray:
    left = np.concatenate([np.cumsum(squares[::-1], axis=0)[::-1], np.zeros_like(squares[:1])])
    return left[np.minimum(orders, len(squares)).astype(int)]


@dataclass(frozen=True)
class Brackets:
    """Lower bounds b_k >= 0 on the smallest eigenvalues of entrywise powers, growing with k."""

    orders: Float[np.ndarray, " k"]
    values: Float[np.ndarray, " k"]

    def below(self, one: Coefficients) -> tuple[np.ndarray, np.ndarray]:
        """Diagonals that lie below Kd and below K.

        sum_l d_l^2 b_l with b_l that of the next lower order, by parts: each growth of b counts
        for all later orders.
        """
        growth = np.diff(self.values, prepend=0.0)[:, None]
        slope, state = (np.sum(growth * left, axis=0) for left in tails(one, self.orders))
        return slope * (1 - MARGIN), state * (1 - MARGIN)


def brackets(decay: Float[np.ndarray, "p p"]) -> tuple[Brackets, Brackets]:
    """From Gershgorin's row sums, and from the closest pair alone.

    Args:
        decay: no more than -log|R_ij|, infinite on the diagonal.
    """
    decay = np.minimum(decay, 800.0)  # of which exp(-x) is 0; the slack of a bracket covers it
    p, least = len(decay), float(decay.min())
    orders = np.arange(16.0)
    if least > 0:
        # from where the closest pair's bracket is a thousandth to where all are 1 - 1e-3
        first, last = 1e-3 / least, math.log(1e3 * p) / least
        if last > 16:
            grid = np.geomspace(max(16.0, first), last, GRID)
            orders = np.unique(np.concatenate([orders, np.ceil(grid)]))
    if least == 0:  # parallel points
        none = Brackets(np.zeros(1), np.zeros(1))
        return none, none
    closest = (p - 1) * np.exp(-orders * least)
    rows = np.array([_row_sum(decay, k) for k in orders])
    return _bracket(orders, rows), _bracket(orders, closest)


def _row_sum(decay: np.ndarray, k: float) -> float:
    powers = np.exp(-k * decay) if k else (~np.eye(len(decay), dtype=bool)).astype(float)
    return float(powers.sum(axis=1).max())


def _bracket(orders: np.ndarray, sums: np.ndarray) -> Brackets:
    values = np.maximum(0.0, 1 - sums * (1 + MARGIN) - 2.0**-50)
    return Brackets(orders, np.maximum.accumulate(values))
