"""Bounds against the eigenvalue they bound."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnntk import ElmanRNN, infinite_kernel
from rnntk.bounds import _arccosine_series, min_eigenvalue


@pytest.mark.usefixtures("x64")
@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    n=st.sampled_from([1, 2, 5, 12]),
    t=st.sampled_from([1, 6]),
    correlation=st.floats(0, 0.9999),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    trainable=st.sampled_from([("W", "U", "b", "V"), ("W", "U"), ("V",)]),
)
def test_lower_is_below_and_upper_above(seed, n, t, correlation, scale, trainable):
    rng = np.random.default_rng(seed)
    common, own = rng.standard_normal((1, t, 3)), rng.standard_normal((n, t, 3))
    x = scale * (correlation * common + (1 - correlation) * own)
    rnn = ElmanRNN(trainable=trainable)
    values = np.linalg.eigvalsh(np.asarray(infinite_kernel(rnn, x).ntk))
    rounding = 4 * n * 2.0**-52 * values[-1]
    bounds = min_eigenvalue(rnn, x)
    for name, bound in bounds.lower.items():
        assert bound <= values[0] + rounding, name
    for name, bound in bounds.upper.items():
        assert bound >= values[0] - rounding, name


@pytest.mark.usefixtures("x64")
def test_tightness_on_generic_data():
    x = np.random.default_rng(0).standard_normal((40, 10, 8))
    rnn = ElmanRNN()
    truth = np.linalg.eigvalsh(np.asarray(infinite_kernel(rnn, x).ntk))[0]
    lower = min_eigenvalue(rnn, x).lower
    assert lower["separation"] <= lower["series"] <= lower["schur"] <= truth
    assert lower["schur"] > 0.7 * truth
    assert lower["separation"] > truth / 20


@pytest.mark.usefixtures("x64")
def test_duplicates_have_no_positive_bound():
    x = np.random.default_rng(0).standard_normal((4, 3, 2))
    x[1] = x[0]
    bounds = min_eigenvalue(ElmanRNN(), x)
    assert max(bounds.lower.values()) == 0
    assert bounds.upper["pair"] <= 1e-12


def test_series_are_the_arccosine_functions():
    r = 0.7
    powers = r ** np.arange(400)
    k0, k1 = _arccosine_series()
    theta = np.arccos(r)
    np.testing.assert_allclose(k0 @ powers, 1 - theta / np.pi, rtol=1e-14)
    np.testing.assert_allclose(
        k1 @ powers, (np.sin(theta) + (np.pi - theta) * r) / np.pi, rtol=1e-14
    )


def test_other_architectures_are_refused():
    x = np.ones((2, 3, 1), np.float32)
    with pytest.raises(ValueError, match=r"unidirectional relu network .* got activation='erf'"):
        min_eigenvalue(ElmanRNN("erf"), x)
    with pytest.raises(ValueError, match="readout='mean'"):
        min_eigenvalue(ElmanRNN(readout="mean"), x)
