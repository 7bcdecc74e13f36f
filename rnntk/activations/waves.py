"""Sine and cosine: exponentials of the variances of u - u' and u + u'."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array

from rnntk.activations.activation import Activation, Alone, Ball, BallMoments, Expansion
from rnntk.activations.safe import safe_sqrt


def _sin_square(a: Array) -> Array:
    return -jnp.expm1(-2 * a) / 2


def _cos_square(a: Array) -> Array:
    return (1 + jnp.exp(-2 * a)) / 2


def _alone(cosine: bool, a: Array) -> Alone:
    sine2, cosine2 = _sin_square(a), _cos_square(a)
    marginal = safe_sqrt(a), jnp.exp(-a), safe_sqrt(sine2), jnp.sqrt(cosine2)
    return Alone(cosine2, sine2, marginal) if cosine else Alone(sine2, cosine2, marginal)


def _pair(
    cosine: bool, one: tuple[Array, ...], two: tuple[Array, ...], angle: Array
) -> tuple[Array, Array]:
    """The two waves are each other's derivatives up to sign.

    u - u' and u + u' have variances h and g; sin u - sin u' is twice a product of their
    half-angles' waves. E sin u sin u' = (exp(-h/2) - exp(-g/2))/2.
    """
    (std1, e1, sine1, cosine1), (std2, e2, sine2, cosine2) = one, two
    h = (std1 - std2) ** 2 + angle
    g = jnp.maximum((std1 + std2) ** 2 - angle, 0)
    apart, uneven = jnp.expm1(-h / 2), (e1 - e2) ** 2 / 2
    distance = -apart * (1 + jnp.exp(-g / 2)) - uneven
    of_cosines = apart * jnp.expm1(-g / 2) + uneven
    twice = std1 * std2 * 2 - angle  # twice the covariance
    near = twice > 0
    product = -jnp.exp(-jnp.minimum(h, g) / 2) * jnp.expm1(-jnp.abs(twice)) / 2
    product = jnp.where(near, product, -product)
    of_sines = _moment_angle(distance, product, near, sine1, sine2)
    # whose norms' ratio is below 2
    of_cosines = jnp.maximum(of_cosines - (cosine1 - cosine2) ** 2, 0)
    return (of_cosines, of_sines) if cosine else (of_sines, of_cosines)


def _moment_angle(
    distance: Array, product: Array, near: Array, norm1: Array, norm2: Array
) -> Array:
    """2 (norm norm' - E phi phi'), from E (phi - phi')^2 where that has more digits.

    It has between positively correlated values of similar norm.
    """
    near = near & (jnp.maximum(norm1, norm2) < 2 * jnp.minimum(norm1, norm2))
    apart = 2 * (norm1 * norm2 - product)
    angle = jnp.where(near, distance - (norm1 - norm2) ** 2, apart)
    return jnp.where(angle < 0, 0, angle)  # not jnp.maximum, which halves the gradient at 0


def _expansion(cosine: bool, a: np.ndarray, terms: int) -> Expansion:
    """Kd = exp(-(a + a')/2) times cosh (sine) or sinh (cosine) of the covariance."""
    table, k = np.zeros((terms, len(a))), np.arange(int(cosine), terms, 2)[:, None]
    log = (k * np.log(np.where(a > 0, a, 1.0)) - a - scipy.special.gammaln(k + 1)) / 2
    table[int(cosine) :: 2] = np.where(a > 0, np.exp(log), (k == 0) * 1.0)
    return Expansion(table, np.exp(-a / 2) if cosine else np.zeros_like(a))


def _balls(cosine: bool, flint: Any) -> BallMoments:
    def pair(a1: Ball, a2: Ball, c: Ball) -> tuple[Ball, Ball]:
        size = (-(a1 + a2) / 2).exp()
        sines, cosines = size * c.sinh(), size * c.cosh()
        return (cosines, sines) if cosine else (sines, cosines)

    return BallMoments(lambda a: pair(a, a, a), pair)


def _wave(name: str, fn: Callable[[Array], Array], cosine: bool) -> Activation:
    return Activation(
        name,
        fn,
        partial(_alone, cosine),
        partial(_pair, cosine),
        expansion=partial(_expansion, cosine),
        balls=partial(_balls, cosine),
        definition=name,
    )


SIN = _wave("sin", jnp.sin, cosine=False)
COS = _wave("cos", jnp.cos, cosine=True)
