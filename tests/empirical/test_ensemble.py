"""Ensembles against a loop over their networks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_empirical import tokens

from rnntk import ElmanRNN, empirical_ensemble, empirical_kernel, infinite_kernel
from rnntk.activations import resolve


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("memory", [None, "one"])
def test_mean_and_deviation_over_networks(memory):
    rnn = ElmanRNN(initial_state="independent", initial_state_std=0.5)
    x1, x2, key = tokens(3, 4, 0), tokens(2, 3, 1), jax.random.key(3)
    options = {"lengths1": np.array([4, 2, 3]), "outputs": "full"}
    kernels = []
    for one in jax.random.split(key, 5):
        params = rnn.init(one, input_dim=3, width=8, output_dim=2)
        kernels.append(empirical_kernel(rnn, params, x1, x2, key=one, **options))
    limit = None if memory is None else 20_000
    found = empirical_ensemble(
        rnn, key, x1, x2, width=8, seeds=5, output_dim=2, memory_limit=limit, **options
    )
    assert found.seeds == 5
    for name in ("ntk", "nngp"):
        each = np.stack([getattr(kernel, name) for kernel in kernels])
        np.testing.assert_allclose(getattr(found.mean, name), each.mean(0), rtol=1e-12, atol=1e-13)
        deviation = each.std(axis=0, ddof=1)
        np.testing.assert_allclose(getattr(found.std, name), deviation, rtol=1e-10, atol=1e-13)


def test_mean_is_near_the_limit():
    rnn = ElmanRNN("erf")
    x = tokens(4, 3, 0, np.float32)
    found = empirical_ensemble(rnn, jax.random.key(0), x, width=256, seeds=64)
    error = found.std.ntk / 64**0.5
    # the bias of order 1/width is far below the statistical error of 64 networks
    assert (np.abs(found.mean.ntk - infinite_kernel(rnn, x).ntk) < 5 * error).all()


def test_states_are_independent_of_the_weights():
    """In a linear network of one step the mean is the limit at every width."""
    rnn = ElmanRNN("linear", initial_state="independent", initial_state_std=1.0, bidirectional=True)
    x = tokens(3, 1, 0, np.float32)
    found = empirical_ensemble(rnn, jax.random.key(0), x, width=4, seeds=4000)
    error = found.std.ntk / 4000**0.5
    assert (np.abs(found.mean.ntk - infinite_kernel(rnn, x).ntk) < 5 * error).all()


def test_calls_alike_share_a_program():
    traced = []

    def wave(u):
        traced.append(u)
        return jnp.sin(u)

    rnn = ElmanRNN(dataclasses.replace(resolve("sin"), fn=wave))
    x, counts = tokens(3, 4, 0, np.float32), []
    for seed in range(2):
        empirical_ensemble(rnn, jax.random.key(seed), x + seed, width=8, seeds=3)
        counts.append(len(traced))
    assert 0 < counts[0] == counts[1]


def test_bad_input():
    x = tokens(4, 5, 2, np.float32)
    with pytest.raises(ValueError, match="seeds must be a whole number of at least 2, got 1"):
        empirical_ensemble(ElmanRNN(), jax.random.key(0), x, width=8, seeds=1)
    with pytest.raises(ValueError, match="width must be a whole number"):
        empirical_ensemble(ElmanRNN(), jax.random.key(0), x, width=0, seeds=2)
    large = dataclasses.replace(ElmanRNN(), w_std=1e20)
    with pytest.raises(FloatingPointError, match="A kernel overflows float32"):
        empirical_ensemble(large, jax.random.key(0), x, width=8, seeds=2)
