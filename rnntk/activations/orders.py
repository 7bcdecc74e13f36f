"""Few orders that stand for all: (1 - z^2)^(-1/2) as a sum of a few dozen powers of z.

The series (1 - z^2)^(-1/2) = sum_j binom(2j, j) 4^-j z^(2j) is the derivative's moment of erf
(Williams 1997), and through scale mixtures of normals that of all smooth activations by name. Near
z = 1 it needs millions of terms. A :class:`Rule` replaces them by the powers 0, a few low ones, and
m in each octave of orders, with positive weights, so that the relative error of the sum is below
one tiny number for all z up to 1 - 1/top. docs/theory/activations.md says how rules are found, and
why m in an octave suffice.

All orders are whole numbers, so that powers need products only: with D_k = 1 - z^k,
D_(j + k) = D_j + D_k (1 - D_j), a sum of positive numbers, which keeps all digits near z = 1.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array, Float


@dataclass(frozen=True)
class Rule:
    """Orders and weights.

    Args:
        low: lowest orders above 0.
        first: orders of the first octave; each further octave has their doubles.
        shares: by which weights of one octave, which are nearly those of an integral over the
            logarithm of the order, differ, because whole numbers are not evenly spaced in it.
        corrections: factors of the lowest weights, to begin with those of ``low``.
        octaves: how many there are.
    """

    low: tuple[int, ...]
    first: tuple[int, ...]
    shares: tuple[float, ...]
    corrections: tuple[float, ...]
    octaves: int

    @cached_property
    def orders(self) -> Float[np.ndarray, " orders"]:
        """All orders, 0 the first."""
        octaves = 2.0 ** np.arange(self.octaves)[:, None] * np.array(self.first)
        return np.concatenate([[0.0], self.low, octaves.ravel()])

    def count(self, octaves: int) -> int:
        """How many orders the lowest octaves and those below them have, with 0."""
        return 1 + len(self.low) + octaves * len(self.first)

    def end(self, octaves: int) -> float:
        """The lowest order that is not in so many octaves."""
        return float(2.0**octaves * self.first[0])

    @cached_property
    def weights(self) -> Float[np.ndarray, " orders"]:
        """What the powers are multiplied by."""
        few = len(self.low)
        weights = central_binomials(self.orders)
        far = self.orders[1 + few :] * math.log(2) / (2 * len(self.first))
        weights[1 + few :] *= far * np.tile(self.shares, self.octaves)
        weights[1 : 1 + len(self.corrections)] *= self.corrections
        return weights

    def lacks(self, lack: Array, octaves: int) -> list[Array]:
        """1 - z^k for all orders k above 0 of so many octaves, from 1 - z."""
        return self._chain(lack, octaves, lambda one, two: one + two * (1 - one))

    def powers(self, z: Array, octaves: int) -> list[Array]:
        """z^k for the same."""
        return self._chain(z, octaves, lambda one, two: one * two)

    def _chain(
        self, first: Array, octaves: int, combine: Callable[[Array, Array], Array]
    ) -> list[Array]:
        known = {1: first}
        for k in (*self.low, *self.first):
            part = max(j for j in known if k - j in known)
            known[k] = combine(known[part], known[k - part])
        found = [known[k] for k in (*self.low, *self.first)]
        while len(found) + 1 < self.count(octaves):
            half = found[-len(self.first)]
            found.append(combine(half, half))
        return found[: self.count(octaves) - 1]


def central_binomials(orders: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """binom(k, k/2) / 2^k at real k: Gamma((k + 1)/2) / (sqrt(pi) Gamma(k/2 + 1))."""
    small = np.minimum(orders, 60.0)
    gammas = scipy.special.gammaln((small + 1) / 2) - scipy.special.gammaln(small / 2 + 1)
    # logarithms of huge gammas would cancel; this leaves 1e-17 of the ratio
    y = np.square(1 / (orders / 2 + 0.25))
    tail = 1 + y * (-1 / 64 + y * (21 / 8192 - 671 / 524288 * y))
    ratio = np.where(orders < 60, np.exp(gammas), tail * y**0.25)
    return ratio / math.sqrt(math.pi)


# Relative errors, largest over z in (0, 1 - 1e-6]: 2.8e-8 and 4.2e-13.
SINGLE = Rule(
    low=(2, 4, 6, 8, 9, 11, 13),
    first=(17, 24),
    shares=(1.0, 1.0),
    corrections=(
        1.0000000270884026,
        0.9999858152118027,
        1.0012104832705775,
        0.9289237066187811,
        0.40541706737625394,
        1.2527907777183425,
        1.1176838366844786,
        0.9552837017420149,
        1.0118700075189015,
        0.9942602939759716,
        1.0032640905069325,
        0.9981173354350394,
        1.001036250401579,
        0.9994964138608786,
        1.0002015869831933,
        0.9999432172904422,
        1.0000084847680406,
    ),
    octaves=44,
)
DOUBLE = Rule(
    low=(2, 4, 6, 8, 10, 12, 13, 14, 15),
    first=(16, 19, 23, 27),
    shares=(0.9706363386928882, 1.0778844435827817, 1.0243437773908957, 0.9271354403334313),
    corrections=(
        1.0000000000004525,
        0.9999999994798214,
        1.0000001016597815,
        0.9999919514897962,
        1.0003881901370706,
        0.978916214338868,
        0.1285312762325268,
        0.6509474128648716,
        0.43631043051630974,
        0.6593216398605574,
        1.0801693958968546,
        0.954931579238134,
        1.0342211356621547,
        0.980548705201801,
        1.0098645540509847,
        0.9938096369387079,
        1.0043838190434127,
        0.9978860842984428,
        1.0008394809971723,
        0.9996348260409482,
        1.0001737442315104,
        0.9999510238921446,
        1.0000095571247023,
        0.9999986249149805,
        1.0000001549448667,
    ),
    octaves=46,
)


def rule(dtype: jnp.dtype) -> Rule:
    """That of a precision."""
    return DOUBLE if dtype == jnp.float64 else SINGLE
