"""The exact risk against brute force, the theorems against the exact risk, both against runs."""

import itertools
import math

import jax
import numpy as np
import pytest
import scipy.optimize

from rnntk import sgd_risk
from rnntk.sgd_risk import LeastSquares

KINDS = ("power law", "exponential", "spiked", "degenerate")


def random_problem(rng, kind):
    """A spectrum of some kind, an initial error aligned with it or against it, noise or none."""
    d = int(rng.integers(1, 60))
    i = np.arange(d)
    head = max(1, d // 5)
    values = {
        "power law": (i + 1.0) ** -rng.uniform(0.5, 3),
        "exponential": np.exp(-rng.uniform(0.05, 2) * i),
        "spiked": np.where(i < head, 1.0, 10.0 ** -rng.uniform(1, 5)),
        "degenerate": np.where(i <= d // 2, 1.0, 0.0),
    }[kind] * 10.0 ** rng.uniform(-2, 2)
    errors = rng.standard_normal(d) * np.maximum(values, 1e-9) ** rng.uniform(-0.6, 0.6)
    return LeastSquares(values, errors, 10.0 ** rng.uniform(-4, 2) if rng.random() < 0.8 else 0.0)


def random_cases(count):
    rng = np.random.default_rng(7)
    for k in range(count):
        problem = random_problem(rng, KINDS[k % len(KINDS)])
        step = sgd_risk.step_limit(problem) * 10.0 ** rng.uniform(-3, -0.001)
        yield problem, step, int(rng.integers(500, 1200))


def by_matrices(problem, g, n):
    """Second moments of all pairs of iterates, as matrices, fourth moments pairing by pairing."""
    H, d = np.diag(problem.eigenvalues), len(problem.eigenvalues)
    fourth = (
        np.einsum("ij,kl->ijkl", H, H)
        + np.einsum("ik,jl->ijkl", H, H)
        + np.einsum("il,jk->ijkl", H, H)
    )
    B = np.outer(problem.errors, problem.errors)
    moments = [B]
    for _ in range(n - 1):
        # E (I - g xx') B (I - g xx') + g^2 s^2 H, with E x_i x_j x_k x_l B_jk summed over j, k
        B = (
            B
            - g * (H @ B + B @ H)
            + g**2 * np.einsum("ijkl,jk->il", fourth, B)
            + g**2 * problem.noise * H
        )
        moments.append(B)
    mean = np.zeros((d, d))
    for s, t in itertools.product(range(n), repeat=2):
        early, late = min(s, t), max(s, t)
        cross = np.linalg.matrix_power(np.eye(d) - g * H, late - early) @ moments[early]
        mean += cross if s > t else cross.T
    return float(np.trace(H @ mean)) / (2 * n**2)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_exact_risk_is_that_of_all_second_moments(n):
    problem = LeastSquares(np.array([0.2, 1.0, 0.0, 0.5]), np.array([1.0, -2.0, 3.0, 0.5]), 0.7)
    for g in (0.05, 0.4, 1.2):  # the last beyond 1 / lambda_1, where terms change their signs
        assert sgd_risk.exact_risk(problem, g, n)[0] == pytest.approx(
            by_matrices(problem, g, n), rel=1e-12
        )


def test_exact_risk_is_the_expectation_over_samples():
    problem = LeastSquares(np.array([1.0, 0.3]), np.array([0.8, -1.5]), 0.4)
    g = 0.35
    nodes, weights = np.polynomial.hermite_e.hermegauss(6)  # exact up to degree 11
    weights = weights / weights.sum()
    risk = 0.0
    # two samples of two features and one noise: the mean of w_0, w_1, w_2 has degree 4 in each
    for index in itertools.product(range(6), repeat=6):
        z, w = nodes[list(index)].reshape(2, 3), weights[list(index)].prod()
        error, total = problem.errors.copy(), problem.errors.copy()
        for *features, noise in z:
            x = np.sqrt(problem.eigenvalues) * features
            error = error - g * (error @ x - math.sqrt(problem.noise) * noise) * x
            total = total + error
        risk += w * float(problem.eigenvalues @ (total / 3) ** 2) / 2
    assert sgd_risk.exact_risk(problem, g, 3)[0] == pytest.approx(risk, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_exact_risk_is_the_mean_of_runs(kind):
    problem = random_problem(np.random.default_rng(1), kind)
    step, n = 0.5 * sgd_risk.step_limit(problem), [3, 30, 120]
    found = sgd_risk.simulate(jax.random.key(0), problem, step, n, runs=4000)
    exact = sgd_risk.exact_risk(problem, step, n)
    error = found.std(axis=0, ddof=1) / math.sqrt(len(found))
    assert (np.abs(found.mean(axis=0) - exact) < 4 * error).all()
    # the errors are small enough to see a wrong recursion
    assert (error < 0.05 * exact).all()


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_theorems_enclose_the_exact_risk(count):
    for problem, step, n in random_cases(count):
        exact = sgd_risk.exact_risk(problem, step, n)[0]
        assert sgd_risk.lower_bound(problem, step, n).value < exact
        assert exact < sgd_risk.upper_bound(problem, step, n).value


def check_runs_between_bounds(cases):
    for k, (problem, step, n) in enumerate(cases):
        found = sgd_risk.simulate(jax.random.key(k), problem, step, n, runs=16)[:, 0]
        slack = 4 * found.std(ddof=1) / 4
        assert sgd_risk.lower_bound(problem, step, n).value < found.mean() + slack
        assert found.mean() - slack < sgd_risk.upper_bound(problem, step, n).value


def test_theorems_enclose_runs():
    check_runs_between_bounds(random_cases(60))


@pytest.mark.slow
def test_theorems_enclose_runs_on_1000_random_spectra():
    check_runs_between_bounds(random_cases(1000))


def test_bounds_are_their_formulas():
    problem = LeastSquares(np.array([1.0, 0.5, 1e-4]), np.array([1.0, 2.0, 3.0]), 0.25)
    g, n = 0.1, 1000  # 1 / (g N) = 0.01: two eigenvalues are above it
    tail = 1e-4 * 9
    bias = (1 / 1 + 4 / 0.5) / 100**2 + tail
    spread, trace = 5 + 100 * tail, 1.5001
    D = 2 / n + n * g**2 * 1e-8
    upper, lower = (f(problem, g, n) for f in (sgd_risk.upper_bound, sgd_risk.lower_bound))
    variance = (2 * 3 * spread / 100 + 0.25) / (1 - 0.3 * trace) * D
    assert (upper.head, lower.head) == (2, 2)
    assert upper.dimension == pytest.approx(D, rel=1e-14)
    assert upper.value == pytest.approx(2 * bias + 2 * variance, rel=1e-14)
    assert lower.bias == pytest.approx(bias / 100, rel=1e-14)
    assert lower.variance == pytest.approx((spread / 1e5 + 0.25 / 50) * D, rel=1e-14)


def test_bounds_of_extreme_scales():
    # a factor c in the features, 1 / c^2 in the step: risks have it too, where squares overflow
    one = LeastSquares(np.array([1.0, 0.5]), np.ones(2), 0.1)
    other = LeastSquares(np.array([1e200, 0.5e200]), 1e-100 * np.ones(2), 0.1)
    for f in (sgd_risk.upper_bound, sgd_risk.lower_bound):
        assert f(other, 1e-201, 600).value == pytest.approx(f(one, 0.1, 600).value, rel=1e-12)


def test_largest_stable_step_is_where_second_moments_stop_to_shrink():
    for kind in KINDS:
        problem = random_problem(np.random.default_rng(5), kind)
        g, values = sgd_risk.largest_stable_step(problem), problem.eigenvalues
        values = values[values > 0]  # along the others nothing moves
        A = np.diag(1 - 2 * g * values + 2 * (g * values) ** 2) + g**2 * np.outer(values, values)
        assert np.abs(np.linalg.eigvalsh(A)).max() == pytest.approx(1, abs=1e-10)
        assert 2 / 3 - 1e-9 < g * problem.trace < 2


def test_optimal_step_is_the_minimum():
    for seed, n in ((0, 40), (1, 300)):
        problem = random_problem(np.random.default_rng(seed), "power law")
        step, risk = sgd_risk.optimal_step(problem, n)
        assert risk == pytest.approx(sgd_risk.exact_risk(problem, step, n)[0], rel=1e-12)
        limit = sgd_risk.largest_stable_step(problem)
        other = scipy.optimize.minimize_scalar(
            lambda log, p=problem, n=n: sgd_risk.exact_risk(p, math.exp(log), n)[0],
            bounds=(math.log(limit) - 12, math.log(limit)),
            method="bounded",
            options={"xatol": 1e-8},
        )
        assert risk <= other.fun * (1 + 1e-6)


def test_learning_curve_says_what_is_known():
    problem = LeastSquares(np.array([1.0, 0.1]), np.ones(2), 0.1)
    curve = sgd_risk.learning_curve(problem, 0.1, [10, 499, 500, 2000])
    assert np.isnan(curve.lower).tolist() == [True, True, False, False]
    assert (curve.exact < curve.upper).all()
    assert (curve.lower[2:] < curve.exact[2:]).all()
    beyond = sgd_risk.learning_curve(problem, 0.5, [500])
    assert np.isnan(beyond.upper).all()
    assert np.isfinite(beyond.exact).all()


def test_population_of_a_known_spectrum():
    # <x, x'> on the sphere in d dimensions has d eigenvalues 1/d, and y = c <b, x> one coordinate
    d, n = 3, 800
    for seed in range(4):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((n, d))
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        found = sgd_risk.population(x @ x.T, 2 * x[:, 0], noise=0.3)
        values = found.problem.eigenvalues[:d]
        assert found.resolved == d
        assert np.linalg.norm(values - 1 / d) < found.error
        # the bound is no more than a few times what the draws do
        assert found.error < 30 * np.linalg.norm(values - 1 / d)
        assert found.problem.noise == 0.3
        # the risk of zero is half the mean square of y
        assert found.problem.initial_risk == pytest.approx(np.mean(4 * x[:, 0] ** 2) / 2, rel=1e-9)
        assert np.linalg.norm(found.problem.errors[:d]) == pytest.approx(2, rel=1e-9)
        assert found.left_out < 1e-12


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda p: sgd_risk.upper_bound(p, 0.2, 1000),
            r"step_size must be below 0\.166667, 1 / \(alpha trace H\) of Theorem 2\.1, got 0\.2",
        ),
        (
            lambda p: sgd_risk.lower_bound(p, 1.0, 1000),
            r"step_size must be below 1, 1 / \(largest eigenvalue\) of Theorem 2\.2, got 1",
        ),
        (
            lambda p: sgd_risk.lower_bound(p, 0.1, 499),
            r"n must be at least 500 for Theorem 2\.2, got 499",
        ),
        (lambda p: sgd_risk.upper_bound(p, -0.1, 10), "step_size must be positive and finite"),
        (lambda p: sgd_risk.upper_bound(p, 0.1, 0), "n must be a whole number of at least 1"),
        (lambda p: sgd_risk.step_limit(p, 0.5), "alpha must be finite and at least 1, got 0.5"),
        (lambda p: sgd_risk.exact_risk(p, 0.1, [5, 3]), "n must be ascending .* got \\[5, 3\\]"),
        (lambda p: sgd_risk.exact_risk(p, 0.1, 10.5), "n must be a whole number .* got 10.5"),
        (lambda p: sgd_risk.exact_risk(p, 0.1, []), "n must hold at least one number"),
        (lambda p: LeastSquares(np.array([1.0, -1.0]), np.ones(2)), "none negative"),
        (lambda p: LeastSquares(np.zeros(2), np.ones(2)), "not all zero"),
        (lambda p: LeastSquares(np.ones(2), np.ones(3)), "one number for each of the 2"),
        (lambda p: LeastSquares(np.ones(2), np.ones(2), -1.0), "noise must be finite and not neg"),
        (lambda p: sgd_risk.population(np.eye(3), np.ones(2)), "one label for each of the 3"),
        (lambda p: sgd_risk.population(np.eye(2), np.ones(2), delta=0.0), "delta must lie"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call(LeastSquares(np.ones(2), np.ones(2)))


def test_divergence_is_an_error():
    problem = LeastSquares(np.ones(2), np.ones(2))
    with pytest.raises(FloatingPointError, match=r"steps below 0\.66\d* are stable|below"):
        sgd_risk.exact_risk(problem, 10.0, 400)
    with pytest.raises(FloatingPointError, match="of 32 runs diverge at step size 10"):
        sgd_risk.simulate(jax.random.key(0), problem, 10.0, 400)
