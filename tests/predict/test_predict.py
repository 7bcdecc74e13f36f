"""Kernel predictions against direct solves, explicit refits and integrated dynamics."""

import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.kernel_ridge import KernelRidge

from rnntk.predict import KernelRegression, gradient_flow

N, N_TEST = 12, 5


def problem(seed=0, outputs=None, n=N, n_test=N_TEST):
    """A well-conditioned train kernel, a test-train kernel of the same features, and labels."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n + n_test, 4 * n))
    gram = features @ features.T / (4 * n)
    y = rng.standard_normal(n if outputs is None else (n, outputs))
    return gram[:n, :n], y, gram[n:, :n]


@pytest.mark.parametrize("outputs", [None, 1, 3])
@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_regression_is_the_direct_solve_and_scikit_learn(outputs, ridge):
    kernel, y, cross = problem(outputs=outputs)
    model = KernelRegression(kernel, y, ridge)
    expected = cross @ np.linalg.solve(kernel + ridge * np.eye(N), y)
    assert model.predict(cross).shape == expected.shape
    # condition number below 20: a few hundred roundoffs
    np.testing.assert_allclose(model.predict(cross), expected, rtol=1e-12, atol=1e-13)
    peer = KernelRidge(alpha=ridge, kernel="precomputed").fit(kernel, y)
    np.testing.assert_allclose(model.predict(cross), peer.predict(cross), rtol=1e-12, atol=1e-13)


def test_without_ridge_it_interpolates():
    kernel, y, _ = problem()
    np.testing.assert_allclose(KernelRegression(kernel, y).predict(kernel), y, rtol=1e-12)


@pytest.mark.parametrize("outputs", [None, 2])
@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_leave_one_out_is_refitting_without_each_point(outputs, ridge):
    kernel, y, _ = problem(outputs=outputs)
    refits = []
    for i in range(N):
        rest = np.delete(np.arange(N), i)
        system = kernel[np.ix_(rest, rest)] + ridge * np.eye(N - 1)
        refits.append(kernel[i, rest] @ np.linalg.solve(system, y[rest]))
    left_out = KernelRegression(kernel, y, ridge).leave_one_out()
    np.testing.assert_allclose(left_out, np.array(refits), rtol=1e-12, atol=1e-12)


def test_float32_kernels_are_predicted_in_float64():
    kernel, y, cross = problem()
    single = kernel.astype(np.float32)
    got = KernelRegression(single, y).predict(cross.astype(np.float32))
    expected = cross.astype(np.float32).astype(float) @ np.linalg.solve(single.astype(float), y)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("time", [0.7, 5.0, 60.0])
@pytest.mark.parametrize("outputs", [None, 2])
def test_gradient_flow_solves_its_differential_equation(outputs, time):
    kernel, y, cross = problem(outputs=outputs)
    joint = np.concatenate([kernel, cross])

    def velocity(_, state):
        error = state.reshape(N + N_TEST, -1)[:N] - y.reshape(N, -1)
        return (-joint @ error / N).ravel()

    start = np.zeros((N + N_TEST) * (outputs or 1))
    solved = scipy.integrate.solve_ivp(
        velocity, (0, time), start, method="DOP853", rtol=1e-11, atol=1e-12
    ).y[:, -1]
    expected = solved.reshape(N + N_TEST, *y.shape[1:])[N:]
    # bounded by the integrator's own tolerance, accumulated
    np.testing.assert_allclose(gradient_flow(kernel, y, cross, time), expected, atol=1e-9)


def test_gradient_flow_with_a_singular_kernel_is_the_matrix_exponential():
    rng = np.random.default_rng(3)
    features = rng.standard_normal((N + N_TEST, 4))  # rank 4 of 12: K^-1 does not exist
    kernel, cross = features[:N] @ features[:N].T, features[N:] @ features[:N].T
    y, time = rng.standard_normal(N), 2.5
    # exp([[-K/n, I], [0, 0]] t) holds the integral of exp(-K s / n) over s in its corner.
    block = np.block([[-kernel / N, np.eye(N)], [np.zeros((N, 2 * N))]])
    integral = scipy.linalg.expm(block * time)[:N, N:]
    np.testing.assert_allclose(
        gradient_flow(kernel, y, cross, time), cross @ integral @ y / N, rtol=1e-10, atol=1e-12
    )


def test_gradient_flow_starts_at_zero_and_ends_at_kernel_regression():
    kernel, y, cross = problem(outputs=2)
    path = gradient_flow(kernel, y, cross, np.array([0.0, 1.0, 1e5]))
    assert path.shape == (3, N_TEST, 2)
    assert (path[0] == 0).all()
    np.testing.assert_array_equal(path[1], gradient_flow(kernel, y, cross, 1.0))
    limit = cross @ np.linalg.solve(kernel, y)
    np.testing.assert_allclose(path[2], limit, rtol=1e-12, atol=1e-12)
    assert np.abs(path[1] - limit).max() > 0.1  # a time that matters is not at the limit yet


def test_gradient_flow_does_not_blow_up_on_eigenvalues_that_rounding_made():
    point = np.ones((6, 6), np.float32) / 3  # rank one; the other eigenvalues are rounding
    path = gradient_flow(point, np.arange(6.0), point, np.array([1.0, 1e6]))
    np.testing.assert_allclose(path[1], 2.5, rtol=1e-6)  # the mean label, which alone is learnable


def test_gradient_flow_is_linear_at_small_times():
    kernel, y, cross = problem()
    early = gradient_flow(kernel, y, cross, 1e-9)
    np.testing.assert_allclose(early, 1e-9 * cross @ y / N, rtol=1e-8)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-3, 3), st.floats(0, 10), st.floats(0, 20))
def test_predictions_are_linear_in_the_labels_and_blind_to_order(seed, factor, ridge, time):
    kernel, y, cross = problem(seed, n=6, n_test=3)
    other = np.random.default_rng(seed + 1).standard_normal(6)
    order = np.random.default_rng(seed).permutation(6)
    permuted = kernel[np.ix_(order, order)]
    for predict in (
        lambda k, labels, c: KernelRegression(k, labels, ridge).predict(c),
        lambda k, labels, c: gradient_flow(k, labels, c, time),
    ):
        together = predict(kernel, y + factor * other, cross)
        apart = predict(kernel, y, cross) + factor * predict(kernel, other, cross)
        np.testing.assert_allclose(together, apart, atol=1e-10)
        shuffled = predict(permuted, y[order], cross[:, order])
        np.testing.assert_allclose(shuffled, predict(kernel, y, cross), atol=1e-10)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_train_error_of_gradient_flow_never_grows(seed):
    kernel, y, _ = problem(seed, n=6)
    path = gradient_flow(kernel, y, kernel, np.linspace(0, 30, 20))
    errors = np.linalg.norm(path - y, axis=1)
    assert (np.diff(errors) <= 1e-12).all()


SINGULAR = np.ones((3, 3))
# Smallest eigenvalue 1e-6: far above rounding in float64, below it in float32.
NEARLY = np.array([[1.0, 1 - 1e-6], [1 - 1e-6, 1.0]])


@pytest.mark.parametrize("kernel", [SINGULAR, -np.eye(3), np.diag([1.0, -1e-3]), np.zeros((2, 2))])
def test_a_kernel_that_is_not_positive_definite_is_refused_with_the_remedy(kernel):
    y = np.ones(len(kernel))
    with pytest.raises(ValueError, match=r"(not positive definite|singular).*larger ridge"):
        KernelRegression(kernel, y)
    assert np.isfinite(KernelRegression(kernel, y, ridge=2.0).coefficients).all()


def test_a_low_rank_kernel_whose_cholesky_succeeds_by_rounding_is_refused():
    for seed in range(20):
        features = np.random.default_rng(seed).standard_normal((30, 29))
        with pytest.raises(ValueError, match="larger ridge"):
            KernelRegression(features @ features.T, np.ones(30))


def test_an_eigenvalue_below_the_rounding_of_the_kernels_own_dtype_is_refused():
    assert np.isfinite(KernelRegression(NEARLY, np.ones(2)).coefficients).all()
    nearly = np.array([[1.0, 1 - 2.0**-24], [1 - 2.0**-24, 1.0]], np.float32)
    with pytest.raises(ValueError, match=r"eigenvalue is about 5\.96e-08, its .* up to 1\.91e-06"):
        KernelRegression(nearly, np.ones(2))


def bad(array, index, value):
    array = np.array(array, float)
    array[index] = value
    return array


@pytest.mark.parametrize("fit", [KernelRegression, lambda k, y: gradient_flow(k, y, np.eye(3), 1)])
@pytest.mark.parametrize(
    ("kernel", "y", "error", "message"),
    [
        (np.eye(3), np.ones(2), ValueError, r"one label for each of the 3.*\(3,\).*got \(2,\)"),
        (np.eye(3), np.ones((2, 3)), ValueError, r"\(3, outputs\), got \(2, 3\)"),
        (np.eye(3), np.ones((3, 0)), ValueError, r"got \(3, 0\)"),
        (np.eye(3), 1.0, ValueError, r"got \(\)"),
        (np.eye(3), ["a", "b", "c"], TypeError, "y must be real numbers"),
        (np.eye(3), np.ones(3) * 1j, TypeError, "y must be real numbers, got complex128"),
        (np.eye(3), [0, np.nan, 1], ValueError, r"y must be finite, got nan at \(1,\), 1 such"),
        (np.eye(3)[:2], np.ones(3), ValueError, r"kernel must be a square matrix, got shape"),
        (np.eye(3, dtype=int), np.ones(3), TypeError, "kernel must be floating point, got int"),
        (bad(np.eye(3), (0, 1), np.inf), np.ones(3), ValueError, "kernel must be finite, got inf"),
        (bad(np.eye(3), (0, 2), 0.5), np.ones(3), ValueError, r"kernel must be symmetric.*by 0.5"),
    ],
)
def test_bad_kernels_and_labels_are_named(fit, kernel, y, error, message):
    with pytest.raises(error, match=message):
        fit(kernel, y)


@pytest.mark.parametrize(
    "predict",
    [
        lambda cross: KernelRegression(np.eye(3), np.ones(3)).predict(cross),
        lambda cross: gradient_flow(np.eye(3), np.ones(3), cross, 1.0),
    ],
)
@pytest.mark.parametrize(
    ("cross", "error", "message"),
    [
        (np.ones((3, 2)), ValueError, r"kernel_test_train .*shape \(n_test, 3\), got \(3, 2\)"),
        (np.ones(3), ValueError, r"kernel_test_train .*got \(3,\)"),
        (np.ones((1, 3), int), TypeError, "kernel_test_train must be floating point, got int"),
        (bad(np.ones((2, 3)), (1, 2), np.nan), ValueError, r"kernel_test_train.*nan at \(1, 2\)"),
    ],
)
def test_bad_test_kernels_are_named(predict, cross, error, message):
    with pytest.raises(error, match=message):
        predict(cross)


@pytest.mark.parametrize("ridge", [-1e-3, np.nan, np.inf])
def test_bad_ridges_are_named(ridge):
    with pytest.raises(ValueError, match="ridge must be finite and not negative, got"):
        KernelRegression(np.eye(2), np.ones(2), ridge)


@pytest.mark.parametrize(
    ("time", "message"),
    [
        (-1.0, "time must be finite and not negative, got -1.0"),
        ([1.0, np.nan], "time must be finite"),
        (np.inf, "limit of infinite time is KernelRegression with ridge=0"),
        (np.ones((2, 2)), r"time must be one number or a vector, got shape \(2, 2\)"),
    ],
)
def test_bad_times_are_named(time, message):
    with pytest.raises(ValueError, match=message):
        gradient_flow(np.eye(2), np.ones(2), np.eye(2), time)


def test_gradient_flow_refuses_a_kernel_with_a_truly_negative_eigenvalue():
    with pytest.raises(ValueError, match=r"positive semidefinite, got an eigenvalue -0\.001"):
        gradient_flow(np.diag([1.0, -1e-3]), np.ones(2), np.eye(2), 1.0)
