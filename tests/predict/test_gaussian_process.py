"""Gaussian processes against mpmath, scikit-learn, and networks that are really trained."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import scipy.stats
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Kernel

import rnntk
from rnntk.predict import GaussianProcess, KernelRegression, gradient_flow, trained_ensemble

N, N_TEST = 12, 5


def problem(seed=0, outputs=None):
    """Train kernel, values, cross kernel and test kernel of the same features."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((N + N_TEST, 40))
    gram = features @ features.T / 40
    y = rng.standard_normal(N if outputs is None else (N, outputs))
    return gram[:N, :N], y, gram[N:, :N], gram[N:, N:]


class Precomputed(Kernel):
    """scikit-learn's interface to a kernel matrix, whose points are row numbers."""

    def __init__(self, gram):
        self.gram = gram

    def __call__(self, X, Y=None, eval_gradient=False):
        rows = X[:, 0].astype(int)
        return self.gram[np.ix_(rows, rows if Y is None else Y[:, 0].astype(int))]

    def diag(self, X):
        return np.diagonal(self.gram)[X[:, 0].astype(int)].copy()

    def is_stationary(self):
        return False


@pytest.mark.parametrize("outputs", [None, 3])
def test_posteriors_of_scikit_learn(outputs):
    K, y, cross, test = problem(outputs=outputs)
    process = GaussianProcess(K, y, noise=0.2)
    gram = np.block([[K, cross.T], [cross, test]])
    points = np.arange(N + N_TEST)[:, None]
    peer = GaussianProcessRegressor(Precomputed(gram), alpha=0.2, optimizer=None)
    peer.fit(points[:N], y)
    mean, covariance = peer.predict(points[N:], return_cov=True)
    np.testing.assert_allclose(process.mean(cross), mean, rtol=1e-9, atol=1e-12)
    ours = process.covariance(cross, test)
    theirs = covariance if outputs is None else covariance[:, :, 0]
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    variance = process.variance(cross, np.diagonal(test))
    np.testing.assert_allclose(variance, np.diagonal(ours), rtol=1e-12)
    likelihood = peer.log_marginal_likelihood_value_
    assert process.log_marginal_likelihood == pytest.approx(likelihood, rel=1e-9)


def test_posteriors_in_fifty_digits():
    i = np.arange(1, 8)
    gram = 1.0 / (i[:, None] + i[None, :] - 1)  # Hilbert's, of condition 1e9
    K, cross, test = gram[:5, :5], gram[5:, :5], gram[5:, 5:]
    y = np.array([1.0, 0.0, -1.0, 2.0, 0.5])
    process = GaussianProcess(K, y, noise=1e-5)
    with mpmath.workdps(50):
        system = mpmath.matrix(K.tolist()) + mpmath.mpf(1e-5) * mpmath.eye(5)
        k = mpmath.matrix(cross.tolist())
        inverse = system**-1
        mean = k * inverse * mpmath.matrix(y.tolist())
        covariance = mpmath.matrix(test.tolist()) - k * inverse * k.T
        quadratic = (mpmath.matrix(y.tolist()).T * inverse * mpmath.matrix(y.tolist()))[0]
        density = -(quadratic + mpmath.log(mpmath.det(system)) + 5 * mpmath.log(2 * mpmath.pi)) / 2
    # the condition, 2e5, times the unit roundoff
    np.testing.assert_allclose(process.mean(cross), [float(v) for v in mean], rtol=1e-10)
    expected = np.array(covariance.tolist(), float)
    np.testing.assert_allclose(process.covariance(cross, test), expected, atol=1e-14)
    assert process.log_marginal_likelihood == pytest.approx(float(density), rel=1e-10)


def test_the_mean_is_ridge_regression():
    K, y, cross, _ = problem()
    mean = GaussianProcess(K, y, noise=0.3).mean(cross)
    np.testing.assert_array_equal(mean, KernelRegression(K, y, 0.3).predict(cross))


def test_samples_have_the_posterior_distribution():
    K, y, cross, test = problem(outputs=2)
    process = GaussianProcess(K, y, noise=0.1)
    samples = process.sample(jax.random.key(0), 20000, cross, test)
    assert samples.shape == (20000, N_TEST, 2)
    mean, covariance = process.mean(cross), process.covariance(cross, test)
    # whitened samples are standard normal, in each direction and output
    white = np.linalg.solve(np.linalg.cholesky(covariance), samples - mean)
    moment = np.einsum("sia,sjb->iajb", white, white).reshape(2 * N_TEST, -1) / 20000
    np.testing.assert_allclose(moment, np.eye(2 * N_TEST), atol=5 * (2 / 20000) ** 0.5)
    assert scipy.stats.kstest(white[:, 0, 0], "norm").pvalue > 1e-3
    again = process.sample(jax.random.key(0), 20000, cross, test)
    np.testing.assert_array_equal(samples, again)
    assert (process.sample(jax.random.key(1), 1, cross, test) != samples[:1]).all()


def test_without_noise_the_training_points_are_certain():
    K, y, _, _ = problem()
    process = GaussianProcess(K, y)
    np.testing.assert_allclose(process.mean(K), y, rtol=1e-12)
    np.testing.assert_allclose(process.variance(K, np.diagonal(K)), 0, atol=1e-12)
    assert (process.variance(K, np.diagonal(K)) >= 0).all()


def test_the_ensemble_begins_as_the_prior_and_ends_on_the_labels():
    ntk, y, cross, _ = problem(0)
    nngp, _, nngp_cross, nngp_test = problem(1)
    start, end = trained_ensemble(
        ntk, nngp, y, cross, nngp_cross, nngp_test, np.array([0.0, 1e6])
    ).covariance
    np.testing.assert_array_equal(start, nngp_test)
    A = cross @ np.linalg.inv(ntk)
    infinite = nngp_test - A @ nngp_cross.T - nngp_cross @ A.T + A @ nngp @ A.T
    np.testing.assert_allclose(end, infinite, atol=1e-10)
    late = trained_ensemble(ntk, nngp, y, ntk, nngp, nngp, 1e6)
    np.testing.assert_allclose(late.mean, y, atol=1e-10)
    np.testing.assert_allclose(late.covariance, 0, atol=1e-10)


def test_the_ensemble_is_what_flow_makes_of_random_starts():
    ntk, y, cross, _ = problem(0)
    nngp, _, nngp_cross, nngp_test = problem(1)
    joint = np.block([[nngp, nngp_cross.T], [nngp_cross, nngp_test]])
    mean, covariance = trained_ensemble(ntk, nngp, y, cross, nngp_cross, nngp_test, 4.0)
    # flow is affine in the initial outputs, so the covariance follows from its unit responses
    zero = gradient_flow(ntk, y, cross, 4.0)
    np.testing.assert_allclose(mean, zero, atol=1e-12)
    response = np.stack(
        [
            gradient_flow(ntk, y, cross, 4.0, initial_train=e[:N], initial_test=e[N:]) - zero
            for e in np.eye(N + N_TEST)
        ],
        axis=1,
    )
    np.testing.assert_allclose(covariance, response @ joint @ response.T, atol=1e-11)


@pytest.mark.slow
def test_wide_networks_trained_from_random_starts_have_the_ensembles_moments():
    rnn, width, seeds, steps = rnntk.ElmanRNN("erf", w_std=1.0, u_std=1.0, b_std=0.3), 256, 400, 40
    x = jax.random.normal(jax.random.key(0), (6, 3, 2))
    x = x.at[4].set(x[0] + 0.2 * x[4])  # near what is learnt: little of its variance stays
    y = jnp.array([1.0, -1.0, 0.5, 0.0])[:, None]
    ntk, nngp = (np.asarray(k, np.float64) for k in rnntk.infinite_kernel(rnn, x))
    step_size = 0.1 * 4 / np.linalg.eigvalsh(ntk[:4, :4])[-1]

    def train(key):
        params = rnn.init(key, input_dim=2, width=width)

        def loss(p):
            return jnp.sum(jnp.square(rnn.apply(p, x[:4]) - y)) / 8

        def step(p, _):
            return jax.tree.map(lambda v, g: v - step_size * g, p, jax.grad(loss)(p)), None

        return rnn.apply(jax.lax.scan(step, params, length=steps)[0], x)[4:, 0]

    outputs = np.asarray(jax.lax.map(jax.jit(train), jax.random.split(jax.random.key(1), seeds)))
    train_kernels, labels = (ntk[:4, :4], nngp[:4, :4]), np.asarray(y[:, 0])
    test_kernels = ntk[4:, :4], nngp[4:, :4], nngp[4:, 4:]
    mean, covariance = trained_ensemble(*train_kernels, labels, *test_kernels, step_size * steps)
    error = np.sqrt(np.diagonal(covariance) / seeds)
    np.testing.assert_array_less(np.abs(outputs.mean(axis=0) - mean), 4 * error + 0.02)
    ratio = outputs.var(axis=0, ddof=1) / np.diagonal(covariance)
    # a variance of 400 draws is known to 7 %, and width 256 leaves a few more
    np.testing.assert_allclose(ratio, 1, atol=0.3)
    prior = np.diagonal(nngp)[4:]
    assert (np.abs(outputs.var(axis=0, ddof=1) / prior - 1) > 0.3).any()  # training did matter


def test_what_does_not_fit_is_named():
    K, y, cross, test = problem()
    process = GaussianProcess(K, y, noise=0.1)
    with pytest.raises(ValueError, match=r"noise must be finite and not negative, got -1"):
        GaussianProcess(K, y, noise=-1)
    with pytest.raises(ValueError, match=r"row and a column for each of the 5 new points.*12, 12"):
        process.covariance(cross, K)
    with pytest.raises(ValueError, match=r"prior must hold a finite variance for each of the 5"):
        process.variance(cross, np.ones(3))
    with pytest.raises(ValueError, match=r"the kernels are not of one function"):
        process.variance(cross, np.diagonal(test) / 100)
    with pytest.raises(ValueError, match=r"the kernels are not of one function"):
        process.covariance(cross, test / 100)
    with pytest.raises(ValueError, match=r"count must be a whole number of at least 1, got 0"):
        process.sample(jax.random.key(0), 0, cross, test)
    with pytest.raises(ValueError, match=r"nngp must have the shape of ntk"):
        trained_ensemble(K, test, y, cross, cross, test, 1.0)
    with pytest.raises(ValueError, match=r"nngp_test_train must have the shape of"):
        trained_ensemble(K, K, y, cross, cross[:2], test, 1.0)
    with pytest.raises(ValueError, match=r"ntk must be positive semidefinite"):
        trained_ensemble(-K, K, y, cross, cross, test, 1.0)
    with pytest.raises(ValueError, match=r"time must be sorted"):
        trained_ensemble(K, K, y, cross, cross, test, np.array([2.0, 1.0]))
    with pytest.raises(ValueError, match=r"as good as infinite"):
        trained_ensemble(K, K, y, cross, cross, test, np.inf)
