"""Moments of tanh, sigmoid, softplus, silu and elu at all variances, against quadrature."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from rnntk import ElmanRNN, activations, empirical_kernel, infinite_kernel
from rnntk.activations import arcs

FOLDER = Path(__file__).parents[1] / "oracles"
ORACLE = np.load(FOLDER / "moments.npz")
NAMES = ORACLE["names"].tolist()
CASES = list(zip(ORACLE["variances"], ORACLE["away"], strict=True))


def found(name, dtype):
    """By case: E phi^2 and E phi'^2 of both sequences, and the angles, in float64."""
    activation = activations.resolve(name)

    @jax.jit
    def both(a, b, angle):
        one, two = activation.alone(a[None]), activation.alone(b[None])
        own = [[side.variance[0], side.slope[0]] for side in (one, two)]
        angles = activation.angles(one.marginal, two.marginal, angle[None, None])
        return jnp.asarray(own), jnp.stack(angles)[:, 0, 0]

    with jax.enable_x64(dtype == np.float64):
        for (a, b), away in CASES:
            angle = 2 * away * np.sqrt(a) * np.sqrt(b)
            result = both(*(jnp.asarray(v, dtype) for v in (a, b, angle)))
            yield tuple(np.asarray(v, np.float64) for v in result)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("dtype", "limit"), [(np.float64, 3e-12), (np.float32, 3e-6)])
def test_moments_at_all_variances(name, dtype, limit):
    i = NAMES.index(name)
    for k, (own, angles) in enumerate(found(name, dtype)):
        (a, b), away = CASES[k]
        exact = ORACLE["own"][k, :, i]
        assert (np.abs(own - exact) <= limit * exact).all(), (a, b)
        norms = np.sqrt(exact[0] * exact[1])
        products = ORACLE["products"][k, i]
        off = np.abs(np.sqrt(own[0] * own[1]) - angles / 2 - products)
        assert (off <= limit * norms).all(), (a, b, away, off / norms)


@pytest.mark.parametrize("name", NAMES)
def test_angles_keep_the_digits_of_near_duplicates(name):
    i = NAMES.index(name)
    for k, (_, angles) in enumerate(found(name, np.float64)):
        (a, b), away = CASES[k]
        if a != b:
            continue
        squares = ORACLE["squares"][k, i]  # which angles are, for equal variances
        loose = 1e-10
        if name == "elu":  # whose kink has orders beyond the highest that are summed
            loose = 1e-3 if away < 1e-10 or a < 1e-10 else 1e-8
        # and the oracle's 80 bits lose those in which u and u' agree
        noise = 1e-18 * np.sqrt(squares * ORACLE["own"][k, 0, i])
        assert (np.abs(angles - squares) <= loose * squares + noise).all(), (a, away)


@pytest.mark.slow
def test_the_oracle_by_other_quadrature():
    """A few of its entries with tanh-sinh quadrature over the plane, by another program."""
    sys.path.insert(0, str(FOLDER))
    tanh, elu = mpmath.tanh, lambda u: u if u > 0 else mpmath.expm1(u)
    with mpmath.workdps(20):
        for name, f, a, away in (("tanh", tanh, 1.0, 0.5), ("elu", elu, 30.0, 1.0)):
            rho = 1 - mpmath.mpf(away)
            rest = mpmath.sqrt(1 - rho * rho)

            def inner(z, f=f, a=a, rho=rho, rest=rest):
                at = [-9, -rho * z / rest, 9] if abs(rho * z / rest) < 9 else [-9, 0, 9]
                root = mpmath.sqrt(a)
                return (
                    mpmath.npdf(z)
                    * f(root * z)
                    * mpmath.quad(
                        lambda y: mpmath.npdf(y) * f(root * (rho * z + rest * y)), at, maxdegree=5
                    )
                )

            expected = mpmath.quad(inner, [-9, 0, 9], maxdegree=5)
            k = next(i for i, (v, w) in enumerate(CASES) if v[0] == v[1] == a and w == away)
            assert abs(ORACLE["products"][k, NAMES.index(name), 0] - expected) < 1e-13 * a


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", activations.NAMES)
def test_default_networks_on_normal_tokens(name):
    x = np.random.default_rng(0).standard_normal((6, 8, 4))
    kernel = infinite_kernel(ElmanRNN(name), x)
    assert np.isfinite(kernel.ntk).all()
    assert np.linalg.eigvalsh(kernel.ntk)[0] > 0


@pytest.mark.parametrize(
    "name",
    [
        "tanh",
        *(pytest.param(v, marks=pytest.mark.slow) for v in ("sigmoid", "softplus", "silu", "elu")),
    ],
)
def test_wide_networks_at_large_variance(name):
    """Mean of finite kernels, 4 standard errors; variances are 100 and more from the first step."""
    rnn = ElmanRNN(name, w_std=1.5, u_std=6.0, b_std=2.0)
    x = np.random.default_rng(1).standard_normal((3, 3, 4)).astype(np.float32)
    exact = np.asarray(infinite_kernel(rnn, x).ntk)
    kernels = [
        np.asarray(
            empirical_kernel(rnn, rnn.init(jax.random.key(i), input_dim=4, width=1024), x).ntk
        )
        for i in range(24)
    ]
    mean, error = np.mean(kernels, axis=0), np.std(kernels, axis=0, ddof=1) / np.sqrt(24)
    assert (error < 0.05 * np.sqrt(np.outer(np.diagonal(exact), np.diagonal(exact)))).all()
    assert (np.abs(mean - exact) < 4 * error).all()


def sign_moments(a, b, rho):
    """Of sgn(u), and of what is left of a smooth step's slope between unequal inputs."""
    size = mpmath.sqrt(a * b * (1 - rho * rho))
    return 2 / mpmath.pi * mpmath.asin(rho), 2 / mpmath.pi / size


def relu_moments(a, b, rho):
    angle = mpmath.acos(rho)
    size = mpmath.sqrt(a * b) / (2 * mpmath.pi)
    cov = size * (mpmath.sin(angle) + (mpmath.pi - angle) * rho)
    return cov, (mpmath.pi - angle) / (2 * mpmath.pi)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((n, np.float64) for n in ("tanh", "erf", "sigmoid", "softplus", "silu", "gelu", "elu")),
        *((n, np.float32) for n in ("tanh", "erf", "silu", "gelu")),
        # by series, as tanh and silu
        *(pytest.param(n, np.float32, marks=pytest.mark.slow)
          for n in ("sigmoid", "softplus", "elu")),
    ],
)  # fmt: skip
def test_variances_without_end(name, dtype):
    """From 1e18 on, smooth steps and smooth kinks are sharp to 1e-9."""
    activation = activations.resolve(name)
    activations.check_accuracy(activation, np.array([1.0, 1e36], dtype))
    saturates = name in ("tanh", "erf", "sigmoid")
    with jax.enable_x64(dtype == np.float64):
        a, b = (np.array(v, dtype) for v in ([1e18, 1e24, 1e36], [1e18, 3e20, 1e36]))
        one, two = (jax.jit(activation.alone)(jnp.asarray(v)) for v in (a, b))
        norms = [np.outer(np.sqrt(one[k]), np.sqrt(two[k])) for k in (0, 1)]
        angles = jax.jit(activation.angles)
        for away in (0.1, 0.7, 1.6):
            angle = 2 * away * np.outer(np.sqrt(a), np.sqrt(b))
            got = angles(one.marginal, two.marginal, jnp.asarray(angle, dtype))
            for i, j in np.ndindex(len(a), len(b)):
                rho = 1 - mpmath.mpf(away)
                moments = sign_moments if saturates else relu_moments
                exact = [float(v) for v in moments(mpmath.mpf(float(a[i])), float(b[j]), rho)]
                if name == "sigmoid":
                    exact = [0.25 + exact[0] / 4, exact[1] / 4]
                for k in (0, 1):
                    found = float(norms[k][i, j]) - float(got[k][i, j]) / 2
                    loose = 3e-9 if dtype == np.float64 else 3e-6
                    assert abs(found - exact[k]) <= loose * norms[k][i, j], (i, j, k, away)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["tanh", "sigmoid", "erf"])
def test_rules_agree_with_sums_over_pairs_of_scales(name):
    """Two calculations that share the mixture only, at variances that both can do."""
    mixture = activations.resolve(name).pair.__self__
    a = jnp.asarray([1e-6, 1.0, 2.0, 1e4, 1e12])
    own = jax.jit(mixture.alone)(a)
    one, two = (
        jax.tree.map(lambda v, at=at: jnp.expand_dims(v, at), own.marginal) for at in (-1, -2)
    )
    state, slope = arcs.own(mixture.scales, np.asarray(a))
    mean = 0.5 if name == "sigmoid" else 0.0
    np.testing.assert_allclose(own.variance, mean**2 + mixture.f**2 * state, rtol=1e-12)
    np.testing.assert_allclose(own.slope, mixture.f**2 * slope, rtol=1e-12)
    for away in (1e-12, 1e-3, 0.4, 1.7):
        e = jnp.full((len(a), len(a)), away)
        ways = (jax.jit(way)(one, two, e) for way in (mixture._sums._close, mixture._by_scales))
        for k, (rule, closed) in enumerate(zip(*((v.real, v.imag) for v in ways), strict=True)):
            assert (np.abs(rule - closed) <= 1e-12).all(), (away, k)
            same = np.diagonal(rule) / np.diagonal(closed) - 1
            assert (np.abs(same) <= 1e-10).all(), (away, k)
