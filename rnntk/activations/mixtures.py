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
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rnntk.activations import arcs, orders, sums
from rnntk.activations.activation import Activation, Alone, BallMoments, Expansion
from rnntk.activations.safe import safe_inverse, safe_sqrt
from rnntk.activations.scales import ROOT, Scales
from rnntk.activations.sums import Marginal


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
        rule = orders.rule(a.dtype)
        mean, std = self._mean(a), safe_sqrt(a)
        x = jnp.asarray(rule.orders.astype(a.dtype))[:, None]
        weights = jnp.asarray((self.f * np.sqrt(rule.weights)).astype(a.dtype))[:, None]
        rows = weights * self.scales.rows(rule, a, self.gated)
        first, squares = jnp.full_like(a, self.level), (a[None] * rows) * rows  # no underflow
        slopes, states = jnp.zeros_like(rows), jnp.zeros_like(rows)
        if self.even:
            first = first + rows[0]
            slopes, states = (rows**2).at[0].set(0), (squares / (x + 1)).at[0].set(0)
        if self.odd:
            odd2 = squares / (x + 1)
            slopes, states = slopes + odd2, states + a[None] * (odd2 / (x + 2))
        slope2 = first**2 + jnp.sum(slopes, axis=0)
        state2 = mean**2 + a * first**2 + jnp.sum(states, axis=0)
        if self.saturates:
            state2, slope2 = self._beyond(a, mean, state2, slope2)
        state, slope = safe_sqrt(state2), safe_sqrt(slope2)
        per_state, per_slope = safe_inverse(state), safe_inverse(slope)
        slope_left = _left(rule, slopes) * (per_slope**2)[None]
        state_left = _left(rule, states) * (per_state**2)[None]
        share = std * slope * per_state
        left = jax.lax.stop_gradient(slope_left + state_left)[:-1]
        marginal = Marginal(
            std=std,
            half_inverse=0.5 * safe_inverse(std),
            needed=jnp.sum(left > _NEGLIGIBLE[a.dtype == jnp.float64], axis=0),
            state=state,
            slope=slope,
            lowest=jnp.stack(
                [mean * per_state, share * first * per_slope, first * per_slope, share]
            ),
            even=rows * per_slope[None] if self.even else None,  # the lowest is in d_0
            odd=rows / jnp.sqrt(x + 1) * (std * per_slope)[None] if self.odd else None,
            state_left=state_left,
            slope_left=slope_left,
        )
        return Alone(state2, slope2, marginal)

    def _beyond(self, a: Array, mean: Array, state2: Array, slope2: Array) -> tuple[Array, Array]:
        """The moments of saturating functions, with closed forms at variances beyond the rules."""

        def closed() -> tuple[Array, Array]:
            state, slope = arcs.own(self.scales, safe_sqrt(a))
            far, f2 = a > LARGEST, self.f**2
            return jnp.where(far, mean**2 + f2 * state, state2), jnp.where(far, f2 * slope, slope2)

        return jax.lax.cond(jnp.max(a) > LARGEST, closed, lambda: (state2, slope2))

    def _mean(self, a: Array) -> Array:
        v, shares = (jnp.asarray(part.astype(a.dtype))[:, None] for part in self.scales(a.dtype))
        return jnp.sum(shares * self.mean(a[None], v), axis=0)

    def pair(
        self, one: Marginal, two: Marginal, angle: Float[Array, "n1 n2"]
    ) -> tuple[Float[Array, "n1 n2"], Float[Array, "n1 n2"]]:
        """The angles of E phi phi' and of the derivatives'."""
        e = angle * (2 * one.half_inverse * two.half_inverse)
        # Not jnp.clip, which halves the gradient at 0. Opposite inputs, as scalar tokens often
        # are, have e = 2 up to rounding.
        e = jnp.where(e < 0, 0, jnp.where(e > 2 - 16 * jnp.finfo(e.dtype).eps, 2, e))
        largest = jnp.maximum(jnp.max(one.std), jnp.max(two.std))
        if self.saturates:
            beyond = largest > LARGEST**0.5
            return jax.lax.cond(beyond, self._by_scales, sums.angles, one, two, e)
        # What a branch reads XLA has to store. Slices that depend on the step it would else take
        # anew for each pair, in a pass that it then does not vectorize.
        return jax.lax.cond(largest < 0, lambda *_: (0 * e, 0 * e), sums.angles, one, two, e)

    @property
    def saturates(self) -> bool:
        """Whether phi' vanishes at both ends: at large variances all of it is in high orders."""
        return self.even and not self.odd

    def _by_scales(self, one: Marginal, two: Marginal, e: Array) -> tuple[Array, Array]:
        """The same for saturating functions, at any variances."""
        state, slope = arcs.pair(self.scales, one.std, two.std, e)
        mean2 = one.lowest[0] * one.state * (two.lowest[0] * two.state)
        f2, same = self.f**2, one.std == two.std

        def angle(norms: Array, parallel: Array, fall: Array) -> Array:
            gap = norms - f2 * parallel  # rounding where it is negative
            return 2 * (jnp.where(same | (gap < 0), 0, gap) + f2 * fall)

        return angle(one.state * two.state - mean2, *state), angle(one.slope * two.slope, *slope)

    def expansion(self, a: Float[np.ndarray, " p"], terms: int) -> Expansion:
        """Hermite coefficients of the derivative, on the host."""
        v, shares = (part[:, None] for part in self.scales(np.float64))
        k = np.arange(0, terms, 2)
        each = ROOT * shares / np.sqrt(a + v)
        with np.errstate(divide="ignore", over="ignore"):
            logs = np.log1p(v / a) / 2
        factors = self.f * np.sqrt(orders.central_binomials(k.astype(float)))
        slopes = np.zeros((terms, len(a)))
        for order, factor in zip(k, factors, strict=True):
            powers = np.exp(-order * logs) if order else np.ones_like(logs)
            if self.gated:
                powers = powers * (1 + (order + 1) * v / (a + v))
            row = factor * np.sum(each * powers, axis=0)
            if self.even:
                slopes[order] = row
            if self.odd and order + 1 < terms:
                slopes[order + 1] = np.sqrt(a / (order + 1)) * row
        slopes[0] += self.level
        return Expansion(slopes, np.sum(shares * np.asarray(self.mean(a, v)), axis=0))


LARGEST = 4e12  # variance up to which the highest orders of the rules are negligible in phi'
_NEGLIGIBLE = (1e-11, 1e-20)  # share of a moment that far orders may have; float32 and float64


def _left(rule: orders.Rule, squares: Array) -> Array:
    """Sums from each block of octaves on, and 0 after the last."""
    blocks = squares[1 + len(rule.low) :].reshape(rule.octaves // rule.block, -1, squares.shape[-1])
    sums = jnp.cumsum(jnp.sum(blocks, axis=1)[::-1], axis=0)[::-1]
    return jnp.concatenate([sums, jnp.zeros_like(sums[:1])])


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
