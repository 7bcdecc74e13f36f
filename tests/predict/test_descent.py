"""Gradient descent against steps really made, of functions and of linearized networks."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

import rnntk
from rnntk.predict import gradient_descent, gradient_flow, largest_stable_step

N, N_TEST = 10, 4


def problem(seed=0, outputs=2):
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((N + N_TEST, 30))
    gram = features @ features.T / 30
    return gram[:N, :N], rng.standard_normal((N, outputs)), gram[N:, :N]


def walk(kernel, cross, y, steps, step_size, momentum, link, start, start_test):
    """Steps of the outputs themselves, of all points at once."""
    joint = np.concatenate([kernel, cross])
    f, velocity = np.concatenate([start, start_test]), 0.0
    for _ in range(steps):
        velocity = momentum * velocity + joint @ (link(f[:N]) - y) / N
        f = f - step_size * velocity
    return f[N:]


LINKS = {
    "squared": lambda f: f,
    "logistic": scipy.special.expit,
    "cross_entropy": lambda f: scipy.special.softmax(f, axis=1),
}


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("loss", LINKS)
def test_descent_is_the_steps_one_by_one(loss, momentum):
    kernel, y, cross = problem()
    if loss != "squared":
        y = np.eye(2)[(y[:, 0] > 0).astype(int)]
    rng = np.random.default_rng(1)
    start, start_test = rng.standard_normal((N, 2)), rng.standard_normal((N_TEST, 2))
    counts = np.array([0, 1, 2, 37, 37, 300])
    options = {"initial_train": start, "initial_test": start_test, "loss": loss}
    path = gradient_descent(kernel, y, cross, counts, step_size=1.5, momentum=momentum, **options)
    for found, steps in zip(path, counts, strict=True):
        walked = walk(kernel, cross, y, steps, 1.5, momentum, LINKS[loss], start, start_test)
        np.testing.assert_allclose(found, walked, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_a_linearized_network_that_is_really_trained(x64, momentum):
    rnn = rnntk.ElmanRNN("sin", b_std=0.3)
    x = jax.random.normal(jax.random.key(0), (N + N_TEST, 4, 3))
    y = jax.random.normal(jax.random.key(1), (N, 1))
    params = rnn.init(jax.random.key(2), input_dim=3, width=24)
    outputs, tangent = jax.linearize(lambda p: rnn.apply(p, x), params)
    kernel = np.asarray(rnntk.empirical_kernel(rnn, params, x).ntk)
    step_size = 0.7 * largest_stable_step(kernel[:N, :N], momentum)

    def loss(change):
        return jnp.sum(jnp.square((outputs + tangent(change))[:N] - y)) / (2 * N)

    optimizer = optax.sgd(step_size, momentum=momentum or None)
    change = jax.tree.map(jnp.zeros_like, params)
    state = optimizer.init(change)

    @jax.jit
    def step(change, state):
        updates, state = optimizer.update(jax.grad(loss)(change), state)
        return optax.apply_updates(change, updates), state

    for _ in range(200):
        change, state = step(change, state)
    trained = np.asarray(outputs + tangent(change))[N:]
    predicted = gradient_descent(
        *(kernel[:N, :N], np.asarray(y), kernel[N:, :N], 200),
        step_size=step_size,
        momentum=momentum,
        initial_train=np.asarray(outputs[:N]),
        initial_test=np.asarray(outputs[N:]),
    )
    np.testing.assert_allclose(predicted, trained, rtol=1e-6, atol=1e-6 * np.abs(trained).max())


def test_small_steps_are_gradient_flow():
    kernel, y, cross = problem()
    flow = gradient_flow(kernel, y, cross, 5.0)
    errors = [
        np.abs(gradient_descent(kernel, y, cross, steps, step_size=5.0 / steps) - flow).max()
        for steps in (1000, 2000)
    ]
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.01)  # of first order


@given(st.integers(0, 1000), st.sampled_from([0.0, 0.5, 0.9]))
def test_the_largest_stable_step_is_the_edge(seed, momentum):
    kernel, y, cross = problem(seed)
    edge = largest_stable_step(kernel, momentum)
    assert edge == pytest.approx(2 * (1 + momentum) * N / np.linalg.eigvalsh(kernel)[-1])
    options = {"momentum": momentum, "steps": 40000}
    below = gradient_descent(kernel, y, kernel, step_size=0.999 * edge, **options)
    np.testing.assert_allclose(below, y, atol=1e-5)
    with pytest.raises(FloatingPointError, match=r"largest_stable_step, [0-9.]+, do not diverge"):
        gradient_descent(kernel, y, cross, step_size=1.1 * edge, **options)


def test_large_kernels_and_other_losses_have_a_stable_step():
    features = np.random.default_rng(0).standard_normal((400, 50))
    kernel = features @ features.T
    top = np.linalg.eigvalsh(kernel)[-1]
    assert largest_stable_step(kernel) == pytest.approx(800 / top, rel=1e-10)
    assert largest_stable_step(kernel, loss="cross_entropy") == pytest.approx(1600 / top)
    assert largest_stable_step(kernel, loss="logistic") == pytest.approx(3200 / top)


@pytest.mark.parametrize(
    ("steps", "options", "error", "message"),
    [
        (-1, {}, ValueError, "steps must be sorted and not negative, got -1"),
        (np.array([2, 1]), {}, ValueError, "steps must be sorted"),
        (1.5, {}, TypeError, "steps must be whole numbers, got float64"),
        (np.ones((2, 2), int), {}, ValueError, r"steps .* got shape \(2, 2\)"),
        (1, {"step_size": 0.0}, ValueError, "step_size must be finite and positive, got 0"),
        (1, {"momentum": 1.0}, ValueError, r"momentum must lie in \[0, 1\), got 1"),
        (1, {"momentum": -0.1}, ValueError, "momentum must be finite and not negative"),
    ],
)
def test_bad_steps_are_named(steps, options, error, message):
    with pytest.raises(error, match=message):
        gradient_descent(np.eye(2), np.ones(2), np.eye(2), steps, **{"step_size": 1.0, **options})


def test_bad_kernels_are_named():
    with pytest.raises(ValueError, match="kernel must not be zero"):
        largest_stable_step(np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"positive semidefinite, got an eigenvalue -1"):
        largest_stable_step(np.diag([1.0, -1.0]))
    with pytest.raises(ValueError, match=r"positive semidefinite, got an eigenvalue -1"):
        gradient_descent(np.diag([1.0, -1.0]), np.ones(2), np.eye(2), 1, step_size=1.0)
