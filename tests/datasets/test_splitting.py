"""Divisions of data sets, and random tokens."""

import jax
import numpy as np
import pytest
from written import arrays, save

from rnntk import datasets


def test_split_is_disjoint_and_repeatable():
    data = datasets.digits()
    train, test = datasets.split(data, 50, seed=3)
    again, _ = datasets.split(data, 50, n_test=7, seed=3)
    assert len(train) == 50
    assert len(test) == 1747
    np.testing.assert_array_equal(train.x, again.x)
    # Every image of the data is in one of the two parts.
    joined = np.concatenate([train.x, test.x]).reshape(1797, -1)
    order, expected = (np.lexsort(rows.T) for rows in (joined, data.x.reshape(1797, -1)))
    np.testing.assert_array_equal(joined[order], data.x.reshape(1797, -1)[expected])


def test_split_keeps_classes_in_proportion():
    y = np.repeat([0, 1, 2], [80, 16, 4])
    data = datasets.Dataset("made", np.arange(100.0)[:, None, None], y)
    for seed in range(5):
        train, test = datasets.split(data, 50, n_test=25, seed=seed)
        assert np.abs(np.bincount(train.y, minlength=3) - [40, 8, 2]).max() <= 1
        assert np.abs(np.bincount(test.y, minlength=3) - [20, 4, 1]).max() <= 1
    one, two = (datasets.split(data, 50, seed=seed)[0].x for seed in (0, 1))
    assert not np.array_equal(np.sort(one, axis=0), np.sort(two, axis=0))


@pytest.mark.parametrize(
    ("n", "message"),
    [
        (1797, "n=1797 training and 1 or more test sequences are asked for.*holds 1797"),
        (3, "n must be at least 8 training sequences, got 3"),
    ],
)
def test_split_refuses_sizes(n, message):
    with pytest.raises(ValueError, match=message):
        datasets.split(datasets.digits(), n)


def test_split_refuses_few_sequences_and_one_class(tmp_path):
    small = datasets.load(save(tmp_path, **arrays(n=8)))
    with pytest.raises(ValueError, match=r"at least 8 training .* got 8 in all"):
        datasets.split(small, 8)
    alike = datasets.Dataset("made", np.ones((20, 1, 1)), np.zeros(20))
    with pytest.raises(ValueError, match=r"all 8 training labels drawn are 0\.0"):
        datasets.split(alike, 8)


def test_split_gives_every_class_a_training_sequence():
    """Half of one sequence would as well be none."""
    y = np.repeat([0, 1, 2, 3], [496, 1, 1, 2])
    data = datasets.Dataset("made", np.arange(500.0)[:, None, None], y)
    for seed in range(5):
        for n in (8, 100, 250):
            train, test = datasets.split(data, n, seed=seed)
            assert np.unique(train.y).tolist() == [0, 1, 2, 3]
            assert (len(train), len(test)) == (n, 500 - n)
            both = np.concatenate([train.x, test.x]).ravel()
            assert np.sort(both).tolist() == np.arange(500).tolist()
    assert len(np.unique(datasets.split(datasets.digits(), 8)[0].y)) == 8  # of ten


def test_random_tokens():
    key = jax.random.key(3)
    x = datasets.unit_tokens(key, 40, 5, 3)
    np.testing.assert_allclose(np.linalg.norm(x, axis=2), 1, rtol=1e-14)
    np.testing.assert_array_equal(x, datasets.unit_tokens(key, 40, 5, 3))
    assert not np.array_equal(x, datasets.unit_tokens(jax.random.key(4), 40, 5, 3))
    near = datasets.unit_tokens(key, 40, 5, 3, correlation=0.99)
    assert np.einsum("td,td", near[0], near[1]) / 5 > 0.9 > np.einsum("td,td", x[0], x[1]) / 5
    behind = datasets.fixed_first_token(key, 40, 5, 3, 0.01)
    assert (behind[:, 0] == behind[0, 0]).all()
    np.testing.assert_allclose(np.linalg.norm(behind[:, 0], axis=1), 1, rtol=1e-14)
    np.testing.assert_allclose(np.linalg.norm(behind[:, 1:], axis=2), 0.01, rtol=1e-14)


def test_random_tokens_refuse():
    key = jax.random.key(3)
    with pytest.raises(ValueError, match="t must be a whole number of at least 1, got 0"):
        datasets.unit_tokens(key, 2, 0, 3)
    with pytest.raises(ValueError, match=r"correlation must lie in \[0, 1\), got 1"):
        datasets.unit_tokens(key, 2, 3, 3, correlation=1)
    with pytest.raises(ValueError, match="eps must be finite and not negative, got -1"):
        datasets.fixed_first_token(key, 2, 3, 3, -1)
