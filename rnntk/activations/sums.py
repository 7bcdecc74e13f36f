"""Sums over the orders of a rule, of all pairs of sequences."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from rnntk.activations import orders


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


class Sums(NamedTuple):
    """Of a pair, over orders: what unequal unit vectors make, and products times 1 - rho^k."""

    state: Array  # sum of (c_k - c_k')^2 + 2 c_k c_k' (1 - rho^k)
    slope: Array  # likewise of d_k


def angles(one: Marginal, two: Marginal, e: Array) -> tuple[Array, Array]:
    """Of both moments, at correlations 1 - e.

    ``one`` and ``two`` have last axes (n1, 1) and (1, n2).
    """
    rule = orders.rule(e.dtype)
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
