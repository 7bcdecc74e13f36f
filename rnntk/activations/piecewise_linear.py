"""u, |u|, relu and all p u + q |u|: the arc-cosine kernels (Cho & Saul 2009), in half-angles."""

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from rnntk.activations.activation import Activation, Alone, Ball, BallMoments, Expansion, Marginal
from rnntk.activations.safe import safe_inverse, safe_sqrt

# Chebyshev interpolants on [0, 1/2], in 60 digits, of
#   ARCSINE(y) = asin(sqrt(y)) / sqrt(y)
#   SEGMENT(y) = (sin(t) - t cos(t)) / y^(3/2) with t = 2 asin(sqrt(y)),
# lowest degree first. Relative errors 2.7e-9 and 2.3e-9 (32), 2.0e-17 and 7.4e-18 (64).
_ARCSINE_32 = (
    1.0000000016226234,
    0.16666614237824284,
    0.07502757316352404,
    0.04409161673371687,
    0.03581423928401177,
    -0.0070205791522944755,
    0.10740002130174647,
    -0.13591627123984387,
    0.12391349490512975,
)
_ARCSINE_64 = (
    1.0,
    0.16666666666664987,
    0.07500000000401816,
    0.044642856762615,
    0.030381963396751827,
    0.022371584779320355,
    0.017364281439103527,
    0.01380344589589198,
    0.013191002571753903,
    -0.002601537848299688,
    0.07871611357002127,
    -0.2968705430689824,
    1.0082016650534187,
    -2.4908808126226116,
    4.6420689099888435,
    -6.229299875397985,
    5.7579408313146985,
    -3.278933156739812,
    0.8892904367638688,
)
_SEGMENT_32 = (
    2.666666662864241,
    0.26666763703183927,
    0.08567418180822117,
    0.04030446149980953,
    0.01745561194438718,
    0.03197484780780656,
    -0.027997588411071684,
    0.04061521876440821,
)
_SEGMENT_64 = (
    2.6666666666666665,
    0.26666666666668143,
    0.0857142857111221,
    0.03968253995077448,
    0.022095947639427637,
    0.013767805682029654,
    0.009249048024860408,
    0.006643093513241805,
    0.004226242976164667,
    0.007915306613725855,
    -0.017704735518716593,
    0.07840039475553413,
    -0.20794244601856987,
    0.42909747522187885,
    -0.6245889328726089,
    0.6269979801368656,
    -0.38489219072557274,
    0.11366132592446036,
)


def _polynomial(coefficients: tuple[float, ...], y: Array) -> Array:
    """Even and odd powers apart: two short chains of operations take less time than a long one."""
    square = y * y

    def horner(some: tuple[float, ...]) -> Array:
        result = jnp.full_like(y, some[-1])
        for c in some[-2::-1]:
            result = result * square + c
        return result

    return horner(coefficients[::2]) + horner(coefficients[1::2]) * y


def _angle(s: Array) -> tuple[Array, Array]:
    """Half-angle form of the arc-cosine functions: s = sin^2(theta/2) in [0, 1].

    Returns theta / pi and (sin(theta) - theta cos(theta)) / pi, both relatively accurate at 0.
    """
    wide = s > 0.5
    y = jnp.where(wide, 1 - s, s)
    # Opposite inputs, as scalar tokens often are, have s = 1 up to rounding; theta would feel its
    # square root.
    y = jnp.where(wide & (y < 8 * jnp.finfo(s.dtype).eps), 0, y)
    double = s.dtype == jnp.float64
    root = safe_sqrt(y)
    share = root * _polynomial(_ARCSINE_64 if double else _ARCSINE_32, y) * (2 / math.pi)
    segment = root * y * _polynomial(_SEGMENT_64 if double else _SEGMENT_32, y) * (1 / math.pi)
    return jnp.where(wide, 1 - share, share), jnp.where(wide, segment + (1 - 2 * y), segment)


@lru_cache
def piecewise_linear(
    name: str, below: float, above: float, fn: Callable[[Array], Array], definition: str = ""
) -> Activation:
    """phi(u) = above * u for u > 0, and below * u else.

    With p = (above + below)/2 and q = (above - below)/2, phi(u) = p u + q |u|, and by parity the
    angles are (p^2 + q^2) angle - 4 q^2 sqrt(a a') (sin(theta) - theta cos(theta))/pi and
    4 q^2 theta/pi.
    """
    p, q = (above + below) / 2, (above - below) / 2
    second, four = p * p + q * q, 4 * q * q

    def alone(a: Array) -> Alone:
        std = safe_sqrt(a)
        return Alone(second * a, jnp.full_like(a, second), (std, 0.5 * safe_inverse(std)))

    def pair(one: Marginal, two: Marginal, angle: Array) -> tuple[Array, Array]:
        (std1, half_inverse1), (std2, half_inverse2) = one, two
        # not jnp.clip and jnp.maximum, which halve gradients at their ends
        s = angle * (half_inverse1 * half_inverse2)
        s = jnp.where(s < 0, 0, jnp.where(s > 1, 1, s))
        share, segment = _angle(s)
        turned = second * angle - four * (std1 * std2) * segment
        # in this form as XLA's CPU compiler, at optimization level 0, errs with a second jnp.where
        rounded_up = jax.lax.stop_gradient(jnp.maximum(turned, 0) - turned)
        return turned + rounded_up, four * share

    def linear_pair(one: Marginal, two: Marginal, angle: Array) -> tuple[Array, Array]:
        return second * angle, jnp.zeros_like(angle)

    return Activation(
        name,
        fn,
        alone,
        pair if q else linear_pair,
        slopes=(below, above),
        expansion=partial(_expansion, p, q),
        balls=partial(_balls, below, above),
        definition=definition or name,
    )


def leaky_relu(slope: float) -> Activation:
    """u for u > 0, ``slope`` * u else.

    Raises:
        ValueError: if the slope is not finite.

    Example:
        >>> import rnntk
        >>> rnntk.ElmanRNN(rnntk.activations.leaky_relu(0.1)).phi.name
        'leaky_relu(0.1)'
    """
    if not math.isfinite(slope):
        raise ValueError(f"slope must be finite, got {slope}.")
    return _leaky_relu(float(slope))


@lru_cache
def _leaky_relu(slope: float) -> Activation:
    return piecewise_linear(
        f"leaky_relu({slope})", slope, 1.0, lambda u: jnp.where(u > 0, u, slope * u)
    )


def _expansion(p: float, q: float, a: np.ndarray, terms: int) -> Expansion:
    """Kd = p^2 + q^2 (2/pi) asin R, whose coefficients d_k^2 fall like k^(-3/2)."""
    j = np.arange(terms // 2)
    column = np.zeros(terms)
    column[0] = p
    central = np.cumprod(np.concatenate([[1.0], (2 * j[1:] - 1) / (2 * j[1:])]))
    column[1::2] = q * np.sqrt(2 / math.pi * central / (2 * j + 1))
    slopes = np.broadcast_to(column[:, None], (terms, len(a)))
    return Expansion(slopes, q * np.sqrt(2 / math.pi * a), q * q * (2 / math.pi) ** 1.5)


def _balls(below: float, above: float, flint: Any) -> BallMoments:
    """p^2 c + q^2 E |u u'|, in balls.

    Q = E |u u'| = (2/pi) (s + (pi/2 - theta) c), theta = atan2(s, c), s^2 = a a' - c^2, changes by
    no more than c does, and by 1 / (pi sqrt(a a')) times what a a' does. Its ball would not show
    that, and nearly equal sequences would lose the digits of 1/theta at every step. So it is taken
    at the midpoints, plus the radii: docs/theory/spectrum.md.
    """
    arb, context = flint.arb, flint.ctx
    p2, q2 = ((arb(above) + below) / 2) ** 2, ((arb(above) - below) / 2) ** 2
    zero, both, pi = arb(0), p2 + q2, arb.pi()
    right, share = pi / 2, 2 / pi

    def magnitude(area: Ball, c: Ball) -> Ball:
        """Q of exact numbers, which lies between |c| and the root of the area."""
        c = abs(c)
        with context.workprec(2 * context.prec):
            square = area - c * c
        if not square > 0:
            return c.union(area.sqrt())
        s = square.sqrt()
        return share * (s + (right - arb.atan2(s, c)) * c)

    def pair(a1: Ball, a2: Ball, c: Ball) -> tuple[Ball, Ball]:
        if a1.is_zero() or a2.is_zero():
            # every tangent kernel that the slope multiplies is zero as well
            return zero, p2
        area, middle = a1 * a2, c.mid()
        if area > 0:
            size = magnitude(area.mid(), middle) + (area - area.mid()) / (pi * area.sqrt())
        else:
            size = area.abs_upper().sqrt().union(zero).union(abs(middle))
        square = area - c * c  # not negative, but its ball may reach below
        s = square.sqrt() if square > 0 else square.abs_upper().sqrt().union(zero)
        # away from the branch cut
        angle = right - arb.atan2(s, c) if c > 0 else arb.atan2(s, -c) - right
        return p2 * c + q2 * (size + (c - middle)), p2 + q2 * share * angle

    if q2.is_zero():
        return BallMoments(lambda a: (p2 * a, p2), lambda a1, a2, c: (p2 * c, p2))
    return BallMoments(lambda a: (both * a, both), pair)


RELU = piecewise_linear("relu", 0.0, 1.0, jax.nn.relu)
ABS = piecewise_linear("abs", -1.0, 1.0, jnp.abs)
LINEAR = piecewise_linear("linear", 1.0, 1.0, jax.nn.identity)
