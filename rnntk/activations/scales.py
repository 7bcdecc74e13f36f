"""Distributions of the scales s of mixed normal densities, and averages over them.

R_x(a) = sqrt(2/pi) A^(x/2) / sqrt(a + s^2), with A = a/(a + s^2), is what one scale contributes to
a Hermite coefficient of order x. Averages are sums over a few nodes: Gaussian quadrature in log s,
or the trapezoidal rule there, of functions that are analytic in a strip around the real axis.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Float

ROOT = math.sqrt(2 / math.pi)
Nodes = tuple[Float[np.ndarray, " _"], Float[np.ndarray, " _"]]


@dataclass(frozen=True, eq=False)
class Scales:
    """A distribution of s^2.

    Args:
        double: nodes s^2 and their probabilities for float64.
        single: likewise for float32.
    """

    double: Nodes
    single: Nodes

    def __call__(self, dtype: Any) -> Nodes:
        """Nodes s^2, and probabilities, for a precision."""
        return self.double if dtype == np.float64 else self.single

    def rows(self, x: np.ndarray, a: Any, gated: bool, xp: Any = jnp) -> Any:
        """E R_x at orders x, shape (orders, n); with ``gated`` E [R_x + (x + 1) (R_x - R_(x+2))].

        ``xp`` is the module of the array ``a``, jax.numpy or NumPy.
        """
        least = float(np.finfo(a.dtype).tiny) ** 0.4  # as good as 0, and its square has an inverse
        a = xp.where(a > least, a, least)[None]
        v, shares = (part.astype(a.dtype)[:, None] for part in self(a.dtype))
        parts = xp.log1p(v / a) / 2, shares / xp.sqrt(a + v), v / (a + v)
        if xp is jnp:  # else XLA computes them anew for each order
            parts = jax.lax.optimization_barrier(parts)
        x = xp.asarray(x.astype(a.dtype))[:, None]
        total = xp.zeros((1, 1), a.dtype)
        for log, share, rest in zip(*parts, strict=True):
            powers = share[None] * xp.exp(-x * log[None])
            total = total + (powers * (1 + (x + 1) * rest[None]) if gated else powers)
        return a.dtype.type(ROOT) * total


@dataclass(frozen=True, eq=False)
class Exponential(Scales):
    """s^2 exponential with mean 2; its small scales matter, and grow with the order."""

    def rows(self, x: np.ndarray, a: Any, gated: bool, xp: Any = jnp) -> Any:
        """With s^2 = a u the order and the variance part ways: a table times a matrix."""
        assert not gated
        u, table = _exponential_table(tuple(x.tolist()), _STEPS[a.dtype == np.float64])
        # Where E exp(-|u|) is 1 to rounding, and where A is: there rows fall like 1 / sqrt(a).
        inside = xp.clip(a, 1e-21, 1e21)
        half = xp.asarray((u / 2).astype(a.dtype))
        weights = xp.sqrt(inside)[None] * xp.exp(-half[:, None] * inside[None])
        table = xp.asarray(table.astype(a.dtype))
        exact = {} if xp is np else {"precision": jax.lax.Precision.HIGHEST}
        return xp.dot(table, weights, **exact) * xp.sqrt(inside / xp.maximum(a, inside))[None]


_STEPS = (0.55, 0.3)  # of trapezoidal sums in log s^2, float32 and float64: errors 1e-8 and 5e-15


@lru_cache
def _exponential_table(x: tuple[float, ...], step: float) -> tuple[np.ndarray, np.ndarray]:
    u = np.exp(np.arange(math.log(1e-30), math.log(1e23), step))
    powers = np.exp(-np.outer(np.array(x) + 1, np.log1p(u) / 2))
    return u, ROOT / 2 * step * powers * u


def single(square: float) -> Scales:
    """One scale."""
    nodes = np.array([square]), np.ones(1)
    return Scales(nodes, nodes)


def kolmogorov(factor: float) -> Scales:
    """``factor`` times a variable of Kolmogorov's distribution.

    A logistic variable is a normal one times twice this scale. The density is a theta series of
    which one form converges above 1, the other below.
    """
    step = 0.02
    s = np.exp(np.arange(math.log(0.06), math.log(8.0), step))
    j = np.arange(1, 20)[:, None]
    large = 8 * np.sum((-1.0) ** (j + 1) * j**2 * s * np.exp(-2 * (j * s) ** 2), axis=0)
    c = ((2 * j - 1) * math.pi) ** 2 / 8
    small = np.sum(np.exp(-c / s**2) * (2 * c / s**4 - 1 / s**2), axis=0)
    shares = step * s * np.where(s < 1, math.sqrt(2 * math.pi) * small, large)
    double, few = (_gauss(np.log(s), shares, count) for count in (18, 9))
    return Scales(
        ((factor * np.exp(double[0])) ** 2, double[1]), ((factor * np.exp(few[0])) ** 2, few[1])
    )


def _gauss(x: np.ndarray, weights: np.ndarray, count: int) -> Nodes:
    """Gaussian quadrature for a discrete measure, by Lanczos' process (Golub & Welsch 1969)."""
    basis, diagonal, side = [np.sqrt(weights / weights.sum())], [], []
    for _ in range(count):
        v = x * basis[-1]
        diagonal.append(v @ basis[-1])
        for _ in range(2):
            for u in basis:
                v = v - (v @ u) * u
        side.append(np.linalg.norm(v))
        basis.append(v / side[-1])
    nodes, vectors = scipy.linalg.eigh_tridiagonal(diagonal, side[:-1])
    return nodes, vectors[0] ** 2 * weights.sum()


def exponential() -> Exponential:
    """s^2 exponential with mean 2, so that E G_s = exp(-|u|)."""

    def nodes(step: float) -> Nodes:
        square = np.exp(np.arange(math.log(1e-18), math.log(90.0), step))
        return square, step * square / 2 * np.exp(-square / 2)

    few, many = (nodes(step) for step in _STEPS)
    return Exponential(many, few)
