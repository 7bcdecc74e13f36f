"""Fourth moments of MAML's design b = (I - a X'X / n_1) x, exactly: docs/theory/sgd_risk.md.

Given x and W = |X x|^2 / s with s = x'Hx, a chi-square of n_1 degrees, b is Gaussian with mean
m_i = (1 - q W l_i) x_i and covariance q^2 W (s H - H x x' H), q = a / n_1. What is left are moments
of W and of x.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class DesignMoments:
    r"""Of the coordinates of MAML's design b in the eigenbasis of H.

    Attributes:
        second: :math:`E\,b_i^2`, the eigenvalues of :math:`H_a`.
        fourth: :math:`E\,b_i^2 b_j^2`.
        labels: :math:`E\,b_i^2 (1 + (a/n_1)^2 |X x|^2)`: what labels of noise 1 contribute.
    """

    second: Float[np.ndarray, " d"]
    fourth: Float[np.ndarray, "d d"]
    labels: Float[np.ndarray, " d"]


def moments(values: Float[np.ndarray, " d"], rate: float, inner: int) -> DesignMoments:
    """Moments of the design, from the eigenvalues of H, the rate a and n_1."""
    q, v = rate / inner, values  # l_i above
    w = np.cumprod([1.0, *(inner + 2.0 * np.arange(4))])  # E W^k
    two, four = float(np.sum(v**2)), float(np.sum(v**4))
    xx = np.outer(v, v) * (1 + 2 * np.eye(len(v)))  # E x_i^2 x_j^2
    xs, ss = v * two + 2 * v**3, two**2 + 2 * four  # E x_i^2 s, E s^2
    # E (b_i^2 | x, W) = x_i^2 own_i(W) + q^2 W l_i s, coefficients in W
    own = np.stack([np.ones_like(v), -2 * q * v - (q * v) ** 2, (q * v) ** 2])
    mean = np.stack([np.ones_like(v), -q * v])
    first = w[1:4] @ own  # E W own_i
    crossed = mean.T @ _hankel(w[1:4]) @ mean  # E W (1 - q W l_i) (1 - q W l_j)
    squares = xx * (own.T @ _hankel(w) @ own) + np.outer(v, v) * q**4 * ss * w[2]
    mixed = q**2 * np.outer(xs * first, v)
    # of the covariance C given x and W: 2 E C_ij^2 + 4 E m_i m_j C_ij
    spread = 2 * q**4 * w[2] * (np.outer(v, v) ** 2 * xx + np.diag(v**2 * (ss - 2 * v * xs)))
    spread += 4 * q**2 * crossed * (np.diag(v * xs) - np.outer(v, v) * xx)
    second = v * ((1 - rate * v) ** 2 + rate**2 / inner * (v**2 + two))
    return DesignMoments(
        second=second,
        fourth=squares + mixed + mixed.T + spread,
        labels=second + q**2 * (xs * first + q**2 * v * ss * w[2]),
    )


def _hankel(sequence: Float[np.ndarray, " k"]) -> Float[np.ndarray, "j j"]:
    size = (len(sequence) + 1) // 2
    return sequence[np.add.outer(np.arange(size), np.arange(size))]
