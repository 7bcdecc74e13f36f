"""The network itself: its step by hand, its readouts, its shape as a pytree, its messages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnntk
from rnntk import ElmanRNN, pad
from rnntk.network.forward import forward
from rnntk.network.multipliers import multipliers
from rnntk.network.parameters import SECOND, sequence_keys


def draw(n=3, t=4, d=2):
    return np.random.default_rng(0).standard_normal((n, t, d))


@pytest.mark.usefixtures("x64")
def test_apply_by_hand():
    rnn = ElmanRNN("relu", w_std=1.3, u_std=0.7, b_std=0.4, v_std=0.9, input_scaling="fan_in")
    params = rnn.init(jax.random.key(0), input_dim=2, width=5, output_dim=3)
    w, u, b, v = (np.asarray(params[name]) for name in "WUbV")
    x = draw()
    h = np.zeros((3, 5))
    states = []
    for s in range(4):
        h = np.maximum(1.3 / 5**0.5 * h @ w.T + 0.7 / 2**0.5 * x[:, s] @ u.T + 0.4 * b, 0)
        states.append(h)
    states = np.stack(states, axis=1)
    last = 0.9 / 5**0.5 * h @ v.T
    np.testing.assert_allclose(rnn.apply(params, x), last, rtol=1e-13)
    for readout, read in (("mean", states.mean(1)), ("sequence", states)):
        other = ElmanRNN("relu", 1.3, 0.7, 0.4, 0.9, readout, input_scaling="fan_in")
        np.testing.assert_allclose(other.apply(params, x), 0.9 / 5**0.5 * read @ v.T, rtol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("readout", ["last", "mean", "sequence"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("depth", [1, 3])
def test_padding_changes_nothing(readout, bidirectional, depth):
    rnn = ElmanRNN(readout=readout, bidirectional=bidirectional, depth=depth, b_std=0.1)
    params = rnn.init(jax.random.key(0), input_dim=2, width=4)
    sequences = [draw(1, t)[0] for t in (4, 2, 3)]
    x, lengths = pad(sequences)
    together = rnn.apply(params, x.at[1, 2:].set(1e3), lengths)
    for i, sequence in enumerate(sequences):
        alone = rnn.apply(params, sequence[None])[0]
        mine = together[i, : len(sequence)] if readout == "sequence" else together[i]
        np.testing.assert_allclose(mine, alone, rtol=1e-12, atol=1e-14)
        if readout == "sequence":
            assert (together[i, len(sequence) :] == 0).all()


@pytest.mark.usefixtures("x64")
def test_bidirectional_is_the_sum_with_a_network_that_reads_backwards():
    rnn, one = ElmanRNN(bidirectional=True, readout="sequence"), ElmanRNN(readout="sequence")
    params = rnn.init(jax.random.key(0), input_dim=2, width=4)
    x = draw()
    expected = one.apply(params["forward"], x) + one.apply(params["backward"], x[:, ::-1])[:, ::-1]
    np.testing.assert_allclose(rnn.apply(params, x), expected, rtol=1e-13)


def test_initial_states():
    x = np.zeros((2, 1, 2), np.float32)
    shared = ElmanRNN("linear", initial_state="shared", initial_state_std=1.0)
    params = shared.init(jax.random.key(0), input_dim=2, width=4)
    out = shared.apply(params, x)
    assert out[0] == out[1] != 0
    independent = ElmanRNN("linear", initial_state="independent", initial_state_std=1.0)
    params = independent.init(jax.random.key(0), input_dim=2, width=4)
    out = independent.apply(params, x, key=jax.random.key(1))
    assert out[0] != out[1]
    assert (independent.apply(params, x, key=jax.random.key(1)) == out).all()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_one_key_draws_parameters_and_states_that_share_no_number(depth, bidirectional):
    rnn = ElmanRNN(
        depth=depth,
        bidirectional=bidirectional,
        initial_state="independent",
        initial_state_std=1.0,
    )
    key, x = jax.random.key(0), jnp.zeros((5, 1, 2))
    params = rnn.init(key, input_dim=2, width=4)
    drawn = [np.ravel(leaf) for leaf in jax.tree.leaves(params)]
    for batch in (key, jax.random.fold_in(key, SECOND)):
        scales = multipliers(rnn, 4, x.shape[-1], x.dtype)
        traces = forward(rnn, params, x, None, sequence_keys(rnn, batch, len(x)), scales).traces
        drawn += [np.ravel(layer.initial) for direction in traces for layer in direction]
    numbers = np.concatenate(drawn)
    assert len(np.unique(numbers)) == len(numbers)


def test_leaves_are_the_four_stds():
    rnn = ElmanRNN(depth=2, initial_state="shared", initial_state_std=0.5)
    leaves, treedef = jax.tree.flatten(rnn)
    assert leaves == [rnn.w_std, rnn.u_std, rnn.b_std, rnn.v_std]
    assert jax.tree.unflatten(treedef, leaves) == rnn
    assert jax.jit(lambda r: r.w_std * 2)(rnn) == pytest.approx(2 * 2**0.5)


def test_parameters_are_standard_normal():
    params = ElmanRNN().init(jax.random.key(0), input_dim=300, width=300, output_dim=300)
    for leaf in jax.tree.leaves(params):
        # 300 entries at least, 90,000 at most: 5 standard errors
        assert abs(leaf.mean()) < 5 / leaf.size**0.5
        assert abs(leaf.var() - 1) < 5 * (2 / leaf.size) ** 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activation": "rleu"}, r"activation must be one of \('relu'.* got 'rleu'"),
        ({"activation": 3}, "activation must be a name"),
        (
            {"readout": "first"},
            r"readout must be one of \('last', 'mean', 'sequence'\), got 'first'",
        ),
        ({"input_scaling": "x"}, "input_scaling must be one of"),
        ({"initial_state": "x"}, "initial_state must be one of"),
        ({"w_std": -1.0}, r"w_std must be finite and not negative, got -1\.0"),
        ({"v_std": float("nan")}, "v_std must be finite"),
        ({"w_std": "1"}, "w_std must be a real number, got '1'"),
        ({"u_std": None}, "u_std must be a real number, got None"),
        ({"b_std": True}, "b_std must be a real number, got True"),
        ({"b_std": jnp.array(True)}, r"b_std must be a real number, got Array\(True"),
        ({"v_std": 1j}, "v_std must be a real number, got 1j"),
        ({"w_std": [1.0]}, r"w_std must be a real number, got \[1\.0\]"),
        ({"w_std": np.array([1.0, -1.0])}, "w_std must be finite and not negative"),
        (
            {"initial_state": "shared", "initial_state_std": np.ones(2)},
            r"initial_state_std must be one number, got shape \(2,\)",
        ),
        ({"depth": 0}, "depth must be a whole number of at least 1, got 0"),
        ({"depth": True}, "depth must be a whole number of at least 1, got True"),
        ({"depth": 1.0}, r"depth must be a whole number of at least 1, got 1\.0"),
        ({"bidirectional": "no"}, "bidirectional must be True or False, got 'no'"),
        ({"trainable": None}, "trainable must be a non-empty selection .* got None"),
        ({"trainable": ()}, "trainable must be a non-empty selection"),
        ({"trainable": ("W", "X")}, "trainable must be a non-empty selection"),
        ({"initial_state": "shared"}, "contradict each other"),
        ({"initial_state_std": 1.0}, "contradict each other"),
    ],
)
def test_bad_architecture(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        ElmanRNN(**arguments)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["w_std", "u_std", "b_std", "v_std"])
def test_several_stds_need_vmap(name):
    x, several = draw(), jnp.array([0.5, 1.0, 1.5])
    params = ElmanRNN().init(jax.random.key(0), input_dim=2, width=4)
    rnn = ElmanRNN(**{name: several})
    message = rf"{name} must be one number, got shape \(3,\); .* jax\.vmap"
    with pytest.raises(ValueError, match=message):
        rnntk.infinite_kernel(rnn, x)
    with pytest.raises(ValueError, match=message):
        rnntk.empirical_kernel(rnn, params, x)
    with pytest.raises(ValueError, match=message):
        rnn.apply(params, x)
    axes = jax.tree.map(lambda leaf: 0 if jnp.ndim(leaf) else None, rnn)
    found = jax.vmap(lambda rnn: rnn.apply(params, x), in_axes=(axes,))(rnn)
    one_by_one = [ElmanRNN(**{name: std}).apply(params, x) for std in several]
    np.testing.assert_allclose(found, np.stack(one_by_one), rtol=1e-13)


def test_depth_of_numpy():
    assert type(ElmanRNN(depth=np.int64(2)).depth) is int
    with pytest.raises(ValueError, match=r"at least 1, got np\.int64\(0\)"):
        ElmanRNN(depth=np.int64(0))


def test_bad_sizes_and_tokens():
    rnn = ElmanRNN()
    with pytest.raises(ValueError, match="width must be a whole number of at least 1, got 0"):
        rnn.init(jax.random.key(0), input_dim=2, width=0)
    params = rnn.init(jax.random.key(0), input_dim=2, width=4)
    with pytest.raises(ValueError, match=r"x must have shape .* got \(4, 2\)"):
        rnn.apply(params, jnp.ones((4, 2)))
    with pytest.raises(ValueError, match=r"x must be one array .* rnntk\.pad"):
        rnn.apply(params, [[[1.0, 2.0]], [[1.0, 2.0], [3.0, 4.0]]])
    with pytest.raises(TypeError, match="x must be an array of tokens, got None"):
        rnn.apply(params, None)
    with pytest.raises(ValueError, match="x must be finite, got inf"):
        rnn.apply(params, jnp.full((1, 4, 2), jnp.inf))
    with pytest.raises(ValueError, match=r"params\['U'\] must have shape \(4, 3\)"):
        rnn.apply(params, jnp.ones((1, 4, 3)))
