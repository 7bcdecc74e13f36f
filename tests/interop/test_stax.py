"""ElmanRNN.stax: what neural-tangents computes with it, against rnntk and direct formulas."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from rnntk import ElmanRNN, empirical_kernel, infinite_kernel, predict

X = np.random.default_rng(0).standard_normal((6, 4, 3)).astype(np.float32)
Y = np.random.default_rng(1).standard_normal((4, 2)).astype(np.float32)
TRAIN, TEST = X[:4], X[4:]
RNN = ElmanRNN("erf", b_std=0.3)


pytestmark = pytest.mark.usefixtures("lenient")


# --- The three functions


@pytest.mark.parametrize("readout, shape", [("mean", (-1, 2)), ("sequence", (-1, 4, 2))])
def test_init_fn_draws_what_init_draws(readout, shape):
    rnn, key = ElmanRNN(readout=readout, depth=2), jax.random.key(0)
    init_fn, apply_fn, _ = rnn.stax(8, 2)
    got, params = init_fn(key, (-1, 4, 3))
    assert got == shape
    jax.tree.map(
        np.testing.assert_array_equal, params, rnn.init(key, input_dim=3, width=8, output_dim=2)
    )
    assert apply_fn(params, X).shape == (6, *shape[1:])


def test_init_fn_takes_keys_of_both_kinds():
    init_fn = RNN.stax(8)[0]
    one, two = (init_fn(key(3), X.shape)[1] for key in (jax.random.PRNGKey, jax.random.key))
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_apply_fn_is_apply_and_needs_no_key():
    init_fn, apply_fn, _ = RNN.stax(8)
    params, lengths = init_fn(jax.random.key(0), X.shape)[1], np.array([4, 1, 2, 3, 4, 1])
    got = apply_fn(params, X, rng=jax.random.key(1), lengths=lengths)
    np.testing.assert_array_equal(got, RNN.apply(params, X, lengths))


def test_kernel_fn_returns_what_get_asks_for():
    kernel_fn = RNN.stax(8)[2]
    expected = infinite_kernel(RNN, TRAIN, TEST)
    for get in (None, ("ntk", "nngp"), ["nngp", "ntk"], ("NTK",), ("nngp",)):
        kernel = kernel_fn(TRAIN, TEST, get)
        kinds = ("nngp", "ntk") if get is None else tuple(kind.lower() for kind in get)
        assert kernel._fields == kinds
        assert type(kernel) is type(kernel_fn(TRAIN, get=get))  # one pytree type for both
        for kind in kinds:
            np.testing.assert_array_equal(getattr(kernel, kind), getattr(expected, kind))
    np.testing.assert_array_equal(kernel_fn(TRAIN, TEST, "ntk"), expected.ntk)
    np.testing.assert_array_equal(kernel_fn(TRAIN, get="nngp"), infinite_kernel(RNN, TRAIN).nngp)


def test_kernel_fn_puts_sequences_first():
    rnn = ElmanRNN(readout="sequence")
    kernel = rnn.stax(8)[2](TRAIN, X[4:, :3], "ntk")
    assert kernel.shape == (4, 2, 4, 3)
    expected = infinite_kernel(rnn, TRAIN, X[4:, :3]).ntk
    np.testing.assert_array_equal(kernel[1, 0, 3], expected[1, 3, 0])


def test_kernel_fn_takes_lengths_of_one_or_both_batches():
    kernel_fn, one, two = RNN.stax(8)[2], np.array([4, 1, 2, 3]), np.array([2, 4])
    expected = infinite_kernel(RNN, TRAIN, TEST, lengths1=one, lengths2=two).ntk
    np.testing.assert_array_equal(kernel_fn(TRAIN, TEST, "ntk", lengths=(one, two)), expected)
    alone = infinite_kernel(RNN, TRAIN, lengths1=one).ntk
    for lengths in (one, (one, one), (one, None), (4, 1, 2, 3)):
        np.testing.assert_array_equal(kernel_fn(TRAIN, None, "ntk", lengths=lengths), alone)
    # two numbers are the lengths of two sequences
    pair = infinite_kernel(RNN, TRAIN[:2], lengths1=np.array([4, 2])).ntk
    for lengths in ((4, 2), [4, 2]):
        np.testing.assert_array_equal(kernel_fn(TRAIN[:2], None, "ntk", lengths=lengths), pair)


@pytest.mark.usefixtures("x64")
def test_untrained_groups_have_no_gradient():
    rnn = ElmanRNN(trainable=("U", "V"), initial_state="shared", initial_state_std=0.5)
    init_fn, apply_fn, _ = rnn.stax(8)
    params = init_fn(jax.random.key(0), X.shape)[1]
    gradients = jax.grad(lambda p: apply_fn(p, X.astype(float)).sum())(params)
    moved = {name for name, gradient in gradients.items() if np.any(gradient)}
    assert moved == {"U", "V"}
    np.testing.assert_array_equal(apply_fn(params, X), rnn.apply(params, X))


# --- Bad input


def test_bad_sizes_and_states_are_refused_at_once():
    with pytest.raises(ValueError, match="width must be a whole number of at least 1, got 0"):
        RNN.stax(0)
    with pytest.raises(ValueError, match=r"output_dim must be a whole number .* got 1\.5"):
        RNN.stax(8, 1.5)
    independent = ElmanRNN(initial_state="independent", initial_state_std=1.0)
    with pytest.raises(ValueError, match="initial_state must be 'zero' or 'shared' for stax"):
        independent.stax(8)


def test_bad_calls_are_refused():
    init_fn, apply_fn, kernel_fn = RNN.stax(8)
    with pytest.raises(ValueError, match=r"input_shape must be \(sequences, steps, token size\)"):
        init_fn(jax.random.key(0), (6, 3))
    with pytest.raises(ValueError, match="input_dim must be a whole number of at least 1, got -1"):
        init_fn(jax.random.key(0), (6, 4, -1))
    for get in ("cov1", (), ("ntk", "ntk"), ("ntk", "cov1"), "", 3):
        with pytest.raises(ValueError, match=r"get must be one of \('nngp', 'ntk'\)"):
            kernel_fn(TRAIN, None, get)
    lengths = np.array([4, 1, 2, 3])
    with pytest.raises(ValueError, match="tuple of both batches', got a list of 2"):
        kernel_fn(TRAIN, TRAIN, "ntk", lengths=[lengths, lengths])
    with pytest.raises(ValueError, match="tuple of both batches', got a tuple of 3"):
        kernel_fn(TRAIN, TRAIN, "ntk", lengths=(lengths, lengths, None))
    with pytest.raises(TypeError, match="mask_constant"):
        kernel_fn(TRAIN, None, "ntk", mask_constant=0.0)
    with pytest.raises(TypeError, match="pattern"):
        apply_fn(None, TRAIN, pattern=None)
    with pytest.raises(ValueError, match="params must come from init"):
        apply_fn({}, TRAIN)


# --- In neural-tangents


@pytest.mark.usefixtures("x64")
def test_ensemble_after_training(nt):
    kernel_fn = RNN.stax(8, 2)[2]
    train, test, y = TRAIN.astype(float), TEST.astype(float), Y.astype(float)
    ensemble = nt.predict.gradient_descent_mse_ensemble(kernel_fn, train, y, learning_rate=0.7)
    got = ensemble(None, test, ("ntk", "nngp"), compute_cov=True)
    k, cross, prior = (kernel_fn(*pair) for pair in ((train,), (test, train), (test,)))
    for kind in ("ntk", "nngp"):
        model = predict.KernelRegression(getattr(k, kind), y)
        mean = model.predict(getattr(cross, kind))
        np.testing.assert_allclose(getattr(got, kind).mean, mean, rtol=1e-9, atol=1e-9)
    posterior = prior.nngp - cross.nngp @ np.linalg.solve(k.nngp, cross.nngp.T)
    np.testing.assert_allclose(got.nngp.covariance, posterior, rtol=1e-8, atol=1e-8)
    times = np.array([0.0, 2.0, 30.0])
    flow = predict.gradient_flow(k.ntk, y, cross.ntk, 0.7 * times / y.shape[1])
    np.testing.assert_allclose(ensemble(times, test, "ntk"), flow, rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("x64")
def test_ensemble_on_ragged_sequences(nt):
    kernel_fn, one, two = RNN.stax(8)[2], np.array([4, 1, 2, 3]), np.array([2, 4])
    train, test, y = TRAIN.astype(float), TEST.astype(float), Y.astype(float)
    ensemble = nt.predict.gradient_descent_mse_ensemble(kernel_fn, train, y, lengths=(one, one))
    got = ensemble(None, test, "ntk", lengths=(two, two))
    k = infinite_kernel(RNN, train, lengths1=one).ntk
    cross = infinite_kernel(RNN, test, train, lengths1=two, lengths2=one).ntk
    np.testing.assert_allclose(got, cross @ np.linalg.solve(k, y), rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("x64")
def test_gradient_descent_on_every_step(nt):
    """The "sequence" readout: each step of each sequence is a point of its own."""
    rnn = ElmanRNN("erf", b_std=0.3, readout="sequence")
    kernel_fn, train = rnn.stax(8, 1)[2], TRAIN[:2].astype(float)
    y = np.random.default_rng(2).standard_normal((2, 4, 1))
    got = nt.predict.gradient_descent_mse(kernel_fn(train, None, "ntk"), y)(5.0, 0.0)
    k = infinite_kernel(rnn, train).ntk.reshape(8, 8)
    expected = (np.eye(8) - scipy.linalg.expm(-k * 5.0 / 8)) @ y.reshape(8)
    np.testing.assert_allclose(got.reshape(8), expected, rtol=1e-9, atol=1e-9)


def test_inference(nt):
    kernel_fn = RNN.stax(8)[2]
    k, cross = kernel_fn(TRAIN), kernel_fn(TEST, TRAIN)
    got = nt.predict.gp_inference(k, Y, diag_reg=0.1, diag_reg_absolute_scale=True)("ntk", cross)
    expected = cross.ntk @ np.linalg.solve(k.ntk + 0.1 * np.eye(4, dtype=np.float32), Y)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "readout, device_count", [("last", -1), pytest.param("sequence", 1, marks=pytest.mark.slow)]
)
def test_batches(nt, readout, device_count):
    kernel_fn = ElmanRNN("erf", b_std=0.3, readout=readout).stax(8)[2]
    batched = nt.batch(kernel_fn, batch_size=2, device_count=device_count)
    lengths = np.array([4, 2, 3, 4]), np.array([1, 4])
    for kwargs in ({}, {"lengths": lengths}):
        kernels = batched(TRAIN, TEST, ("nngp", "ntk"), **kwargs)
        expected = kernel_fn(TRAIN, TEST, **kwargs)
        for got, kernel in zip(kernels, expected, strict=True):
            np.testing.assert_allclose(got, kernel, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        batched(TRAIN, None, "ntk"), kernel_fn(TRAIN, None, "ntk"), rtol=1e-5, atol=1e-5
    )


@pytest.mark.slow
def test_monte_carlo(nt):
    rnn = ElmanRNN("erf", b_std=0.3, trainable=("W", "b"))
    init_fn, apply_fn, kernel_fn = rnn.stax(512)
    count = 64
    sample_fn = nt.monte_carlo_kernel_fn(init_fn, apply_fn, jax.random.key(0), range(1, count + 1))
    means = list(sample_fn(TRAIN[:3], None, ("nngp", "ntk")))
    for kind, exact in zip(("nngp", "ntk"), kernel_fn(TRAIN[:3]), strict=True):
        sums = np.array([n * getattr(mean, kind) for n, mean in enumerate(means, 1)], float)
        samples = np.diff(sums, axis=0, prepend=0)
        error = samples.std(axis=0, ddof=1) / np.sqrt(count)
        # 12 entries, strongly correlated: 4 standard errors happen by chance once in a thousand.
        assert (np.abs(samples.mean(axis=0) - exact) < 4 * error).all(), kind
        assert (error < 0.25 * np.abs(np.diag(exact)).max()).all(), kind


CASES = [
    ElmanRNN("erf", b_std=0.3),
    ElmanRNN("tanh", readout="sequence", trainable=("W", "V")),
    ElmanRNN(
        readout="mean",
        depth=2,
        bidirectional=True,
        initial_state="shared",
        initial_state_std=0.5,
        trainable=("W", "b"),
        b_std=0.2,
    ),
]


@pytest.mark.parametrize("method", [1, 2])
@pytest.mark.parametrize("rnn", CASES, ids=lambda rnn: rnn.readout)
def test_empirical_kernels(nt, rnn, method):
    init_fn, apply_fn, _ = rnn.stax(32, 2)
    params = init_fn(jax.random.key(0), X.shape)[1]
    lengths = np.array([4, 2, 3, 4]), np.array([1, 4])
    ntk_fn = jax.jit(nt.empirical_ntk_fn(apply_fn, implementation=method))
    got = ntk_fn(TRAIN, TEST, params, lengths=lengths)
    kernel = empirical_kernel(rnn, params, TRAIN, TEST, lengths1=lengths[0], lengths2=lengths[1])
    expected = kernel.ntk if kernel.ntk.ndim == 2 else kernel.ntk.swapaxes(1, 2)
    # Rounding of float32, of sums that may cancel.
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_linearized_network(nt):
    init_fn, apply_fn, _ = RNN.stax(16, 2)
    params = init_fn(jax.random.key(0), X.shape)[1]
    step = jax.tree.map(lambda leaf: 0.1 * jnp.ones_like(leaf), params)
    moved = jax.tree.map(jnp.add, params, step)
    expected = RNN.apply(params, X) + jax.jvp(lambda p: RNN.apply(p, X), (params,), (step,))[1]
    np.testing.assert_allclose(nt.linearize(apply_fn, params)(moved, X), expected, atol=1e-5)


@pytest.mark.slow
def test_guide(nt):
    """The page's example, on networks of its own."""
    page = (Path(__file__).parents[2] / "docs" / "neural_tangents.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {}
    exec(code, names)
    exact = infinite_kernel(ElmanRNN("erf", b_std=0.3), names["x"]).ntk
    assert names["nt"] is nt
    assert names["mean"].shape == (4, 2)
    assert names["covariance"].shape == (4, 4)
    np.testing.assert_allclose(names["kernel"], exact, rtol=1e-5, atol=1e-5)
    assert np.linalg.norm(names["sampled"] - exact) < 0.3 * np.linalg.norm(exact)
