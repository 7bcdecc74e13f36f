"""Capacities of a kernel's ball by its eigenvalues, beside what they say of the test error."""

import math
from dataclasses import dataclass

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Real

from rnntk.bounds.population_loss import Generalization, generalization
from rnntk.spectrum import eigenvalues


@dataclass(frozen=True)
class Capacity:
    r"""Effective ranks of a kernel, and bounds on the test loss made of them.

    ``rademacher``, ``local`` and ``generalization.bound`` are about a loss with values in [0, 1]:
    one that exceeds 1 is vacuous. Proved with its constants is ``rademacher`` alone, for a kernel
    of constant diagonal and a B that is fixed beforehand.

    Attributes:
        entropy_rank: exponential of the entropy of the eigenvalues' shares.
        intrinsic_dimension: trace over the largest eigenvalue.
        participation: square of the trace over the sum of squares.
        complexity: y' K^-1 y, the square B^2 of the norm of the interpolant.
        rademacher: the bound 2 B sqrt(tr K)/n + sqrt(log(1/delta) / (2 n)).
        local: r + log(1/delta) / n, the form of a bound on the excess of squared losses, without
            the constants of its theorem: it shows how the bound moves, not its size.
        local_rank: the number h of eigenvalues for which r is attained.
        generalization: the bound of :func:`rnntk.bounds.generalization`.
    """

    entropy_rank: float
    intrinsic_dimension: float
    participation: float
    complexity: float
    rademacher: float
    local: float
    local_rank: int
    generalization: Generalization


def capacity(K: Float[ArrayLike, "n n"], y: Real[ArrayLike, " n"], delta: float = 0.05) -> Capacity:
    r"""What the spectrum of a kernel says of interpolating n samples with it.

    The interpolant has norm :math:`B = \sqrt{y^\top K^{-1} y}`, and the ball of that radius the
    empirical Rademacher complexity :math:`\le B \sqrt{\mathrm{tr} K} / n` (Bartlett & Mendelson
    2002), so that a 1-Lipschitz loss with values in [0, 1], which is 0 on the samples, has mean

    .. math::

        \le \frac{2 B \sqrt{\mathrm{tr} K}}{n} + \sqrt{\frac{\log(1/\delta)}{2 n}}

    if B is fixed before the samples are seen and the diagonal of K is constant. Local Rademacher
    complexities (Bartlett, Bousquet & Mendelson 2005, section 6) see how eigenvalues decay: up to
    constants, the excess loss is

    .. math::

        r + \frac{\log(1/\delta)}{n}, \qquad
        r = \min_{0 \le h \le n} \Bigl( \frac hn
          + B \sqrt{\tfrac1n \textstyle\sum_{j > h} \lambda_j(K/n)} \Bigr) .

    Args:
        K: kernel matrix of the samples.
        y: their targets, for these bounds of size at most 1.
        delta: probability with which each bound may fail, in (0, 1).

    Raises:
        TypeError, ValueError, FloatingPointError: as :func:`rnntk.bounds.generalization`.

    Example:
        >>> import numpy as np, rnntk
        >>> found = rnntk.bounds.capacity(np.eye(100), np.ones(100) / 10)
        >>> found.participation, round(found.rademacher, 6)  # 2 / 10 + sqrt(log 20 / 200)
        (100.0, 0.322387)
    """
    whole = generalization(K, y, delta)
    if whole.complexity.ndim:
        raise ValueError(
            f"y must hold one number for each row of K, got {len(whole.complexity)} columns."
        )
    values = np.maximum(eigenvalues(K)[::-1], 0.0)
    n, trace = len(values), float(values.sum())
    shares = values / trace
    entropy = -float(np.sum(shares * np.log(np.where(shares > 0, shares, 1.0))))
    norm = math.sqrt(max(float(whole.complexity), 0.0))
    tails = np.append(np.cumsum(values[::-1])[::-1], 0.0)
    sizes = np.arange(n + 1) / n + norm * np.sqrt(tails) / n
    best = int(np.argmin(sizes))
    chance = math.log(1 / delta)
    return Capacity(
        entropy_rank=math.exp(entropy),
        intrinsic_dimension=float(1 / shares[0]),
        participation=float(1 / np.sum(shares**2)),
        complexity=float(whole.complexity),
        rademacher=2 * norm * math.sqrt(trace) / n + math.sqrt(chance / (2 * n)),
        local=float(sizes[best]) + chance / n,
        local_rank=best,
        generalization=whole,
    )
