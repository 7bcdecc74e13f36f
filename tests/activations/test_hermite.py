"""Hermite series: closed forms, dense quadrature, near-duplicates, gradients, refusals."""

import json
import math
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from rnntk import ElmanRNN, activations, infinite_kernel

ORACLES = np.load(Path(__file__).parents[1] / "oracles" / "infinite_width.npz")
CONFIGS = json.loads(str(ORACLES["configs"]))
SMOOTH = {
    "tanh": (np.tanh, lambda u: 1 / np.cosh(u) ** 2),
    "sigmoid": (special.expit, lambda u: special.expit(u) * special.expit(-u)),
    "softplus": (lambda u: np.logaddexp(0, u), special.expit),
    "silu": (
        lambda u: u * special.expit(u),
        lambda u: special.expit(u) * (1 + u * special.expit(-u)),
    ),
    "elu": (
        lambda u: np.where(u > 0, u, np.expm1(np.minimum(u, 0))),
        lambda u: np.exp(np.minimum(u, 0)),
    ),
}
gauss = lru_cache(np.polynomial.legendre.leggauss)
VARIANCES = np.array([0.0, 0.1, 1.0, 10.0])


def moments(activation, a1, a2, away):
    """The moments' angles for all pairs of variances, at correlation 1 - away."""
    one, two = (activation.alone(jnp.asarray(a)).marginal for a in (a1, a2))
    angle = 2 * away * jnp.sqrt(jnp.asarray(a1))[:, None] * jnp.sqrt(jnp.asarray(a2))[None, :]
    return jax.jit(activation.angles)(one, two, angle)


def dense(fn, a1, a2, away):
    """E (fn(u) - fn(u'))^2 in polar coordinates, on rays and sectors that kinks at 0 delimit."""
    x, w = gauss(120)
    half = np.arcsin(np.sqrt(away / 2))
    angle = 2 * half  # u ~ cos(t), u' ~ cos(t - angle)
    edges = np.array([-0.5, 0.5, 1.5]) * np.pi
    edges = np.unique(np.concatenate([edges, edges + angle]))
    edges = edges[(edges >= -np.pi / 2) & (edges <= 1.5 * np.pi)]
    r, wr = 6.5 * (x + 1), 6.5 * w
    wr = wr * r * np.exp(-r * r / 2) / (2 * np.pi)
    total = 0.0
    for low, high in pairwise(edges):
        t = low + (high - low) * (x + 1) / 2
        one = fn(np.sqrt(a1) * r[:, None] * np.cos(t))
        two = fn(np.sqrt(a2) * r[:, None] * np.cos(t - angle))
        total += (high - low) / 2 * (wr[:, None] * (one - two) ** 2 * w).sum()
    return total


def square(fn, a):
    """E fn(u)^2."""
    x, w = gauss(400)
    z = np.concatenate([6.5 * (x - 1), 6.5 * (x + 1)])
    density = np.tile(6.5 * w, 2) * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)
    return density @ fn(np.sqrt(a) * z) ** 2


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "name",
    [
        "tanh",
        "elu",
        *(pytest.param(v, marks=pytest.mark.slow) for v in SMOOTH if v not in ("tanh", "elu")),
    ],
)
def test_moments_against_dense_quadrature(name):
    activation = activations.resolve(name)
    for away in (1e-6, 1e-3, 0.1, 1.7):
        got = moments(activation, VARIANCES, VARIANCES, away)
        for fn, values in zip(SMOOTH[name], got, strict=True):
            sizes = [square(fn, a) for a in VARIANCES]
            for i, j in zip(*np.triu_indices(len(VARIANCES)), strict=True):
                uneven = (np.sqrt(sizes[i]) - np.sqrt(sizes[j])) ** 2
                expected = dense(fn, VARIANCES[i], VARIANCES[j], away) - uneven
                off = abs(float(values[i, j]) - expected)
                assert off <= 1e-8 * (sizes[i] + sizes[j])
                if away < 0.01 and i == j:  # near-duplicates keep their digits
                    assert off <= 2e-6 * expected + 1e-22


def mixed(fn, a1, a2, cov):
    """E fn(u) fn(u') in polar coordinates; the angle's trapezoidal rule is exact to roundoff.

    tanh of 13 standard deviations at variance 10 has poles 0.04 from the real angles, where 1200
    points leave exp(-0.04 1200).
    """
    x, w = gauss(24)
    left = 0.5 * np.arange(26)[:, None]
    r, wr = (left + (x + 1) / 4).ravel(), np.tile(w / 4, 26)
    wr = wr * r * np.exp(-r * r / 2)
    t = 2 * np.pi * np.arange(1200) / 1200
    angle = np.arccos(np.clip(cov / np.sqrt(a1 * a2), -1, 1))
    one = fn(np.sqrt(a1) * r[:, None] * np.cos(t))
    two = fn(np.sqrt(a2) * r[:, None] * np.cos(t - angle))
    return wr @ (one * two).mean(axis=1)


def quadrature_kernel(rnn, fn, slope, x):
    """NTK and NNGP of the last step from the definition, pair by pair, step by step."""
    w2, u2, b2, v2 = (s**2 for s in (rnn.w_std, rnn.u_std, rnn.b_std, rnn.v_std))
    n, t, _ = x.shape
    cov, back = np.zeros((2, n, n))
    for s in range(t):
        pre = w2 * cov + u2 * x[:, s] @ x[:, s].T + b2
        tangent = pre + w2 * back
        for i, j in zip(*np.triu_indices(n), strict=True):
            where = pre[i, i], pre[j, j], pre[i, j]
            cov[i, j] = cov[j, i] = mixed(fn, *where)
            back[i, j] = back[j, i] = mixed(slope, *where) * tangent[i, j]
    return v2 * (cov + back), v2 * cov


GELU = (
    lambda u: u * special.ndtr(u),
    lambda u: special.ndtr(u) + u * np.exp(-u * u / 2) / np.sqrt(2 * np.pi),
)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "name",
    ["tanh", *(pytest.param(v, marks=pytest.mark.slow) for v in ("gelu", "softplus", "silu"))],
)
def test_kernels_against_dense_quadrature(name):
    x = 0.5 * np.random.default_rng(3).standard_normal((3, 3, 2))
    rnn = ElmanRNN(name, w_std=0.99, u_std=1.37, b_std=0.3, v_std=0.86)
    fn, slope = GELU if name == "gelu" else SMOOTH[name]
    kernel = infinite_kernel(rnn, x)
    for got, expected in zip(kernel, quadrature_kernel(rnn, fn, slope, x), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-8)


CLOSED = {
    "sin": lambda u: jnp.sin(u),
    "erf": lambda u: jax.scipy.special.erf(u),
    "gelu": lambda u: jax.nn.gelu(u, approximate=False),
    "linear": lambda u: u,
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "name",
    [pytest.param(v, marks=pytest.mark.slow) if v in ("gelu", "erf") else v for v in CLOSED],
)
def test_functions_of_which_closed_forms_are_known(name):
    series, closed = activations.resolve(CLOSED[name]), activations.resolve(name)
    a = jnp.asarray([1e-3, 0.5, 0.5 * (1 + 1e-7), 3.0, 9.0])
    np.testing.assert_allclose(series.variance(a), closed.variance(a), rtol=1e-11)
    np.testing.assert_allclose(series.slope(a), closed.slope(a), rtol=2e-9)
    sizes = [np.sqrt(np.outer(v, v)) for v in (closed.variance(a), closed.slope(a))]
    apart = 1 - np.eye(len(a))  # there closed forms are differences of numbers of that size
    for away in (1e-12, 1e-6, 0.3, 1.5):
        both = zip(moments(series, a, a, away), moments(closed, a, a, away), sizes, strict=True)
        for got, expected, size in both:
            bound = 1e-8 * np.abs(expected) + 1e-14 * apart * size + 1e-24
            assert (np.abs(got - expected) <= bound).all()


def my_tanh(u):
    return jnp.tanh(u)


@pytest.mark.usefixtures("x64")
def test_large_variances_of_functions_need_a_tolerance():
    wide = np.array([1.0, 100.0])
    with pytest.raises(ValueError, match=r"my_tanh at variance 100 .*tolerance=") as error:
        activations.check_accuracy(activations.resolve(my_tanh), wide)
    sufficient = float(str(error.value).partition("tolerance=")[2].partition(")")[0])
    loose = activations.from_function(my_tanh, tolerance=sufficient)
    with pytest.warns(UserWarning, match=r"my_tanh at variance 100 .* which tolerance=.* accepts"):
        activations.check_accuracy(loose, wide)
    x = np.random.default_rng(0).standard_normal((3, 3, 4))
    x *= 6 / np.linalg.norm(x, axis=2, keepdims=True)  # variances of 72 to 74
    with pytest.warns(UserWarning, match="estimated relative error of") as told:
        got = infinite_kernel(ElmanRNN(loose), x).ntk
    assert len(told) == 1
    exact = infinite_kernel(ElmanRNN("tanh"), x).ntk
    error = loose.error(np.array([100.0]))[0]
    assert 1e-8 < error < sufficient
    off = np.abs(got - exact).max() / np.abs(exact).max()
    assert 1e-9 < off < 10 * error  # it is an estimate for a step, of which there are three


@pytest.mark.parametrize("tolerance", [0.0, 1.0, -1e-3, float("nan")])
def test_bad_tolerances(tolerance):
    with pytest.raises(ValueError, match="tolerance must lie between 0 and 1, got"):
        activations.from_function(my_tanh, tolerance=tolerance)


def test_kinks_are_accepted_with_a_tolerance():
    def hat(u):
        return jnp.maximum(u, -0.5)

    with pytest.raises(ValueError, match=r"hat must be smooth.*from_function\(fn, tolerance="):
        activations.from_function(hat)
    assert activations.from_function(hat, tolerance=0.05).name == "hat"


@pytest.mark.parametrize(
    "name", ["tanh", *(pytest.param(v, marks=pytest.mark.slow) for v in SMOOTH if v != "tanh")]
)
def test_single_precision(name):
    a, activation = np.array([0.0, 0.1, 2.0, 10.0], np.float32), activations.resolve(name)
    got = moments(activation, a, a, 0.2)
    assert all(v.dtype == jnp.float32 for v in got)
    with jax.enable_x64(True):
        expected = moments(activation, a.astype(float), a.astype(float), 0.2)
        sizes = activation.variance(jnp.asarray(a, float)), activation.slope(jnp.asarray(a, float))
    for values, wanted, size in zip(got, expected, sizes, strict=True):
        error = np.abs(np.asarray(values, float) - np.asarray(wanted))
        assert (error <= 1e-5 * np.add.outer(size, size)).all()


@pytest.mark.usefixtures("x64")
@pytest.mark.slow
@pytest.mark.parametrize("name", ["tanh", "elu"])
def test_gradient_with_respect_to_the_angle(name):
    # Price's theorem: the derivative of E phi phi' by the covariance is E of the derivatives'
    activation = activations.resolve(name)
    a = jnp.asarray([0.7, 2.0])
    norms = jnp.sqrt(jnp.outer(activation.slope(a), activation.slope(a)))

    @jax.jit
    @partial(jax.grad, has_aux=True)
    def both(away):
        state, slope = moments(activation, a, a, away)
        return state.sum(), slope

    for away in (0.0, 0.3):
        got, slope = both(away)
        slopes = norms - slope / 2
        expected = (2 * jnp.sqrt(jnp.outer(a, a)) * slopes).sum()
        np.testing.assert_allclose(got, expected, rtol=1e-8)


def test_one_function_is_one_activation():
    assert activations.resolve(jnp.arctan) is activations.resolve(jnp.arctan)
    assert ElmanRNN(jnp.arctan).phi.name == "arctan"


@pytest.mark.usefixtures("x64")
def test_user_function_gives_the_named_kernel():
    x = np.random.default_rng(0).standard_normal((4, 3, 2))
    one, other = (infinite_kernel(ElmanRNN(fn), x).ntk for fn in (lambda u: jnp.tanh(u), "tanh"))
    np.testing.assert_allclose(one, other, rtol=1e-8)


def test_functions_of_jax_are_the_named_activations():
    for name in ("relu", "elu", "silu", "sigmoid", "softplus", "tanh"):
        assert activations.resolve(getattr(jax.nn, name)) is activations.resolve(name)
    for name in ("abs", "sin", "cos", "tanh"):
        for module in (jnp, jax.lax):
            assert activations.resolve(getattr(module, name)) is activations.resolve(name)
    assert activations.resolve(jax.lax.logistic).name == "sigmoid"
    assert activations.resolve(jax.scipy.special.erf).name == "erf"
    assert activations.resolve(jax.nn.leaky_relu) is activations.leaky_relu(0.01)
    assert activations.resolve(jax.nn.gelu).name == "gelu"
    assert activations.resolve(jax.nn.gelu) is not activations.resolve("gelu")  # by a tanh


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("fn", "name"),
    [
        (jax.nn.selu, "selu"),
        (jax.nn.hard_tanh, "hard_tanh"),
        (jax.nn.hard_sigmoid, "hard_sigmoid"),
        (jnp.sign, "sign"),
        (jnp.round, "round"),
        (lambda u: jnp.maximum(u, 0), "<lambda>"),
        (partial(jax.nn.leaky_relu, negative_slope=0.3), "leaky_relu"),
    ],
)
def test_kinks_and_jumps_are_refused_at_construction(fn, name):
    message = f"activation {name} must be smooth.*'relu', 'abs' and 'elu' and .*leaky_relu"
    with pytest.raises(ValueError, match=message):
        ElmanRNN(fn)
    with pytest.raises(ValueError, match=message):  # where nothing else could notice
        jax.vmap(lambda w_std: ElmanRNN(fn, w_std).w_std)(jnp.ones(2))


def test_smoothness_is_asked_for_in_the_precision_in_use():
    def smooth_enough(u):  # 4e-6 off at variance 1: enough in float32
        return jax.nn.elu(u)

    assert ElmanRNN(smooth_enough).phi.name == "smooth_enough"
    with jax.enable_x64(True), pytest.raises(ValueError, match="smooth_enough must be smooth"):
        ElmanRNN(smooth_enough)


class Unhashable:
    def __call__(self, u):
        return jnp.tanh(u)

    def __eq__(self, other):
        return True


def repeated(u):
    return jax.lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, jnp.tanh(s[1])), (0, u))[1]


@pytest.mark.parametrize(
    ("fn", "error", "message"),
    [
        (jax.nn.softmax, ValueError, "softmax must be elementwise, but an output depends on other"),
        (lambda u: u.sum(), ValueError, r"elementwise, but maps shape \(\d+,\) to \(\)"),
        (jnp.log, ValueError, "log must be finite, got the value nan at -38"),
        (lambda u: jnp.sqrt(jnp.abs(u)), ValueError, "finite, got the derivative"),
        (lambda u: u > 0, TypeError, "real numbers of its argument's dtype, got bool"),
        (
            lambda u: jax.lax.complex(u, u),
            TypeError,
            "real numbers of its argument's dtype, got complex128",
        ),
        (lambda u: np.tanh(np.asarray(u)), TypeError, r"on JAX arrays \(jax.numpy, not numpy\)"),
        (lambda u: None, TypeError, "got NoneType"),
        (np.tanh, TypeError, r"activation tanh must .* on JAX arrays \(jax.numpy, not numpy\)"),
        (math.tanh, TypeError, r"activation tanh must .* on JAX arrays .* TypeError: Only"),
        (int, TypeError, "activation int must .* on JAX arrays"),
        (lambda u: u if u > 0 else 0 * u, TypeError, "on JAX arrays .* truth value|boolean"),
        (lambda: 0, TypeError, "on JAX arrays .* takes 0 positional arguments"),
        (jax.nn.glu, TypeError, "activation glu must .* on JAX arrays .* divisible by 2"),
        (repeated, TypeError, "activation repeated must be an elementwise, diff.*while_loop"),
        (Unhashable(), TypeError, "activation must be hashable, got .*Unhashable"),
        (
            lambda u: jnp.log(1 + jnp.exp(3 * u)) / 3,
            ValueError,
            r"must be finite, got the value inf at 29\.\d+ in float32",
        ),
        (
            lambda u: jnp.where(jnp.abs(u - 1.5) < 0.01, jnp.nan, u),
            ValueError,
            r"must be finite, got the value nan at 1\.49",
        ),
        ("leaky_relu", ValueError, r"rnntk\.activations\.leaky_relu\(slope\)"),
    ],
)
def test_bad_functions(fn, error, message):
    with pytest.raises(error, match=message):
        ElmanRNN(fn)
