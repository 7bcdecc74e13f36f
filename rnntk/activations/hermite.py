"""Gaussian moments of any activation, from its expansion in Hermite polynomials.

With h_k the Hermite polynomials orthonormal under N(0, 1), the derivative's coefficients at
variance a are d_k(a) = E phi'(sqrt(a) z) h_k(z), and the function's own are c_0 = E phi and, by
parts, c_(k+1) = sqrt(a) d_k / sqrt(k + 1). Mehler's formula then gives, for Gaussians of
correlation rho = 1 - e,

    E phi(u) phi(u') = sum_k c_k c_k' rho^k,     and likewise with d_k for phi'.

With C = |c| and c_k = C x_k, the moments' angles 2 (C C' - E phi phi') are

    C C' sum_k (x_k - x_k')^2 + 2 x_k x_k' D_k,      D_k = 1 - rho^k,

and D_(k+1) = rho D_k + e keeps all digits near e = 0. The coefficients cost a quadrature for each
sequence; a pair costs about ten operations a term. See docs/theory/activations.md.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from rnntk.activations.activation import Alone, Expansion
from rnntk.activations.safe import derivative, safe_inverse, safe_sqrt

BLOCK = 16  # terms summed in one pass over the pairs
ORDERS = 640  # highest order, where phi' of tanh at variance 10 has 1e-9 of its square norm left
VARIANCE = 10.0  # up to which the series is made
Fn = Callable[[Array], Array]


class Coefficients(NamedTuple):
    """Of one batch of sequences; the last axis is that of the variances."""

    mean: Float[Array, "..."]  # c_0
    slopes: Float[Array, "orders ..."]  # d_0, and those of the series' orders


class Marginal(NamedTuple):
    """The same as unit vectors, and their lengths."""

    std: Float[Array, "..."]
    half_inverse: Float[Array, "..."]  # 1 / (2 std), or 0 where std is
    needed: Int[Array, "..."]  # terms beyond which less than a rounding error remains
    state: Float[Array, "..."]  # C = sqrt(E phi^2)
    slope: Float[Array, "..."]  # sqrt(E phi'^2)
    share: Float[Array, "..."]  # std slope / C: x_(k+1) is this times the k-th of phi' / sqrt(k+1)
    mean: Float[Array, "..."]  # x_0
    first: Float[Array, "..."]  # of phi', order 0
    rest: Float[Array, "terms ..."]  # of phi'


@lru_cache
def _quadrature(reach: float, panel: float, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights for N(0, 1): Gauss-Legendre on panels, of which 0 is a boundary.

    So kinks at 0 do no harm. Gauss-Hermite would put most nodes where the density is nil.
    """
    x, w = np.polynomial.legendre.leggauss(points)
    left = panel * np.arange(-round(reach / panel), round(reach / panel))
    nodes = (left[:, None] + panel * (x + 1) / 2).ravel()
    weights = np.tile(w * panel / 2, len(left))
    return nodes, weights * np.exp(-nodes * nodes / 2) / math.sqrt(2 * math.pi)


# 24 points a panel resolve orders up to 640, and poles at 0.5 from the real axis, to roundoff.
COARSE = partial(_quadrature, 12.0, 1.0, 24)
_FINE = partial(_quadrature, 16.0, 0.4, 24)


@lru_cache
def _projection(orders: tuple[int, ...]) -> np.ndarray:
    """Weights times h_k at the nodes: maps a function's values to its coefficients."""
    z, weights = COARSE()
    before, now, rows = np.zeros_like(z), weights, {0: weights}
    for k in range(max(orders, default=0)):
        before, now = now, (z * now - math.sqrt(k) * before) / math.sqrt(k + 1)
        rows[k + 1] = now
    return np.stack([rows[k] for k in (0, *orders)])


@dataclass(frozen=True, eq=False)
class Series:
    """The moments of ``fn`` by the orders 0, start, start + stride, ... of its derivative.

    Args:
        fn: elementwise function.
        start: lowest order above 0.
        stride: 2 if phi' is, up to a constant, even or odd; else 1.
        terms: number of orders above 0.
    """

    fn: Fn
    start: int
    stride: int
    terms: int

    @property
    def orders(self) -> tuple[int, ...]:
        """The orders above 0."""
        return tuple(range(self.start, self.start + self.stride * self.terms, self.stride))

    def coefficients(self, a: Float[Array, " n"]) -> Coefficients:
        """The coefficients at each variance."""
        std = safe_sqrt(a)
        u = jnp.asarray(COARSE()[0].astype(a.dtype))[:, None] * std[None, :]
        table = jnp.asarray(_projection(self.orders).astype(a.dtype))
        exact = partial(jnp.dot, precision=jax.lax.Precision.HIGHEST)
        mean, slopes = exact(table[0], self.fn(u)), exact(table, derivative(self.fn, u))
        return Coefficients(mean, slopes)

    def alone(self, a: Float[Array, " n"]) -> Alone:
        """Moments of each variance."""
        found, std = self.coefficients(a), safe_sqrt(a)
        state2, slope2 = self._squares(found, a)
        state, slope = safe_sqrt(state2), safe_sqrt(slope2)
        per_state, per_slope = safe_inverse(state), safe_inverse(slope)
        slopes = per_slope[None, :] * found.slopes
        order = jnp.asarray(np.array(self.orders, a.dtype)).reshape(-1, 1)
        # by what a pair's angles may change, in units of 1 - rho
        share = jax.lax.stop_gradient((order + 1) * slopes[1:] ** 2)
        left = jnp.cumsum(share[::-1], axis=0)[::-1]
        total = jax.lax.stop_gradient(slopes[0] ** 2) + jnp.sum(share, axis=0)
        marginal = Marginal(
            std=std,
            half_inverse=0.5 * safe_inverse(std),
            needed=jnp.sum(left > jnp.finfo(a.dtype).eps * total[None, :], axis=0),
            state=state,
            slope=slope,
            share=std * slope * per_state,
            mean=found.mean * per_state,
            first=slopes[0],
            rest=slopes[1:],
        )
        return Alone(state2, slope2, marginal)

    def _squares(self, found: Coefficients, a: Array) -> tuple[Array, Array]:
        """E phi^2 and E phi'^2 as sums of squares, so that they agree with ``pair``."""
        orders = jnp.asarray(np.array((0, *self.orders), a.dtype)).reshape(-1, 1)
        squares = found.slopes**2
        return found.mean**2 + a * jnp.sum(squares / (orders + 1), axis=0), jnp.sum(squares, axis=0)

    def pair(
        self, one: Marginal, two: Marginal, angle: Float[Array, "n1 n2"]
    ) -> tuple[Float[Array, "n1 n2"], Float[Array, "n1 n2"]]:
        """The angles of E phi phi' and of the derivatives'."""
        return jax.checkpoint(partial(_angles, self.start, self.stride))(one, two, angle)

    def expansion(self, a: Float[np.ndarray, " p"], terms: int) -> Expansion:
        """Hermite coefficients of the derivative, on the host."""
        return expand(self.fn, a, terms)

    def error(self, variances: np.ndarray) -> np.ndarray:
        """Estimated relative errors of E phi phi' and E of the derivatives' product, the larger.

        The squared coefficients must add up to E phi^2, taken by a finer quadrature; what is
        missing bounds what the moments of all pairs miss.
        """
        with jax.ensure_compile_time_eval(), jax.enable_x64(True):
            return np.asarray(_missing(self, jnp.asarray(np.asarray(variances, np.float64))))


def expand(fn: Fn, a: Float[np.ndarray, " p"], terms: int) -> Expansion:
    """Hermite coefficients of the derivative of any function, by quadrature, on the host."""
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        found = Series(fn, 1, 1, terms - 1).coefficients(jnp.asarray(a, jnp.float64))
        return Expansion(np.asarray(found.slopes), np.asarray(found.mean))


@partial(jax.jit, static_argnums=0)
def _missing(series: Series, a: Float[Array, " n"]) -> Float[Array, " n"]:
    z, weights = (jnp.asarray(v) for v in _FINE())
    u = z[:, None] * jnp.sqrt(a)[None, :]
    errors = []
    found = series.alone(a)
    pairs = (series.fn, found.variance), (partial(derivative, series.fn), found.slope)
    for fn, moment in pairs:
        expected = weights @ fn(u) ** 2
        off = jnp.abs(expected - moment)
        errors.append(jnp.where(off == 0, 0, off / expected))
    return jnp.maximum(*errors)


def _angles(
    start: int,
    stride: int,
    one: Marginal,
    two: Marginal,
    angle: Array,
) -> tuple[Array, Array]:
    """``one`` and ``two`` have last axes (n1, 1) and (1, n2)."""
    e = angle * (2 * one.half_inverse * two.half_inverse)
    # not jnp.clip, which halves the gradient at 0
    e = jnp.where(e < 0, 0, jnp.where(e > 2, 2, e))
    low1, low2 = one.share * one.first, two.share * two.first
    state = (one.mean - two.mean) ** 2 + (low1 - low2) ** 2 + 2 * (low1 * low2) * e
    slope = jnp.broadcast_to((one.first - two.first) ** 2, angle.shape)
    if len(one.rest):
        power = e
        for _ in range(start - 1):
            power = (1 - e) * power + e
        state, slope = _sum_terms(start, stride, one, two, (state, slope, power, e))
    return (one.state * two.state) * state, (one.slope * two.slope) * slope


def _blocks(rows: Array) -> Array:
    """Rows in blocks, filled up with zeros."""
    padded = jnp.pad(rows, ((0, -len(rows) % BLOCK), (0, 0), (0, 0)))
    return padded.reshape(-1, BLOCK, *rows.shape[1:])


def _sum_terms(
    start: int, stride: int, one: Marginal, two: Marginal, begun: tuple[Array, ...]
) -> tuple[Array, Array]:
    """The orders above 0, as far as any of the sequences needs them."""
    *first, e = begun
    rho, needed = 1 - e, jnp.maximum(jnp.max(one.needed), jnp.max(two.needed))
    rest1, rest2 = _blocks(one.rest), _blocks(two.rest)
    orders = start + stride * np.arange(len(rest1) * BLOCK)
    factors = jnp.asarray((1 / np.sqrt(orders + 1)).astype(e.dtype).reshape(-1, BLOCK))

    @jax.checkpoint
    def add(sums: tuple[Array, ...], rows: tuple[Array, ...]) -> tuple[Array, ...]:
        state, slope, power = sums
        for d1, d2, factor in zip(*rows, strict=True):
            c1, c2 = (factor * one.share) * d1, (factor * two.share) * d2
            slope = slope + ((d1 - d2) ** 2 + 2 * (d1 * d2) * power)
            power = rho * power + e
            state = state + ((c1 - c2) ** 2 + 2 * (c1 * c2) * power)
            if stride == 2:
                power = rho * power + e
        return state, slope, power

    def block(sums: Any, inputs: Any) -> tuple[Any, None]:
        index, *rows = inputs
        return jax.lax.cond(index < needed, add, lambda old, _: old, sums, tuple(rows)), None

    inputs = (jnp.arange(len(rest1)) * BLOCK, rest1, rest2, factors)
    state, slope, _ = jax.lax.scan(block, tuple(first), inputs)[0]
    return state, slope


@lru_cache
def fit(fn: Fn) -> Series:
    """The series of an elementwise function: which orders it has, and how many it needs.

    As many as leave 1e-12 of the square norm of phi' at ``VARIANCE``, and at most ``ORDERS``.
    """
    every = Series(fn, 1, 1, ORDERS)
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        slopes = every.coefficients(jnp.asarray([VARIANCE / 10, VARIANCE])).slopes
    squares = np.asarray(slopes) ** 2
    total, squares = squares.sum(axis=0), squares[1:]
    tail = np.cumsum(squares[::-1, 1])[::-1]
    top = max(int(np.sum(tail > 1e-12 * total[1])), 1)
    odd, even = (bool((squares[i::2].sum(axis=0) > 1e-26 * total).any()) for i in (0, 1))
    if odd and even:
        return Series(fn, 1, 1, top)
    if not odd and not even:
        return Series(fn, 1, 1, 0)
    start = 1 if odd else 2
    return Series(fn, start, 2, len(range(start, top + 1, 2)))
