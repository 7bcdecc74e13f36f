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

BLOCK = 16  # terms summed in one pass over the pairs
ORDERS = 640  # highest order, where phi' of tanh at variance 10 has 1e-9 of its square norm left
VARIANCE = 10.0  # up to which the series is made
Fn = Callable[[Array], Array]


class Coefficients(NamedTuple):
    """Of one batch of sequences; the last axis is that of the variances."""

    mean: Float[Array, "..."]  # c_0
    slopes: Float[Array, "orders ..."]  # d_0, and those of the series' orders
    tail: Float[Array, "nodes ..."]  # d_k at real orders, times the roots of their weights


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
    tail: Float[Array, "nodes ..."]


def safe_sqrt(v: Array) -> Array:
    """Square root with gradient 0, instead of infinity, at 0; negative rounding counts as 0."""
    zero = v <= 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, v)))


def safe_inverse(v: Array) -> Array:
    """1 / v, and 0 at 0."""
    zero = v <= 0
    return jnp.where(zero, 0, 1 / jnp.where(zero, 1, v))


def derivative(fn: Fn, u: Array) -> Array:
    """Elementwise derivative, by reverse mode, which every JAX function has."""
    value, pull = jax.vjp(fn, u)
    return pull(jnp.ones_like(value))[0]


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
_COARSE = partial(_quadrature, 12.0, 1.0, 24)
_FINE = partial(_quadrature, 16.0, 0.4, 24)


@lru_cache
def _projection(orders: tuple[int, ...]) -> np.ndarray:
    """Weights times h_k at the nodes: maps a function's values to its coefficients."""
    z, weights = _COARSE()
    before, now, rows = np.zeros_like(z), weights, {0: weights}
    for k in range(max(orders, default=0)):
        before, now = now, (z * now - math.sqrt(k) * before) / math.sqrt(k + 1)
        rows[k + 1] = now
    return np.stack([rows[k] for k in (0, *orders)])


@lru_cache
def _tail(first: int, jumps: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The orders from ``first`` on of a derivative with a kink at 0, as a quadrature.

    By parts, d_k(a) = (2 pi k!)^(-1/2) sum_j jump_j a^(j/2) He_(k-1-j)(0), with jump_j that of
    the j-th derivative of phi'. Within a parity and up to a sign this is a smooth function of k,
    so that the sum over [A, 2A) is a Gaussian quadrature for equidistant points (Gram
    polynomials), at real orders. 32 octaves reach order 1e12.

    Returns the orders, even ones before odd ones, the roots of the weights, and the factors of
    a^(j/2), shape (orders, jumps).
    """
    size, n = 6, first / 2 * 2.0 ** np.arange(32)[:, None]
    i = np.arange(1, size)
    side = np.sqrt(i**2 * (n**2 - i**2) / (4 * (4 * i**2 - 1)))
    matrix = np.zeros((len(n), size, size))
    matrix[:, i, i - 1] = matrix[:, i - 1, i] = side
    x, vectors = np.linalg.eigh(matrix)
    k = (2 * n + 2 * (x + (n - 1) / 2)).ravel()
    weights = np.tile((n * vectors[:, 0] ** 2).ravel(), 2)
    k = np.concatenate([k, k + 1])
    even = np.arange(len(k)) < len(k) // 2
    # Gamma(k/2 + 1/2) / Gamma(k/2 + 1)
    y = 2 / k
    ratio = np.sqrt(y) * (1 + y * (-1 / 8 + y * (1 / 128 + y * (5 / 1024 - 21 / 32768 * y))))
    scale = np.where(
        even, np.sqrt(ratio / math.sqrt(math.pi)), np.sqrt(2 / math.sqrt(math.pi) / ratio)
    )
    rows = np.zeros((len(k), len(jumps)))
    for j, jump in enumerate(jumps):
        mine = even == bool(j % 2)
        scale = np.where(mine, scale / (k - j), scale)
        rows[mine, j] = (jump * (-1) ** (j // 2) * scale / math.sqrt(2 * math.pi))[mine]
    return k, np.sqrt(weights), rows


@dataclass(frozen=True, eq=False)
class Series:
    """The moments of ``fn`` by the orders 0, start, start + stride, ... of its derivative.

    Args:
        fn: elementwise function.
        start: lowest order above 0.
        stride: 2 if phi' is, up to a constant, even or odd; else 1.
        terms: number of orders above 0.
        jumps: what phi' and its derivatives jump by at 0; then phi must be analytic on either
            side, and the series goes on beyond its ``terms``.
    """

    fn: Fn
    start: int
    stride: int
    terms: int
    jumps: tuple[float, ...] = ()

    @property
    def orders(self) -> tuple[int, ...]:
        """The orders above 0."""
        return tuple(range(self.start, self.start + self.stride * self.terms, self.stride))

    @property
    def _far(self) -> tuple[float, ...]:
        return tuple(_tail(self.start + self.terms, self.jumps)[0]) if self.jumps else ()

    def coefficients(self, a: Float[Array, " n"]) -> Coefficients:
        """The coefficients at each variance."""
        std = safe_sqrt(a)
        u = jnp.asarray(_COARSE()[0].astype(a.dtype))[:, None] * std[None, :]
        table = jnp.asarray(_projection(self.orders).astype(a.dtype))
        exact = partial(jnp.dot, precision=jax.lax.Precision.HIGHEST)
        mean, slopes = exact(table[0], self.fn(u)), exact(table, derivative(self.fn, u))
        return Coefficients(mean, slopes, self._beyond(std))

    def marginal(self, a: Float[Array, " n"]) -> Marginal:
        """What ``pair`` needs of each variance."""
        found, std = self.coefficients(a), safe_sqrt(a)
        state, slope = (safe_sqrt(v) for v in self._squares(found, a))
        per_state, per_slope = safe_inverse(state), safe_inverse(slope)
        slopes = per_slope[None, :] * found.slopes
        order = jnp.asarray(np.array(self.orders, a.dtype)).reshape(-1, 1)
        # by what a pair's angles may change, in units of 1 - rho
        share = jax.lax.stop_gradient((order + 1) * slopes[1:] ** 2)
        left = jnp.cumsum(share[::-1], axis=0)[::-1]
        total = jax.lax.stop_gradient(slopes[0] ** 2) + jnp.sum(share, axis=0)
        return Marginal(
            std=std,
            half_inverse=0.5 * safe_inverse(std),
            needed=jnp.sum(left > jnp.finfo(a.dtype).eps * total[None, :], axis=0),
            state=state,
            slope=slope,
            share=std * slope * per_state,
            mean=found.mean * per_state,
            first=slopes[0],
            rest=slopes[1:],
            tail=per_slope[None, :] * found.tail,
        )

    def _beyond(self, std: Array) -> Array:
        if not self.jumps:
            return jnp.zeros((0, *std.shape), std.dtype)
        _, roots, rows = _tail(self.start + self.terms, self.jumps)
        table = jnp.asarray((roots[:, None] * rows).astype(std.dtype))
        powers = jnp.cumprod(
            jnp.stack([jnp.ones_like(std)] + [std] * (len(self.jumps) - 1)), axis=0
        )
        return jnp.dot(table, powers, precision=jax.lax.Precision.HIGHEST)

    def _squares(self, found: Coefficients, a: Array) -> tuple[Array, Array]:
        """E phi^2 and E phi'^2 as sums of squares, so that they agree with ``pair``."""
        orders = jnp.asarray(np.array((0, *self.orders, *self._far), a.dtype)).reshape(-1, 1)
        squares = jnp.concatenate([found.slopes, found.tail]) ** 2
        return found.mean**2 + a * jnp.sum(squares / (orders + 1), axis=0), jnp.sum(squares, axis=0)

    def variance(self, a: Float[Array, " n"]) -> Float[Array, " n"]:
        """E phi(u)^2."""
        return self._squares(self.coefficients(a), a)[0]

    def slope(self, a: Float[Array, " n"]) -> Float[Array, " n"]:
        """E phi'(u)^2."""
        return self._squares(self.coefficients(a), a)[1]

    def pair(
        self, one: Marginal, two: Marginal, angle: Float[Array, "n1 n2"]
    ) -> tuple[Float[Array, "n1 n2"], Float[Array, "n1 n2"]]:
        """The angles of E phi phi' and of the derivatives'."""
        return jax.checkpoint(partial(_angles, self.start, self.stride, self._far))(one, two, angle)

    def error(self, variances: np.ndarray) -> np.ndarray:
        """Estimated relative errors of E phi phi' and E of the derivatives' product, the larger.

        The squared coefficients must add up to E phi^2, taken by a finer quadrature; what is
        missing bounds what the moments of all pairs miss.
        """
        with jax.ensure_compile_time_eval(), jax.enable_x64(True):
            return np.asarray(_missing(self, jnp.asarray(np.asarray(variances, np.float64))))


@partial(jax.jit, static_argnums=0)
def _missing(series: Series, a: Float[Array, " n"]) -> Float[Array, " n"]:
    z, weights = (jnp.asarray(v) for v in _FINE())
    u = z[:, None] * jnp.sqrt(a)[None, :]
    errors = []
    pairs = (series.fn, series.variance), (partial(derivative, series.fn), series.slope)
    for fn, moment in pairs:
        expected = weights @ fn(u) ** 2
        off = jnp.abs(expected - moment(a))
        errors.append(jnp.where(off == 0, 0, off / expected))
    return jnp.maximum(*errors)


def _angles(
    start: int,
    stride: int,
    far: tuple[float, ...],
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
        if far:
            state, slope = _sum_tail(far, one, two, (state, slope, e))
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


def _sum_tail(
    far: tuple[float, ...], one: Marginal, two: Marginal, begun: tuple[Array, ...]
) -> tuple[Array, Array]:
    """The nodes that stand for all higher orders, even ones before odd ones."""
    state, slope, e = begun
    rho = 1 - e
    # such orders matter near rho = 1 and -1 only; elsewhere the bound keeps the logarithm finite
    log = jnp.log1p(-jnp.minimum(jnp.where(rho < 0, 2 - e, e), 0.5))

    @jax.checkpoint
    def block(sums: Any, rows: Any) -> tuple[Any, None]:
        state, slope = sums
        for k, odd, d1, d2 in zip(*rows, strict=True):
            power = -jnp.expm1(k * log)
            power = jnp.where(odd & (rho < 0), 2 - power, power)
            scale = 1 / jnp.sqrt(k + 1)
            c1, c2 = (scale * one.share) * d1, (scale * two.share) * d2
            slope = slope + ((d1 - d2) ** 2 + 2 * (d1 * d2) * power)
            state = state + ((c1 - c2) ** 2 + 2 * (c1 * c2) * (rho * power + e))
        return (state, slope), None

    orders = jnp.asarray(np.array(far, e.dtype).reshape(-1, BLOCK))
    odd = jnp.asarray((np.arange(len(far)) >= len(far) // 2).reshape(-1, BLOCK))
    inputs = (orders, odd, _blocks(one.tail), _blocks(two.tail))
    return jax.lax.scan(block, (state, slope), inputs)[0]


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


def name(fn: Fn) -> str:
    """What messages call a function."""
    if isinstance(fn, partial):
        return name(fn.func)
    return str(getattr(fn, "__name__", type(fn).__name__))


class Inaccurate(NamedTuple):
    """A variance at which moments are not accurate."""

    variance: float
    error: float
    limit: float


def find_inaccurate(
    error: Callable[[np.ndarray], np.ndarray], variances: np.ndarray
) -> Inaccurate | None:
    """The first of at most 64 of the variances whose error exceeds what their dtype allows."""
    limit = 1e-8 if variances.dtype == np.float64 else 1e-5
    # always 64 numbers, so that this compiles once
    some = np.quantile(variances, np.linspace(0, 1, 64), method="nearest")
    errors = error(some)
    bad = ~(errors <= limit)
    if not bad.any():
        return None
    i = int(np.argmax(bad))
    return Inaccurate(float(some[i]), float(errors[i]), limit)


@lru_cache
def check_smooth(series: Series, dtype: np.dtype) -> None:
    """Refuse what is inaccurate at usual variances: kernels under ``jax.jit`` cannot see theirs.

    Raises:
        ValueError: naming the variance and the error.
    """
    found = find_inaccurate(series.error, np.array([0.1, 1.0], dtype))
    if found:
        raise ValueError(
            f"activation {name(series.fn)} must be smooth, and not much steeper than tanh: its "
            f"moments at variance {found.variance:.1g} have an estimated relative error of "
            f"{found.error:.1e} in a series, and {found.limit:.0e} is needed. Functions with kinks "
            f"or jumps need closed forms, as the names 'relu', 'abs' and 'elu' and "
            f"rnntk.activations.leaky_relu(slope) have."
        )


def check_elementwise(fn: Fn) -> None:
    """Refuse a function that cannot be an activation, saying why.

    Raises:
        TypeError: if it does not take or return JAX arrays of its argument's dtype, or has no
            derivative in reverse mode.
        ValueError: if it is not elementwise, or not finite, with its derivative, in float64 and in
            float32 on +-38 (12 standard deviations at variance 10).
    """
    title = f"activation {name(fn)}"
    grid = np.linspace(-38.0, 38.0, 8001)
    nodes = np.outer(np.sqrt([0.1, 1.0, VARIANCE]), _COARSE()[0]).ravel()
    points = np.unique(np.concatenate([grid, nodes]))
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        u = jnp.asarray(points)
        value = _attempt(title, lambda: jax.jit(lambda v: fn(v))(u))
        if not isinstance(value, jax.Array) or value.dtype != u.dtype:
            got = value.dtype if isinstance(value, jax.Array) else type(value).__name__
            raise TypeError(
                f"{title} must return real numbers of its argument's dtype, got {got} "
                f"for {u.dtype}."
            )
        if value.shape != u.shape:
            raise ValueError(
                f"{title} must be elementwise, but maps shape {u.shape} to {value.shape}."
            )
        some = slice(0, None, len(u) // 8)
        alone = _attempt(title, lambda: jnp.concatenate([fn(v[None]) for v in u[some]]))
        if not np.allclose(alone, value[some], rtol=1e-9, atol=1e-12, equal_nan=True):
            raise ValueError(f"{title} must be elementwise, but an output depends on other inputs.")
    for double in (True, False):
        with jax.ensure_compile_time_eval(), jax.enable_x64(double):
            _check_finite(
                title, fn, jnp.asarray(points.astype(np.float64 if double else np.float32))
            )


def _attempt(title: str, call: Callable[[], Any]) -> Any:
    """Any error of a user's function means that it is not what is asked for."""
    try:
        return call()
    except Exception as error:
        raise TypeError(
            f"{title} must be an elementwise, differentiable function on JAX arrays (jax.numpy, "
            f"not numpy), but raises {type(error).__name__}: {str(error).partition(chr(10))[0]}"
        ) from error


def _check_finite(title: str, fn: Fn, u: Array) -> None:
    for what, function in (("value", fn), ("derivative", partial(derivative, fn))):
        numbers = np.asarray(_attempt(title, partial(function, u)))
        bad = ~np.isfinite(numbers)
        if bad.any():
            i = int(np.argmax(bad))
            raise ValueError(
                f"{title} must be finite, got the {what} {float(numbers[i])} at "
                f"{float(u[i]):.4g} in {u.dtype}."
            )
