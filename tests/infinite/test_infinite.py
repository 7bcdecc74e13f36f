"""Infinite-width kernels: reference values, 80-bit arithmetic, wide networks, invariances."""

import dataclasses
import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rnntk
from rnntk import ElmanRNN, infinite_kernel
from rnntk.tiling import tuning

ORACLES = np.load(Path(__file__).parents[1] / "oracles" / "infinite_width.npz")
CONFIGS = json.loads(str(ORACLES["configs"]))
CLOSED = [i for i, c in enumerate(CONFIGS) if c["activation"] in rnntk.activations.NAMES]


def network(config):
    return ElmanRNN(**{**config, "trainable": tuple(config["trainable"])})


def draw(n=5, t=6, d=3, seed=0):
    return np.random.default_rng(seed).standard_normal((n, t, d))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("i", CLOSED)
def test_reference_values(i):
    kernel = infinite_kernel(
        network(CONFIGS[i]), ORACLES[f"{i}_x"], lengths1=ORACLES[f"{i}_lengths"]
    )
    for name in ("ntk", "nngp"):
        expected = ORACLES[f"{i}_{name}"]
        # relative to the largest entry: entries near zero are differences of large ones
        error = np.abs(getattr(kernel, name) - expected).max() / np.abs(expected).max()
        # the reference is Gauss-Hermite quadrature for the last two; test_hermite.py and
        # test_activations.py hold them to more
        tolerance = {"erf": 1e-12, "tanh": 1e-12, "gelu": 1e-12}.get(
            CONFIGS[i]["activation"], 1e-14
        )
        assert error < tolerance, (CONFIGS[i], error)


def longdouble_kernel(x, w2=2.0, u2=2.0):
    """Last-step relu NTK in 80-bit arithmetic, straight from the definition."""
    x = x.astype(np.longdouble)
    n, t, _ = x.shape
    cov, tangent = np.zeros((2, n, n), np.longdouble)
    slope = np.zeros((n, n), np.longdouble)
    for s in range(t):
        pre = w2 * cov + u2 * x[:, s] @ x[:, s].T
        tangent = pre + w2 * slope * tangent
        std = np.sqrt(np.diagonal(pre))
        scale = np.outer(std, std)
        # atan2 of half-angles through differences, as arccos has no digits left near 1
        gap = w2 * (np.diagonal(cov)[:, None] + np.diagonal(cov) - 2 * cov) + u2 * (
            (x[:, None, s] - x[None, :, s]) ** 2
        ).sum(-1)
        half = np.sqrt(np.clip((gap - np.subtract.outer(std, std) ** 2) / (4 * scale), 0, 1))
        theta = 2 * np.arcsin(half)
        pi = np.longdouble("3.14159265358979323846264338327950288")
        cov = scale * (np.sin(theta) + (pi - theta) * np.cos(theta)) / (2 * pi)
        slope = (pi - theta) / (2 * pi)
    return cov + slope * tangent


# Relative errors of the smallest eigenvalue that simpler recursions were measured to have on such
# data (n = 400): one that carries the squared distances of the states alone in float32, and one
# that takes angles by atan2 in float64.
NEAR = [
    (10, 1e-2, 6e-6, 5e-13),
    (10, 1e-3, 3e-5, 1e-10),
    (10, 1e-4, 7e-4, 1e-8),
    (50, 1e-3, 1e-4, 2e-11),
]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("t", "eps", "single", "double"), NEAR)
def test_smallest_eigenvalue_of_near_duplicates(t, eps, single, double):
    rng = np.random.default_rng(1)
    n, d = 100, 8
    base = rng.standard_normal((n // 2, t, d)) / np.sqrt(d)
    x = np.concatenate([base, base + eps * rng.standard_normal(base.shape) / np.sqrt(d)])
    x = x.astype(np.float32)
    # float64 eigenvalues of an 80-bit matrix rounded once: errors near 1e-16 / eps
    exact = longdouble_kernel(x).astype(np.float64)
    truth = np.linalg.eigvalsh(exact)[0]
    # what rounding the exact matrix to float32 once does to it, which depends on the draw
    floor = abs(np.linalg.eigvalsh(exact.astype(np.float32).astype(np.float64))[0] / truth - 1)
    for dtype, bound in ((np.float32, max(single, 4 * floor)), (np.float64, double)):
        kernel = np.asarray(infinite_kernel(ElmanRNN(), x.astype(dtype)).ntk, np.float64)
        assert abs(np.linalg.eigvalsh(kernel)[0] / truth - 1) < bound, dtype


def parallel(kind):
    """Sequences whose pre-activations are parallel, equally long or not, or opposite."""
    x = draw(6, 4)
    if kind == "scaled":
        return np.concatenate([x, 1.37 * x])
    if kind == "negated":
        return np.concatenate([x, -x])
    return draw(8, int(kind), 1)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", ["scaled", "negated", "1", "2", "5"])
def test_parallel_sequences_keep_their_digits(kind):
    # where arccos(1 - eps) would be off by 1e-8
    x = parallel(kind)
    for dtype, bound in ((np.float64, 4e-15), (np.float32, 2e-6)):
        ntk = infinite_kernel(ElmanRNN(), x.astype(dtype)).ntk
        expected = mpmath_kernel(x.astype(dtype))
        error = np.abs(np.asarray(ntk, np.float64) - expected).max()
        assert error < bound * np.abs(expected).max()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("scale", [1e-3, 1e-8])
def test_unequal_norms_keep_their_digits(scale):
    # an entry's error is relative to the norms' product, not to the larger norm
    x = draw(4, 3) * np.array([1, 1, scale, scale])[:, None, None]
    for dtype, bound in ((np.float64, 4e-15), (np.float32, 2e-6)):
        ntk = np.asarray(infinite_kernel(ElmanRNN(), x.astype(dtype)).ntk, np.float64)
        expected = mpmath_kernel(x.astype(dtype))
        norms = np.sqrt(np.diagonal(expected))
        assert (np.abs(ntk - expected) < bound * np.outer(norms, norms)).all()


def dot(a, b):
    return mpmath.fsum(mpmath.mpf(float(p)) * float(q) for p, q in zip(a, b, strict=True))


def mpmath_kernel(x, w2=2, u2=2):
    """Last-step relu NTK in 50 digits, pair by pair, step by step."""
    with mpmath.workdps(50):
        n, t, _ = x.shape
        own = [[mpmath.mpf(0)] for _ in range(n)]  # variances of the pre-activations, from step 1
        for i in range(n):
            for s in range(t):
                own[i].append(w2 * own[i][-1] / 2 + u2 * dot(x[i, s], x[i, s]))
        result = np.zeros((n, n))
        for i in range(n):
            for j in range(n):
                cov = back = mpmath.mpf(0)
                for s in range(t):
                    pre = w2 * cov + u2 * dot(x[i, s], x[j, s])
                    tangent = pre + w2 * back
                    scale = mpmath.sqrt(own[i][s + 1] * own[j][s + 1])
                    theta = mpmath.acos(max(-1, min(1, pre / scale)))
                    side = mpmath.sin(theta) + (mpmath.pi - theta) * mpmath.cos(theta)
                    cov = scale * side / (2 * mpmath.pi)
                    back = (mpmath.pi - theta) / (2 * mpmath.pi) * tangent
                result[i, j] = float(cov + back)
        return result


FOUR = "w_std", "u_std", "b_std", "v_std"


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("names", [("w_std",), pytest.param(FOUR, marks=pytest.mark.slow)])
def test_each_std_is_differentiable_and_vmappable_across_tiles(names, monkeypatch):
    monkeypatch.setattr(tuning, "INFINITE_TILE", 3)
    x = jnp.asarray(draw(5, 3))

    def loss(stds):
        chosen = dict(zip(names, stds, strict=True))
        return infinite_kernel(ElmanRNN(**{"b_std": 0.5, **chosen}), x).ntk.sum()

    points = np.array([[0.9, 1.2, 0.4, 0.8], [1.1, 0.7, 0.6, 1.3]])[:, : len(names)]
    values, gradients = jax.vmap(jax.value_and_grad(loss))(jnp.asarray(points))
    np.testing.assert_allclose(values, [loss(s.tolist()) for s in points], rtol=1e-13)
    steps = 1e-5 * np.eye(len(names))
    for point, gradient in zip(points, gradients, strict=True):
        sides = [[loss((point + s * h).tolist()) for h in steps] for s in (1, -1)]
        np.testing.assert_allclose(gradient, np.subtract(*sides) / 2e-5, rtol=1e-8)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_hyperparameters_fit_by_gradients(activation):
    x = 0.5 * draw(8, 4, 2)
    y = np.sin(x[:, -1].sum(axis=1))
    rnn = ElmanRNN(activation, b_std=0.2)
    leaves, treedef = jax.tree.flatten(rnn)

    def loss(stds):  # negative log marginal likelihood of a Gaussian process
        kernel = infinite_kernel(jax.tree.unflatten(treedef, list(stds)), x).ntk
        factor = jnp.linalg.cholesky(kernel + 0.1 * jnp.eye(len(x)))
        white = jax.scipy.linalg.solve_triangular(factor, jnp.asarray(y), lower=True)
        return white @ white / 2 + jnp.log(jnp.diagonal(factor)).sum()

    def plain(stds):
        """The same of a kernel that was not traced, by NumPy."""
        network = jax.tree.unflatten(treedef, [float(s) for s in stds])
        kernel = np.asarray(infinite_kernel(network, x).ntk) + 0.1 * np.eye(len(x))
        return (y @ np.linalg.solve(kernel, y) + np.linalg.slogdet(kernel)[1]) / 2

    stds = np.array(leaves)
    both = jax.jit(jax.value_and_grad(loss))
    value, gradient = both(jnp.asarray(stds))
    assert float(value) == pytest.approx(plain(stds), rel=1e-10)
    step = 1e-5 * np.eye(4)
    expected = [(plain(stds + h) - plain(stds - h)) / 2e-5 for h in step]
    # central differences: truncation 1e-10 of the third derivative, rounding 1e-15 / 1e-5
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-8)
    for _ in range(30):
        stds = stds - 0.02 * both(jnp.asarray(stds))[1]
    assert plain(stds) < float(value) - 0.1


GRID = [
    {"initial_state": "shared", "initial_state_std": 0.8, "activation": "cos"},
    {"readout": "mean", "initial_state": "independent", "initial_state_std": 0.8, "u_std": 0.7},
    {"activation": rnntk.activations.leaky_relu(0.2), "trainable": ("U", "b"), "b_std": 0.5},
]
# What these join is in the networks whose kernels test_certified.py encloses.
JOINED = [
    {"readout": "mean", "depth": 2, "bidirectional": True, "activation": "abs"},
    {"readout": "sequence", "bidirectional": True, "activation": "sin", "b_std": 0.3},
    {"readout": "sequence", "initial_state": "shared", "initial_state_std": 0.8, "depth": 2},
    {"activation": "erf", "depth": 2, "trainable": ("W", "V"), "input_scaling": "fan_in"},
]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "config",
    [*GRID, *(pytest.param(config, marks=pytest.mark.slow) for config in JOINED)],
    ids=lambda c: "-".join(c),
)
def test_wide_networks_average_to_it(config):
    rnn = ElmanRNN(**{"w_std": 1.2, "u_std": 0.9, **config})
    x1, x2 = draw(3, 4), draw(2, 5, seed=1)
    lengths1, lengths2 = np.array([4, 2, 3]), np.array([5, 2])
    width, seeds = 512, 16

    @jax.jit
    def one(key):
        params = rnn.init(key, input_dim=3, width=width)
        return rnntk.empirical_kernel(
            rnn,
            params,
            x1,
            x2,
            lengths1=lengths1,
            lengths2=lengths2,
            key=jax.random.fold_in(key, 9),
        )

    samples = jax.lax.map(one, jax.random.split(jax.random.key(0), seeds))
    exact = infinite_kernel(rnn, x1, x2, lengths1=lengths1, lengths2=lengths2)
    for sample, expected in zip(samples, exact, strict=True):
        error = np.asarray(sample.mean(0) - expected)
        spread = np.asarray(sample.std(0, ddof=1)) / np.sqrt(seeds)
        # 4 standard errors of the mean, and the O(1/width) bias that finite networks have
        assert (np.abs(error) <= 4 * spread + 8 / width * np.abs(expected).max()).all()


@pytest.mark.usefixtures("x64")
def test_deviation_falls_like_one_over_root_width():
    rnn, x = ElmanRNN(), draw(12, 5)
    exact = infinite_kernel(rnn, x).ntk
    widths, deviations = [32, 512], []
    for width in widths:

        def squared(key, width=width):
            params = rnn.init(key, input_dim=3, width=width)
            return jnp.sum((rnntk.empirical_kernel(rnn, params, x).ntk - exact) ** 2)

        keys = jax.random.split(jax.random.key(width), 32)
        deviations.append(float(jnp.sqrt(jax.lax.map(jax.jit(squared), keys).mean())))
    slope = np.polyfit(np.log(widths), np.log(deviations), 1)[0]
    assert abs(slope + 0.5) < 0.1  # 32 seeds: the slope's standard error is about 0.04


ALIKE = [("abs", "last"), ("relu", "last"), ("erf", "mean"), ("sin", "last"), ("abs", "mean")]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("activation", "readout"),
    [
        *(("relu", "mean"), ("erf", "last"), ("sin", "mean")),
        *(pytest.param(*pair, marks=pytest.mark.slow) for pair in ALIKE),
    ],
)
@settings(max_examples=6)
@given(seed=st.integers(0, 1000), scale=st.sampled_from([1e-3, 1.0, 30.0]))
def test_invariances(activation, readout, seed, scale):
    rng = np.random.default_rng(seed)
    rnn = ElmanRNN(activation, readout=readout, w_std=1.1, b_std=0.1)
    x, lengths = scale * draw(6, 4, 2, seed), rng.integers(1, 5, 6)
    x[1] = x[0]
    x[2] = 0
    ntk = np.asarray(infinite_kernel(rnn, x, lengths1=lengths).ntk)
    assert (ntk == ntk.T).all()
    size = np.abs(ntk).max()
    assert np.linalg.eigvalsh(ntk)[0] > -1e-14 * size
    other = np.where(
        np.arange(4)[None, :, None] < lengths[:, None, None], x, rng.normal(size=x.shape)
    )
    assert (np.asarray(infinite_kernel(rnn, other, lengths1=lengths).ntk) == ntk).all()
    order = rng.permutation(6)
    permuted = np.asarray(infinite_kernel(rnn, x[order], lengths1=lengths[order]).ntk)
    np.testing.assert_allclose(permuted, ntk[np.ix_(order, order)], rtol=0, atol=1e-15 * size)
    copy = infinite_kernel(rnn, x, x.copy(), lengths1=lengths, lengths2=lengths).ntk
    np.testing.assert_allclose(copy, ntk, rtol=0, atol=1e-15 * size)


# Series, and erf of a single term, share their code with tanh; abs with relu, cos with sin.
SHARED = ("erf", "sigmoid", "softplus", "silu", "elu", "abs", "cos", "gelu")
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in SHARED]
FAST = [name for name in rnntk.activations.NAMES if name not in SHARED]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("readout", ["last", pytest.param("mean", marks=pytest.mark.slow)])
@pytest.mark.parametrize("activation", FAST + SLOW)
def test_gradients_are_finite_at_duplicates_and_zeros(activation, readout):
    x = draw(4, 3, 2)
    x[1], x[2, 0], x[3] = x[0], 0, 0

    @jax.jit
    @partial(jax.value_and_grad, argnums=(0, 1))
    def both(rnn, x):
        return infinite_kernel(rnn, x).ntk.sum()

    rnn = ElmanRNN(activation, w_std=1.1, b_std=0.0, readout=readout)
    value, gradients = both(rnn, x)
    assert float(value) == pytest.approx(float(infinite_kernel(rnn, x).ntk.sum()), rel=1e-13)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    step = 1e-6
    for name in ("w_std", "v_std"):
        values = [
            float(both(dataclasses.replace(rnn, **{name: getattr(rnn, name) + h}), x)[0])
            for h in (-step, step)
        ]
        expected = (values[1] - values[0]) / (2 * step)
        assert abs(getattr(gradients[0], name) - expected) < 1e-7 * max(1, abs(expected))


@pytest.mark.usefixtures("x64")
def test_two_thousand_steps_at_criticality():
    x = draw(2, 2000, 2)
    got = np.asarray(infinite_kernel(ElmanRNN(), x).ntk)
    expected = longdouble_kernel(x).astype(float)
    np.testing.assert_allclose(got, expected, rtol=1e-12)  # 2000 steps of a few roundoffs


@pytest.mark.parametrize("w_std", [0.3, pytest.param(3.0, marks=pytest.mark.slow)])
def test_padding_of_any_length_changes_nothing(w_std):
    # 90 steps would overflow, or underflow
    rnn, lengths = ElmanRNN(w_std=w_std, readout="mean"), np.array([2, 3])

    def kernel(rnn, t):
        return infinite_kernel(rnn, jnp.ones((2, t, 1)), lengths1=lengths).ntk

    np.testing.assert_array_equal(kernel(rnn, 90), kernel(rnn, 3))
    if w_std < 1:  # where no infinity can reach a gradient
        return
    slope = jax.jit(jax.grad(lambda rnn, t: kernel(rnn, t).sum()), static_argnums=1)
    slopes = [slope(rnn, t).w_std for t in (3, 90)]
    np.testing.assert_allclose(slopes[1], slopes[0], rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_zero_variances_that_are_no_underflow():
    # tokens of zero that follow others, with nothing remembered; states below that nothing reads
    x = np.array([[[1.0], [0.0]]])
    rnn = ElmanRNN(w_std=0.0, readout="mean")
    assert infinite_kernel(rnn, x).ntk[0, 0] == pytest.approx(2 / 4, rel=1e-15)
    deep = ElmanRNN("sigmoid", u_std=0.0, depth=2)
    # sigmoid(0)^2 at the first step, as no variance enters
    assert infinite_kernel(deep, x[:, :1]).nngp[0, 0] == pytest.approx(1 / 4, rel=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("readout", ["last", pytest.param("sequence", marks=pytest.mark.slow)])
def test_tiles_make_the_same_kernel(readout, monkeypatch):
    rnn = ElmanRNN(readout=readout, initial_state="independent", initial_state_std=0.5)
    # in tiles of 3 and 2, and of 3 and 3
    x1, x2 = draw(5, 4), draw(6, 3, seed=1)
    lengths = np.array([4, 2, 1, 3, 4])
    whole = infinite_kernel(rnn, x1, lengths1=lengths), infinite_kernel(rnn, x1, x2)
    monkeypatch.setattr(tuning, "INFINITE_TILE", 3)
    parts = infinite_kernel(rnn, x1, lengths1=lengths), infinite_kernel(rnn, x1, x2)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-14, atol=1e-14)
    ntk = parts[0].ntk.reshape((5 * 4,) * 2 if readout == "sequence" else (5, 5))
    assert (ntk == ntk.T).all()
