"""Function classes: against loops over their definition, series against functions, refusals."""

import math

import jax
import mpmath
import numpy as np
import pytest

from rnntk import datasets
from rnntk.concepts import CONSTANT, NAMES, Additive, NVariable, PerToken, polynomial
from rnntk.concepts.complexity import complexity
from rnntk.concepts.scalar_functions import resolve

KEY = jax.random.key(3)
X = datasets.unit_tokens(jax.random.key(0), 3, 4, 2)
FUNCTIONS = {"sin": math.sin, "exp": math.exp, "relu": lambda z: max(z, 0), "abs": abs}


@pytest.mark.parametrize("f", FUNCTIONS)
def test_targets_are_their_definition(f):
    value = FUNCTIONS[f]
    additive = Additive.draw(KEY, 4, 2, f)
    joint = NVariable.draw(KEY, 4, 2, (4, 1), f)
    per_token = PerToken.draw(KEY, 4, 2, f, units=3)
    for i, x in enumerate(X):
        wanted = sum(value(float(additive.betas[s] @ x[s])) for s in range(4))
        assert additive(X)[i] == pytest.approx(wanted, rel=1e-14)
        stacked = joint.betas.ravel() @ np.concatenate([x[3], x[0]])
        assert joint(X)[i] == pytest.approx(value(float(stacked)), rel=1e-14)
        for j in range(4):
            wanted = sum(
                value(float(per_token.betas[j, s, r] @ x[s])) for s in range(j) for r in range(3)
            )
            assert per_token(X)[i, j, 0] == pytest.approx(wanted, rel=1e-13)


def test_draws_repeat_by_their_key_and_have_the_norm():
    one, two = (Additive.draw(KEY, 5, 3, norm=2.0) for _ in range(2))
    np.testing.assert_array_equal(one.betas, two.betas)
    np.testing.assert_allclose(np.linalg.norm(one.betas, axis=1), 2, rtol=1e-14)
    assert not np.array_equal(one.betas, Additive.draw(jax.random.key(4), 5, 3, norm=2.0).betas)
    joint = NVariable.draw(KEY, 5, 3, (1, 3, 5), norm=2.0)
    assert np.linalg.norm(joint.betas) == pytest.approx(2 * math.sqrt(3), rel=1e-14)
    assert joint.span == 4


@pytest.mark.parametrize("name", [name for name in NAMES if resolve(name).smooth])
def test_series_are_those_of_the_functions(name):
    f = resolve(name)
    z = np.linspace(-0.7, 0.7, 9)
    np.testing.assert_allclose(
        np.polynomial.polynomial.polyval(z, f.coefficients), f.value(z), rtol=1e-12, atol=1e-15
    )
    if f.log_sizes is not None:
        found = np.exp(f.log_sizes(np.arange(len(f.coefficients))))
        np.testing.assert_allclose(np.abs(f.coefficients), found, rtol=1e-12)


def test_formulas():
    assert str(Additive("square", np.ones((3, 2)))) == "y = sum_{l=1..3} (b_l' x_l)^2"
    assert str(NVariable("sin", (1, 3), np.ones((2, 2)), 3)) == "y = sin(b' [x_1, x_3])"
    assert polynomial([1.0, -1.0, 0.0, 2.5]).formula == "1 - (z) + 2.5 (z)^3"


def summed(term, start=0):
    """A series in 30 digits, by terms until they no longer count."""
    total, i, last = mpmath.mpf(0), start, None
    while last is None or last > total * mpmath.mpf(10) ** -25 or i < 20:
        last = term(i)
        total += last
        i += 1
    return total


@pytest.mark.parametrize("size", [0.5, 1.0])
def test_complexity_of_exp_is_the_sum(size):
    eps = 0.01
    with mpmath.workdps(30):
        samples = CONSTANT * summed(
            lambda i: (i + 1) ** mpmath.mpf("1.75") * mpmath.mpf(size) ** i / mpmath.factorial(i)
        )
        first = mpmath.exp(mpmath.mpf(CONSTANT) * size)
        reach = mpmath.sqrt(mpmath.log(1 / mpmath.mpf(eps))) * CONSTANT * size
        second = 1 + mpmath.nsum(
            lambda i: mpmath.exp(
                i * mpmath.log(reach) - i * mpmath.log(i) / 2 - mpmath.loggamma(i + 1)
            ),
            [1, 6000],
            method="direct",
        )
        width = mpmath.log10(first + second)
    found = complexity(resolve("exp"), size, eps)
    assert found.samples == pytest.approx(float(samples), rel=1e-12)
    assert found.log10_width == pytest.approx(float(width), rel=1e-12)


def test_complexity_of_polynomials_and_of_finite_radius():
    found = Additive("square", np.array([[0.0, 2.0], [1.0, 0.0]])).complexity(math.exp(-8))
    assert found.samples == pytest.approx(CONSTANT * 3**1.75 * 4, rel=1e-14)
    reach = 2 * CONSTANT
    # at i = 2 the second term is (sqrt(8 / 2) C R)^2
    assert found.log10_width == pytest.approx(math.log10(5 * reach**2), rel=1e-14)
    tanh = complexity(resolve("tanh"), 1.0, 0.1)
    assert math.isinf(tanh.log10_width)
    with mpmath.workdps(30):
        series = mpmath.taylor(mpmath.tanh, 0, 121)
        wanted = CONSTANT * sum(abs(c) * (i + 1) ** 1.75 for i, c in enumerate(series))
    # what 121 terms leave out is (2 / pi)^122
    assert tanh.samples == pytest.approx(float(wanted), rel=1e-12)
    assert math.isinf(complexity(resolve("tanh"), 1.6, 0.1).samples)
    together = NVariable("sin", (1, 2), np.array([[3.0, 4.0], [0.0, 1.0]]), 2).complexity()
    assert together == complexity(resolve("sin"), 6.0, 0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Additive("cosh", np.ones((3, 2))), "f must be one of .* got 'cosh'"),
        (lambda: Additive("sin", np.ones(3)), r"betas must have shape \(L, d\), got \(3,\)"),
        (lambda: Additive("sin", np.full((3, 2), np.nan)), "betas must be finite"),
        (lambda: PerToken("sin", np.ones((3, 2, 1, 2))), r"betas must have shape \(L, L, p, d\)"),
        (
            lambda: NVariable("sin", (0, 1), np.ones((2, 2)), 3),
            r"positions .* 1\.\.3, got 0",
        ),
        (lambda: NVariable("sin", (4,), np.ones((1, 2)), 3), r"positions .* 1\.\.3, got 4"),
        (lambda: NVariable("sin", (2, 2), np.ones((2, 2)), 3), r"all be different, got \(2, 2\)"),
        (lambda: NVariable("sin", (), np.ones((0, 2)), 3), "at least one position, got none"),
        (lambda: NVariable("sin", (1, 2), np.ones((3, 2)), 3), "row for each of the 2 positions"),
        (lambda: NVariable.draw(KEY, 3, 2, (1, 5)), r"positions must be .* 1\.\.3, got 5"),
        (lambda: Additive.draw(KEY, 3, 2, norm=0.0), "norm must be positive and finite, got 0"),
        (lambda: Additive.draw(KEY, 0, 2), "length must be a whole number of at least 1, got 0"),
        (
            lambda: Additive.draw(KEY, 5, 2)(X),
            "x must hold sequences of 5 tokens of size 2, as the Additive concept does, got 4 "
            "tokens of size 2",
        ),
        (lambda: PerToken.draw(KEY, 4, 3)(X), "tokens of size 3, as the PerToken .* of size 2"),
        (lambda: Additive("relu", np.ones((3, 2))).complexity(), "f must have a power series"),
        (lambda: Additive("sin", np.ones((3, 2))).complexity(1.0), "eps must lie between 0 and 1"),
        (lambda: Additive([1, 2], np.ones((3, 2))), r"f must be one of .* got \[1, 2\]"),
        (lambda: Additive(math.sin, np.ones((3, 2))), "f must be one of .* or a ScalarFunction"),
        (
            lambda: Additive("sin", np.zeros((3, 2))).complexity(),
            "betas must have a positive finite norm for complexities, got 0",
        ),
        (lambda: polynomial([0.0]), "coefficients must be finite numbers, not all zero"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_refuses_a_position_alone():
    with pytest.raises(TypeError, match="positions must be a sequence of whole numbers, got 3"):
        NVariable("sin", 3, np.ones((1, 2)), 3)


def test_normalized_tokens_are_those_of_the_paper():
    x = datasets.with_fixed_tokens(X, 0.25)
    assert x.shape == (3, 6, 3)
    np.testing.assert_array_equal(x[:, [0, 5]], np.broadcast_to([0.0, 0.0, 1.0], (3, 2, 3)))
    np.testing.assert_array_equal(x[:, 1:5, :2], 0.25 * X)
    np.testing.assert_array_equal(x[:, 1:5, 2], 0)
    with pytest.raises(ValueError, match="eps must be finite and not negative, got -1"):
        datasets.with_fixed_tokens(X, -1)


def test_gaussian_tokens_have_the_covariance_of_an_autoregression():
    n, rho = 20_000, -0.6
    x = datasets.gaussian_tokens(KEY, n, 4, 2, time_correlation=rho)
    for s in range(4):
        for t in range(4):
            product = (x[:, s] * x[:, t]).sum(axis=1)
            # four standard errors of a mean over n
            assert abs(product.mean() - rho ** abs(s - t)) < 4 * product.std() / math.sqrt(n)
    with pytest.raises(ValueError, match=r"time_correlation must lie in \(-1, 1\), got 1"):
        datasets.gaussian_tokens(KEY, 2, 2, 2, time_correlation=1)


def test_near_duplicates_are_pairs():
    x = datasets.near_duplicates(KEY, 7, 3, 4, 1e-3)
    assert x.shape == (7, 3, 4)
    np.testing.assert_allclose(np.linalg.norm(x, axis=2), 1, rtol=1e-14)
    gaps = np.linalg.norm(x[0:6:2] - x[1:6:2], axis=2)
    assert (gaps < 1.001e-3).all()
    assert gaps.max() > 5e-4
    assert np.linalg.norm(x[0] - x[2]) > 0.1
    with pytest.raises(ValueError, match="distance must be finite and not negative, got inf"):
        datasets.near_duplicates(KEY, 7, 3, 4, math.inf)
