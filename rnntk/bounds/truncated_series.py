"""Power series in several variables up to a total degree, as arrays of their coefficients.

Entry (i, j, ...) belongs to z_1^i z_2^j ...; those beyond the degree are zero. All series here have
coefficients that are not negative, so that whatever is left out makes the rest smaller.
"""

import numpy as np
from jaxtyping import Float

Series = Float[np.ndarray, "..."]


def constant(value: float, variables: int, degree: int) -> Series:
    """A number as a series."""
    found = np.zeros((degree + 1,) * variables)
    found[(0,) * variables] = value
    return found


def variable(which: int, variables: int, degree: int) -> Series:
    """One of the variables as a series."""
    found = np.zeros((degree + 1,) * variables)
    if degree:
        found[tuple(int(i == which) for i in range(variables))] = 1
    return found


def product(one: Series, two: Series) -> Series:
    """The product, cut off at the degree of its factors."""
    size = one.shape[0]
    if one.ndim == 1:
        return np.convolve(one, two)[:size]
    import scipy.signal  # not above: it loads for a third of a second, and most need no bounds

    whole = scipy.signal.convolve(one, two, method="direct")
    found = whole[(slice(size),) * one.ndim]
    return np.where(sum(np.indices(found.shape)) < size, found, 0.0)


def compose(taylor: Float[np.ndarray, " k"], inner: Series) -> Series:
    """g(inner), from the Taylor coefficients of g at the constant of ``inner``."""
    rest = inner.copy()
    rest.flat[0] = 0.0
    found = constant(taylor[-1], inner.ndim, inner.shape[0] - 1)
    for coefficient in taylor[-2::-1]:
        found = product(found, rest)
        found.flat[0] += coefficient
    return found
