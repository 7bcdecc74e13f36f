"""Stable rates against gradient descent on quadratics, curvatures against second derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnntk.network.elman import ElmanRNN
from rnntk.train import LOSSES, Loss, fit, linearize, stable_rate


def descend(kernel, rate, steps=400):
    """Size of the error of linearized gradient descent on the squared loss."""
    n, error = len(kernel), np.ones(len(kernel))
    for _ in range(steps):
        error = error - rate / n * kernel @ error
    return np.linalg.norm(error)


def test_descent_is_stable_up_to_the_rate_and_not_beyond():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((7, 9))
    kernel = rows @ rows.T
    rate = stable_rate(kernel)
    assert descend(kernel, 0.99 * rate) < np.sqrt(7)
    assert descend(kernel, 1.02 * rate) > 10
    # Outputs at every step: sequences are averaged over, steps add up.
    grid = np.kron(kernel, np.eye(2)).reshape(7, 2, 7, 2)
    np.testing.assert_allclose(stable_rate(grid), rate, rtol=1e-12)
    for loss, factor in (("huber", 1), ("logistic", 4), ("cross_entropy", 2)):
        np.testing.assert_allclose(stable_rate(kernel, loss=loss), factor * rate, rtol=1e-12)
    assert stable_rate(np.zeros((2, 2))) == np.inf


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["squared", "huber", "logistic", "cross_entropy"])
def test_curvature_is_the_largest_second_derivative(name):
    loss = LOSSES[name]
    label = jnp.array([0]) if name == "cross_entropy" else jnp.array([[1.0, -1.0]])
    hessian = jax.vmap(jax.hessian(lambda f: loss.values(f[None], label).sum()))
    grid = np.linspace(-3, 3, 25)  # with 0, where that of logistic and cross-entropy is largest
    outputs = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    largest = np.linalg.eigvalsh(hessian(jnp.asarray(outputs)))[:, -1].max()
    np.testing.assert_allclose(largest, loss.curvature, rtol=1e-12)


@pytest.mark.parametrize(
    ("kernel", "loss", "error", "message"),
    [
        (np.eye(2), "absolute", ValueError, "bounded second derivatives .*got 'absolute'"),
        (np.eye(2), "hinge", ValueError, "loss must be one of"),
        (np.eye(2), jnp.subtract, ValueError, "bounded second derivatives .*got 'subtract'"),
        (np.ones((2, 3)), "squared", ValueError, "kernel must"),
        (np.eye(2) * np.nan, "squared", ValueError, "kernel must be finite"),
        (np.array([[1.0, 2.0], [0.0, 1.0]]), "squared", ValueError, "kernel must be symmetric"),
    ],
)
def test_bad_input_is_named(kernel, loss, error, message):
    with pytest.raises(error, match=message):
        stable_rate(kernel, loss=loss)


def test_a_loss_of_ones_own_with_a_curvature():
    own = Loss("quartered", lambda f, y: jnp.square(f - y) / 4, "real", 0.5)
    assert stable_rate(np.eye(2), loss=own) == 8.0
    x, y = np.ones((3, 2, 1), np.float32), np.ones(3)
    settings = {"width": 4, "steps": 3}
    one = fit(ElmanRNN(), jax.random.key(0), x, y, loss=own, learning_rate=0.2, **settings)
    two = fit(ElmanRNN(), jax.random.key(0), x, y, learning_rate=0.1, **settings)
    np.testing.assert_allclose(one.losses, two.losses / 2, rtol=1e-5)


def test_only_networks_are_linearized():
    with pytest.raises(TypeError, match="rnn must be an ElmanRNN, got str"):
        linearize("relu")
