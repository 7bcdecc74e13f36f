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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from rnntk.activations import orders
from rnntk.activations.activation import Activation, Alone, BallMoments, Expansion
from rnntk.activations.safe import safe_inverse, safe_sqrt
from rnntk.activations.scales import ROOT, Scales


class Marginal(NamedTuple):
    """What ``pair`` needs of each variance: unit vectors of Hermite coefficients, and lengths.

    The derivative's coefficients are ``first`` at order 0, ``even`` at the rule's orders x above
    0, and ``odd`` at x + 1 for all of them; those of phi follow by parts.
    """

    std: Float[Array, "..."]
    half_inverse: Float[Array, "..."]  # 1 / (2 std), or 0 where std is
    needed: Int[Array, "..."]  # blocks beyond which less than a rounding error remains
    state: Float[Array, "..."]  # C = sqrt(E phi^2)
    slope: Float[Array, "..."]  # sqrt(E phi'^2)
    # Four numbers in one array: XLA's compiler gives up vectorizing passes that read many arrays.
    # c_0, c_1, d_0, and std slope / C, which times d_k / sqrt(k + 1) is c_(k+1).
    lowest: Float[Array, "4 ..."]
    even: Array | None  # shape (orders, ...)
    odd: Array | None  # shape (orders, ...)
    state_left: Float[Array, "blocks ..."]  # sums of c_k^2 from each block on
    slope_left: Float[Array, "blocks ..."]


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
        first, squares = jnp.full_like(a, self.level), rows**2
        even2, odd2 = jnp.zeros_like(rows), jnp.zeros_like(rows)
        if self.even:
            first = first + rows[0]
            even2 = squares.at[0].set(0)
        if self.odd:
            odd2 = a[None] * (squares / (x + 1))
        slopes, states = even2 + odd2, a[None] * (even2 / (x + 1) + odd2 / (x + 2))
        slope2 = first**2 + jnp.sum(slopes, axis=0)
        state2 = mean**2 + a * first**2 + jnp.sum(states, axis=0)
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

    def _mean(self, a: Array) -> Array:
        v, shares = (jnp.asarray(part.astype(a.dtype))[:, None] for part in self.scales(a.dtype))
        return jnp.sum(shares * self.mean(a[None], v), axis=0)

    def pair(
        self, one: Marginal, two: Marginal, angle: Float[Array, "n1 n2"]
    ) -> tuple[Float[Array, "n1 n2"], Float[Array, "n1 n2"]]:
        """The angles of E phi phi' and of the derivatives'."""
        return _angles(one, two, angle)

    def error(self, variances: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """What the highest block of orders has of the moments: a bound on what follows is its size.

        Nothing but rounding up to variances of 1e12, to which the rules reach.
        """
        if variances.max(initial=0.0) <= LARGEST:
            return np.zeros(len(variances))
        double = variances.dtype == np.float64
        with jax.enable_x64(double):
            marginal = jax.jit(self.alone)(jnp.asarray(variances)).marginal
        last = np.asarray(marginal.slope_left[-2] + marginal.state_left[-2], np.float64)
        return np.where(variances > LARGEST, 4 * last, 0.0)

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


LARGEST = 4e12  # variance up to which the highest orders of the rules are negligible
_NEGLIGIBLE = (1e-11, 1e-20)  # share of a moment that far orders may have; float32 and float64


def _left(rule: orders.Rule, squares: Array) -> Array:
    """Sums from each block of octaves on, and 0 after the last."""
    blocks = squares[1 + len(rule.low) :].reshape(rule.octaves // rule.block, -1, squares.shape[-1])
    sums = jnp.cumsum(jnp.sum(blocks, axis=1)[::-1], axis=0)[::-1]
    return jnp.concatenate([sums, jnp.zeros_like(sums[:1])])


class Sums(NamedTuple):
    """Of a pair, over orders: what unequal unit vectors make, and products times 1 - rho^k."""

    state: Array  # sum of (c_k - c_k')^2 + 2 c_k c_k' (1 - rho^k)
    slope: Array  # likewise of d_k


def _angles(one: Marginal, two: Marginal, angle: Array) -> tuple[Array, Array]:
    """``one`` and ``two`` have last axes (n1, 1) and (1, n2)."""
    rule = orders.rule(angle.dtype)
    e = angle * (2 * one.half_inverse * two.half_inverse)
    # Not jnp.clip, which halves the gradient at 0. Opposite inputs, as scalar tokens often are,
    # have e = 2 up to rounding.
    e = jnp.where(e < 0, 0, jnp.where(e > 2 - 16 * jnp.finfo(e.dtype).eps, 2, e))
    few, size = 1 + len(rule.low), rule.block * len(rule.first)
    low = _rows(one, two, rule.orders[:few], lambda v: v[:few])
    far = _rows(
        one,
        two,
        rule.octave_orders.reshape(-1, size),
        lambda v: v[few:].reshape(-1, size, *v.shape[1:]),
    )
    active = _active(rule, one, two, e)
    sums, lack = _sum_orders(rule, active, _Pairs(e, one.lowest, two.lowest, low, far))
    # what follows the active blocks counts with the 1 - |rho|^x of its lowest order
    state, slope = (
        total + (left1[active] + left2[active]) * lack
        for total, left1, left2 in (
            (sums.state, one.state_left, two.state_left),
            (sums.slope, one.slope_left, two.slope_left),
        )
    )
    return (one.state * two.state) * state, (one.slope * two.slope) * slope


def _near(e: Array) -> Array:
    """1 - |rho|."""
    return jnp.where(e > 1, 2 - e, e)


def _active(rule: orders.Rule, one: Marginal, two: Marginal, e: Array) -> Int[Array, ""]:
    """How many blocks of octaves any of the pairs needs.

    Where both variances and the angle are the same nothing is far; where 1 - |rho| is not tiny,
    high powers of rho are 0.
    """
    identical = (e == 0) & (one.std == two.std)
    nearest = jax.lax.stop_gradient(jnp.min(jnp.where(identical, 1, _near(e))))
    starts = jnp.asarray(rule.octave_orders[:: rule.block, 0].astype(e.dtype))
    reach = -math.log(float(jnp.finfo(e.dtype).eps))
    needed = jnp.maximum(jnp.max(one.needed), jnp.max(two.needed))
    return jnp.minimum(needed, jnp.sum(starts * nearest < reach))


class Rows(NamedTuple):
    """Coefficients of some orders x: of d_x, and of d_(x+1), where an activation has them."""

    even: tuple[Array, Array] | None
    odd: tuple[Array, Array] | None
    per_even: Array  # 1 / (x + 1): c_(x+1)^2 = share^2 d_x^2 / (x + 1)
    per_odd: Array  # 1 / (x + 2)


def _rows(one: Marginal, two: Marginal, x: np.ndarray, cut: Callable[[Array], Array]) -> Rows:
    """Those of orders ``x``, which ``cut`` cuts out of the coefficients."""
    even, odd = (
        None if v1 is None or v2 is None else (cut(v1), cut(v2))
        for v1, v2 in ((one.even, two.even), (one.odd, two.odd))
    )
    per = (jnp.asarray((1 / (x + shift)).astype(one.std.dtype)) for shift in (1, 2))
    return Rows(even, odd, *per)


def _add(
    shares: tuple[Array, Array], e: Array, rows: Rows, lacks: Sequence[Array | None], sums: Sums
) -> Sums:
    """The terms of some orders x; ``lacks`` are 1 - |rho|^x, and None for x = 0."""
    rho, (share1, share2) = 1 - e, shares
    state, slope = sums
    for i, lack in enumerate(lacks):
        once = e if lack is None else e + rho * lack  # 1 - rho |rho|^x
        for row, per, d, d1 in (
            (rows.even, rows.per_even, lack, once),
            (rows.odd, rows.per_odd, once, e + rho * once),
        ):
            if row is None or d is None:
                continue
            p, q = row[0][i], row[1][i]
            both, gap = p * q, p - q
            slope = slope + (gap * gap + (2 * both) * d)
            gap = share1 * p - share2 * q
            state = state + per[i] * (gap * gap + (2 * (share1 * share2)) * both * d1)
    return Sums(state, slope)


class _Pairs(NamedTuple):
    """All that the sums depend on."""

    e: Array
    lowest1: Array
    lowest2: Array
    low: Rows
    far: Rows  # by blocks


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _sum_orders(rule: orders.Rule, active: Array, pairs: _Pairs) -> tuple[Sums, Array]:
    """The sums over the low orders and ``active`` blocks of octaves.

    Returns them, and 1 - |rho|^x of the order that follows. The derivative's rule takes a loop of
    fixed length that steps over the other blocks: reverse mode needs that, and it moves more
    memory.
    """

    # In a loop of its own, whose inputs are stored beforehand: otherwise XLA takes slices that
    # depend on the step anew for each pair, and does not vectorize the pass.
    def begin(carry: Any) -> Any:
        return carry[0] + 1, *_add_low(rule, pairs)

    def body(carry: Any) -> Any:
        i, packed, lacks = carry
        rows = jax.tree.map(lambda v: v[i], pairs.far)
        return i + 1, *_add_block(rule, pairs, rows, packed, lacks)

    zero, empty = jnp.zeros_like(active), jnp.zeros_like(pairs.e)
    start = zero, jax.lax.complex(empty, empty), [empty] * len(rule.first)
    once = jnp.minimum(active + 1, 1)  # which is 1, but XLA must not know
    _, packed, lacks = jax.lax.while_loop(lambda carry: carry[0] < once, begin, start)
    _, packed, lacks = jax.lax.while_loop(
        lambda carry: carry[0] < active, body, (zero, packed, lacks)
    )
    return Sums(jnp.real(packed), jnp.imag(packed)), lacks[0]


@_sum_orders.defjvp
def _sum_orders_jvp(rule: orders.Rule, primals: Any, tangents: Any) -> tuple[Any, Any]:
    active, pairs = primals

    def fixed(pairs: _Pairs) -> tuple[Sums, Array]:
        def visit(carry: Any, inputs: Any) -> tuple[Any, None]:
            i, rows = inputs
            add = jax.checkpoint(partial(_add_block, rule, pairs, rows))
            return jax.lax.cond(i < active, add, lambda *old: old, *carry), None

        steps = jnp.arange(rule.octaves // rule.block)
        packed, lacks = jax.lax.scan(visit, _add_low(rule, pairs), (steps, pairs.far))[0]
        return Sums(jnp.real(packed), jnp.imag(packed)), lacks[0]

    return jax.jvp(fixed, (pairs,), tangents[1:])


def _add_low(rule: orders.Rule, pairs: _Pairs) -> tuple[Array, list[Array]]:
    """The low orders: two sums as one complex array, which XLA computes in one pass; and lacks."""
    (mean1, low1, first1, share1), (mean2, low2, first2, share2) = pairs.lowest1, pairs.lowest2
    sums = Sums(
        (mean1 - mean2) ** 2 + (low1 - low2) ** 2 + 2 * (low1 * low2) * pairs.e,
        jnp.broadcast_to((first1 - first2) ** 2, pairs.e.shape),
    )
    lows, lacks = rule.lacks(_near(pairs.e))
    sums = _add((share1, share2), pairs.e, pairs.low, [None, *lows], sums)
    return jax.lax.complex(*sums), lacks


def _add_block(
    rule: orders.Rule, pairs: _Pairs, rows: Rows, packed: Array, lacks: list[Array]
) -> tuple[Array, list[Array]]:
    """One block of octaves."""
    m = len(rule.first)
    every = list(lacks)
    for _ in range(rule.block):
        every += orders.next_octave(every[-m:])
    sums = Sums(jnp.real(packed), jnp.imag(packed))
    sums = _add((pairs.lowest1[3], pairs.lowest2[3]), pairs.e, rows, every[:-m], sums)
    return jax.lax.complex(*sums), every[-m:]


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
        error=mixture.error,
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
