"""Sums over the orders of a rule, of all pairs of sequences.

The derivative's Hermite coefficients of a sequence are a unit vector times sqrt(E phi'^2). It has

    d_0,   d_x = g b_x at orders x > 0, if there are even ones,
           d_(x+1) = h b_x / sqrt(x + 1) at orders x >= 0, if there are odd ones,

with x the orders of a rule, and one row b_x for both kinds. The function's unit vector follows by
parts: c_(k+1) = share d_k / sqrt(k + 1), and c_0. If there is one kind only, g or h sqrt(x + 1)
is 1, and b has it.

Where all pairs are apart, angles are 1 less a sum of products, in five operations an order. The
angles of near-duplicates would lose their digits: squares of differences, and products times
1 - rho^k, are added up instead, in some twelve.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Int

from rnntk.activations import orders
from rnntk.activations.orders import Rule
from rnntk.activations.tables import LOWEST, octave

# Numbers of octaves that are summed in a single pass over the pairs. Marginals keep the rows of the
# last; the rare pairs that need more have theirs made on the spot.
PASSES = (4, 5, 7, 10)
NEAR = PASSES[-1]
BLOCK = 2  # octaves of each further pass
_APART = 2.0**-7, 2.0**-13  # 1 - |rho|, float32 and float64; it costs angles so many digits
_LEFT = 3e-8, 1e-15  # of a moment, may be left out
_LEFT_OF_ANGLE = 1e-7, 1e-12  # of an angle, likewise
_NEGLIGIBLE = 1e-11, 1e-20  # share of a moment at which further passes end


class Marginal(NamedTuple):
    """What a pair needs of each variance."""

    std: Float[Array, "..."]
    half_inverse: Float[Array, "..."]  # 1 / (2 std), or 0 where std is
    state: Float[Array, "..."]  # sqrt(E phi^2)
    slope: Float[Array, "..."]  # sqrt(E phi'^2)
    # c_0, d_0, share, g, h, and sums of c_k^2 and d_k^2 over what follows c_1 and d_0
    lowest: Float[Array, "7 ..."]
    rows: Float[Array, "orders ..."]  # b at the orders of NEAR octaves


Way = Callable[[Marginal, Marginal, Array], Complex[Array, "n1 n2"]]


@dataclass(frozen=True, eq=False)
class Sums:
    """The sums of an activation.

    Args:
        even: whether the derivative has orders x above 0.
        odd: whether it has orders x + 1.
        tails: for float32 and float64, by octaves of the variance (columns), logarithms of what is
            beyond 0, 1, ... NEAR octaves, as a share of a moment; and in the last row as a share
            of a small angle, beyond NEAR octaves.
        marginal: makes a marginal with the rows of some octaves from standard deviations.
        rows: makes these rows alone, from standard deviations and slopes.
    """

    even: bool
    odd: bool
    tails: tuple[Float[np.ndarray, "rows variances"], Float[np.ndarray, "rows variances"]]
    marginal: Callable[[Float[Array, "..."], int], Marginal]
    rows: Callable[[Float[Array, "..."], Float[Array, "..."], int], Float[Array, "orders ..."]]

    def angles(
        self, one: Marginal, two: Marginal, e: Float[Array, "n1 n2"], elsewhere: Way | None
    ) -> tuple[Float[Array, "n1 n2"], Float[Array, "n1 n2"]]:
        """Of both moments, at correlations 1 - e; last axes are (n1, 1) and (1, n2).

        ``elsewhere`` does what no order reaches: near-duplicates of largest variance.
        """
        ways: list[Way] = [partial(self._apart, octaves) for octaves in PASSES]
        ways += [self._close] if elsewhere is None else [self._close, elsewhere]

        # Two angles are one complex array, which XLA computes in one pass.
        @jax.custom_jvp
        def both(one: Marginal, two: Marginal, e: Array) -> Array:
            chosen = self._choose(one, two, e, elsewhere is not None)
            return jax.lax.switch(chosen, ways, one, two, e)

        @both.defjvp
        def both_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
            change = jax.checkpoint(partial(self._change, elsewhere))
            return both(*primals), change(primals, tangents)

        found = both(one, two, e)
        return one.state * two.state * jnp.real(found), one.slope * two.slope * jnp.imag(found)

    def _change(self, elsewhere: Way | None, primals: Any, tangents: Any) -> Array:
        """Directional derivative, by those of the pair in two standard deviations and e.

        A marginal is a function of one number: in reverse mode that saves sums over the pairs for
        each of its orders. One pass of many octaves stands for all, to be compiled sooner; only
        near-duplicates need the rows of all octaves.
        """
        *marginals, e = primals
        ones = jnp.ones_like(e)

        def moving(side: Marginal) -> tuple[Marginal, Marginal]:
            def make(std: Array) -> Marginal:
                return self.marginal(std, NEAR)

            return jax.jvp(make, (side.std,), (jnp.ones_like(side.std),))

        def widened(side: Marginal, change: Marginal) -> tuple[Marginal, Marginal]:
            def make(std: Array, slope: Array) -> Array:
                return self.rows(std, slope, orders.rule(e.dtype).octaves)

            moved = jnp.ones_like(side.std), change.slope
            rows, rows_change = jax.jvp(make, (side.std, side.slope), moved)
            return side._replace(rows=rows), change._replace(rows=rows_change)

        def slopes(way: Way, *sides: tuple[Marginal, Marginal]) -> tuple[Array, ...]:
            (one, one_change), (two, two_change) = sides
            return (
                jax.jvp(lambda one: way(one, two, e), (one,), (one_change,))[1],
                jax.jvp(lambda two: way(one, two, e), (two,), (two_change,))[1],
                jax.jvp(lambda e: way(one, two, e), (e,), (ones,))[1],
            )

        def close(*sides: tuple[Marginal, Marginal]) -> tuple[Array, ...]:
            way = partial(self._by_lacks, backward=True)
            return slopes(way, *(widened(*side) for side in sides))

        one, two = marginals
        ways: list[Any] = [partial(slopes, partial(self._apart, NEAR)), close]
        if elsewhere is not None:
            ways.append(partial(slopes, elsewhere))
        chosen = self._choose(one, two, e, elsewhere is not None)
        number = jnp.maximum(chosen - (len(PASSES) - 1), 0)
        changes = (tangents[0].std, tangents[1].std, tangents[2])
        found = jax.lax.switch(number, ways, *map(moving, marginals))

        # an angle of 0 is the smallest in both standard deviations
        same = _same(one, two, e)
        found = [*(_zeroed(part, same) for part in found[:2]), found[2]]

        def change(part: Callable[[Array], Array]) -> Array:
            one, two, e = (part(f) * v for f, v in zip(found, changes, strict=True))
            return one + two + e

        return jax.lax.complex(change(jnp.real), change(jnp.imag))

    def _choose(self, one: Marginal, two: Marginal, e: Array, elsewhere: bool) -> Int[Array, ""]:
        """The shortest way: where 1 - |rho| is not tiny, high powers of rho are 0."""
        one, two, e = jax.lax.stop_gradient((one, two, e))
        double, rule = e.dtype == jnp.float64, orders.rule(e.dtype)
        ends = np.array([rule.end(octaves) for octaves in PASSES])
        # a zero sequence has no angle, and identical ones have no digits to lose
        alone = _same(one, two, e) | (one.half_inverse * two.half_inverse == 0)
        nearest = jnp.min(jnp.where(alone, 1, _near(e)))
        left1, left2 = self._left_of(one), self._left_of(two)
        fall = jnp.asarray(ends.astype(e.dtype)) * jnp.log1p(-nearest)
        products = ((left1 + left2) / 2)[np.array(PASSES)] + fall
        apart = jnp.sum(products > math.log(_LEFT[double]))
        enough = (nearest > _APART[double]) & (apart < len(PASSES))
        close = jnp.asarray(len(PASSES))
        if elsewhere:
            largest = jnp.maximum(jnp.max(one.std), jnp.max(two.std)) > LARGEST**0.5
            close = jnp.where(largest & self._is_beyond(one, two), close + 1, close)
        return jnp.where(enough, apart, close)

    def _left_of(self, side: Marginal) -> Float[Array, " rows"]:
        """The tails at the largest variance."""
        tails = self.tails[side.std.dtype == jnp.float64].astype(side.std.dtype)
        return jnp.asarray(tails)[:, octave(jnp.max(side.std) ** 2) - LOWEST]

    def _is_beyond(self, one: Marginal, two: Marginal) -> Bool[Array, ""]:
        """Whether near-duplicates need more than the rows of NEAR octaves."""
        one, two = jax.lax.stop_gradient((one, two))
        least = math.log(_LEFT_OF_ANGLE[one.std.dtype == jnp.float64])
        return jnp.maximum(self._left_of(one)[-1], self._left_of(two)[-1]) > least

    def _apart(self, octaves: int, one: Marginal, two: Marginal, e: Array) -> Array:
        """By sums of products."""
        rule, rho = orders.rule(e.dtype), 1 - e
        share, g, h = (v * w for v, w in zip(one.lowest[2:5], two.lowest[2:5], strict=True))
        x, zeroth = rule.orders, one.rows[0] * two.rows[0]
        per = [np.ones_like(x), 1 / (x + 1 + (not self.even))]
        if self.even and self.odd:
            per.append(per[1] / (x + 2))
        totals = [jnp.zeros_like(e) for _ in per]
        for i, power in enumerate(rule.powers(jnp.abs(rho), octaves), 1):
            term = (one.rows[i] * two.rows[i]) * power
            totals = [sum_ + float(w[i]) * term for sum_, w in zip(totals, per, strict=True)]
        state, slope = jnp.zeros_like(e), jnp.zeros_like(e)
        if self.even:
            slope, state = (g * v if self.odd else v for v in totals[:2])
        if self.odd:
            turned = rho * h if self.even else rho
            slope = slope + turned * (zeroth + totals[-2])
            state = state + turned * (zeroth / 2 + totals[-1])
        begun = _begin(one, two, e)
        rest_state, rest_slope = one.lowest[5:] + two.lowest[5:]
        return jax.lax.complex(
            _not_negative(jnp.real(begun) + (rest_state - 2 * (rho * share) * state), one, two, e),
            _not_negative(jnp.imag(begun) + (rest_slope - 2 * slope), one, two, e),
        )

    def _close(self, one: Marginal, two: Marginal, e: Array) -> Array:
        """By sums of squares and lacks, with the rows of all octaves where they are needed."""
        rule = orders.rule(e.dtype)
        count = rule.count(rule.octaves)

        def make(*sides: Marginal) -> list[Array]:
            return [self.rows(side.std, side.slope, rule.octaves) for side in sides]

        def fill(*sides: Marginal) -> list[Array]:
            return [
                jnp.pad(side.rows, ((0, count - len(side.rows)), (0, 0), (0, 0))) for side in sides
            ]

        rows1, rows2 = jax.lax.cond(self._is_beyond(one, two), make, fill, one, two)
        return self._by_lacks(one._replace(rows=rows1), two._replace(rows=rows2), e)

    def _by_lacks(self, one: Marginal, two: Marginal, e: Array, backward: bool = False) -> Array:
        """By sums of squares and of products with 1 - |rho|^x, octave by octave.

        A loop that ends early is faster than one that goes idle, but has no ``backward`` mode.
        """
        rule, sides = orders.rule(e.dtype), (one, two)
        few, size = rule.count(0), BLOCK * len(rule.first)
        lacks = rule.lacks(_near(e), 1)
        x = jnp.asarray(rule.orders.astype(e.dtype))
        rows = [side.rows[:few] for side in sides]
        packed = self._add(sides, e, rows, x[:few], [None, *lacks[: few - 1]], _begin(one, two, e))
        left = [self._left(rule, side) for side in sides]
        active = self._active(rule, sides, e, left)

        blocks = [v[few:].reshape(-1, size, *v.shape[1:]) for v in (x, one.rows, two.rows)]

        @jax.checkpoint
        def add(packed: Array, lacks: list[Array], x: Array, *rows: Array) -> Any:
            every = list(lacks)
            while len(every) < size + len(lacks):
                every.append(every[-len(lacks)] * (2 - every[-len(lacks)]))
            packed = self._add(sides, e, rows, x, every[:size], packed)
            return packed, every[size:]

        def visit(carry: Any, block: Any) -> tuple[Any, None]:
            # What a branch takes is made before; a loop's slices would be taken for each pair.
            i, *inputs = block
            return jax.lax.cond(i < active, add, lambda *old: old[:2], *carry, *inputs), None

        begun = packed, lacks[few - 1 :]
        if backward:
            (packed, lacks), _ = jax.lax.scan(visit, begun, (jnp.arange(len(blocks[0])), *blocks))
        else:
            packed, lacks = jax.lax.fori_loop(
                0, active, lambda i, carry: visit(carry, (i, *(v[i] for v in blocks)))[0], begun
            )
        # what follows counts with the 1 - |rho|^x of its lowest order
        state, slope = ((v[active] + w[active]) * lacks[0] for v, w in zip(*left, strict=True))
        return packed + jax.lax.complex(state, slope)

    def _squares(self, rule: Rule, side: Marginal) -> tuple[Array, Array]:
        """c_(k+1)^2 and d_k^2 of the orders x and x + 1 together, without d_0."""
        rows, (share, g, h) = side.rows, side.lowest[2:5]
        x = rule.orders.astype(rows.dtype).reshape(-1, *(1,) * (rows.ndim - 1))
        slopes, states = jnp.zeros_like(rows), jnp.zeros_like(rows)
        if self.even:
            slopes = ((g[None] * rows) ** 2).at[0].set(0)
            states = slopes / (x + 1)
        if self.odd:
            odd = (h[None] * rows) ** 2 / (x + 1 if self.even else 1)
            slopes, states = slopes + odd, states + odd / (x + 2)
        return share[None] ** 2 * states, slopes

    def _left(self, rule: Rule, side: Marginal) -> list[Array]:
        """Of states and slopes, sums of squares from each block on, and 0 after the last."""
        found = []
        for squares in self._squares(rule, side):
            size = BLOCK * len(rule.first)
            blocks = squares[rule.count(0) :].reshape(-1, size, *squares.shape[1:])
            sums = jnp.cumsum(jnp.sum(blocks, axis=1)[::-1], axis=0)[::-1]
            found.append(jnp.concatenate([sums, jnp.zeros_like(sums[:1])]))
        return found

    def _active(
        self,
        rule: Rule,
        sides: tuple[Marginal, Marginal],
        e: Array,
        left: Sequence[Sequence[Array]],
    ) -> Int[Array, ""]:
        """How many blocks of octaves any of the pairs needs."""
        one, two = sides
        nearest = jax.lax.stop_gradient(jnp.min(jnp.where(_same(one, two, e), 1, _near(e))))
        starts = rule.orders[rule.count(0) :: BLOCK * len(rule.first)]
        reach = -math.log(float(jnp.finfo(e.dtype).eps))
        largest = [
            sum(jnp.max(v[:-1].reshape(len(starts), -1), axis=1) for v in both)
            for both in zip(*left, strict=True)
        ]
        negligible = _NEGLIGIBLE[e.dtype == jnp.float64]
        needed = jnp.sum(jax.lax.stop_gradient(jnp.maximum(*largest)) > negligible)
        return jnp.minimum(needed, jnp.sum(jnp.asarray(starts.astype(e.dtype)) * nearest < reach))

    def _add(
        self,
        sides: tuple[Marginal, Marginal],
        e: Array,
        rows: Sequence[Array],
        x: Any,
        lacks: Sequence[Array | None],
        packed: Array,
    ) -> Array:
        """The terms of orders x; ``lacks`` are 1 - |rho|^x, and None for x = 0."""
        (share1, g1, h1), (share2, g2, h2) = (side.lowest[2:5] for side in sides)
        rho, state, slope = 1 - e, jnp.real(packed), jnp.imag(packed)
        for i, lack in enumerate(lacks):
            once = e if lack is None else e + rho * lack  # 1 - rho |rho|^x
            kinds = []
            if self.even and lack is not None:
                kinds.append((g1, g2, lack, once, 1 / (x[i] + 1)))
            if self.odd:
                root = (1 / (x[i] + 1)) ** 0.5 if self.even else 1
                kinds.append((h1 * root, h2 * root, once, e + rho * once, 1 / (x[i] + 2)))
            for f1, f2, d, d1, per in kinds:
                p, q = f1 * rows[0][i], f2 * rows[1][i]
                slope = slope + ((p - q) ** 2 + 2 * (p * q) * d)
                p, q = share1 * p, share2 * q
                state = state + per * ((p - q) ** 2 + 2 * (p * q) * d1)
        return jax.lax.complex(state, slope)


LARGEST = 4e12  # variance from which on the rules' highest orders do not suffice for phi'


def _near(e: Array) -> Array:
    """1 - |rho|."""
    return jnp.where(e > 1, 2 - e, e)


def _begin(one: Marginal, two: Marginal, e: Array) -> Array:
    """The terms of c_0, c_1 and d_0, by squares and lacks."""
    (mean1, first1, share1, *_), (mean2, first2, share2, *_) = one.lowest, two.lowest
    low1, low2 = share1 * first1, share2 * first2
    state = (mean1 - mean2) ** 2 + (low1 - low2) ** 2 + 2 * (low1 * low2) * e
    return jax.lax.complex(state, jnp.broadcast_to((first1 - first2) ** 2, e.shape))


def _same(one: Marginal, two: Marginal, e: Array) -> Array:
    """Whether sequences are the same but for the rounding of an angle of 0."""
    return (e <= jnp.finfo(e.dtype).eps ** 2 / 4) & (one.std == two.std)


def _not_negative(angle: Array, one: Marginal, two: Marginal, e: Array) -> Array:
    """0 where rounding made it negative, or where it is 0."""
    return _zeroed(angle, _same(one, two, e) | (angle < 0))


def _zeroed(x: Array, where: Bool[Array, "..."]) -> Array:
    """0 in some places, with its derivatives there."""
    return x - jax.lax.stop_gradient(jnp.where(where, x, jnp.zeros_like(x)))
