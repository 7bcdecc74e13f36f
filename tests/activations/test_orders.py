"""The rules of few orders against (1 - z^2)^(-1/2) in 40 digits."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from rnntk.activations import orders


@pytest.mark.parametrize(
    ("rule", "value", "slope"), [(orders.DOUBLE, 5e-13, 6e-12), (orders.SINGLE, 3e-8, 4e-7)]
)
def test_rules_sum_the_series(rule, value, slope):
    x, w = rule.orders, rule.weights
    assert (w > 0).all()
    with mpmath.workdps(40):
        for T in 10.0 ** np.linspace(-12, 0.6, 80):
            square = mpmath.exp(-2 * mpmath.mpf(T))
            exact = 1 / mpmath.sqrt(1 - square)
            powers = w * np.exp(-x * T)
            # without order 0, which is exact and hides the others at large T
            assert abs(powers[1:].sum() / float(exact - 1) - 1) < value, T
            assert abs((x * powers).sum() / float(square * exact**3) - 1) < slope, T


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("rule", [orders.DOUBLE, orders.SINGLE])
def test_powers_and_what_they_lack(rule):
    lack = jnp.asarray([0.0, 1e-14, 1e-3, 0.4, 1.0])
    orders_above_0 = rule.orders[1 : rule.count(2)]
    assert rule.end(2) == rule.orders[rule.count(2)]
    for k, found in zip(orders_above_0, rule.lacks(lack, 2), strict=True):
        expected = [float(-mpmath.expm1(k * mpmath.log1p(-v))) for v in lack[:4].tolist()]
        np.testing.assert_allclose(found, [*expected, 1.0])
    for k, found in zip(orders_above_0, rule.powers(1 - lack, 2), strict=True):
        np.testing.assert_allclose(found, (1 - lack) ** k)


def test_rules_of_precisions():
    assert orders.rule(jnp.dtype(np.float64)) is orders.DOUBLE
    assert orders.rule(jax.numpy.ones(1, jnp.float32).dtype) is orders.SINGLE
