"""Activations whose second or first derivative mixes centred normal densities, at any variance.

With G_s(u) = sqrt(2/pi)/s exp(-u^2/(2 s^2)), the derivative of erf(u/(sqrt(2) s)), and E over a
distribution of scales s (Andrews & Mallows 1974; Stefanski 1991),

    tanh' = E G_s, s of Kolmogorov's distribution;    exp(-|u|) = E G_s, s^2 exponential of mean 2;
    erf and gelu have a single scale.

G_s has the Hermite coefficients binom(k, k/2)^(1/2) 2^(-k/2) R_k(a, s) at even k, with alternating
signs, where A = a/(a + s^2), R_k = sqrt(2/pi) A^(k/2) / sqrt(a + s^2). Mehler's formula sums their
products over k, which a rule of few orders replaces (:mod:`rnntk.activations.orders`): all that the
sum sees of two scales and a correlation is the product of two A^(1/2) and |rho|. So the relative
error of the rule is that of all moments, at all variances. docs/theory/activations.md derives this.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rnntk.activations import arcs, orders
from rnntk.activations.activation import Activation, Alone, BallMoments, Expansion
from rnntk.activations.orders import Rule
from rnntk.activations.safe import safe_inverse, safe_sqrt
from rnntk.activations.scales import ROOT, Scales
from rnntk.activations.sums import LARGEST, NEAR, Marginal, Sums
from rnntk.activations.tables import HIGHEST, LOWEST, Table


@dataclass(frozen=True, eq=False)
class Mixture:
    """The moments of an activation made of G_s.

    phi'' = f E G_s if ``odd``; phi' = level + f E G_s if ``even``; both for elu, where phi' is the
    sum. With ``gated`` phi'' is f E (2 - u^2/s^2) G_s, as for u Phi(u).

    Args:
        scales: the distribution of s.
        f: factor.
        level: constant part of phi'.
        mean: maps variances (n,) and squared scales (scales, 1) to E phi for each scale.
        even: whether phi' has the even orders.
        odd: whether phi' has the odd orders.
        gated: see above.
    """

    scales: Scales
    f: float
    level: float
    mean: Callable[[Any, Any], Any]
    even: bool = False
    odd: bool = False
    gated: bool = False

    def alone(self, a: Float[Array, " n"]) -> Alone:
        """Moments of each variance."""
        return self._alone(a, NEAR)

    def _alone(self, a: Array, octaves: int) -> Alone:
        """With the rows of some octaves."""
        mean, std, (states, slopes) = self._mean(a), safe_sqrt(a), self._table(a)
        if self.saturates:
            states, slopes = states / (1 + a), slopes / jnp.sqrt(1 + a)
        first = jnp.full_like(a, self.level)
        if self.even:
            first = first + self.f * self.scales.rows(np.zeros(1), a, self.gated)[0]
        state2, slope2 = mean**2 + a * (first**2 + states), first**2 + slopes
        state, slope = safe_sqrt(state2), safe_sqrt(slope2)
        per_state, per_slope = safe_inverse(state), safe_inverse(slope)
        g, h = jnp.ones_like(a), jnp.ones_like(a)
        if self.even and self.odd:
            g = 1 / jnp.sqrt(1 + a)
            h = std * g
        lowest = mean * per_state, first * per_slope, std * slope * per_state, g, h
        rest = a * states * per_state**2, slopes * per_slope**2
        marginal = Marginal(
            std=std,
            half_inverse=0.5 * safe_inverse(std),
            state=state,
            slope=slope,
            lowest=jnp.stack([*lowest, *rest]),
            rows=self._rows(orders.rule(a.dtype), a, slope, octaves),
        )
        return Alone(state2, slope2, marginal)

    def _mean(self, a: Any) -> Any:
        """E phi, of JAX's arrays or NumPy's."""
        v, shares = (part.astype(a.dtype)[:, None] for part in self.scales(a.dtype))
        return (shares * self.mean(a[None], v)).sum(axis=0)

    def _rows(self, rule: Rule, a: Array, slope: Array, octaves: int) -> Array:
        """b, which rnntk.activations.sums defines."""
        x, factors = rule.orders[: rule.count(octaves)], self._factors(rule)
        rows = self.scales.rows(x, a, self.gated)
        scale = safe_inverse(slope)
        if self.odd:
            scale = scale * (jnp.sqrt(1 + a) if self.even else safe_sqrt(a))
            factors = factors if self.even else factors / np.sqrt(rule.orders + 1)
        return (jnp.asarray(factors[: len(x)].astype(a.dtype))[:, None] * rows) * scale[None]

    def _factors(self, rule: Rule) -> np.ndarray:
        return self.f * np.sqrt(rule.weights)

    @cached_property
    def _table(self) -> Table:
        """Of E phi^2 over a, and of E phi'^2, what follows c_0, c_1 and d_0."""

        def moments(a: np.ndarray) -> np.ndarray:
            first2, *rest = self._squares(orders.DOUBLE, a)
            states, slopes = (v.sum(axis=0) for v in rest)
            if self.saturates:  # whose orders have no end at large variances
                state, slope = (
                    self.f**2 * v - w
                    for v, w in zip(arcs.own(self.scales, a), (a * first2, first2), strict=True)
                )
                states = (1 + a) * np.where(a > 1, state / a, states)
                slopes = np.sqrt(1 + a) * np.where(a > 1, slope, slopes)
            return np.stack([states, slopes])

        return Table.of(moments)

    def _squares(self, rule: Rule, a: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """On the host, d_0^2, and from each order x the terms of E phi^2 over a and of E phi'^2."""
        x = rule.orders[:, None]
        rows = self._factors(rule)[:, None] * self.scales.rows(rule.orders, a, self.gated, np)
        states, slopes = np.zeros_like(rows), np.zeros_like(rows)
        if self.even:
            slopes[1:] = rows[1:] ** 2
            states = slopes / (x + 1)
        if self.odd:
            odd = a * rows**2 / (x + 1)
            slopes, states = slopes + odd, states + odd / (x + 2)
        return (self.level + self.even * rows[0]) ** 2, states, slopes

    @cached_property
    def _tails(self) -> tuple[np.ndarray, np.ndarray]:
        """What is beyond some octaves, as ``Sums`` needs it."""
        return self._tail(orders.SINGLE), self._tail(orders.DOUBLE)

    def _tail(self, rule: Rule) -> np.ndarray:
        a = 2.0 ** np.arange(LOWEST, HIGHEST + 1)
        first2, states, slopes = self._squares(rule, a)
        mean2 = self._mean(a) ** 2 / a
        counts, shares, of_angles = [rule.count(i) for i in range(NEAR + 1)], [], []
        for terms, rest in ((states, mean2 + first2), (slopes, first2)):
            beyond = np.array([terms[n:].sum(axis=0) for n in counts])
            shares.append(beyond / (rest + terms.sum(axis=0)))
            # small angles see order x with x times its weight
            seen = rule.orders[: counts[-1]] @ terms[: counts[-1]]
            of_angles.append(beyond[-1] * rule.end(NEAR) / seen)
        worst = np.stack([*np.maximum(*shares), np.maximum(*of_angles)])
        if self.saturates:
            worst[:, a > LARGEST] = 1
        return np.log(np.maximum(worst, 1e-300))

    def pair(
        self, one: Marginal, two: Marginal, angle: Float[Array, "n1 n2"]
    ) -> tuple[Float[Array, "n1 n2"], Float[Array, "n1 n2"]]:
        """The angles of E phi phi' and of the derivatives'."""
        e = angle * (2 * one.half_inverse * two.half_inverse)
        # Not jnp.clip, which halves the gradient at 0. Opposite inputs, as scalar tokens often
        # are, have e = 2 up to rounding.
        e = jnp.where(e < 0, 0, jnp.where(e > 2 - 16 * jnp.finfo(e.dtype).eps, 2, e))
        return self._sums.angles(one, two, e, self._by_scales if self.saturates else None)

    @cached_property
    def _sums(self) -> Sums:
        def marginal(std: Array, octaves: int) -> Marginal:
            flat = self._alone(jnp.ravel(std) ** 2, octaves).marginal
            return jax.tree.map(lambda v: v.reshape(*v.shape[:-1], *std.shape), flat)

        def rows(std: Array, slope: Array, octaves: int) -> Array:
            rule = orders.rule(std.dtype)
            found = self._rows(rule, jnp.ravel(std) ** 2, jnp.ravel(slope), octaves)
            return found.reshape(-1, *std.shape)

        return Sums(self.even, self.odd, self._tails, marginal, rows)

    @property
    def saturates(self) -> bool:
        """Whether phi' vanishes at both ends: at large variances all of it is in high orders."""
        return self.even and not self.odd

    def _by_scales(self, one: Marginal, two: Marginal, e: Array) -> Array:
        """Both angles of unit vectors, for saturating functions, at any variances."""
        state, slope = arcs.pair(self.scales, one.std, two.std, e)
        f2, same, mean2 = self.f**2, one.std == two.std, one.lowest[0] * two.lowest[0]

        def angle(norms: Array, rest: Array | float, parallel: Array, fall: Array) -> Array:
            gap = rest - f2 * parallel / norms  # rounding where it is negative
            return 2 * (jnp.where(same | (gap < 0), 0, gap) + f2 * fall / norms)

        return jax.lax.complex(
            angle(one.state * two.state, 1 - mean2, *state),
            angle(one.slope * two.slope, 1.0, *slope),
        )

    def expansion(self, a: Float[np.ndarray, " p"], terms: int) -> Expansion:
        """Hermite coefficients of the derivative, on the host."""
        k = np.arange(0.0, terms, 2)
        rows = self.scales.rows(k, a, self.gated, np)
        rows *= self.f * np.sqrt(orders.central_binomials(k))[:, None]
        slopes = np.zeros((terms, len(a)))
        if self.even:
            slopes[::2] = rows
        if self.odd:
            odd = np.sqrt(a / (k[:, None] + 1)) * rows
            slopes[1::2] = odd[: terms // 2]
        slopes[0] += self.level
        return Expansion(slopes, self._mean(a))


def activation(
    name: str,
    fn: Callable[[Array], Array],
    mixture: Mixture,
    balls: Callable[[Any], BallMoments] | None = None,
) -> Activation:
    """The :class:`Activation` whose moments a mixture has."""
    return Activation(
        name,
        fn,
        mixture.alone,
        mixture.pair,
        expansion=mixture.expansion,
        balls=balls,
        definition=name,
    )


# E phi for one squared scale v, at variances a.


def zero_mean(a: Any, v: Any) -> Any:
    """Of an odd function."""
    return 0 * a * v


def half_mean(a: Any, v: Any) -> Any:
    """Of a distribution function."""
    return 0.5 + 0 * a * v


def smooth_relu_mean(a: Any, v: Any) -> Any:
    """Of u Phi(u/s) + s phi(u/s), which is relu with its argument blurred by s."""
    return ((a + v) / (2 * math.pi)) ** 0.5


def gated_mean(a: Any, v: Any) -> Any:
    """Of u Phi(u/s)."""
    return a / (2 * math.pi * (a + v)) ** 0.5


def elu_mean(a: Any, v: Any) -> Any:
    """Of the even part of elu, whose second derivative is half of G_s."""
    return ROOT / 2 * a / ((a + v) ** 0.5 + v**0.5)
