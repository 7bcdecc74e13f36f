"""Activations that call themselves what they like: bounds go by what they carry, not by a name."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnntk
from rnntk import ElmanRNN, activations
from rnntk.activations import Activation

# An activation, and what it calls itself; each pair is compiled anew.
PAIRS = (
    ("relu", "erf"),
    ("erf", "relu"),
    ("cos", "erf"),
    ("tanh", "mine"),
)


@lru_cache
def scaled(base, factor, name):
    """factor times an activation by name, with right moments and nothing else, under any name."""
    phi = activations.resolve(base)

    def alone(a):
        own = phi.alone(a)
        return own._replace(variance=factor**2 * own.variance, slope=factor**2 * own.slope)

    def pair(one, two, angle):
        return tuple(factor**2 * moment for moment in phi.pair(one, two, angle))

    return Activation(name, lambda u: factor * phi.fn(u), alone, pair)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("base", "name"), PAIRS)
def test_bounds_hold_whatever_the_name(base, name):
    rnn = ElmanRNN(scaled(base, 0.1, name), w_std=0.9, u_std=0.8, b_std=0.2)
    for seed in range(4):
        x = np.random.default_rng(seed).standard_normal((4, 3, 3))
        smallest = float(np.linalg.eigvalsh(rnntk.infinite_kernel(rnn, x).ntk)[0])
        bounds = rnntk.bounds.min_eigenvalue(rnn, x)
        slack = 1e-12 * abs(smallest) + 1e-14
        for kind, value in bounds.lower.items():
            assert value <= smallest + slack, (kind, seed)
        for kind, value in bounds.upper.items():
            assert value >= smallest - slack, (kind, seed)


def test_a_foreign_erf_has_its_own_bounds():
    x = np.random.default_rng(0).standard_normal((4, 3, 3))
    with jax.enable_x64(True):
        smallest, bounds = {}, {}
        for name in ("erf", "other"):
            rnn = ElmanRNN(scaled("erf", 0.1, name))
            smallest[name] = float(np.linalg.eigvalsh(rnntk.infinite_kernel(rnn, x).ntk)[0])
            bounds[name] = rnntk.bounds.min_eigenvalue(rnn, x).lower["series"]
    assert bounds["erf"] == bounds["other"]
    assert 0 < bounds["erf"] < smallest["erf"]


@pytest.mark.parametrize("name", ["relu", "erf", "gelu"])
def test_a_foreign_activation_has_no_certificate(name):
    phi = scaled("tanh", 1.0, name)
    x = np.random.default_rng(0).standard_normal((2, 2, 2))
    with pytest.raises(ValueError, match=f"for proved enclosures, got '{name}'"):
        rnntk.spectrum.certify(ElmanRNN(phi), x)
    with pytest.raises(ValueError, match=f"for proved enclosures, got '{name}'"):
        rnntk.bounds.min_eigenvalue(ElmanRNN(phi), x, rigorous=True)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", activations.NAMES)
def test_what_a_name_carries_fits_its_function(name):
    phi = activations.resolve(name)
    a = np.array([0.3, 2.0])
    carried = phi.expansion(a, 24)
    found = activations.hermite.expand(phi.fn, a, 24)
    np.testing.assert_allclose(np.abs(carried.slopes), np.abs(found.slopes), atol=1e-11)
    np.testing.assert_allclose(np.abs(carried.mean), np.abs(found.mean), atol=1e-11)
    if phi.slopes:
        below, above = phi.slopes
        u = jnp.asarray([-2.0, 3.0])
        np.testing.assert_array_equal(phi.fn(u), [-2 * below, 3 * above])
    if phi.balls:
        flint = pytest.importorskip("flint")
        moments = phi.balls(flint)
        own = [[float(v.mid()) for v in moments.own(flint.arb(v))] for v in a]
        alone = phi.alone(jnp.asarray(a))
        np.testing.assert_allclose(own, np.stack([alone.variance, alone.slope], 1), rtol=1e-11)
        one, both = (phi.alone(jnp.asarray(a[i : i + 1])).marginal for i in (0, 1))
        covariance = 0.4
        angle = 2 * (np.sqrt(a[0] * a[1]) - covariance)
        angles = phi.angles(one, both, jnp.asarray([[angle]]))
        pair = [float(v.mid()) for v in moments.pair(*map(flint.arb, (*a, covariance)))]
        norms = np.sqrt(np.prod(own, axis=0))
        np.testing.assert_allclose(norms - np.ravel(angles) / 2, pair, rtol=1e-11, atol=1e-15)
