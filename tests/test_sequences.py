"""Padding and its messages."""

import jax.numpy as jnp
import numpy as np
import pytest

from rnntk import pad
from rnntk.checks import check_batch
from rnntk.sequences import reverse


def test_pad():
    x, lengths = pad([np.ones((2, 3)), np.full((1, 3), 2.0)])
    assert lengths.tolist() == [2, 1]
    assert np.asarray(x).tolist() == [[[1.0] * 3] * 2, [[2.0] * 3, [0.0] * 3]]


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ([], "sequences must hold at least one array"),
        ([np.ones((2, 3, 1))], r"sequences\[0\] must have shape"),
        ([np.ma.masked_equal([1.0, 2.0], 2.0)], r"sequences\[0\] must have no masked entries"),
        ([np.ones((2, 3)), np.ones((0, 3))], r"sequences\[1\] must have shape"),
        (
            [[[1.0, 2.0], [3.0]]],
            r"sequences\[0\] must be one array .* got parts of unequal lengths",
        ),
        ([np.ones((2, 3)), np.ones((2, 4))], r"sequences\[0\] has 3, sequences\[1\] has 4"),
    ],
)
def test_bad_lists(sequences, message):
    with pytest.raises(ValueError, match=message):
        pad(sequences)


def test_scalars_are_tokens_of_size_1():
    x, lengths = pad([np.array([1.0, 2.0, 3.0]), np.ones(1)])
    assert np.asarray(x).tolist() == [[[1.0], [2.0], [3.0]], [[1.0], [0.0], [0.0]]]
    assert lengths.tolist() == [3, 1]


def test_complex_numbers_are_refused():
    with pytest.raises(TypeError, match=r"sequences\[0\] must be real numbers, got complex128"):
        pad([np.ones((2, 1), complex)])
    with pytest.raises(TypeError, match=r"got bfloat16: convert with astype\(float\)"):
        pad([np.ones((2, 1)).astype(jnp.bfloat16)])
    with pytest.raises(TypeError, match="sequences must be a list of arrays, got None"):
        pad(None)


@pytest.mark.usefixtures("x64")
def test_unsigned_lengths_reverse_as_signed_ones_do():
    x = np.arange(12.0).reshape(2, 3, 2)
    tokens, lengths = check_batch(x, np.array([2, 3], np.uint64))
    x[0, 2] = 0  # padding
    expected = np.stack([x[0][[1, 0, 2]], x[1][[2, 1, 0]]])
    np.testing.assert_array_equal(reverse(tokens, lengths), expected)
