"""Moments of erf and gelu: arcs between points of a sphere, by differences that keep their digits.

Both see a variance a in A = k a/(1 + k a), with k = 2 and 1, and a pair of correlation rho in
C = sqrt(A A') rho: moments are made of asin A, asin A' and asin C. See docs/theory/infinite.md.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from rnntk.activations.hermite import safe_inverse, safe_sqrt


def moment_angle(distance: Array, product: Array, near: Array, norm1: Array, norm2: Array) -> Array:
    """2 (norm norm' - E phi phi'), from E (phi - phi')^2 where that has more digits.

    It has between positively correlated values of similar norm.
    """
    near = near & (jnp.maximum(norm1, norm2) < 2 * jnp.minimum(norm1, norm2))
    apart = 2 * (norm1 * norm2 - product)
    angle = jnp.where(near, distance - (norm1 - norm2) ** 2, apart)
    return jnp.where(angle < 0, 0, angle)  # not jnp.maximum, which halves the gradient at 0


class Sphere(NamedTuple):
    """What one variance gives."""

    std: Array
    half_inverse: Array  # of std
    norm: Array  # sqrt(E phi^2)
    root: Array  # sqrt(A)
    rest: Array  # 1 - A
    sine: Array  # sqrt(1 - A^2)


def sphere(k: float, variance: Callable[[Array], Array], a: Array) -> Sphere:
    """Of variances ``a``; ``variance`` gives E phi^2."""
    std, rest = safe_sqrt(a), 1 / (1 + k * a)
    sine = jnp.sqrt(rest * (2 - rest))
    norm = safe_sqrt(variance(a))
    return Sphere(std, 0.5 * safe_inverse(std), norm, safe_sqrt(k * a * rest), rest, sine)


class Arcs(NamedTuple):
    """How far asin C, C = sqrt(A A') rho, is from asin A and asin A', where rho >= 0."""

    e: Array  # 1 - rho
    c: Array
    sine: Array  # sqrt(1 - C^2)
    gap: Array  # A - A'
    spread: Array  # A A' (1 - rho^2)
    arc1: Array  # asin A - asin C
    arc2: Array  # asin A' - asin C
    both: Array  # their sum


def arcs_between(k: float, one: Sphere, two: Sphere, angle: Array) -> Arcs:
    """By sines of differences, in which nothing cancels; docs/theory/infinite.md derives them."""
    e = angle * (2 * one.half_inverse * two.half_inverse)
    # Opposite inputs, as scalar tokens often are, have e = 2 up to rounding.
    e = jnp.where(e < 0, 0, jnp.where(e > 2 - 16 * jnp.finfo(e.dtype).eps, 2, e))
    wide, aa = e * (2 - e), (one.root * two.root) ** 2
    big1, big2 = one.root**2, two.root**2
    gap = k * ((one.std - two.std) * one.rest) * ((one.std + two.std) * two.rest)
    c = (one.root * two.root) * (1 - e)
    sine = jnp.sqrt(one.rest + two.rest - one.rest * two.rest + aa * wide)
    near = jnp.maximum(1 - e, 0)  # the rest holds there; elsewhere it is finite
    t1 = one.root * safe_inverse(one.root * sine + near * two.root * one.sine)
    t2 = two.root * safe_inverse(two.root * sine + near * one.root * two.sine)
    sin1, sin2 = t1 * (gap + big2 * wide), t2 * (big1 * wide - gap)
    cos1, cos2 = one.sine * sine + big1 * c, two.sine * sine + big2 * c
    uneven = (gap * safe_inverse(one.root)) * (gap * safe_inverse(two.root))
    uneven = uneven * (big1 + big2) * safe_inverse(one.sine * big2 + two.sine * big1)
    sines = t1 * t2 * near * uneven + wide * (big2 * t1 + big1 * t2)
    cosines = jnp.where(cos1 + cos2 > 0, cos1 + cos2, 1)
    total = sines * (cosines + (sin1 - sin2) ** 2 / cosines) / 2
    return Arcs(
        e,
        c,
        sine,
        gap,
        aa * wide,
        jnp.arctan2(sin1, cos1),
        jnp.arctan2(sin2, cos2),
        jnp.arctan2(total, cos1 * cos2 - sin1 * sin2),
    )


def erf_pair(one: Sphere, two: Sphere, angle: Array) -> tuple[Array, Array]:
    """Arcsine kernel (Williams 1997).

    With A = 2a/(1 + 2a) and C = sqrt(A A') rho, E phi phi' = (2/pi) asin C, and E of the
    derivatives' product is (4/pi) sqrt((1 - A)(1 - A')/(1 - C^2)).
    """
    arcs = arcs_between(2.0, one, two, angle)
    product = (2 / math.pi) * jnp.arctan2(arcs.c, arcs.sine)
    near = arcs.e < 1
    state = moment_angle((2 / math.pi) * arcs.both, product, near, one.norm, two.norm)
    own = jnp.sqrt(one.sine) * jnp.sqrt(two.sine)
    flat = one.rest + two.rest - one.rest * two.rest
    # sqrt(1 - C^2)^2 - own^2, over their sum
    wider = (arcs.gap * (arcs.gap / (flat + one.sine * two.sine)) + arcs.spread) / (arcs.sine + own)
    slope = jnp.sqrt(one.rest) * jnp.sqrt(two.rest) * wider / (own * arcs.sine)
    return state, (8 / math.pi) * slope


def erf_variance(a: Array) -> Array:
    """E erf(u)^2."""
    return (2 / math.pi) * jnp.arctan2(2 * a, jnp.sqrt(1 + 4 * a))


def gelu_variance(a: Array) -> Array:
    """E phi(u)^2."""
    root = jnp.sqrt(1 + 2 * a)
    angle = jnp.arctan2(a, root)  # asin(a / (1 + a))
    return a / 4 + (a / (2 * math.pi)) * (angle + 2 * a / ((1 + a) * root))


def gelu_slope(a: Array) -> Array:
    """E phi'(u)^2."""
    root = jnp.sqrt(1 + 2 * a)
    rest = a * (2 / (1 + a) + 1 / (1 + 2 * a)) / root
    return 1 / 4 + (jnp.arctan2(a, root) + rest) / (2 * math.pi)


def gelu_pair(
    one: tuple[Sphere, Array], two: tuple[Sphere, Array], angle: Array
) -> tuple[Array, Array]:
    """u Phi(u), through differences.

    With p = 1 + a, p' = 1 + a', c the covariance, w^2 = p p' - c^2, A = a/p, A' = a'/p' and
    sin g = C = c/sqrt(p p'),
    E phi phi' = c/4 + (c g + A A' w + C^2/w)/(2 pi), and E of the derivatives' product is
    1/4 + (g + c (1/p + 1/p')/w + c/w^3)/(2 pi); p^2 - a^2 = 1 + 2a takes the place of w^2 in the
    variances. For a = a' and angle << a relative errors reach eps sqrt(a/angle).
    """
    (sphere1, slope1), (sphere2, slope2) = one, two
    arcs = arcs_between(1.0, sphere1, sphere2, angle)
    std1, std2 = sphere1.std, sphere2.std
    a1, a2, covariance = std1 * std1, std2 * std2, std1 * std2 - angle / 2
    spread = (std1 * std2) ** 2 * (arcs.e * (2 - arcs.e))  # a a' - c^2
    w = jnp.sqrt(1 + (a1 + a2) + spread)
    gap, uneven = (std1 - std2) * (std1 + std2), (std1 - std2) ** 2

    def gaps(std: Array, other: Array, arc: Array, gap: Array) -> tuple[Array, Array]:
        """2 pi times what a variance, its c/4 aside, exceeds the pair's moment by."""
        a, p = std * std, 1 + std * std
        both = p * (p - gap)
        own, half = jnp.sqrt(1 + 2 * a), std * (std - other) + angle / 2  # half = a - c
        delta = (spread - gap) / (w + own)  # w - own
        inverse = delta / (w * own)  # 1/own - 1/w
        big = a / p
        # A^2 - C^2 = (a^2 p' - c^2 p) / (p^2 p')
        squares = (half * (2 * a - half) - big * big * p * gap) / both
        first = a * arc + big * (gap / both * own - (big - gap / both) * delta)
        first = first + squares / own + arcs.c * arcs.c * inverse
        second = arc + (2 * half / p - covariance * gap / both) / own
        pair = covariance * (2 / p + gap / both)
        second = second + pair * inverse + half / own**3
        cubes = 1 / (own * own) + 1 / (own * w) + 1 / (w * w)
        return first, second + covariance * inverse * cubes

    first1, second1 = gaps(std1, std2, arcs.arc1, gap)
    first2, second2 = gaps(std2, std1, arcs.arc2, -gap)
    turn = jnp.arctan2(arcs.c, arcs.sine)
    h = uneven + angle
    distance = h / 4 + (first1 + first2 + h * turn) / (2 * math.pi)
    slopes = (second1 + second2) / (2 * math.pi)
    big = sphere1.root**2 * sphere2.root**2
    state = covariance * turn + big * w + arcs.c**2 / w
    slope = turn + covariance * ((sphere1.rest + sphere2.rest) / w + 1 / w**3)
    near = arcs.e < 1
    return (
        moment_angle(
            distance, covariance / 4 + state / (2 * math.pi), near, sphere1.norm, sphere2.norm
        ),
        moment_angle(slopes, 1 / 4 + slope / (2 * math.pi), near, slope1, slope2),
    )
