"""Whether the moments of an activation are accurate at the variances that a network meets."""

import warnings
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from rnntk.activations.activation import Activation

SAMPLE = 64  # variances at which errors are estimated


class Inaccurate(NamedTuple):
    """The variance at which moments are least accurate, and less than they should be.

    Attributes:
        variance: where.
        error: estimated relative error.
        limit: what is needed: the activation's tolerance, or that of the dtype.
    """

    variance: float
    error: float
    limit: float

    @property
    def refused(self) -> bool:
        """Whether the error, which may be NaN, exceeds the limit."""
        return not self.error <= self.limit

    @property
    def remedy(self) -> str:
        """The tolerance that would accept it, as part of a sentence."""
        if not self.error < 0.9:
            return "no tolerance accepts that"
        sufficient = f"{1.1 * self.error:.1e}"
        return f"rnntk.activations.from_function(fn, tolerance={sufficient}) accepts that"


def find_inaccurate(
    activation: Activation, variances: Float[np.ndarray, "..."]
) -> Inaccurate | None:
    """The worst of at most 64 of the variances, if its error exceeds that of the dtype."""
    if activation.error is None:
        return None
    limit = 1e-8 if variances.dtype == np.float64 else 1e-5
    # always as many numbers, so that this compiles once
    some = np.quantile(variances, np.linspace(0, 1, SAMPLE), method="nearest")
    errors = np.asarray(activation.error(some))
    if (errors <= limit).all():
        return None
    i = int(np.argmax(np.where(np.isnan(errors), np.inf, errors)))
    return Inaccurate(float(some[i]), float(errors[i]), activation.tolerance or limit)


def check_accuracy(activation: Activation, variances: Float[np.ndarray, "..."]) -> None:
    """Refuse variances at which the numerical moments of an activation are not accurate.

    The relative error of E phi(u) phi(u') and E phi'(u) phi'(u') may be the activation's
    ``tolerance``; above that of the dtype, 1e-8 in float64 and 1e-5 in float32, a warning tells
    it. It is estimated at no more than 64 of the variances, the largest among them.

    Raises:
        ValueError: naming the variance, the error, and the tolerance that would pass.

    Warns:
        UserWarning: naming the variance and the error, where the tolerance accepts it.

    Example:
        >>> import numpy as np, rnntk
        >>> check_accuracy(rnntk.activations.resolve("tanh"), np.array([0.0, 1.0, 1e6]))
    """
    found = find_inaccurate(activation, variances)
    if not found:
        return
    what = (
        f"The moments of {activation.name} at variance {found.variance:.4g} have an estimated "
        f"relative error of {found.error:.1e}"
    )
    if found.refused:
        raise ValueError(
            f"{what}, and {found.limit:.0e} is needed ({found.remedy}). Choose smaller stds, "
            f"rescale the tokens, or use an activation by name."
        )
    warnings.warn(f"{what}, which tolerance={found.limit:.0e} accepts.", stacklevel=3)
