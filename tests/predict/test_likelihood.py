"""Marginal likelihood in fifty digits, and the search for its maximum."""

from dataclasses import replace

import jax
import mpmath
import numpy as np
import pytest
import scipy.stats

import rnntk
from rnntk.predict import GaussianProcess, fit_hyperparameters, log_marginal_likelihood
from rnntk.predict.derivatives import kernel_with_derivatives

NAMES = ("w_std", "u_std", "b_std", "v_std", "noise")
POINT = {"w_std": 1.2, "u_std": 0.8, "b_std": 0.3, "v_std": 1.1, "noise": 0.05}


def erf_moments(a, b, c):
    """E[phi phi] and E[phi' phi'] of erf, for variances a, b and covariance c."""
    root = mpmath.sqrt((1 + 2 * a) * (1 + 2 * b))
    first = 2 / mpmath.pi * mpmath.asin(2 * c / root)
    return first, 4 / mpmath.pi / mpmath.sqrt((1 + 2 * a) * (1 + 2 * b) - 4 * c**2)


def relu_moments(a, b, c):
    """Of relu; Cho & Saul 2009."""
    root = mpmath.sqrt(a * b)
    angle = mpmath.acos(min(c / root, mpmath.mpf(1)))
    first = root * (mpmath.sin(angle) + (mpmath.pi - angle) * mpmath.cos(angle))
    return first / (2 * mpmath.pi), (mpmath.pi - angle) / (2 * mpmath.pi)


MOMENTS = {"erf": erf_moments, "relu": relu_moments}


def pair(x1, x2, w, u, b, v, moments):
    """The kernels of two sequences by their definition, in the precision of the context."""
    pairs = {}
    for key, one, two in (("a", x1, x1), ("b", x2, x2), ("c", x1, x2)):
        pairs[key] = [sum(mpmath.mpf(p) * q for p, q in zip(*s, strict=True))
                      for s in zip(one, two, strict=True)]  # fmt: skip
    K, T, slope = {"a": mpmath.mpf(0), "b": mpmath.mpf(0), "c": mpmath.mpf(0)}, 0, 0
    for s in range(len(x1)):
        L = {key: w**2 * K[key] + u**2 * pairs[key][s] + b**2 for key in K}
        T = L["c"] + w**2 * slope * T
        K["a"] = moments(L["a"], L["a"], L["a"])[0]
        K["b"] = moments(L["b"], L["b"], L["b"])[0]
        K["c"], slope = moments(L["a"], L["b"], L["c"])
    return {"nngp": v**2 * K["c"], "ntk": v**2 * (K["c"] + slope * T)}


def density(x, y, values, kind, moments):
    """Log marginal likelihood from its definition."""
    n = len(x)
    stds = values[:4]
    K = mpmath.matrix(n, n)
    for i in range(n):
        for j in range(i + 1):
            K[i, j] = K[j, i] = pair(x[i], x[j], *stds, moments)[kind]
        K[i, i] += values[4]
    total = mpmath.mpf(0)
    for column in y.T:
        v = mpmath.matrix(column.tolist())
        quadratic = (v.T * mpmath.lu_solve(K, v))[0]
        total -= (quadratic + mpmath.log(mpmath.det(K)) + n * mpmath.log(2 * mpmath.pi)) / 2
    return total


@pytest.mark.parametrize(
    ("activation", "kind"),
    [
        ("relu", "nngp"),
        *(
            pytest.param(*pair, marks=pytest.mark.slow)
            for pair in (("erf", "ntk"), ("erf", "nngp"), ("relu", "ntk"))
        ),
    ],
)
def test_value_and_derivatives_against_central_differences_in_fifty_digits(x64, activation, kind):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((4, 3, 2)), rng.standard_normal((4, 2))
    stds = {name: POINT[name] for name in NAMES[:4]}
    rnn = rnntk.ElmanRNN(activation, **stds)
    found = log_marginal_likelihood(rnn, x, y, POINT["noise"], kind=kind)
    moments = MOMENTS[activation]
    with mpmath.workdps(50):
        point, h = [mpmath.mpf(POINT[name]) for name in NAMES], mpmath.mpf(10) ** -15
        tokens = x.tolist()
        assert found.value == pytest.approx(
            float(density(tokens, y, point, kind, moments)), rel=1e-11
        )
        for k, name in enumerate(NAMES):
            sides = [
                density(tokens, y, [p + s * h * (i == k) for i, p in enumerate(point)],
                        kind, moments)
                for s in (1, -1)
            ]  # fmt: skip
            expected = float((sides[0] - sides[1]) / (2 * h))
            assert found.gradient[name] == pytest.approx(expected, rel=1e-9), name


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"activation": "tanh", "depth": 2}, marks=pytest.mark.slow),
        pytest.param(
            {"bidirectional": True, "readout": "mean", "trainable": ("U", "b")},
            marks=pytest.mark.slow,
        ),
        {"initial_state": "independent", "initial_state_std": 0.5},
    ],
    ids=str,
)
def test_derivatives_of_every_kind_of_network_are_differences(x64, options):
    options = {"activation": "erf", **options}
    rnn = rnntk.ElmanRNN(w_std=1.1, u_std=0.9, b_std=0.2, v_std=1.3, **options)
    x = jax.random.normal(jax.random.key(0), (5, 4, 2))
    lengths = jax.numpy.array([4, 2, 3, 4, 1])
    for kind in ("nngp", "ntk"):
        kernel, derivatives = kernel_with_derivatives(rnn, x, lengths, kind)
        for name, derivative in derivatives.items():
            h = 1e-5
            one, two = (
                getattr(
                    rnntk.infinite_kernel(
                        replace(rnn, **{name: getattr(rnn, name) + s * h}), x, lengths1=lengths
                    ),
                    kind,
                )
                for s in (1, -1)
            )
            difference = np.asarray(one - two) / (2 * h)
            # h^2 of the third derivative, and rounding over h
            np.testing.assert_allclose(derivative, difference, atol=1e-8, err_msg=name)
        assert (kernel == kernel.T).all()


@pytest.mark.slow
def test_derivatives_of_many_sequences_are_those_of_few(x64, monkeypatch):
    monkeypatch.setattr("rnntk.predict.derivatives._TILE", 4)
    x = jax.random.normal(jax.random.key(0), (10, 3, 2))
    rnn = rnntk.ElmanRNN("erf", b_std=0.2)
    tiled = kernel_with_derivatives(rnn, x, None, "ntk")[1]
    monkeypatch.setattr("rnntk.predict.derivatives._TILE", 100)
    for name, derivative in kernel_with_derivatives(rnn, x, None, "ntk")[1].items():
        np.testing.assert_allclose(tiled[name], derivative, rtol=1e-12, atol=1e-14)
        np.testing.assert_array_equal(tiled[name], tiled[name].T)


def toy():
    """Sequences, and labels drawn from a network's own process with noise of variance 0.3."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 3, 2))
    rnn = rnntk.ElmanRNN("erf", w_std=1.0, u_std=0.5, b_std=0.5, v_std=2.0)
    kernel = np.asarray(rnntk.infinite_kernel(rnn, x).nngp, np.float64)
    chol = np.linalg.cholesky(kernel + 0.3 * np.eye(60))
    return x, chol @ rng.standard_normal((60, 3)), rnn


@pytest.mark.slow
def test_the_search_finds_at_least_the_truth(x64):
    x, y, truth = toy()
    start = replace(truth, w_std=0.3, u_std=2.0, v_std=0.5)
    bounds = {"w_std": (0.2, 2.0), "u_std": (0.1, 3.0), "v_std": (0.1, 10.0)}
    found = fit_hyperparameters(
        *(start, x, y, jax.random.key(0)),
        parameters=("w_std", "u_std", "v_std", "noise"),
        bounds=bounds,
        starts=2,
        progress=False,
    )
    best = log_marginal_likelihood(truth, x, y, 0.3)
    assert found.log_marginal_likelihood >= best.value
    # likelihood ratios of 4 parameters: twice the logarithm is chi-squared
    assert 2 * (found.log_marginal_likelihood - best.value) < scipy.stats.chi2(4).ppf(0.999)
    assert found.log_marginal_likelihood == max(found.maxima)
    assert found.rnn.b_std == truth.b_std
    assert 0.15 < found.noise < 0.6
    here = log_marginal_likelihood(found.rnn, x, y, found.noise)
    assert here.value == pytest.approx(found.log_marginal_likelihood, rel=1e-12)
    for name in ("w_std", "u_std", "v_std", "noise"):
        value = found.noise if name == "noise" else getattr(found.rnn, name)
        if name not in found.at_bound:
            assert abs(here.gradient[name] * value) < 0.05, name
    again = fit_hyperparameters(
        *(start, x, y, jax.random.key(0)),
        parameters=("w_std", "u_std", "v_std", "noise"),
        bounds=bounds,
        starts=2,
        progress=False,
    )
    assert again == found


def test_the_search_never_overflows():
    # relu grows like (w / sqrt 2)^t: at w = 3 and 200 steps by 10^65, beyond float32
    x = np.random.default_rng(0).standard_normal((6, 200, 1)).astype(np.float32)
    with pytest.raises(FloatingPointError, match="overflows float32 at step"):
        rnntk.infinite_kernel(rnntk.ElmanRNN(w_std=3.0), x)
    found = fit_hyperparameters(
        *(rnntk.ElmanRNN(), x, x[:, -1, 0], jax.random.key(1)),
        parameters=("w_std", "v_std", "noise"),
        starts=2,
        iterations=4,
        progress=False,
    )
    assert found.bounds["w_std"][1] < 3.0
    assert np.isfinite(found.log_marginal_likelihood)
    with pytest.raises(FloatingPointError, match="leaves the range of float32 within the bounds"):
        fit_hyperparameters(
            *(rnntk.ElmanRNN(w_std=3.0), x, x[:, -1, 0], jax.random.key(1)),
            parameters=("noise",),
            progress=False,
        )


def test_the_search_passes_singular_kernels_by(x64):
    x = np.random.default_rng(0).standard_normal((60, 3, 2))  # as of toy: compiled once
    x[30:] = x[:30]  # duplicates with labels of their own
    y = np.random.default_rng(1).standard_normal(60)
    rnn = rnntk.ElmanRNN("erf")
    options = {"parameters": ("u_std", "noise"), "starts": 2, "progress": False}
    bounds = {"noise": (1e-18, 1.0)}
    found = fit_hyperparameters(rnn, x, y, jax.random.key(0), bounds=bounds, **options)
    assert found.noise > 0.1
    with pytest.raises(ValueError, match="singular to rounding at every start"):
        fit_hyperparameters(
            *(rnn, x, y, jax.random.key(0)),
            parameters=("u_std",),
            noise=1e-18,
            starts=1,
            progress=False,
        )


def test_the_value_is_that_of_the_process(x64):
    x, y, rnn = toy()
    kernel = rnntk.infinite_kernel(rnn, x).nngp
    expected = GaussianProcess(kernel, y, 0.1).log_marginal_likelihood
    assert log_marginal_likelihood(rnn, x, y, 0.1).value == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parameters": ("w", "noise")}, r"parameters must be some of .*got \('w', 'noise'\)"),
        ({"bounds": {"w_std": (0.0, 1.0)}}, "bounds of w_std must be positive and ascending"),
        ({"bounds": {"noise": (2.0, 1.0)}}, "bounds of noise must be positive and ascending"),
        (
            {"parameters": ("noise",), "bounds": {"w_std": (1.0, 2.0)}},
            r"bounds must be of fitted parameters, \('noise',\), got \['w_std'\]",
        ),
        ({"kind": "rbf"}, "kind must be 'nngp' or 'ntk', got 'rbf'"),
        ({"noise": -1.0}, "noise must be finite and not negative"),
    ],
)
def test_bad_searches_are_named(options, message):
    x = np.ones((3, 2, 1), np.float32)
    with pytest.raises(ValueError, match=message):
        fit_hyperparameters(rnntk.ElmanRNN(), x, np.ones(3), jax.random.key(0), **options)
