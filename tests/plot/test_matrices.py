"""Figures of matrices, in memory and on disk."""

import numpy as np
import pytest

import rnntk


def drawn(figure):
    return figure.axes[0].images[0]


def test_all_of_a_small_matrix():
    K = np.arange(12.0).reshape(3, 4)
    figure = rnntk.plot.kernel_matrix(K)
    np.testing.assert_array_equal(drawn(figure).get_array(), K)
    assert drawn(figure).get_extent() == [-0.5, 3.5, 2.5, -0.5]
    assert figure.axes[0].get_title() == ""


def test_a_sample_of_one_on_disk(tmp_path):
    x = np.random.default_rng(0).standard_normal((23, 3, 2)).astype(np.float32)
    K = rnntk.infinite_kernel(rnntk.ElmanRNN(), x, out=tmp_path / "k.zarr", tile=8).ntk
    figure = rnntk.plot.kernel_matrix(K, most=10)
    np.testing.assert_array_equal(drawn(figure).get_array(), np.asarray(K)[::3, ::3])
    assert drawn(figure).get_extent() == [-0.5, 23.5, 23.5, -0.5]
    assert figure.axes[0].get_title() == "every 3 of 23 rows"
    figure.savefig(tmp_path / "k.png")


def test_refusals():
    with pytest.raises(ValueError, match=r"K must be a matrix, got shape \(3,\)"):
        rnntk.plot.kernel_matrix(np.ones(3))
    with pytest.raises(ValueError, match="most must be at least 1, got 0"):
        rnntk.plot.kernel_matrix(np.eye(3), most=0)
