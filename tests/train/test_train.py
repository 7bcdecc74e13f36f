"""Training against gradient descent written out, and against the kernel's own prediction."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rnntk.network.elman import ElmanRNN
from rnntk.predict import gradient_flow
from rnntk.train import descent, fit

KEY = jax.random.key(7)
N, T, D = 6, 4, 3
STEPS = 8
LENGTHS = np.array([4, 2, 3, 4, 1, 4])
# One set of sizes for many tests: they share compiled programs.
SMALL = {"width": 16, "learning_rate": 0.05, "steps": STEPS, "seeds": 2}
BATCHED = SMALL | {"batch_size": 2, "steps": 300}


def tokens(n=N, dtype=np.float32):
    return np.random.default_rng(0).standard_normal((n, T, D)).astype(dtype)


def labels(*shape):
    return np.random.default_rng(1).standard_normal(shape)


def leaves(params):
    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }


def network(params, index):
    return jax.tree.map(lambda leaf: leaf[index], params)


def test_networks_start_from_the_documented_draw():
    trained = fit(ElmanRNN(), KEY, tokens(), labels(N), **SMALL)
    draw = jax.jit(lambda key: ElmanRNN().init(key, input_dim=D, width=16))
    got = leaves(network(trained.initial_params, 1))
    for name, leaf in leaves(draw(jax.random.fold_in(KEY, 1))).items():
        np.testing.assert_allclose(got[name], leaf, rtol=1e-5, atol=1e-6)  # float32


def tangent_kernel(rnn, params, x):
    """Inner products of the gradients of the outputs, by their definition."""
    jacobian = jax.jit(jax.jacobian(lambda p: rnn.apply(p, x)[:, 0]))(params)
    rows = np.concatenate([leaf.reshape(len(x), -1) for leaf in leaves(jacobian).values()], axis=1)
    return rows.astype(float) @ rows.T.astype(float)


def test_a_wide_network_follows_the_gradient_flow_of_its_tangent_kernel():
    rnn, width, rate, steps, n = ElmanRNN(), 1024, 0.005, 60, 5
    x, y = jnp.asarray(tokens(n + 2)), labels(n)
    trained = fit(rnn, KEY, x[:n], y, width=width, learning_rate=rate, steps=steps)
    kernel = tangent_kernel(rnn, network(trained.initial_params, 0), x)
    # The steps are small against the flow, and the time is long enough to learn.
    assert rate * np.linalg.eigvalsh(kernel[:n, :n])[-1] / n < 0.1
    assert trained.losses[0, -1] < 0.5 * trained.losses[0, 0]
    predicted = np.asarray(trained.predict(x)[0, :, 0])

    def error(time):
        flow = gradient_flow(kernel[:n, :n], y, kernel[:, :n], time)
        return np.linalg.norm(predicted - flow) / np.linalg.norm(predicted)

    # The kernel drifts by O(width^-1/2) = 3%, and the finite time steps add less; measured: 0.4%.
    assert error(rate * steps) < 0.02
    # Negative controls: the factor 1/2 or 1/n of the loss forgotten.
    assert min(error(rate * steps * 2), error(rate * steps / 2), error(rate * steps * n)) > 0.1


@pytest.mark.usefixtures("x64")
def test_small_labels_make_any_width_follow_its_linearization_step_by_step():
    # A change of size s moves the kernel by O(s): the linear recursion is exact up to 1e-6.
    rnn, scale, rate, x = ElmanRNN(), 1e-6, 0.05, jnp.asarray(tokens(dtype=np.float64))
    y = scale * labels(N)
    trained = fit(rnn, KEY, x, y, **SMALL)
    kernel = tangent_kernel(rnn, network(trained.initial_params, 1), x)
    change = np.zeros(N)
    for loss in trained.losses[1]:
        np.testing.assert_allclose(loss, ((change - y) ** 2).sum() / (2 * N), rtol=1e-4)
        change = change - rate / N * kernel @ (change - y)
    np.testing.assert_allclose(trained.predict(x)[1, :, 0], change, atol=1e-4 * scale)


def test_the_same_key_gives_the_same_numbers_and_a_network_does_not_depend_on_the_others():
    rnn, x, y, settings = ElmanRNN(), tokens(), labels(N), BATCHED | {"learning_rate": 0.01}
    first, again = (fit(rnn, KEY, x, y, **settings) for _ in range(2))
    np.testing.assert_array_equal(first.losses, again.losses)
    np.testing.assert_array_equal(first.predict(x), again.predict(x))
    single = fit(rnn, KEY, x, y, **settings | {"seeds": 1})
    np.testing.assert_array_equal(single.losses, first.losses[:1])
    np.testing.assert_array_equal(single.predict(x), first.predict(x)[:1])
    other = fit(rnn, jax.random.key(8), x, y, **settings)
    assert not np.allclose(other.losses[:, 1:], first.losses[:, 1:])


def test_each_epoch_goes_through_a_new_order_of_the_sequences():
    # Labels with y_i^2 = 2^i, and no learning: each loss, times 2B, spells its batch in binary.
    y = np.sqrt(2.0 ** np.arange(N))
    losses = fit(ElmanRNN(), KEY, tokens(), y, **BATCHED | {"learning_rate": 1e-12}).losses
    drawn = np.rint(2 * 2 * losses).astype(int)
    np.testing.assert_allclose(2 * 2 * losses, drawn, rtol=1e-5)
    members = (drawn[..., None] >> np.arange(N)) & 1
    assert (members.sum(axis=-1) == 2).all()
    epochs = members.reshape(2, 100, 3, N)
    assert (epochs.sum(axis=2) == 1).all()  # each sequence once in three batches of two
    assert (drawn[0] != drawn[1]).any()
    # 100 orders: the first batch of an epoch is one of 15 pairs, all of which come up.
    assert len(set(drawn[0, ::3])) == 15
    # A sequence is in the first batch with probability 1/3: standard deviation 4.7 of 100.
    assert (np.abs(epochs[:, :, 0].sum(axis=1) - 100 / 3) < 4 * 4.7).all()


def test_what_does_not_fill_a_batch_is_left_out_of_the_epoch():
    y = np.sqrt(2.0 ** np.arange(N))
    settings = BATCHED | {"learning_rate": 1e-12, "batch_size": 4}
    drawn = np.rint(8 * fit(ElmanRNN(), KEY, tokens(), y, **settings).losses).astype(int)
    members = (drawn[..., None] >> np.arange(N)) & 1
    assert (members.sum(axis=-1) == 4).all()
    assert (members.sum(axis=1) > 150).all()  # no sequence is left out for good


def test_a_batch_of_all_sequences_is_the_full_batch():
    rnn, x, y = ElmanRNN(readout="sequence"), tokens(), labels(N, T, 1)
    full = fit(rnn, KEY, x, y, lengths=LENGTHS, **SMALL)
    shuffled = fit(rnn, KEY, x, y, lengths=LENGTHS, batch_size=N, **SMALL)
    np.testing.assert_allclose(shuffled.losses, full.losses, rtol=1e-4)  # float32


def test_batches_of_one_repeated_sequence_are_the_full_batch():
    x, y = np.repeat(tokens(1), N, axis=0), np.ones(N)
    full = fit(ElmanRNN(), KEY, x, y, **SMALL)
    drawn = fit(ElmanRNN(), KEY, x, y, **BATCHED)
    # Relative to the first loss, 1/2: the float32 loss of a fitted network is rounding.
    np.testing.assert_allclose(drawn.losses[:, :STEPS], full.losses, rtol=1e-4, atol=1e-6)


def test_labels_with_and_without_an_axis_for_the_only_output_are_the_same():
    x, y = tokens(), labels(N)
    flat, column = (fit(ElmanRNN(), KEY, x, target, **SMALL) for target in (y, y[:, None]))
    np.testing.assert_array_equal(flat.losses, column.losses)
    assert flat.predict(x).shape == (2, N, 1)


def test_padding_is_not_seen():
    x, y = tokens(), labels(N, T, 1)
    padded = np.arange(T) >= LENGTHS[:, None]
    rnn = ElmanRNN(readout="sequence")
    clean = fit(rnn, KEY, x, y, lengths=LENGTHS, **SMALL)
    x[padded], y[padded] = np.nan, np.nan
    dirty = fit(rnn, KEY, x, y, lengths=LENGTHS, **SMALL)
    np.testing.assert_array_equal(dirty.losses, clean.losses)
    assert (np.asarray(dirty.predict(x, LENGTHS))[:, padded] == 0).all()


@pytest.mark.usefixtures("x64")
def test_everything_is_in_the_dtype_of_the_tokens():
    trained = fit(ElmanRNN(), KEY, tokens(dtype=np.float32), labels(N), **SMALL)
    arrays = [*leaves(trained.params).values(), *leaves(trained.initial_params).values()]
    arrays += [trained.losses, trained.predict(tokens())]
    assert {str(array.dtype) for array in arrays} == {"float32"}


def test_progress_is_shown_only_on_request(capsys):
    fit(ElmanRNN(), KEY, tokens(), labels(N), **SMALL)
    assert capsys.readouterr() == ("", "")
    fit(ElmanRNN(), KEY, tokens(), labels(N), progress=True, **SMALL)
    assert f"{STEPS}/{STEPS}" in capsys.readouterr().err


@pytest.mark.parametrize("rate", [300.0, 1e30])
def test_a_learning_rate_that_diverges_is_told_with_step_and_stable_rate(rate):
    x, y = tokens(), labels(N)
    with pytest.warns(RuntimeWarning) as told:
        trained = fit(ElmanRNN(), KEY, x, y, **SMALL | {"learning_rate": rate})
    assert len(told) == 2
    for i, warning in enumerate(told):
        kernel = tangent_kernel(ElmanRNN(), network(trained.initial_params, i), x)
        stable = 2 * N / np.linalg.eigvalsh(kernel)[-1]
        found = re.search(
            rf"network {i} of width 16 diverged: it is not finite after (\d+) steps with "
            rf"learning_rate={re.escape(f'{rate:.3g}')}; .* stable up to (\S+)\.$",
            str(warning.message),
        )
        assert int(found.group(1)) == trained.diverged[i] > 0
        # float32, three digits, and the power iteration comes from above
        assert stable * 0.99 < float(found.group(2)) < stable * 1.05
        step = trained.diverged[i]
        assert np.isfinite(trained.losses[i, :step]).all()
        assert np.isnan(trained.losses[i, step:]).all()


def test_a_divergence_in_the_last_step_is_seen():
    with pytest.warns(RuntimeWarning, match="after 1 steps"):
        trained = fit(
            ElmanRNN(), KEY, tokens(), labels(N), **SMALL | {"learning_rate": 1e30, "steps": 1}
        )
    assert (trained.diverged == 1).all()


def test_metrics_after_all_networks_have_diverged_are_nan():
    metrics = {"W": lambda p, q: p["W"], "count": lambda p, q: jnp.array(3)}
    settings = SMALL | {"learning_rate": 300.0, "metrics": metrics, "record": [STEPS]}
    with pytest.warns(RuntimeWarning, match="diverged"):
        trained = fit(ElmanRNN(), KEY, tokens(), labels(N), **settings)
    assert trained.metrics["W"].shape == (2, 1, 16, 16)
    assert np.isnan(trained.metrics["W"]).all()
    assert np.isnan(trained.metrics["count"]).all()
    both = settings | {"record": [0, STEPS]}
    with pytest.warns(RuntimeWarning, match="diverged"):
        trained = fit(ElmanRNN(), KEY, tokens(), labels(N), **both)
    np.testing.assert_array_equal(trained.metrics["count"], [[3, np.nan]] * 2)


def test_a_network_that_diverges_leaves_the_others_alone(monkeypatch):
    x, y = tokens(), labels(N)
    want = fit(ElmanRNN(), KEY, x, y, **SMALL | {"seeds": 3})
    run = descent.on_members

    def spoilt(call, *arguments):
        found = run(call, *arguments)
        if call is descent.draw:  # so large that its kernel is, and the step too large for it
            weights = found[1].state.weights
            larger = {path: 30 * leaf for path, leaf in weights.items()}
            found[1] = found[1]._replace(state=found[1].state._replace(weights=larger))
        return found

    monkeypatch.setattr(descent, "on_members", spoilt)
    with pytest.warns(RuntimeWarning, match="network 1 of width 16 diverged") as told:
        trained = fit(ElmanRNN(), KEY, x, y, **SMALL | {"seeds": 3})
    assert len(told) == 1
    assert (trained.diverged >= 0).tolist() == [False, True, False]
    assert np.isnan(trained.losses[1, -1])
    np.testing.assert_array_equal(trained.losses[[0, 2]], want.losses[[0, 2]])
    monkeypatch.setattr(descent, "on_members", run)
    np.testing.assert_array_equal(trained.predict(x)[2], want.predict(x)[2])


def test_overflow_before_and_after_training_is_an_error():
    with pytest.raises(FloatingPointError, match="outputs at initialization overflow in float32"):
        fit(ElmanRNN(w_std=1e20), KEY, tokens(), labels(N), **SMALL)
    trained = fit(ElmanRNN(), KEY, tokens(), labels(N), **SMALL)
    with pytest.raises(FloatingPointError, match="outputs of the trained networks overflow"):
        trained.predict(tokens() * np.float32(1e38))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": tokens()[0]}, ValueError, r"x must have shape .*got \(4, 3\).*axis is missing"),
        ({"x": np.ones((N, T, D), int)}, TypeError, "x must be float.*, got int"),
        ({"x": tokens() * np.nan}, ValueError, "x must be finite, got nan"),
        ({"y": np.ones(5)}, ValueError, r"a label for each sequence, shape \(6,\) or.*got \(5,\)"),
        ({"y": np.ones((N, T, 1))}, ValueError, r"a label for each sequence, .*got \(6, 4, 1\)"),
        ({"y": None}, ValueError, "y must hold the labels of x, got None"),
        ({"y": np.full(N, np.inf)}, ValueError, r"y must be finite, got inf at \(0, 0\)"),
        ({"y": ["a"] * N}, TypeError, "y must be real numbers"),
        ({"y": np.full(N, 1e30)}, ValueError, "y is too large for a loss in float32"),
        ({"lengths": np.full(N, 9)}, ValueError, r"lengths must lie in 1\.\.4"),
        ({"width": 0}, ValueError, "width must be a whole number of at least 1, got 0"),
        ({"steps": 0}, ValueError, "steps must be a whole number of at least 1, got 0"),
        ({"steps": 2.5}, ValueError, "steps must be a whole number of at least 1, got 2.5"),
        ({"seeds": 0}, ValueError, "seeds must be a whole number of at least 1, got 0"),
        ({"batch_size": 0}, ValueError, "batch_size must be a whole number of at least 1, got 0"),
        ({"batch_size": 7}, ValueError, r"batch_size must be .* in 1\.\.6 \(the training .*got 7"),
        ({"steps": None}, ValueError, "steps must say how many updates to make on stored data"),
        ({"learning_rate": None}, ValueError, "learning_rate must be given, .*got neither"),
        ({"optimizer": optax.sgd(0.1)}, ValueError, "learning_rate must be given, .*got both"),
        ({"centre": "mean"}, ValueError, r"centre must be one of .*'double', 'none'\), got 'mean'"),
        ({"loss": "hinge"}, ValueError, r"loss must be one of \('squared', .*got 'hinge'"),
        ({"loss": "logistic"}, ValueError, "y must be -1 or 1 for loss='logistic', got 0.3"),
        ({"loss": "cross_entropy"}, TypeError, "y must hold the numbers of classes, integers"),
        (
            {"loss": "cross_entropy", "y": np.arange(-1, 5)},
            ValueError,
            "y must hold numbers of classes from 0 to 4, got -1 to 4",
        ),
        (
            {"loss": "cross_entropy", "y": np.arange(6), "output_dim": 3},
            ValueError,
            "y must hold numbers of classes from 0 to 2, got 0 to 5",
        ),
        (
            {"loss": optax.softmax_cross_entropy_with_integer_labels, "y": np.arange(6)},
            ValueError,
            "output_dim must say how many outputs there are",
        ),
        ({"output_dim": 2}, ValueError, "output_dim must be the number of outputs in y, 1, got 2"),
        ({"record": [1]}, ValueError, "record must come with metrics, got record alone"),
        (
            {"metrics": {"one": lambda p, q: 1.0}, "record": [9]},
            ValueError,
            r"record must hold steps from 0 to 8, got \[9\]",
        ),
        ({"memory_limit": 10}, ValueError, r"memory_limit must be at least \d+ bytes, .*got 10"),
        ({"rnn": "relu"}, TypeError, "rnn must be an ElmanRNN or its linearize, got str"),
        ({"learning_rate": "0.1"}, TypeError, "learning_rate must be a number, got '0.1'"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate must be finite and positive, got 0"),
        ({"learning_rate": -1}, ValueError, "learning_rate must be finite and positive, got -1"),
        ({"learning_rate": np.nan}, ValueError, "learning_rate must be finite and positive"),
        (
            {"rnn": ElmanRNN(initial_state="independent", initial_state_std=1.0)},
            ValueError,
            "rnn must have initial_state 'zero' or 'shared' to be trained, got 'independent'",
        ),
        (
            {"rnn": ElmanRNN(readout="sequence")},
            ValueError,
            r"a label for each sequence and step, shape \(6, 4, outputs\), .*got \(6,\)",
        ),
    ],
)
def test_bad_input_is_named(changes, error, message):
    settings = {"rnn": ElmanRNN(), "key": KEY, "x": tokens(), "y": labels(N)} | SMALL | changes
    with pytest.raises(error, match=message):
        fit(**settings)


@pytest.mark.parametrize(
    ("loss", "y"),
    [
        (lambda f, y: (f - y.T) ** 2 / 2, np.ones((N, 1))),  # shape (N, N)
        (lambda f, y: jnp.mean((f - y) ** 2) / 2, np.ones((N, 1))),
    ],
)
def test_a_loss_of_another_shape_is_named(loss, y):
    settings = {"width": 8, "learning_rate": 0.01, "steps": 1, "batch_size": None}
    with pytest.raises(ValueError, match=r"loss must give a value for each output, shape \(\d+, 1"):
        fit(ElmanRNN(), jax.random.key(0), tokens(), y, loss=loss, output_dim=1, **settings)


def test_masked_labels_are_refused():
    y = np.ma.masked_invalid(np.r_[np.nan, np.ones(N - 1)])
    with pytest.raises(ValueError, match="y must have no masked entries"):
        fit(ElmanRNN(), jax.random.key(0), tokens(), y, width=8, learning_rate=0.01, steps=1)


def test_predicting_for_other_tokens_is_named():
    trained = fit(ElmanRNN(), KEY, tokens(), labels(N), **SMALL)
    with pytest.raises(ValueError, match="tokens of size 2"):
        trained.predict(np.ones((1, T, 2), np.float32))
    with pytest.raises(ValueError, match=r"x must have shape .*got \(4, 3\)"):
        trained.predict(tokens()[0])
