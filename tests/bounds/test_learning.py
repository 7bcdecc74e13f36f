"""What follows from the smallest eigenvalue: learning, and networks of finite width."""

import math

import jax
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnntk import ElmanRNN, bounds, datasets, infinite_kernel


@pytest.mark.usefixtures("x64")
def test_generalization_is_the_quadratic_form():
    rng = np.random.default_rng(0)
    K = rng.standard_normal((6, 9))
    K = K @ K.T
    y = rng.standard_normal((6, 2))
    result = bounds.generalization(K, y, 0.1)
    with mpmath.workdps(40):
        for column in range(2):
            target = mpmath.matrix(y[:, column].tolist())
            exact = (target.T * mpmath.lu_solve(mpmath.matrix(K.tolist()), target))[0]
            assert abs(result.complexity[column] - exact) <= result.complexity_error[column]
    assert result.complexity_error.max() < 1e-12 * result.complexity.max()
    np.testing.assert_allclose(result.leading, np.sqrt(result.complexity / 3), rtol=1e-14)
    smallest = np.linalg.eigvalsh(K)[0]
    assert result.confidence == pytest.approx(math.sqrt(math.log(60 / smallest) / 6), rel=1e-9)
    assert bounds.generalization(K, y[:, 0], 0.1).complexity == result.complexity[0]


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(2, 8),
    decades=st.floats(0, 12),
    steep=st.booleans(),
    single=st.booleans(),
    power=st.sampled_from([-900, 0, 900]),
)
def test_the_error_of_the_quadratic_form_is_not_understated(seed, n, decades, steep, single, power):
    rng = np.random.default_rng(seed)
    Q, _ = np.linalg.qr(rng.standard_normal((n, n)))
    values = 10.0 ** (-decades / (3 if single else 1) * np.linspace(0, 1, n))
    values[1:] = values[-1] if steep else values[1:]
    K = (Q * values) @ Q.T
    K, y = (K + K.T) / 2, rng.standard_normal(n)
    if not single:
        K, y = np.ldexp(K, power), np.ldexp(y, power // 2)
    result = bounds.generalization(K.astype(np.float32) if single else K, y)
    with mpmath.workdps(60):
        target = mpmath.matrix(y.tolist())
        exact = (target.T * mpmath.lu_solve(mpmath.matrix(K.tolist()), target))[0]
        assert abs(mpmath.mpf(float(result.complexity)) - exact) <= float(result.complexity_error)
    # nor is it idle: roundings of the dtype times the condition
    eps = 2.0**-24 if single else 2.0**-53
    assert result.complexity_error <= 100 * n**2 * eps * result.complexity * values[0] / values[-1]


def test_generalization_of_extreme_scales():
    assert bounds.generalization(np.eye(3) * 1e-300, np.full(3, 1e-150)).complexity == (
        pytest.approx(3.0, rel=1e-15)
    )
    for K, y in ((np.eye(3) * 1e-310, np.ones(3)), (np.eye(3), np.full(3, 1e200))):
        with pytest.raises(FloatingPointError, match=r"y' K\^-1 y exceeds the range of float64"):
            bounds.generalization(K, y)


@pytest.mark.parametrize(
    ("K", "y", "delta", "message"),
    [
        (np.ones((3, 3)), np.ones(3), 0.1, "K must have a smallest eigenvalue beyond rounding"),
        (np.diag([1.0, -1.0]), np.ones(2), 0.1, "K must have a smallest eigenvalue beyond"),
        (np.eye(3), np.ones(2), 0.1, r"y must hold .* 3 rows of K, got float64 of shape \(2,\)"),
        (np.eye(2), np.array([1.0, np.nan]), 0.1, "y must be finite"),
        (np.eye(2), np.ones(2), 1.0, "delta must lie between 0 and 1, got 1.0"),
    ],
)
def test_generalization_refuses(K, y, delta, message):
    with pytest.raises(ValueError, match=message):
        bounds.generalization(K, y, delta)


def check_implied(result, norm):
    """What was measured lies where the theorems put it, and they put it somewhere."""
    rounding = 64 * 2.0**-52 * norm * (1 + result.relative[-1].max())
    low, high = result.implied.T
    assert (result.measured >= low - rounding).all()
    assert (result.measured <= high + rounding).all()
    # Weyl is attained by shifting the limit, Ostrowski by scaling it: neither is far beyond
    assert (high - low <= 2 * result.deviations[-1] + rounding).all()
    assert (high - low <= 2 * result.limit * result.relative[-1] + rounding).all()


@pytest.mark.usefixtures("x64")
def test_finite_width_contains_what_it_measured():
    x = datasets.unit_tokens(jax.random.key(0), 4, 3, 2)
    rnn = ElmanRNN()
    result = bounds.finite_width(rnn, jax.random.key(1), x, width=64, seeds=4)
    assert result.widths == (16, 32, 64)
    assert result.deviations.shape == result.relative.shape == (3, 4)
    exact = np.asarray(infinite_kernel(rnn, x).ntk)
    check_implied(result, np.linalg.eigvalsh(exact)[-1])
    assert result.limit == pytest.approx(np.linalg.eigvalsh(exact)[0], rel=1e-9)
    # relative deviations are those of the whitened kernel, and never below the share of Weyl
    assert (result.deviations <= result.relative * np.linalg.eigvalsh(exact)[-1] + 1e-9).all()


@pytest.mark.slow
def test_deviations_fall_like_the_root_of_the_width():
    x = datasets.unit_tokens(jax.random.key(0), 4, 3, 2).astype(np.float32)
    result = bounds.finite_width(ElmanRNN(), jax.random.key(1), x, width=1024, seeds=64)
    # medians of 64 scatter by a tenth; so do the slopes through three of them
    assert result.slopes[0] == pytest.approx(-0.5, abs=0.15)
    assert result.slopes[1] == pytest.approx(-0.5, abs=0.15)


@pytest.mark.usefixtures("x64")
def test_finite_width_of_one_sequence_contains_what_it_measured():
    for seed in range(6):
        x = np.random.default_rng(seed).standard_normal((1, 2, 2))
        key = jax.random.key(seed)
        result = bounds.finite_width(ElmanRNN(), key, x, width=np.int64(8), seeds=3)
        check_implied(result, float(infinite_kernel(ElmanRNN(), x).ntk[0, 0]))


def test_finite_width_refuses():
    x, key = np.ones((2, 3, 1), np.float32), jax.random.key(0)
    with pytest.raises(ValueError, match="width must be a whole number of at least 4, got 3"):
        bounds.finite_width(ElmanRNN(), key, x, width=3)
    with pytest.raises(ValueError, match=r"width must be a whole number of at least 4, got 64\.0"):
        bounds.finite_width(ElmanRNN(), key, x, width=64.0)
    with pytest.raises(TypeError, match=r"key must be a JAX random key, .* got 0\."):
        bounds.finite_width(ElmanRNN(), 0, x, width=16)
    with pytest.raises(ValueError, match="the infinite-width kernel of x must have a smallest"):
        bounds.finite_width(ElmanRNN(), key, x, width=16)
