"""Elementwise helpers whose gradients are finite where a textbook formula's are not."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array


def safe_sqrt(v: Array) -> Array:
    """Square root with gradient 0, instead of infinity, at 0; negative rounding counts as 0."""
    zero = v <= 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, v)))


def safe_inverse(v: Array) -> Array:
    """1 / v, and 0 at 0."""
    zero = v <= 0
    return jnp.where(zero, 0, 1 / jnp.where(zero, 1, v))


def derivative(fn: Callable[[Array], Array], u: Array) -> Array:
    """Elementwise derivative, by reverse mode, which every JAX function has."""
    value, pull = jax.vjp(fn, u)
    return pull(jnp.ones_like(value))[0]
