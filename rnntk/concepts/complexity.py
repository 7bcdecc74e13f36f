"""How hard a function counts: the two complexity measures of Allen-Zhu & Li, as restated."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from rnntk import checks
from rnntk.concepts.scalar_functions import ScalarFunction

CONSTANT = 1e4
"""C of both measures."""
MOST = 10**7
"""Terms of a sum."""


@dataclass(frozen=True)
class Complexity:
    r"""The complexity measures of a function :math:`f(z) = \sum_i c_i z^i`.

    As restated in Panigrahi & Goyal (2021), for arguments up to R,

    .. math::

        C_s(f, R) = C \sum_i (i + 1)^{1.75} R^i |c_i|, \qquad
        C_\varepsilon(f, R) = \sum_i \Bigl( (C R)^i
          + \bigl(\sqrt{\log(1/\varepsilon) / i}\; C R\bigr)^i \Bigr) |c_i|,

    with C = 1e4. The first says how many samples are needed, the second how wide the network must
    be. The second of exp exceeds 10^4000: it is given as a logarithm.

    Attributes:
        samples: :math:`C_s`; infinite where the series does not converge.
        log10_width: logarithm to base 10 of :math:`C_\varepsilon`; infinite likewise, and -infinity
            for 0.
    """

    samples: float
    log10_width: float


def complexity(f: ScalarFunction, size: float, eps: float) -> Complexity:
    """Both measures of f at arguments up to ``size``."""
    if f.coefficients is None:
        raise ValueError(
            f"f must have a power series to have complexities, got {f.name!r}, which is not smooth."
        )
    if not 0 < size < math.inf:
        raise ValueError(f"betas must have a positive finite norm for complexities, got {size}.")
    checks.check_positive("eps", eps, most=1.0)
    samples = width = math.inf
    if size < f.radius:
        i, logs = _log_sizes(f, size)
        samples = CONSTANT * float(np.exp(_log_sum(logs + 1.75 * np.log(i + 1) + i * np.log(size))))
    if CONSTANT * size < f.radius:
        i, logs = _log_sizes(f, CONSTANT * size)
        growth = i * np.log(np.sqrt(math.log(1 / eps) / np.maximum(i, 1)))
        width = _log_sum(logs + i * math.log(CONSTANT * size) + np.logaddexp(0.0, growth))
    return Complexity(samples, width / math.log(10))


def _log_sum(logs: Float[np.ndarray, " k"]) -> float:
    return float(np.logaddexp.reduce(logs))


def _log_sizes(
    f: ScalarFunction, reach: float
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """The orders i that a sum of |c_i| reach^i needs, and log |c_i|.

    With c_i = 1/i! the terms grow up to i = reach, and are nothing beyond four times that; those of
    a series of finite radius fall like powers of reach / radius.
    """
    if f.log_sizes is None:
        assert f.coefficients is not None
        i = np.arange(len(f.coefficients), dtype=float)
        with np.errstate(divide="ignore"):
            return i, np.log(np.abs(f.coefficients))
    ratio = 0.0 if math.isinf(f.radius) else math.log(f.radius / reach)
    wanted = 4 * reach + 60 if ratio == 0 else 60 + 60 / ratio
    i = np.arange(min(wanted, MOST), dtype=float)
    return i, f.log_sizes(i)
