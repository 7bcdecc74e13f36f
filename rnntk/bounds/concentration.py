"""How far kernels of finite width are from their limit, and what follows for their eigenvalues."""

import math
from dataclasses import dataclass
from typing import SupportsIndex

import jax
import numpy as np
import scipy.linalg
from jax.typing import ArrayLike
from jaxtyping import Float, PRNGKeyArray
from tqdm import tqdm

from rnntk import checks
from rnntk.bounds.population_loss import resolved
from rnntk.empirical.kernel import empirical_kernel
from rnntk.infinite.kernel import infinite_kernel
from rnntk.network.elman import ElmanRNN


@dataclass(frozen=True)
class FiniteWidth:
    """How far kernels of finite width are from their limit, and what follows for lmin.

    Attributes:
        widths: the widths measured, ascending; the last is the one asked for.
        deviations: ||ntk_m - ntk||_2, shape (widths, seeds).
        relative: ||ntk^(-1/2) ntk_m ntk^(-1/2) - I||_2, likewise.
        slopes: of the logarithms of the two, medians over the seeds, against log width; the law
            is -1/2.
        limit: lmin of the infinite-width NTK.
        measured: lmin(ntk_m) at the width asked for, shape (seeds,).
        implied: what the theorems imply for each of ``measured`` from the same network's distance
            to the limit, shape (seeds, 2): within limit -+ the deviation (Weyl), and within limit
            times the extreme eigenvalues of ntk^(-1/2) ntk_m ntk^(-1/2) (Ostrowski). Computed in
            float64, so that ``measured`` may lie outside by rounding, n eps ||ntk||, and by no
            more. Other draws lie in the union as far as the seeds represent them.
        half_width: the width beyond which lmin(ntk_m) is at least half of ``limit``, by the law
            and the medians at the width asked for, the smaller of the two that the deviations
            give: an extrapolation, not a measurement.
    """

    widths: tuple[int, ...]
    deviations: Float[np.ndarray, "w s"]
    relative: Float[np.ndarray, "w s"]
    slopes: tuple[float, float]
    limit: float
    measured: Float[np.ndarray, " s"]
    implied: Float[np.ndarray, "s 2"]
    half_width: float


def finite_width(
    rnn: ElmanRNN,
    key: PRNGKeyArray,
    x: Float[ArrayLike, "n t d"],
    *,
    width: SupportsIndex,
    seeds: SupportsIndex = 8,
) -> FiniteWidth:
    r"""The smallest eigenvalue at width m, from measured deviations and the law of their decrease.

    :math:`|\lambda(\mathrm{ntk}_m) - \lambda(\mathrm{ntk})| \le \|\mathrm{ntk}_m -
    \mathrm{ntk}\|_2` (Weyl), which falls like :math:`m^{-1/2}`. Most of the deviation lies along
    the large eigenvalues, so that the relative one, by Ostrowski's theorem, says more. Both are
    measured at ``width``, at a half and at a quarter of it.

    Args:
        rnn: the network.
        key: draws the networks.
        x: tokens, sequences of one length.
        width: number of hidden units m, at least 4.
        seeds: networks for each width, at least 2.

    Raises:
        ValueError: for a width below 4, fewer than two seeds, numbers that are not whole, bad
            tokens, or a kernel whose smallest eigenvalue could be rounding.
        TypeError: for tokens that are not floating point, or a key that is none.

    Example:
        >>> import jax, rnntk
        >>> x = jax.random.normal(jax.random.key(0), (5, 4, 3))
        >>> result = rnntk.bounds.finite_width(
        ...     rnntk.ElmanRNN(), jax.random.key(1), x, width=64, seeds=2)
        >>> result.widths, bool((result.measured > 0.999 * result.implied[:, 0]).all())
        ((16, 32, 64), True)
    """
    width, count = checks.check_size("width", width, 4), checks.check_size("seeds", seeds, 2)
    checks.check_key(key)
    tokens, _ = checks.check_batch(x, None)
    kernel = np.asarray(infinite_kernel(rnn, tokens).ntk)
    side = math.isqrt(kernel.size)
    kernel = kernel.reshape(side, side)
    smallest = resolved(kernel, "the infinite-width kernel of x")
    exact, limit = kernel.astype(np.float64), smallest.value
    widths = (width // 4, width // 2, width)
    deviations, relative = np.zeros((2, 3, count))
    measured, quotients = np.zeros(count), np.zeros((count, 2))  # of one width after another
    with tqdm(total=3 * count, desc="finite widths", unit="network", delay=5) as bar:
        for i, m in enumerate(widths):
            for seed in range(count):
                draw, state = jax.random.split(jax.random.fold_in(key, seed * 3 + i))
                params = rnn.init(draw, input_dim=tokens.shape[-1], width=m)
                states = state if rnn.initial_state == "independent" else None
                finite = empirical_kernel(rnn, params, tokens, key=states).ntk
                matrix = np.asarray(finite, np.float64).reshape(side, side)
                deviations[i, seed] = np.abs(scipy.linalg.eigvalsh(matrix - exact)).max()
                quotients[seed] = scipy.linalg.eigvalsh(matrix, exact)[[0, -1]]
                relative[i, seed] = np.abs(quotients[seed] - 1).max()
                measured[seed] = scipy.linalg.eigvalsh(matrix)[0]
                bar.update()
    shares = np.stack([deviations / limit, relative])  # what lmin may change by, over lmin
    typical = np.median(shares, axis=2)
    slopes = [float(np.polyfit(np.log(widths), np.log(row), 1)[0]) for row in typical]
    weyl = limit + np.outer(deviations[-1], (-1, 1))
    implied = np.column_stack(
        [
            np.maximum(weyl[:, 0], limit * quotients[:, 0]),
            np.minimum(weyl[:, 1], limit * quotients[:, 1]),
        ]
    )
    return FiniteWidth(
        widths=widths,
        deviations=deviations,
        relative=relative,
        slopes=(slopes[0], slopes[1]),
        limit=limit,
        measured=measured,
        implied=implied,
        half_width=width * float((2 * typical[:, -1].min()) ** 2),
    )
