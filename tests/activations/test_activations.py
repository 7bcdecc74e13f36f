"""Closed forms against 60 digits, near-duplicates and unequal norms included."""

from functools import partial

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


def erf_moments(a, b, c):
    p, q = 1 + 2 * a, 1 + 2 * b
    product = 2 / mpmath.pi * mpmath.asin(2 * c / mpmath.sqrt(p * q))
    return product, 4 / mpmath.pi / mpmath.sqrt(p * q - 4 * c * c)


def sin_moments(a, b, c):
    plus, minus = (mpmath.exp(sign * c - (a + b) / 2) / 2 for sign in (1, -1))
    return plus - minus, plus + minus


def relu_moments(a, b, c):
    size = mpmath.sqrt(a * b)
    theta = mpmath.acos(c / size)
    cov = size * (mpmath.sin(theta) + (mpmath.pi - theta) * mpmath.cos(theta)) / (2 * mpmath.pi)
    return cov, (mpmath.pi - theta) / (2 * mpmath.pi)


def abs_moments(a, b, c):
    size = mpmath.sqrt(a * b)
    turn = mpmath.asin(c / size)
    return 2 / mpmath.pi * (mpmath.sqrt(a * b - c * c) + c * turn), 2 / mpmath.pi * turn


EXACT = {
    "relu": relu_moments,
    "abs": abs_moments,
    "linear": lambda a, b, c: (c, mpmath.mpf(1)),
    "erf": erf_moments,
    "gelu": gelu_moments,
    "sin": sin_moments,
    "cos": lambda a, b, c: sin_moments(a, b, c)[::-1],
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("a", [1e-12, 1e-6, 1.0, 100.0, 1e6, 1e12])
@pytest.mark.parametrize("name", EXACT)
def test_angles_keep_the_digits_of_near_duplicates_and_of_unequal_norms(name, a):
    activation, exact = activations.resolve(name), EXACT[name]
    std1, std2 = np.sqrt(a), np.sqrt(a * np.array([1, 1e-3, 1e-12]))
    away = np.array([1e-14, 1e-6, 0.1, 1.9])[:, None]
    one, two = (
        activation.alone(jnp.asarray(v)).marginal for v in (np.atleast_1d(std1**2), std2**2)
    )
    got = jax.jit(activation.angles)(one, two, jnp.asarray(2 * away * std1 * std2))
    for i, j in np.ndindex(4, 3):
        v, w = mpmath.mpf(std1) ** 2, mpmath.mpf(std2[j]) ** 2
        angle = mpmath.mpf(float(2 * away[i, 0] * std1 * std2[j]))
        both = exact(v, w, mpmath.mpf(std1) * mpmath.mpf(std2[j]) - angle / 2)
        for k in (0, 1):
            norm = mpmath.sqrt(exact(v, v, v)[k] * exact(w, w, w)[k])
            expected = 2 * (norm - both[k])
            off = abs(mpmath.mpf(float(got[k][i, j])) - expected) / 2.2e-16
            # two dozen roundings; what sin and cos see is the variance's own error, times it
            few = 60 * (max(1, a) if name in ("sin", "cos") else 1)
            if name in ("erf", "gelu"):  # the error of the rule that stands for all orders
                few = 1e4
            assert off <= few * norm, (i, j, k)
            few *= 5  # that of the orders times their weights is larger
            if j == 0 and away[i, 0] < 1:
                assert off <= few * expected, (i, j, k)


@pytest.mark.usefixtures("x64")
def test_gelu_of_one_sequence():
    a = np.array([0.0, 1e-9, 0.3, 5.0, 1e6])
    expected = np.array([[float(m) for m in gelu_moments(*[mpmath.mpf(v)] * 3)] for v in a])
    np.testing.assert_allclose(GELU.variance(jnp.asarray(a)), expected[:, 0], rtol=1e-12)
    np.testing.assert_allclose(GELU.slope(jnp.asarray(a)), expected[:, 1], rtol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "name",
    [
        # by series, as tanh
        pytest.param(v, marks=pytest.mark.slow)
        if v in ("elu", "sigmoid", "softplus", "silu", "gelu")
        else v
        for v in activations.NAMES
    ],
)
def test_angles_of_duplicates_are_zero_and_gradients_finite(name):
    activation = activations.resolve(name)

    def total(a, angle):
        marginal = activation.alone(a).marginal
        return activation.angles(marginal, marginal, angle)

    @jax.jit
    @partial(jax.grad, argnums=(0, 1), has_aux=True)
    def both(a, angle):
        found = total(a, angle)
        return sum(angle.sum() for angle in found), found

    a, zero = jnp.asarray([0.0, 1.0, 1.0]), jnp.zeros((3, 3))
    gradients, angles = both(a, zero)
    same = np.equal.outer(np.asarray(a), np.asarray(a))
    for found in angles:
        np.testing.assert_allclose(np.asarray(found)[same], 0, atol=1e-15)
    # the derivative of a function with a kink has an angle like a root
    assert all(np.isfinite(g).all() for g in gradients)
