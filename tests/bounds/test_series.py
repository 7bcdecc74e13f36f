"""The power series that bounds are made of."""

import math

import mpmath
import numpy as np
import pytest
from exact_moments import moments

from rnntk import ElmanRNN
from rnntk.bounds import power_series


@pytest.mark.parametrize("name", ["relu", "erf", "sin", "cos", "linear", "tanh"])
def test_series_sum_to_the_moments(name):
    activation = ElmanRNN(name).phi
    a, b, c = 0.7, 0.4, 0.3
    one = power_series.coefficients(activation, np.array([a, b]))
    r = c / math.sqrt(a * b)
    orders = np.arange(power_series.TERMS)
    slope = np.sum(one.slopes[:, 0] * one.slopes[:, 1] * r**orders)
    if name == "tanh":
        z, w = np.polynomial.hermite_e.hermegauss(120)
        w = w / w.sum()
        u = math.sqrt(a) * z[:, None]
        v = c / math.sqrt(a) * z[:, None] + math.sqrt(b - c * c / a) * z[None, :]
        expected = np.sum(w[:, None] * w[None, :] * np.cosh(u) ** -2.0 * np.cosh(v) ** -2.0)
        assert slope == pytest.approx(expected, rel=1e-9)  # of the quadrature
        return
    expected = moments(name, mpmath.mpf(a), mpmath.mpf(b), mpmath.mpf(c))[1]
    assert slope == pytest.approx(float(expected), rel=1e-13)
    variance = moments(name, mpmath.mpf(a), mpmath.mpf(a), mpmath.mpf(a))[0]
    below = float(one.squares[:, 0].sum())
    left = 2e-4 if name == "relu" else 1e-13  # what relu has beyond 256 terms
    assert float(variance) * (1 - left) <= below <= float(variance) * (1 + 1e-14)


@pytest.mark.parametrize("order", [7, 256, 300, 5001, 10**5])
def test_tails_stay_below_the_sums(order):
    one = power_series.coefficients(ElmanRNN("relu").phi, np.array([2.0]))
    slope, state = (float(v[0, 0]) for v in power_series.tails(one, np.array([float(order)])))

    def share(m):  # d_m^2 for odd m, of (2/pi) asin / 4
        central = mpmath.gamma(m / 2) / mpmath.sqrt(mpmath.pi) / mpmath.gamma((m + 1) / 2)
        return central / m / (2 * mpmath.pi)

    def tail(term, start):
        sum_of = mpmath.nsum(lambda j: term(start + 200 + 2 * j), [0, mpmath.inf], method="e")
        return mpmath.fsum(term(start + 2 * j) for j in range(100)) + sum_of

    exact = tail(share, order + 1 - order % 2)
    assert 0.7 * exact < slope < exact
    # c_(m+1)^2 = a d_m^2 / (m + 1), from m = order - 1 on
    exact = tail(lambda m: 2 * share(m) / (m + 1), order if order % 2 else order - 1)
    assert 0.7 * exact < state < exact
