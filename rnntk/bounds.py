"""Bounds on the smallest eigenvalue of the infinite-width NTK, without small-norm assumptions.

docs/theory/bounds.md states and proves each. All need one thing of the data: that no two of the
last pre-activations are parallel.
"""

import math
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from jax.typing import ArrayLike
from jaxtyping import Float

from rnntk import sequences
from rnntk.elman import ElmanRNN
from rnntk.infinite import infinite_kernel, last_preactivation

TERMS = 400  # of a power series; what is left enters through its sum, so any number is valid


@dataclass(frozen=True)
class Bounds:
    """Lower and upper bounds on one smallest eigenvalue, each under its name."""

    lower: dict[str, float]
    upper: dict[str, float]


def min_eigenvalue(rnn: ElmanRNN, x: Float[ArrayLike, "n t d"]) -> Bounds:
    r"""Bounds on the smallest eigenvalue of ``infinite_kernel(rnn, x).ntk``.

    With :math:`R` the correlations of the last pre-activations, :math:`q` their variances,
    :math:`T` their tangent kernel, and :math:`k_0, k_1` the arc-cosine functions:

    - ``"schur"``: :math:`\lambda(K) + \max(\min_i \dot K_{ii} \lambda(T), \min_i T_{ii}
      \lambda(\dot K))`, by Schur's product theorem.
    - ``"series"``: every Hadamard power in the series of :math:`k_0` and :math:`k_1` bounded by
      Gershgorin's theorem; needs no eigenvalue.
    - ``"separation"``: the same with every row sum replaced by :math:`(n - 1) \rho^k`,
      :math:`\rho = \max_{i \ne j} |R_{ij}|`; a function of n, :math:`\rho`, q and T's diagonal.
    - ``"diagonal"`` and ``"pair"``, upper bounds: the smallest diagonal entry, and the smallest
      eigenvalue of any two sequences.

    They are computed in the dtype of ``x``, with rounding up to n eps of the eigenvalues that
    enter taken off the lower bounds.

    Args:
        rnn: a relu network of one layer with the "last" readout.
        x: tokens, sequences of one length.

    Raises:
        ValueError: for another architecture, or bad tokens.

    Example:
        >>> import jax, rnntk
        >>> x = jax.random.normal(jax.random.key(0), (5, 4, 3))
        >>> bounds = rnntk.bounds.min_eigenvalue(rnntk.ElmanRNN(), x)
        >>> 0 < bounds.lower["separation"] <= bounds.lower["schur"] <= bounds.upper["pair"]
        True
    """
    if rnn.phi.name != "relu" or rnn.readout != "last" or rnn.depth != 1 or rnn.bidirectional:
        raise ValueError(
            "rnn must be a unidirectional relu network of one layer with the 'last' readout for "
            f"these bounds, got activation={rnn.phi.name!r}, readout={rnn.readout!r}, "
            f"depth={rnn.depth}, bidirectional={rnn.bidirectional}."
        )
    x, _ = sequences.check_batch(x, None)
    kernel = infinite_kernel(rnn, x)
    ntk, nngp = (np.asarray(k, np.float64) for k in kernel)
    pre = last_preactivation(rnn, x)
    std, angle, tangent = (np.asarray(v, np.float64) for v in pre)
    q, n = std**2, len(std)
    v2 = float(np.asarray(rnn.v_std)) ** 2
    scale = np.outer(std, std)
    sine2 = np.where(scale > 0, angle / np.where(scale > 0, 4 * scale, 1), 0.0)
    sine2 = np.clip(sine2, 0, 1)  # sin^2 of half the angle
    correlation = 1 - 2 * sine2
    slope = 0.5 - np.arcsin(np.sqrt(sine2)) / math.pi
    eps = float(np.finfo(np.asarray(pre.std).dtype).eps)

    readout_part = 1.0 if "V" in rnn.trainable else 0.0
    by_t = np.diagonal(slope).min() * _smallest(tangent, eps)
    by_slope = np.diagonal(tangent).min() * _smallest(slope, eps)
    off = np.abs(correlation) - np.eye(n)
    k0, k1 = _arccosine_series()
    row_sums, powers = [], np.ones_like(off) - np.eye(n)
    for _ in range(TERMS):
        row_sums.append(powers.sum(axis=1).max())
        powers = powers * off
    rho = off.max() if n > 1 else 0.0
    explicit = (n - 1) * rho ** np.arange(TERMS)

    def from_series(sums: np.ndarray) -> float:
        share = readout_part * q.min() / 2 * _gershgorin(k1, sums)
        return v2 * (share + np.diagonal(tangent).min() / 2 * _gershgorin(k0, sums))

    lower = {
        "schur": readout_part * _smallest(nngp, eps) + v2 * max(by_t, by_slope, 0.0),
        "series": from_series(np.asarray(row_sums)),
        "separation": from_series(explicit),
    }
    diagonal = np.diagonal(ntk)
    upper = {"diagonal": float(diagonal.min())}
    if n > 1:
        half_gap = (diagonal[:, None] - diagonal) / 2
        pairs = (diagonal[:, None] + diagonal) / 2 - np.hypot(half_gap, ntk)
        upper["pair"] = float(pairs[~np.eye(n, dtype=bool)].min())
    return Bounds({name: float(bound) for name, bound in lower.items()}, upper)


def _smallest(matrix: np.ndarray, eps: float) -> float:
    values = scipy.linalg.eigvalsh(matrix)
    return max(0.0, values[0] - len(matrix) * eps * abs(values[-1]))


def _arccosine_series() -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of k0 and k1, all non-negative, both summing to 1 (Cho & Saul 2009)."""
    k0, k1 = np.zeros(TERMS), np.zeros(TERMS)
    k0[0], k1[0], k1[1] = 1 / 2, 1 / math.pi, 1 / 2
    central = 1.0  # binom(2j, j) / 4^j
    for j in range(TERMS // 2 - 1):
        k0[2 * j + 1] = central / (math.pi * (2 * j + 1))
        k1[2 * j + 2] = central / (math.pi * (2 * j + 1) * (2 * j + 2))
        central *= (2 * j + 1) / (2 * j + 2)
    return k0, k1


def _gershgorin(series: np.ndarray, row_sums: np.ndarray) -> float:
    """sum_k a_k max(0, 1 - row sum of |R|^k); later terms are at least as large as the last."""
    smallest = np.maximum(0.0, 1 - row_sums)
    return float(series @ smallest + (1 - series.sum()) * smallest[-1])
