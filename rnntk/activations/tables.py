"""Functions of a variance that take long to compute, as polynomials in each octave of it."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

# Octaves; beyond, everything tabulated here is constant to rounding.
LOWEST, HIGHEST = -120, 126
_DEGREE = 13  # poles are at negative variances: the error falls like 18^-degree


@dataclass(frozen=True, eq=False)
class Table:
    """Some functions of a variance.

    Args:
        coefficients: of each power, function and octave.
    """

    coefficients: Float[np.ndarray, "powers functions octaves"]

    @classmethod
    def of(cls, functions: Callable[[np.ndarray], np.ndarray]) -> "Table":
        """From their values at an array of variances, stacked."""
        x = np.polynomial.chebyshev.chebpts1(_DEGREE + 1)
        a = 2.0 ** (np.arange(LOWEST, HIGHEST + 1)[:, None] + (x - 1) / 2)
        values = np.moveaxis(functions(a.ravel()).reshape(-1, *a.shape), -1, 0)
        powers = np.vander(x, increasing=True)
        return cls(np.linalg.solve(powers, values.reshape(len(x), -1)).reshape(values.shape))

    def __call__(self, a: Float[Array, " n"]) -> Float[Array, "functions n"]:
        """Their values."""
        least, most = (2.0**k for k in (LOWEST, HIGHEST - 1))
        a = jnp.where(a < least, least, jnp.where(a > most, most, a))
        k = octave(a)
        x = 2 * jnp.log2(jnp.ldexp(a, -k)) + 1
        total, *rest = jnp.asarray(self.coefficients[::-1].astype(a.dtype))[:, :, k - LOWEST]
        for c in rest:
            total = total * x[None] + c
        return total


def octave(a: Float[Array, "..."]) -> Int[Array, "..."]:
    """The k for which 2^(k - 1) <= a < 2^k, within the range of the tables."""
    return jnp.clip(jnp.frexp(jax.lax.stop_gradient(a))[1], LOWEST, HIGHEST)
