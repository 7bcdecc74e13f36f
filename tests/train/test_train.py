"""Training against gradient descent written out, and against the kernel's own prediction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnntk.network.elman import ElmanRNN
from rnntk.predict import gradient_flow
from rnntk.train import fit

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


def descend(rnn, initial, x, y, lengths, learning_rate):
    """Full-batch gradient descent on f - f_0, one network, step by step."""

    def loss(params):
        change = rnn.apply(params, x, lengths) - rnn.apply(initial, x, lengths)
        square = (change - y) ** 2
        if rnn.readout == "sequence":
            square = jnp.where((np.arange(T) < LENGTHS[:, None])[..., None], square, 0)
        return square.sum() / (2 * N), change

    evaluate = jax.jit(jax.value_and_grad(loss, has_aux=True))
    params, losses = initial, []
    for _ in range(STEPS):
        (value, _), gradient = evaluate(params)
        losses.append(value)
        params = jax.tree_util.tree_map_with_path(
            lambda path, p, g: p - learning_rate * g if path[-1].key in rnn.trainable else p,
            params,
            gradient,
        )
    return params, np.array(losses), evaluate(params)[0][1]


def network(params, index):
    return jax.tree.map(lambda leaf: leaf[index], params)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("rnn", "shape", "lengths"),
    [
        (ElmanRNN(), (N, 1), None),
        (ElmanRNN("erf", b_std=0.3, readout="mean", trainable=("W", "b")), (N, 2), LENGTHS),
        (
            ElmanRNN(
                readout="sequence",
                depth=2,
                initial_state="shared",
                initial_state_std=0.5,
                v_std=0.3,
            ),
            (N, T, 2),
            LENGTHS,
        ),
    ],
    ids=["plain", "two groups of a ragged batch", "sequence, deep, ragged"],
)
def test_full_batches_are_gradient_descent(rnn, shape, lengths):
    x, y = jnp.asarray(tokens(dtype=np.float64)), jnp.asarray(labels(*shape))
    trained = fit(rnn, KEY, x, y, lengths=lengths, **SMALL)
    assert trained.losses.shape == (2, STEPS)
    assert (np.diff(trained.losses, axis=1) < 0).all()
    initial = network(trained.initial_params, 1)
    params, losses, change = descend(rnn, initial, x, y, lengths, SMALL["learning_rate"])
    # float64, a few hundred operations deep
    np.testing.assert_allclose(trained.losses[1], losses, rtol=1e-10)
    np.testing.assert_allclose(trained.predict(x, lengths)[1], change, rtol=1e-9, atol=1e-11)
    got, start = leaves(network(trained.params, 1)), leaves(initial)
    for name, leaf in leaves(params).items():
        np.testing.assert_allclose(got[name], leaf, rtol=1e-10, atol=1e-12)
        group = name.split("'")[-2]
        moved = not np.array_equal(got[name], start[name])
        assert moved == (group in rnn.trainable and not (group == "b" and rnn.b_std == 0))


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
    # float32, over hundreds of steps
    np.testing.assert_allclose(single.losses, first.losses[:1], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(single.predict(x), first.predict(x)[:1], rtol=1e-3, atol=1e-3)
    other = fit(rnn, jax.random.key(8), x, y, **settings)
    assert not np.allclose(other.losses[:, 1:], first.losses[:, 1:])


def test_batches_are_distinct_uniform_draws_for_each_step_and_network():
    # Labels with y_i^2 = 2^i, and no learning: each loss, times 2B, spells its batch in binary.
    y = np.sqrt(2.0 ** np.arange(N))
    losses = fit(ElmanRNN(), KEY, tokens(), y, **BATCHED | {"learning_rate": 1e-12}).losses
    drawn = np.rint(2 * 2 * losses).astype(int)
    np.testing.assert_allclose(2 * 2 * losses, drawn, rtol=1e-5)
    members = (drawn[..., None] >> np.arange(N)) & 1
    assert (members.sum(axis=-1) == 2).all()
    assert (drawn[0] != drawn[1]).any()
    # 300 draws with probability 1/3 have standard deviation 8.2.
    assert (np.abs(members.sum(axis=1) - 100) < 4 * 8.2).all()
    # All pairs of successive batches occur: steps do not repeat each other.
    assert 0 < (drawn[:, 1:] == drawn[:, :-1]).mean() < 0.15


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


def test_a_learning_rate_that_diverges_is_an_error_that_names_step_and_remedy():
    for rate in (300.0, 1e30):
        with pytest.raises(
            FloatingPointError,
            match=r"network \d is not finite after \d+ steps; use a learning_rate smaller than",
        ):
            fit(ElmanRNN(), KEY, tokens(), labels(N), **SMALL | {"learning_rate": rate})


def test_a_divergence_in_the_last_step_is_seen():
    with pytest.raises(FloatingPointError, match="after 1 steps"):
        fit(ElmanRNN(), KEY, tokens(), labels(N), **SMALL | {"learning_rate": 1e30, "steps": 1})


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
        ({"y": np.ones(5)}, ValueError, r"y must hold one label for each of the 6.*got \(5,\)"),
        ({"y": np.ones((N, T, 1))}, ValueError, r"y must hold one label .*got \(6, 4, 1\)"),
        ({"y": np.full(N, np.inf)}, ValueError, r"y must be finite, got inf at \(0,\)"),
        ({"y": ["a"] * N}, TypeError, "y must be real numbers"),
        ({"y": np.full(N, 1e30)}, ValueError, "y is too large for a squared loss in float32"),
        ({"lengths": np.full(N, 9)}, ValueError, r"lengths must lie in 1\.\.4"),
        ({"width": 0}, ValueError, "width must be a whole number of at least 1, got 0"),
        ({"steps": 0}, ValueError, "steps must be a whole number of at least 1, got 0"),
        ({"steps": 2.5}, ValueError, "steps must be a whole number of at least 1, got 2.5"),
        ({"seeds": 0}, ValueError, "seeds must be a whole number of at least 1, got 0"),
        ({"batch_size": 0}, ValueError, r"batch_size must be a whole number in 1\.\.6 .*got 0"),
        ({"batch_size": 7}, ValueError, r"batch_size must be a whole number in 1\.\.6 .*got 7"),
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
            r"a label for each sequence and step, shape \(6, 4, outputs\).*got \(6,\)",
        ),
    ],
)
def test_bad_input_is_named(changes, error, message):
    settings = {"rnn": ElmanRNN(), "key": KEY, "x": tokens(), "y": labels(N)} | SMALL | changes
    with pytest.raises(error, match=message):
        fit(**settings)


def test_predicting_for_other_tokens_is_named():
    trained = fit(ElmanRNN(), KEY, tokens(), labels(N), **SMALL)
    with pytest.raises(ValueError, match="tokens of size 2"):
        trained.predict(np.ones((1, T, 2), np.float32))
    with pytest.raises(ValueError, match=r"x must have shape .*got \(4, 3\)"):
        trained.predict(tokens()[0])
