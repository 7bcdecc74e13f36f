"""How far kernels of finite width are from their limit, and what follows for their eigenvalues."""

import math
import operator
from dataclasses import dataclass
from typing import Any, SupportsIndex

import jax
import numpy as np
import scipy.linalg
from jax.typing import ArrayLike
from jaxtyping import Float, PRNGKeyArray
from tqdm import tqdm

from rnntk import sequences
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
        interval: what the networks at that width imply for lmin(ntk_m): within limit -+ the
            largest deviation (Weyl), and within limit times the extreme eigenvalues of
            ntk^(-1/2) ntk_m ntk^(-1/2) (Ostrowski). It contains all of ``measured``, and other
            draws as far as the seeds represent them.
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
    interval: tuple[float, float]
    half_width: float


def finite_width(
    rnn: ElmanRNN,
    x: Float[ArrayLike, "n t d"],
    width: SupportsIndex,
    *,
    key: PRNGKeyArray,
    seeds: SupportsIndex = 8,
) -> FiniteWidth:
    r"""The smallest eigenvalue at width m, from measured deviations and the law of their decrease.

    :math:`|\lambda(\mathrm{ntk}_m) - \lambda(\mathrm{ntk})| \le \|\mathrm{ntk}_m -
    \mathrm{ntk}\|_2` (Weyl), which falls like :math:`m^{-1/2}`. Most of the deviation lies along
    the large eigenvalues, so that the relative one, by Ostrowski's theorem, says more. Both are
    measured at ``width``, at a half and at a quarter of it.

    Args:
        rnn: the network.
        x: tokens, sequences of one length.
        width: number of hidden units m, at least 4.
        key: draws the networks.
        seeds: networks for each width, at least 2.

    Raises:
        ValueError: for a width below 4, fewer than two seeds, bad tokens, or a kernel whose
            smallest eigenvalue could be rounding.
        TypeError: for tokens that are not floating point, numbers that are not whole, or a key that
            is none.

    Example:
        >>> import jax, rnntk
        >>> x = jax.random.normal(jax.random.key(0), (5, 4, 3))
        >>> result = rnntk.bounds.finite_width(
        ...     rnntk.ElmanRNN(), x, 64, key=jax.random.key(1), seeds=2)
        >>> result.widths, bool((result.measured >= result.interval[0]).all())
        ((16, 32, 64), True)
    """
    width, count = _whole("width", width, 4), _whole("seeds", seeds, 2)
    if not isinstance(key, jax.Array):
        raise TypeError(f"key must be a JAX key, such as jax.random.key(0), got {key!r}.")
    tokens, _ = sequences.check_batch(x, None)
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
    share = float(shares[0, -1].max())
    low, high = max(1 - share, quotients.min()), min(1 + share, quotients.max())
    # what is measured lies within up to rounding
    low, high = min(limit * low, measured.min()), max(limit * high, measured.max())
    return FiniteWidth(
        widths,
        deviations,
        relative,
        (slopes[0], slopes[1]),
        limit,
        measured,
        (float(low), float(high)),
        width * float((2 * typical[:, -1].min()) ** 2),
    )


def _whole(name: str, value: Any, least: int) -> int:
    """A number that is whole and not too small."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, got {value!r}.") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}.")
    return number
