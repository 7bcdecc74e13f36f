"""One step against the update by hand: a network written out sequence by sequence, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rnntk.network.elman import ElmanRNN
from rnntk.train import fit, linearize

KEY = jax.random.key(3)
N, T, D, M = 3, 4, 2, 5
LENGTHS = np.array([4, 1, 3])
RATE = 0.3
# Weights are of order 1 and gradients too: some hundred roundings of 1e-16.
CLOSE = {"rtol": 1e-12, "atol": 1e-12}

pytestmark = pytest.mark.usefixtures("x64")


def run(rnn, params, sequence):
    """States of the top layer of one unidirectional network, one sequence, one step at a time."""
    phi = {"relu": lambda u: jnp.maximum(u, 0), "erf": jax.scipy.special.erf, "tanh": jnp.tanh}
    layers = params["layers"] if rnn.depth > 1 else (params,)
    tokens = list(sequence)
    for index, layer in enumerate(layers):
        fan_in = D if rnn.input_scaling == "fan_in" else 1
        before = rnn.u_std / np.sqrt(M if index else fan_in)
        h = rnn.initial_state_std * layer["h0"] if "h0" in layer else jnp.zeros(M)
        states = []
        for token in tokens:
            u = rnn.w_std / np.sqrt(M) * layer["W"] @ h + before * layer["U"] @ token
            h = phi[rnn.activation](u + rnn.b_std * layer["b"])
            states.append(h)
        tokens = states
    return tokens


def by_hand(rnn, params, x, lengths):
    """Outputs, (n, o), or (n, t, o) with zeros at padded steps."""
    found = []
    for sequence, length in zip(x, [T] * N if lengths is None else lengths, strict=True):
        total = 0.0
        for name in ("forward", "backward") if rnn.bidirectional else ("",):
            one = params[name] if name else params
            tokens = sequence[:length]
            states = run(rnn, one, tokens[::-1] if name == "backward" else tokens)
            if rnn.readout == "last":
                read = states[-1]
            elif rnn.readout == "mean":
                read = sum(states) / float(length)
            else:
                read = jnp.stack(states[::-1] if name == "backward" else states)
                read = jnp.concatenate([read, jnp.zeros((T - length, M))])
            total = total + rnn.v_std / np.sqrt(M) * read @ one["V"].T
        found.append(total)
    return jnp.stack(found)


def loss_by_hand(name, f, y, lengths):
    """Sum over outputs and real steps, mean over sequences."""
    if name == "squared":
        values = (f - y) ** 2 / 2
    elif name == "absolute":
        values = abs(f - y)
    elif name == "huber":
        values = jnp.where(abs(f - y) < 1, (f - y) ** 2 / 2, abs(f - y) - 0.5)
    elif name == "logistic":
        values = jnp.log(1 + jnp.exp(-y * f))
    else:
        label = jnp.take_along_axis(f, y[..., None], -1)
        values = jnp.log(jnp.exp(f).sum(axis=-1, keepdims=True)) - label
    if values.ndim == 3 and lengths is not None:
        values = jnp.where((np.arange(T) < lengths[:, None])[..., None], values, 0)
    return values.sum() / N


CASES = {
    "plain": (ElmanRNN(b_std=0.4), "squared", None),
    "last of ragged sequences": (ElmanRNN("tanh", b_std=0.2), "huber", LENGTHS),
    "mean, two outputs": (ElmanRNN("erf", b_std=0.3, readout="mean"), "absolute", None),
    "mean of ragged, fan-in": (
        ElmanRNN(readout="mean", input_scaling="fan_in", v_std=0.7),
        "cross_entropy",
        LENGTHS,
    ),
    "sequence, ragged": (ElmanRNN(readout="sequence", b_std=0.5), "squared", LENGTHS),
    "sequence, both ways, classes": (
        ElmanRNN("erf", readout="sequence", bidirectional=True),
        "cross_entropy",
        LENGTHS,
    ),
    "deep, both ways, ragged, signs": (
        ElmanRNN("tanh", depth=2, bidirectional=True, b_std=0.1),
        "logistic",
        LENGTHS,
    ),
    "deep, shared start": (
        ElmanRNN(depth=2, readout="mean", initial_state="shared", initial_state_std=0.5),
        "squared",
        None,
    ),
    **{
        f"only {groups[0]} and {groups[1]}": (
            ElmanRNN("tanh", b_std=0.4, depth=2, initial_state="shared", initial_state_std=0.5,
                     trainable=groups),
            "squared",
            None,
        )
        for groups in (("W", "b"), ("U", "V"))
    },
}  # fmt: skip


def problem(rnn, loss):
    rng = np.random.default_rng(0)
    axes = (N, T) if rnn.readout == "sequence" else (N,)
    y = 2 * rng.standard_normal((*axes, 2))
    if loss == "logistic":
        y = np.sign(y)
    if loss == "cross_entropy":
        y = rng.integers(0, 2, axes)
        y.flat[:2] = 0, 1
    return rng.standard_normal((N, T, D)), y


def single(params):
    return jax.tree.map(lambda leaf: leaf[0], params)


def update_by_hand(rnn, params, loss):
    gradient = jax.grad(loss)(params)
    return jax.tree_util.tree_map_with_path(
        lambda path, p, g: p - RATE * g if path[-1].key in rnn.trainable else p, params, gradient
    )


def assert_close(got, want):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), got, want)


@pytest.mark.parametrize("case", CASES)
def test_a_step_is_the_update_by_hand(case):
    rnn, loss, lengths = CASES[case]
    x, y = problem(rnn, loss)
    trained = fit(rnn, KEY, x, y, width=M, learning_rate=RATE, steps=1, loss=loss, lengths=lengths)
    start = single(trained.initial_params)
    initial = by_hand(rnn, start, x, lengths)

    def value(params):
        return loss_by_hand(loss, by_hand(rnn, params, x, lengths) - initial, y, lengths)

    np.testing.assert_allclose(trained.losses[0, 0], value(start), **CLOSE)
    want = update_by_hand(rnn, start, value)
    assert_close(single(trained.params), want)
    moved = by_hand(rnn, want, x, lengths) - initial
    np.testing.assert_allclose(trained.predict(x, lengths)[0], moved, **CLOSE)
    # The update did something: a tenth of the smallest of what these steps change.
    assert abs(moved).max() > 1e-3


def test_batches_of_epochs_in_float64():
    rnn, (x, y) = ElmanRNN(), problem(ElmanRNN(), "squared")
    settings = {"width": M, "learning_rate": RATE, "steps": 2}
    trained = fit(rnn, KEY, x, y, batch_size=1, **settings)
    start = single(trained.initial_params)
    initial = by_hand(rnn, start, x, None)
    # Which two of the sequences came, the losses say.
    first = [np.square(y[i]).sum() / 2 for i in range(N)]
    params, row = start, int(np.argmin(np.abs(first - trained.losses[0, 0])))
    for step in range(2):

        def value(params, row):
            change = by_hand(rnn, params, x, None) - initial - y
            return jnp.square(change[row]).sum() / 2

        if step:
            rest = [i for i in range(N) if i != row]
            found = [float(value(params, i)) for i in rest]
            row = rest[int(np.argmin(np.abs(found - trained.losses[0, 1])))]
        np.testing.assert_allclose(trained.losses[0, step], value(params, row), **CLOSE)
        params = update_by_hand(rnn, params, lambda params, row=row: value(params, row))
    assert_close(single(trained.params), params)


def test_centring_by_doubling_and_without():
    rnn, x, y = ElmanRNN(), *problem(ElmanRNN(), "squared")
    settings = {"width": M, "learning_rate": RATE, "steps": 1}
    plain = fit(rnn, KEY, x, y, centre="none", **settings)
    start = single(plain.initial_params)

    def alone(params):
        return loss_by_hand("squared", by_hand(rnn, params, x, None), y, None)

    assert_close(single(plain.params), update_by_hand(rnn, start, alone))
    both = fit(rnn, KEY, x, y, centre="double", **settings)
    one, two = single(both.initial_params)
    assert_close((one, two), (start, start))
    assert both.losses[0, 0] == (y**2).sum() / (2 * N)  # the outputs are exactly zero

    def together(params):
        change = (by_hand(rnn, params[0], x, None) - by_hand(rnn, params[1], x, None)) / 2**0.5
        return loss_by_hand("squared", change, y, None)

    assert_close(single(both.params), update_by_hand(rnn, (start, start), together))


def test_a_linearized_step_is_that_of_the_expansion_by_hand():
    rnn, lengths = ElmanRNN("tanh", b_std=0.3, readout="sequence"), LENGTHS
    x, y = problem(rnn, "squared")
    trained = fit(linearize(rnn), KEY, x, y, width=M, learning_rate=RATE, steps=3, lengths=lengths)
    start = single(trained.initial_params)
    jacobian = jax.jacobian(lambda p: by_hand(rnn, p, x, lengths))(start)

    def change(params):
        parts = [
            jnp.tensordot(leaf, p - s, axes=p.ndim)
            for leaf, p, s in zip(*map(jax.tree.leaves, (jacobian, params, start)), strict=True)
        ]
        return sum(parts[1:], parts[0])

    params = start
    for step in range(3):

        def value(params):
            return loss_by_hand("squared", change(params), y, lengths)

        np.testing.assert_allclose(trained.losses[0, step], value(params), **CLOSE)
        params = update_by_hand(rnn, params, value)
    assert_close(single(trained.params), params)
    apart = linearize(rnn).apply(params, x, lengths, initial_params=start)
    want = by_hand(rnn, start, x, lengths) + change(params)
    np.testing.assert_allclose(apart, want, **CLOSE)


def test_any_optimizer_of_optax_and_any_loss():
    rnn, (x, y) = ElmanRNN(trainable=("W", "V")), problem(ElmanRNN(), "squared")
    momentum = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, momentum=0.9))
    trained = fit(
        rnn, KEY, x, y, width=M, steps=4, optimizer=momentum, centre="none", average=True,
        loss=optax.losses.log_cosh,
    )  # fmt: skip
    params = single(trained.initial_params)
    moving = {group: params[group] for group in ("W", "V")}
    state, iterates = momentum.init(moving), []
    for step in range(4):

        def value(moving):
            return jnp.log(jnp.cosh(by_hand(rnn, params | moving, x, None) - y)).sum() / N

        np.testing.assert_allclose(trained.losses[0, step], value(moving), **CLOSE)
        updates, state = momentum.update(jax.grad(value)(moving), state)
        moving = optax.apply_updates(moving, updates)
        iterates.append(moving)
    for group in moving:
        np.testing.assert_allclose(single(trained.params)[group], moving[group], **CLOSE)
        mean = np.mean([each[group] for each in iterates], axis=0)
        np.testing.assert_allclose(single(trained.averaged_params)[group], mean, **CLOSE)
    for group in ("U", "b"):
        np.testing.assert_array_equal(single(trained.averaged_params)[group], params[group])


def test_a_step_on_sequences_of_one_token_leaves_the_recurrent_weights():
    rnn = ElmanRNN("erf")
    x, y = np.random.default_rng(0).standard_normal((2, N, 1, D))
    trained = fit(rnn, KEY, x, y[:, 0, 0], width=M, learning_rate=RATE, steps=1)
    before, after = (
        jax.tree.map(lambda leaf: leaf[0], tree)
        for tree in (trained.initial_params, trained.params)
    )

    def loss(params):
        change = by_hand(rnn, params, x, [1] * N) - by_hand(rnn, before, x, [1] * N)
        return jnp.sum((change[:, 0] - y[:, 0, 0]) ** 2) / (2 * N)

    gradient = jax.grad(loss)(before)
    np.testing.assert_array_equal(after["W"], before["W"])
    for group in "UV":
        np.testing.assert_allclose(after[group], before[group] - RATE * gradient[group], **CLOSE)
