"""Kernel regression against direct solves, extended precision, mpmath and explicit refits."""

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.kernel_ridge import KernelRidge

import rnntk
from rnntk.predict import KernelRegression, gradient_flow, ridge_path

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


SINGULAR = np.ones((3, 3))
# Smallest eigenvalue 1e-6: far above rounding in float64, below it in float32.
NEARLY = np.array([[1.0, 1 - 1e-6], [1 - 1e-6, 1.0]])


@pytest.mark.parametrize("kernel", [-np.eye(3), np.diag([1.0, -1e-3])])
@pytest.mark.parametrize("ridge", [0.0, 2.0])
def test_an_indefinite_kernel_is_refused_whatever_the_ridge(kernel, ridge):
    with pytest.raises(ValueError, match=r"kernel must be positive semidefinite, got .* of -(1|0)"):
        KernelRegression(kernel, np.ones(len(kernel)), ridge)
    with pytest.raises(ValueError, match="kernel must be positive semidefinite"):
        ridge_path(kernel, np.ones(len(kernel)), np.array([ridge]))


@pytest.mark.parametrize("kernel", [SINGULAR, np.zeros((2, 2))])
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


def hilbert(n):
    """A kernel whose inverse is known in whole numbers, and whose condition grows like 30^n."""
    i = np.arange(1, n + 1)
    return 1.0 / (i[:, None] + i[None, :] - 1)


@pytest.mark.parametrize("ridge", [0.0, 1e-6, 0.3])
def test_coefficients_against_mpmath_within_the_stated_uncertainty(ridge):
    K, y = hilbert(6), np.array([1.0, -1.0, 2.0, 0.5, 0.0, 1.0])
    model = KernelRegression(K, y, ridge)
    with mpmath.workdps(50):
        system = mpmath.matrix(K.tolist()) + mpmath.mpf(ridge) * mpmath.eye(6)
        exact = np.array([float(v) for v in mpmath.lu_solve(system, mpmath.matrix(y.tolist()))])
        values = [float(v) for v in mpmath.eigsy(system, eigvals_only=True)]
    error = np.linalg.norm(model.coefficients - exact) / np.linalg.norm(exact)
    assert error <= model.uncertainty
    assert model.uncertainty < 1e4 * max(error, 2.0**-53)  # no bound that says nothing
    assert model.condition_number == pytest.approx(max(values) / min(values), rel=0.02)
    dimension = sum((v - ridge) / v for v in values)
    assert model.effective_dimension == pytest.approx(dimension, rel=1e-8)


def longdouble_cholesky_solve(A, b):
    """In extended precision, from the definition."""
    A, b, n = A.astype(np.longdouble), b.astype(np.longdouble), len(A)
    L = np.zeros_like(A)
    for j in range(n):
        L[j, j] = np.sqrt(A[j, j] - L[j, :j] @ L[j, :j])
        L[j + 1 :, j] = (A[j + 1 :, j] - L[j + 1 :, :j] @ L[j, :j]) / L[j, j]
    z = np.zeros_like(b)
    for i in range(n):
        z[i] = (b[i] - L[i, :i] @ z[:i]) / L[i, i]
    for i in reversed(range(n)):
        z[i] = (z[i] - L[i + 1 :, i] @ z[i + 1 :]) / L[i, i]
    return z


def test_predictions_and_residual_in_extended_precision(x64):
    x = np.random.default_rng(0).standard_normal((24, 6, 3))
    kernel = rnntk.infinite_kernel(rnntk.ElmanRNN("sin", b_std=0.2), x).ntk
    K, cross = np.asarray(kernel)[:18, :18], np.asarray(kernel)[18:, :18]
    y = np.random.default_rng(1).standard_normal((18, 2))
    model = KernelRegression(K, y, 0.05)
    expected = longdouble_cholesky_solve(K + 0.05 * np.eye(18), y)
    np.testing.assert_allclose(
        model.predict(cross), (cross @ expected).astype(float), rtol=1e-12, atol=1e-13
    )
    np.testing.assert_allclose(model.fitted, K @ model.coefficients, atol=1e-12)
    gap = y - (K + 0.05 * np.eye(18)) @ model.coefficients
    relative = np.linalg.norm(gap, axis=0) / np.linalg.norm(y, axis=0)
    assert model.residual < 1e-14
    assert relative.max() < 1e-14


@pytest.mark.parametrize("outputs", [None, 3])
def test_a_path_of_ridges_is_refitting_each_without_each_point(outputs):
    kernel, y, _ = problem(outputs=outputs)
    ridges = np.array([0.0, 1e-3, 0.1, 4.0])
    path = ridge_path(kernel, y, ridges)
    for k, ridge in enumerate(ridges):
        errors = []
        for i in range(N):
            rest = np.delete(np.arange(N), i)
            system = kernel[np.ix_(rest, rest)] + ridge * np.eye(N - 1)
            errors.append(kernel[i, rest] @ np.linalg.solve(system, y[rest]) - y[i])
        assert path.leave_one_out[k] == pytest.approx(np.mean(np.square(errors)), rel=1e-10)
        covariance = kernel + ridge * np.eye(N)
        columns = y.reshape(N, -1).T
        density = sum(
            -0.5 * (v @ np.linalg.solve(covariance, v) + np.linalg.slogdet(covariance)[1])
            - N / 2 * np.log(2 * np.pi)
            for v in columns
        )
        assert path.log_marginal_likelihood[k] == pytest.approx(density, rel=1e-10)
        dimension = np.trace(np.linalg.solve(covariance, kernel))
        assert path.effective_dimension[k] == pytest.approx(dimension, rel=1e-10)
    assert path.resolved.all()


@pytest.mark.parametrize("criterion", ["leave_one_out", "marginal_likelihood"])
def test_a_chosen_ridge_is_the_best_of_the_grid(criterion):
    rng = np.random.default_rng(5)
    x = rng.uniform(-2, 2, 60)
    kernel = np.exp(-((x[:, None] - x[None, :]) ** 2))
    y = np.sin(2 * x) + 0.3 * rng.standard_normal(60)
    model = KernelRegression(kernel, y, criterion)
    path = ridge_path(kernel, y)
    assert not path.resolved.all() or path.ridges[0] > 0
    if criterion == "leave_one_out":
        errors = [
            np.mean((KernelRegression(kernel, y, r).leave_one_out() - y) ** 2)
            for r in path.ridges[path.resolved]
        ]
        assert model.ridge == path.ridges[path.resolved][np.argmin(errors)]
    assert path.ridges[0] < model.ridge < path.ridges[-1]
    assert 0.02 < model.ridge < 2  # the noise has the variance 0.09


def test_a_grid_that_is_singular_throughout_and_bad_grids():
    ones, y = np.ones((4, 4)), np.arange(4.0)
    with pytest.raises(ValueError, match=r"singular to rounding with every ridge up to 1e-20"):
        ridge_path(ones, y, np.array([0.0, 1e-20]))
    path = ridge_path(ones, y, np.array([1e-20, 1.0]))
    assert path.resolved.tolist() == [False, True]
    assert path.leave_one_out[0] == np.inf
    assert path.log_marginal_likelihood[0] == -np.inf
    with pytest.raises(ValueError, match=r"ridges must be finite and not negative, got -1"):
        ridge_path(ones, y, np.array([-1.0]))
    with pytest.raises(ValueError, match="ridges must hold at least one number"):
        ridge_path(ones, y, np.array([]))
    with pytest.raises(ValueError, match=r"criterion must be one of .*, got 'aic'"):
        path.best("aic")
    with pytest.raises(ValueError, match=r"ridge must be a number or one of .*, got 'aic'"):
        KernelRegression(np.eye(2), np.ones(2), "aic")
    with pytest.raises(TypeError, match=r"ridge must be a number, got None"):
        KernelRegression(np.eye(2), np.ones(2), None)


# Kernels that are hard: a right answer with its uncertainty, or a refusal, never NaN.


def duplicates(dtype):
    features = np.random.default_rng(0).standard_normal((20, 30))
    features[10:] = features[:10]
    return (features @ features.T / 30).astype(dtype)


def low_rank(dtype):
    features = np.random.default_rng(1).standard_normal((20, 6))
    return (features @ features.T / 6).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("make", [duplicates, low_rank])
@pytest.mark.parametrize("contradictory", [False, True])
def test_singular_kernels_are_refused_without_ridge_and_right_with_one(dtype, make, contradictory):
    K = make(dtype)
    y = np.tile(np.random.default_rng(2).standard_normal(10), 2)
    if contradictory:
        y[10:] *= -1
    with pytest.raises(ValueError, match=r"singular to rounding|not positive definite"):
        KernelRegression(K, y)
    with pytest.raises(ValueError, match=r"singular to rounding|not positive definite"):
        KernelRegression(K, y, 1e-9 if dtype == np.float32 else 1e-16)
    ridge = 1e-3
    model = KernelRegression(K, y, ridge)
    assert np.isfinite(model.coefficients).all()
    exact = longdouble_cholesky_solve(make(np.float64) + ridge * np.eye(20), y).astype(float)
    error = np.linalg.norm(model.coefficients - exact) / np.linalg.norm(exact)
    assert error <= model.uncertainty < 0.1
    if make is duplicates and contradictory:
        # the best that a function can do at two opposite labels is their mean
        np.testing.assert_allclose(model.fitted, 0, atol=1e-6 if dtype == np.float32 else 1e-12)
    path = ridge_path(K, y)
    assert not np.isnan(path.leave_one_out).any()
    assert np.isfinite(model.leave_one_out()).all()


def test_masked_kernels_of_new_points_are_refused():
    model = KernelRegression(np.eye(3), np.ones(3), 0.1)
    masked = np.ma.masked_greater(np.eye(3), 0.5)
    with pytest.raises(ValueError, match="kernel_test_train must have no masked entries"):
        model.predict(masked)
    assert model.predict(np.zeros((0, 3))).shape == (0,)
    with pytest.raises(TypeError, match="ridge must be a number, got True"):
        KernelRegression(np.eye(3), np.ones(3), True)


def test_rounding_that_left_a_matrix_asymmetric_has_a_remedy():
    near = np.eye(3)
    near[0, 1] = 1e-12
    with pytest.raises(
        ValueError, match=r"rounding made .* \(kernel \+ kernel\.T\) / 2 is symmetric"
    ):
        KernelRegression(near, np.ones(3), 0.1)
