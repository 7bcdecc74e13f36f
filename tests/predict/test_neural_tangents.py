"""Every function of neural-tangents' predict on well-conditioned kernels, in float64."""

from collections import namedtuple

import jax.numpy as jnp
import numpy as np
import pytest

from rnntk.predict import (
    GaussianProcess,
    gradient_descent,
    gradient_flow,
    largest_stable_step,
    trained_ensemble,
)

N, N_TEST, O = 10, 4, 2  # noqa: E741
TIMES = np.array([0.5, 7.0])
pytestmark = pytest.mark.usefixtures("x64", "lenient")


def kernels(seed):
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((N + N_TEST, 40))
    gram = features @ features.T / 40
    return gram[:N, :N], gram[N:, :N], gram[N:, N:]


NTK, CROSS, _ = kernels(0)
NNGP, NNGP_CROSS, NNGP_TEST = kernels(1)
Y = np.random.default_rng(2).standard_normal((N, O))
START = np.random.default_rng(3).standard_normal((N, O))
START_TEST = np.random.default_rng(4).standard_normal((N_TEST, O))


def close(ours, theirs):
    np.testing.assert_allclose(ours, np.asarray(theirs), rtol=1e-8, atol=1e-9)


def test_gradient_descent_mse(nt):
    # their loss is a mean over outputs too, so that their time runs slower by their number
    predict = nt.predict.gradient_descent_mse(jnp.asarray(NTK), jnp.asarray(Y), learning_rate=0.7)
    for time in TIMES:
        _, theirs = predict(time, jnp.asarray(START), jnp.asarray(START_TEST), jnp.asarray(CROSS))
        ours = gradient_flow(
            *(NTK, Y, CROSS, 0.7 * time / O), initial_train=START, initial_test=START_TEST
        )
        close(ours, theirs)


def cross_entropy(f, y):
    return -jnp.mean(jnp.sum(y * jnp.log(jnp.exp(f) / jnp.exp(f).sum(1, keepdims=True)), axis=1))


def test_gradient_descent_with_another_loss(nt):
    y = np.eye(O)[np.arange(N) % O]
    predict = nt.predict.gradient_descent(cross_entropy, jnp.asarray(NTK), jnp.asarray(y))
    times = jnp.asarray(TIMES)
    _, theirs = predict(times, jnp.asarray(START), jnp.asarray(START_TEST), jnp.asarray(CROSS))
    ours = gradient_flow(
        *(NTK, y, CROSS, TIMES), initial_train=START, initial_test=START_TEST, loss="cross_entropy"
    )
    # their solver has the tolerance 1.4e-8 for each step, and no option for another
    np.testing.assert_allclose(ours, np.asarray(theirs), rtol=2e-6, atol=1e-6)


def test_gradient_descent_with_momentum_is_the_limit_of_small_steps(nt):
    # theirs is a differential equation: momentum mu means friction (1 - mu) / sqrt(rate)
    rate, momentum, steps = 1e-4, 0.9, 4000
    predict = nt.predict.gradient_descent(
        lambda f, y: jnp.mean(jnp.square(f - y)) / 2,
        *(jnp.asarray(NTK), jnp.asarray(Y)),
        learning_rate=rate,
        momentum=momentum,
    )
    start = jnp.asarray(START), jnp.asarray(START_TEST)
    state = predict(float(steps), *start, jnp.asarray(CROSS))
    ours = gradient_descent(
        *(NTK, Y, CROSS, steps),
        step_size=rate / O,
        momentum=momentum,
        initial_train=START,
        initial_test=START_TEST,
    )
    # their equation follows the steps to first order in the rate
    np.testing.assert_allclose(ours, np.asarray(state[1]), atol=2e-4)


class Gram:
    """A kernel function as theirs, of row numbers."""

    def __call__(self, x1, x2, get, **_):
        rows = jnp.asarray(x1[:, 0], int)
        columns = rows if x2 is None else jnp.asarray(x2[:, 0], int)
        full = {
            "ntk": np.block([[NTK, CROSS.T], [CROSS, kernels(0)[2]]]),
            "nngp": np.block([[NNGP, NNGP_CROSS.T], [NNGP_CROSS, NNGP_TEST]]),
        }
        pairs = {kind: jnp.asarray(v)[rows][:, columns] for kind, v in full.items()}
        names = (get,) if isinstance(get, str) else get
        if isinstance(get, str):
            return pairs[get]
        return namedtuple("Kernels", names)(*(pairs[name] for name in names))


@pytest.mark.parametrize("time", [0.5, 7.0, None])
def test_gradient_descent_mse_ensemble(nt, time):
    points = np.arange(N + N_TEST, dtype=float)[:, None]
    predict = nt.predict.gradient_descent_mse_ensemble(Gram(), points[:N], jnp.asarray(Y))
    theirs = predict(t=time, x_test=points[N:], get=("ntk", "nngp"), compute_cov=True)
    scaled = 1e9 if time is None else time / O
    ntk = trained_ensemble(NTK, NNGP, Y, CROSS, NNGP_CROSS, NNGP_TEST, scaled)
    close(ntk.mean, theirs.ntk.mean)
    close(ntk.covariance, theirs.ntk.covariance)
    # training the readout alone: the tangent kernel is the NNGP kernel
    last = trained_ensemble(NNGP, NNGP, Y, NNGP_CROSS, NNGP_CROSS, NNGP_TEST, scaled)
    close(last.mean, theirs.nngp.mean)
    close(last.covariance, theirs.nngp.covariance)


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_gp_inference(nt, noise):
    pair = namedtuple("Kernels", ("ntk", "nngp"))
    predict = nt.predict.gp_inference(
        *(pair(jnp.asarray(NTK), jnp.asarray(NNGP)), jnp.asarray(Y)),
        diag_reg=noise,
        diag_reg_absolute_scale=True,
    )
    theirs = predict(
        get=("ntk", "nngp"),
        k_test_train=pair(jnp.asarray(CROSS), jnp.asarray(NNGP_CROSS)),
        k_test_test=jnp.asarray(NNGP_TEST),
    )
    process = GaussianProcess(NNGP, Y, noise=noise)
    close(process.mean(NNGP_CROSS), theirs.nngp.mean)
    close(process.covariance(NNGP_CROSS, NNGP_TEST), theirs.nngp.covariance)
    shifted = NTK + noise * np.eye(N)
    ensemble = trained_ensemble(shifted, NNGP, Y, CROSS, NNGP_CROSS, NNGP_TEST, 1e9)
    close(ensemble.mean, theirs.ntk.mean)
    close(ensemble.covariance, theirs.ntk.covariance)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_max_learning_rate(nt, momentum):
    theirs = nt.predict.max_learning_rate(jnp.asarray(NTK), Y.size, momentum)
    close(largest_stable_step(NTK, momentum) * O, theirs)


def test_the_comparison_can_fail(nt):
    predict = nt.predict.gradient_descent_mse(jnp.asarray(NTK), jnp.asarray(Y))
    _, theirs = predict(1.0, jnp.zeros((N, O)), jnp.zeros((N_TEST, O)), jnp.asarray(CROSS))
    wrong = gradient_flow(NTK, Y, CROSS, 1.0)  # without the number of outputs
    assert np.abs(wrong - np.asarray(theirs)).max() > 1e-2
