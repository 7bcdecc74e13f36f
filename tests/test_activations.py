"""Closed forms against 60 digits: gelu, near-duplicates included."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from scipy import special

from rnntk import activations

GELU = activations.resolve("gelu")


@pytest.fixture(autouse=True)
def digits():
    with mpmath.workdps(60):
        yield


def gelu_moments(a, b, c):
    """E phi phi' and E of the derivatives' product, at variances a, b and covariance c."""
    p, q = 1 + a, 1 + b
    det = p * q - c * c
    scale = 1 / (2 * mpmath.pi * mpmath.sqrt(det))
    angle = mpmath.asin(c / mpmath.sqrt(p * q)) / (2 * mpmath.pi)
    product = scale * (a * b - c * c * (a * b - 1) / (p * q)) + c / 4 + c * angle
    slopes = mpmath.mpf(1) / 4 + angle + c * scale * (1 / p + 1 / q + 1 / det)
    return product, slopes


def test_the_formulas_by_quadrature():
    x, w = np.polynomial.hermite_e.hermegauss(120)
    w = w / w.sum()
    a, b, rho = 1.3, 0.7, -0.4
    u = np.sqrt(a) * x[:, None]
    v = np.sqrt(b) * (rho * x[:, None] + np.sqrt(1 - rho**2) * x)
    expected = gelu_moments(*(mpmath.mpf(m) for m in (a, b, rho * np.sqrt(a * b))))
    for fn, moment in zip((gelu, gelu_slope), expected, strict=True):
        assert abs(w @ (fn(u) * fn(v)) @ w - float(moment)) < 1e-15


def gelu(u):
    return u * special.ndtr(u)


def gelu_slope(u):
    return special.ndtr(u) + u * np.exp(-u * u / 2) / np.sqrt(2 * np.pi)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("a", [1e-6, 0.1, 1.0, 10.0, 1e3])
def test_gelu_keeps_the_digits_of_near_duplicates(a):
    others = np.array([a, a * (1 + 1e-9), a * 1.00001, a * 1.1, a * 3, 0.0])
    away = np.array([1e-12, 1e-8, 1e-4, 0.1, 1.0, 1.9])
    for b in others:
        h = (np.sqrt(a) - np.sqrt(b)) ** 2 + 2 * away * np.sqrt(a * b)
        h = np.where(h == 0, a * away, h)
        one = [v[:, None] for v in GELU.marginal(jnp.asarray([a]))]
        two = [v[None, :] for v in GELU.marginal(jnp.asarray([b]))]
        got = np.concatenate(GELU.pair(one, two, jnp.asarray(h[None])))
        exact_a, exact_b = mpmath.mpf(a), mpmath.mpf(b)
        own, other = (gelu_moments(v, v, v) for v in (exact_a, exact_b))
        for i, exact_h in enumerate(map(mpmath.mpf, h)):
            both = gelu_moments(exact_a, exact_b, (exact_a + exact_b - exact_h) / 2)
            for j in (0, 1):
                expected = float(own[j] + other[j] - 2 * both[j])
                # eps sqrt(a/h); at large variances the derivative's is the more sensitive
                rtol = 1e-14 * np.sqrt(max(a, b) / h[i]) * max(1, a)
                assert abs(got[j, i] - expected) <= rtol * expected


@pytest.mark.usefixtures("x64")
def test_gelu_of_one_sequence():
    a = np.array([0.0, 1e-9, 0.3, 5.0, 1e6])
    expected = np.array([[float(m) for m in gelu_moments(*[mpmath.mpf(v)] * 3)] for v in a])
    np.testing.assert_allclose(GELU.variance(jnp.asarray(a)), expected[:, 0], rtol=1e-15)
    np.testing.assert_allclose(GELU.slope(jnp.asarray(a)), expected[:, 1], rtol=1e-15)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", activations.NAMES)
def test_distances_of_duplicates_are_zero_and_gradients_finite(name):
    activation = activations.resolve(name)

    def total(a, h):
        one = jax.tree.map(lambda v: v[..., :, None], activation.marginal(a))
        two = jax.tree.map(lambda v: v[..., None, :], activation.marginal(a))
        return activation.pair(one, two, h)

    a = jnp.asarray([0.0, 1.0, 1.0])
    h = jnp.asarray([[0.0, 1, 1], [1, 0, 0], [1, 0, 0]])
    for distance in total(a, h):
        np.testing.assert_allclose(np.asarray(distance)[h == 0], 0, atol=1e-15)
    gradients = jax.jit(jax.grad(lambda a, h: sum(d.sum() for d in total(a, h)), (0, 1)))(a, h)
    # the derivative of a function with a kink has a distance like sqrt(h)
    assert all(np.isfinite(g).all() for g in gradients)
