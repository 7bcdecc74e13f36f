"""What infinite kernels refuse, and what they compile."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnntk
from rnntk import ElmanRNN, infinite_kernel


def draw(n=5, t=6, d=3, seed=0):
    return np.random.default_rng(seed).standard_normal((n, t, d))


@pytest.mark.parametrize(
    ("w_std", "word", "remedy"), [(2.5, "overflows", "float64"), (0.05, "underflows", "float64")]
)
def test_off_criticality_is_an_error_that_names_the_step(w_std, word, remedy):
    x = draw(2, 150).astype(np.float32)
    x[:, 1:] = 0
    with pytest.raises(FloatingPointError, match=rf"{word} float32 at step \d+.*{remedy}"):
        infinite_kernel(ElmanRNN(w_std=w_std), x)


def test_activation_without_finite_moments_is_named():
    odd = rnntk.activations.Activation(
        "odd",
        jnp.sin,
        lambda a: rnntk.activations.Alone(a + jnp.nan, a, ()),
        lambda one, two, angle: (angle,) * 2,
    )
    with pytest.raises(FloatingPointError, match="of which odd makes nan"):
        infinite_kernel(ElmanRNN(odd), np.ones((2, 3, 1), np.float32))


def test_bad_input():
    rnn, x = ElmanRNN(), jnp.ones((3, 4, 2))
    with pytest.raises(ValueError, match=r"x1 must have shape .* got \(4, 2\): .* axis is missing"):
        infinite_kernel(rnn, x[0])
    with pytest.raises(ValueError, match=r"x1 must be finite, got nan at .* \(1, 2, 0\)"):
        infinite_kernel(rnn, x.at[1, 2, 0].set(jnp.nan))
    with pytest.raises(ValueError, match=r"tokens of one size, got x1 with 2 .* x2 with 3"):
        infinite_kernel(rnn, x, jnp.ones((3, 4, 3)))
    refused = pytest.raises(TypeError, match="must have one dtype, got float32 and float64")
    with jax.enable_x64(True), refused:
        infinite_kernel(rnn, x, np.ones((3, 4, 2)))
    with pytest.raises(TypeError, match="x1 must be float32 or float64, got int32"):
        infinite_kernel(rnn, jnp.ones((3, 4, 2), jnp.int32))
    with pytest.raises(ValueError, match=r"lengths1 must lie in 1\.\.4 .* got 5 for sequence 0"):
        infinite_kernel(rnn, x, lengths1=np.array([5, 1, 1]))
    with pytest.raises(ValueError, match=r"lengths1 must hold one length per sequence"):
        infinite_kernel(rnn, x, lengths1=np.array([4, 1]))
    with pytest.raises(ValueError, match="lengths2 must come with x2"):
        infinite_kernel(rnn, x, lengths2=np.array([4, 1, 1]))


@pytest.mark.parametrize("readout", ["last", "mean", "sequence"])
def test_new_lengths_of_few_sequences_compile_nothing(readout):
    """Sequences of any length, one at a time, as people call kernels."""
    traced = []

    def wave(u):
        traced.append(u.shape)
        return jnp.sin(u)

    sine = rnntk.activations.resolve("sin")

    def alone(a):
        traced.append(a.shape)
        return sine.alone(a)

    rnn = ElmanRNN(dataclasses.replace(sine, fn=wave, alone=alone), readout=readout)
    x, counts = np.random.default_rng(0).standard_normal((2, 16, 3)).astype(np.float32), []
    whole = ElmanRNN("sin", readout="sequence")
    expected = np.asarray(infinite_kernel(whole, x[:1], x[1:]).ntk)
    for t1, t2 in ((9, 16), (16, 10), (12, 12), (11, 9)):
        found = np.asarray(infinite_kernel(rnn, x[:1, :t1], x[1:, :t2]).ntk)
        counts.append(len(traced))
        if readout == "sequence":
            assert found.shape == (1, t1, 1, t2)
            np.testing.assert_allclose(found, expected[:, :t1, :, :t2], rtol=1e-5, atol=1e-6)
        elif readout == "mean":
            mean = expected[:, :t1, :, :t2].mean(axis=(1, 3))
            np.testing.assert_allclose(found, mean, rtol=1e-5, atol=1e-6)
        else:
            last = infinite_kernel(whole, x[:1, :t1], x[1:, :t2]).ntk[:, -1, :, -1]
            np.testing.assert_allclose(found, last, rtol=1e-5, atol=1e-6)
    assert 0 < counts[0] == counts[-1]
