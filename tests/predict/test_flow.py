"""Gradient flow against integrated dynamics, closed forms and limits."""

import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import scipy.optimize
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from rnntk.predict import gradient_flow

N, N_TEST = 12, 5


def problem(seed=0, outputs=None, n=N, n_test=N_TEST):
    """A well-conditioned train kernel, a test-train kernel of the same features, and labels."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n + n_test, 4 * n))
    gram = features @ features.T / (4 * n)
    y = rng.standard_normal(n if outputs is None else (n, outputs))
    return gram[:n, :n], y, gram[n:, :n]


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
@given(st.integers(0, 2**32 - 1))
def test_the_train_error_of_gradient_flow_never_grows(seed):
    kernel, y, _ = problem(seed, n=6)
    path = gradient_flow(kernel, y, kernel, np.linspace(0, 30, 20))
    errors = np.linalg.norm(path - y, axis=1)
    assert (np.diff(errors) <= 1e-12).all()


@pytest.mark.parametrize(
    ("time", "message"),
    [
        (-1.0, "time must be finite and not negative, got -1.0"),
        (np.array([1.0, np.nan]), "time must be finite"),
        (np.inf, "limit of infinite time is KernelRegression with ridge=0"),
        (np.ones((2, 2)), r"time must be one number or a vector, got shape \(2, 2\)"),
        (np.array([2.0, 1.0]), r"time must be sorted, got"),
    ],
)
def test_bad_times_are_named(time, message):
    with pytest.raises(ValueError, match=message):
        gradient_flow(np.eye(2), np.ones(2), np.eye(2), time)


def test_gradient_flow_refuses_a_kernel_with_a_truly_negative_eigenvalue():
    with pytest.raises(ValueError, match=r"positive semidefinite, got an eigenvalue -0\.001"):
        gradient_flow(np.diag([1.0, -1e-3]), np.ones(2), np.eye(2), 1.0)


def direct(kernel, cross, y, time, link, start, start_test):
    """The outputs themselves integrated, of all points at once, by another solver."""
    n, o = y.shape
    joint = np.concatenate([kernel, cross])

    def velocity(_, state):
        return (-joint @ (link(state.reshape(-1, o)[:n]) - y) / n).ravel()

    state = np.concatenate([start, start_test]).ravel()
    solved = scipy.integrate.solve_ivp(
        velocity, (0, time), state, method="LSODA", rtol=1e-12, atol=1e-12
    )
    return solved.y[:, -1].reshape(-1, o)[n:]


LINKS = {
    "squared": lambda f: f,
    "logistic": scipy.special.expit,
    "cross_entropy": lambda f: scipy.special.softmax(f, axis=1),
}


@pytest.mark.parametrize("loss", LINKS)
def test_losses_and_initial_outputs_against_another_solver(loss):
    kernel, _, cross = problem()
    rng = np.random.default_rng(7)
    y = np.eye(3)[rng.integers(0, 3, N)]
    start, start_test = rng.standard_normal((N, 3)), rng.standard_normal((N_TEST, 3))
    path = gradient_flow(
        *(kernel, y, cross, np.array([0.0, 3.0, 40.0])),
        initial_train=start,
        initial_test=start_test,
        loss=loss,
    )
    np.testing.assert_array_equal(path[0], start_test)
    for found, time in zip(path[1:], (3.0, 40.0), strict=True):
        expected = direct(kernel, cross, y, time, LINKS[loss], start, start_test)
        np.testing.assert_allclose(found, expected, atol=1e-8)  # that of LSODA


def test_logistic_flow_of_one_point_is_its_closed_form():
    # f' = 1 - sigmoid(f): f + exp(f) = 1 + time
    for time in (0.5, 20.0):
        f = float(gradient_flow(np.eye(1), np.ones(1), np.eye(1), time, loss="logistic")[0])
        assert f + np.exp(f) == pytest.approx(1 + time, rel=1e-10)


def test_a_stiff_flow_ends_where_the_loss_is_least():
    kernel, _, _ = problem(n=8)
    y = np.random.default_rng(3).uniform(0.1, 0.9, 8)  # a finite minimum
    path = gradient_flow(kernel, y, kernel, 1e5, loss="logistic")
    np.testing.assert_allclose(scipy.special.expit(path), y, atol=1e-8)


def test_initial_outputs_that_are_the_labels_stay():
    kernel, y, cross = problem(outputs=2)
    start = np.ones((N_TEST, 2))
    path = gradient_flow(kernel, y, cross, 9.0, initial_train=y, initial_test=start)
    np.testing.assert_array_equal(path, start)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "hinge"}, r"loss must be one of \('squared', .*got 'hinge'"),
        ({"initial_train": np.ones(2)}, "initial_train and initial_test must come together"),
        (
            {"initial_train": np.ones(3), "initial_test": np.ones(2)},
            r"initial_train must have shape \(2,\) like the labels, got \(3,\)",
        ),
        (
            {"initial_train": np.ones(2), "initial_test": np.array([1, np.nan])},
            r"initial_test must be finite, got nan",
        ),
    ],
)
def test_bad_losses_and_initial_outputs_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        gradient_flow(np.eye(2), np.ones(2), np.eye(2), 1.0, **options)


@pytest.mark.parametrize(
    ("loss", "y", "message"),
    [
        ("logistic", np.array([-1.0, 1.0]), "y must lie between 0 and 1 for loss='logistic'"),
        ("cross_entropy", np.ones(2), r"class probabilities .* got shape \(2,\)"),
        ("cross_entropy", np.ones((2, 2)), "class probabilities with the sum 1"),
    ],
)
def test_labels_that_do_not_fit_the_loss_are_named(loss, y, message):
    with pytest.raises(ValueError, match=message):
        gradient_flow(np.eye(2), y, np.eye(2), 1.0, loss=loss)


def test_no_test_points_and_masked_initial_outputs():
    assert gradient_flow(np.eye(2), np.ones(2), np.zeros((0, 2)), np.ones(3)).shape == (3, 0)
    assert gradient_flow(np.eye(2), np.ones((2, 4)), np.zeros((0, 2)), 1.0).shape == (0, 4)
    masked = np.ma.masked_greater(np.ones(2), 0.0)
    with pytest.raises(ValueError, match="initial_train must have no masked entries"):
        gradient_flow(
            np.eye(2), np.ones(2), np.eye(2), 1.0, initial_train=masked, initial_test=np.ones(2)
        )
