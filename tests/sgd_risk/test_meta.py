"""MAML as regression: its moments, its gradient, its exact risk, its bounds, its runs."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnntk import sgd_risk
from rnntk.sgd_risk import MetaRegression

VALUES = np.array([1.0, 0.5, 0.1])


def example(**changed):
    given = {"noise": 0.3, "rate": 0.7, "inner": 4} | changed
    return MetaRegression(VALUES, np.array([1.0, -2.0, 0.5]), np.array([0.2, 0.0, 0.4]), **given)


def features(meta, count, seed=0):
    """Draws of the design (I - a X'X / n_1) x, with X and x."""
    rng = np.random.default_rng(seed)
    first = np.sqrt(VALUES) * rng.standard_normal((count, meta.inner, 3))
    x = np.sqrt(VALUES) * rng.standard_normal((count, 3))
    seen = np.einsum("mnd,md->mn", first, x)
    return x - meta.rate / meta.inner * np.einsum("mnd,mn->md", first, seen), seen


@pytest.mark.parametrize(("rate", "inner"), [(0.7, 4), (-0.5, 1), (2.0, 30), (0.0, 2)])
def test_covariance_of_the_design(rate, inner):
    meta = example(rate=rate, inner=inner)
    squares = features(meta, 100_000)[0] ** 2
    error = squares.std(axis=0) / math.sqrt(len(squares))
    assert (np.abs(squares.mean(axis=0) - meta.adapted) < 4 * error).all()


def test_the_gradient_is_that_of_adapted_weights():
    class Recorded(np.random.Generator):
        """Remembers what it drew."""

        def standard_normal(self, size=None):
            self.drawn = [*getattr(self, "drawn", []), super().standard_normal(size)]
            return self.drawn[-1]

    meta, rng = example(), Recorded(np.random.PCG64(0))
    error = np.random.default_rng(1).standard_normal((5, 3))
    found = meta._gradient(rng, error)
    task, first, last, noise1, noise2 = rng.drawn
    roots = jnp.sqrt(VALUES.astype(np.float32))

    def loss(w, r):
        theta = jnp.asarray(np.sqrt(meta.diversity) * task[r], jnp.float32)
        X, x = jnp.asarray(first[r], jnp.float32) * roots[None], jnp.asarray(last[r]) * roots
        y = X @ theta + jnp.asarray(math.sqrt(meta.noise) * noise1[r], jnp.float32)

        def inner(v):
            return jnp.mean((X @ v - y) ** 2) / 2

        adapted = w - meta.rate * jax.grad(inner)(w)
        label = x @ theta + jnp.float32(math.sqrt(meta.noise) * noise2[r])
        return (x @ adapted - label) ** 2 / 2

    for r in range(5):
        wanted = jax.grad(loss)(jnp.asarray(error[r], jnp.float32), r)
        np.testing.assert_allclose(found[r], wanted, rtol=2e-4, atol=2e-5)


def gaussians(orders):
    """Nodes and weights over independent Gaussians; k nodes are exact up to degree 2 k - 1."""
    rules = [np.polynomial.hermite_e.hermegauss(order) for order in orders]
    nodes = np.array(list(itertools.product(*(rule[0] for rule in rules))))
    weights = np.array([math.prod(w) for w in itertools.product(*(rule[1] for rule in rules))])
    return nodes, weights / weights.sum()


@pytest.mark.parametrize(("rate", "inner"), [(0.7, 2), (-1.3, 1), (0.0, 1)])
def test_moments_are_expectations(rate, inner):
    # b has degree 2 in X and 1 in x; the sixth power of X times the fourth of x is exact
    values = np.array([1.0, 0.4])
    nodes, weights = gaussians([5] * (2 * inner) + [4, 4])
    first = np.sqrt(values) * nodes[:, :-2].reshape(-1, inner, 2)
    x = np.sqrt(values) * nodes[:, -2:]
    seen = np.einsum("mnd,md->mn", first, x)
    b = x - rate / inner * np.einsum("mnd,mn->md", first, seen)
    found = MetaRegression(values, np.ones(2), np.ones(2), rate=rate, inner=inner).moments
    np.testing.assert_allclose(found.second, weights @ b**2, rtol=1e-12)
    fourth = np.einsum("m,mi,mj->ij", weights, b**2, b**2)
    np.testing.assert_allclose(found.fourth, fourth, rtol=1e-12)
    labels = 1 + (rate / inner) ** 2 * np.square(seen).sum(axis=1)
    np.testing.assert_allclose(found.labels, (weights * labels) @ b**2, rtol=1e-12)


def test_exact_risk_is_the_expectation_over_tasks():
    rate, g, noise, spread, value = 0.8, 0.3, 0.4, 0.5, 1.3
    meta = MetaRegression(*np.array([[value], [0.7], [spread]]), noise=noise, rate=rate, inner=1)
    # of a task: the first token, the last, theta, and the noise of both labels
    nodes, weights = gaussians([5, 3, 2, 2, 2])
    scales = [value, value, spread, noise, noise]
    X, x, theta, z1, z = (nodes * np.sqrt(scales)).T

    def after(w):
        """w after each task, for each w: by its definition."""
        w = np.asarray(w)[..., None]
        adapted = w - rate * (X * w - X * theta - z1) * X
        return w - g * (adapted * x - theta * x - z) * (1 - rate * X**2) * x

    one = after(0.7)
    two = after(one)
    once = float(weights @ np.square((0.7 + one) / 2))
    twice = float(weights @ (np.square((0.7 + one[:, None] + two) / 3) @ weights))
    wanted = np.array([0.49, once, twice]) * meta.adapted[0] / 2
    np.testing.assert_allclose(meta.exact_risk(g, [1, 2, 3]), wanted, rtol=1e-12)


@pytest.mark.parametrize("rate", [0.7, -0.5])
def test_exact_risk_is_the_mean_of_runs(rate):
    meta, n = example(rate=rate), [3, 30]
    step = 0.2 / meta.adapted.sum()
    found = meta.simulate(jax.random.key(1), step, n, runs=20_000)
    error = found.std(axis=0, ddof=1) / math.sqrt(len(found))
    assert (np.abs(found.mean(axis=0) - meta.exact_risk(step, n)) < 4 * error).all()
    assert (error < 0.02 * found.mean(axis=0)).all()


def test_without_adaptation_it_is_plain_regression():
    meta = MetaRegression(VALUES, np.ones(3), np.zeros(3), noise=0.3, rate=0.0)
    np.testing.assert_allclose(meta.adapted, VALUES, rtol=1e-14)
    assert meta.alpha == pytest.approx(3, rel=1e-14)
    assert meta.beta == pytest.approx(1, rel=1e-14)
    plain = sgd_risk.LeastSquares(VALUES, np.ones(3), 0.3)
    exact = sgd_risk.exact_risk(plain, 0.2, [5, 600])
    np.testing.assert_allclose(meta.exact_risk(0.2, [5, 600]), exact, rtol=1e-12)
    for name in ("upper_bound", "lower_bound"):
        wanted = getattr(sgd_risk, name)(plain, 0.1, 600).value
        assert getattr(meta, name)(0.1, 600).value == pytest.approx(wanted, rel=1e-12)


def random_metas(count):
    rng = np.random.default_rng(0)
    for k in range(count):
        d = int(rng.integers(1, 12))
        values = (np.arange(d) + 1.0) ** -rng.uniform(0, 3)
        yield MetaRegression(
            np.where(np.arange(d) < d - k % 3, values, 0.0) if d > 3 else values,
            rng.standard_normal(d) * values ** rng.uniform(-0.5, 0.5),
            rng.uniform(0, 1, d) * (k % 2),
            noise=rng.uniform(0, 1),
            rate=rng.uniform(-2, 3),
            inner=int(rng.integers(1, 20)),
        )


def check_enclosed(count):
    rng = np.random.default_rng(1)
    for meta in random_metas(count):
        step, n = meta.step_limit * 10.0 ** rng.uniform(-2, -0.01), int(rng.integers(500, 700))
        exact = meta.exact_risk(step, n)[0]
        assert meta.lower_bound(step, n).value < exact < meta.upper_bound(step, n).value
        assert 3 * (1 - 1e-12) <= meta.alpha < 3 * 243  # which is proved


def test_bounds_enclose_the_exact_risk():
    check_enclosed(60)


@pytest.mark.slow
def test_bounds_enclose_the_exact_risk_of_1000_designs():
    check_enclosed(1000)


def test_beta_is_at_least_what_is_proved():
    # near the worst: one direction with a l / n_1 about 0.1, in many that are small
    tail = np.full(400, math.sqrt(0.065 / 400))
    worst = MetaRegression(np.array([0.1, 1e-6, *tail]), *np.ones((2, 402)), rate=1.0, inner=1)
    assert 0.997 < worst.beta < 1
    assert worst.lower_bound(0.1, 500).value < worst.exact_risk(0.1, 500)[0]
    assert all(meta.beta > 0.997 for meta in random_metas(300))


def test_bound_holds_for_runs():
    for k, meta in enumerate(random_metas(20)):
        step = 0.9 * meta.step_limit
        found = meta.simulate(jax.random.key(k), step, 500, runs=16)[:, 0]
        slack = 4 * found.std(ddof=1) / 4
        assert found.mean() - slack < meta.upper_bound(step, 500).value
        assert meta.lower_bound(step, 500).value < found.mean() + slack


def test_refuses():
    with pytest.raises(ValueError, match="diversity must hold one variance for each of the 3"):
        MetaRegression(VALUES, np.ones(3), np.ones(2))
    with pytest.raises(ValueError, match="rate must be finite, got nan"):
        example(rate=math.nan)
    with pytest.raises(ValueError, match="inner must be a whole number of at least 1, got 0"):
        example(inner=0)
    with pytest.raises(FloatingPointError, match="of 32 runs diverge at step size 50"):
        example().simulate(jax.random.key(0), 50.0, 400)
    with pytest.raises(FloatingPointError, match="range of float64 at step size 50"):
        example().exact_risk(50.0, 400)
    with pytest.raises(ValueError, match=r"step_size must be below .* Theorem 2\.1"):
        example().upper_bound(1.0, 600)
    with pytest.raises(ValueError, match=r"n must be at least 500 for Theorem 2\.2, got 499"):
        example().lower_bound(0.01, 499)


def test_no_bound_where_no_design_is_known(monkeypatch):
    monkeypatch.setattr(MetaRegression, "beta", 0.59)  # a sphere's design in three dimensions: 3/5
    with pytest.raises(ValueError, match=r"beta must be at least d / \(d \+ 2\) = 0\.6 .* 3 eigen"):
        example().lower_bound(0.01, 500)
