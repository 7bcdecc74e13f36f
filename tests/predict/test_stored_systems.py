"""Regression with kernels on disk."""

import numpy as np
import pytest

import rnntk
from rnntk import ElmanRNN
from rnntk.predict import KernelRegression, solve

RNN = ElmanRNN("sin", b_std=0.3)


@pytest.fixture
def problem(tmp_path, x64):
    rng = np.random.default_rng(0)
    x, new = rng.standard_normal((50, 4, 3)), rng.standard_normal((9, 4, 3))
    train = rnntk.infinite_kernel(RNN, x, out=tmp_path / "train.zarr", tile=16).ntk
    cross = rnntk.infinite_kernel(RNN, new, x, out=tmp_path / "cross.zarr", tile=16).ntk
    return train, cross, rng.standard_normal((50, 2))


@pytest.mark.parametrize("outputs", [1, 2])
def test_solution_is_that_of_lapack(problem, outputs):
    train, cross, y = problem
    y = y[:, 0] if outputs == 1 else y
    found = solve(train, y, 0.1, tolerance=1e-11, rank=10)
    expected = np.linalg.solve(np.asarray(train) + 0.1 * np.eye(50), y.reshape(50, -1))
    np.testing.assert_allclose(found.coefficients, expected, rtol=1e-8)
    assert (found.residual <= 1e-11).all()
    assert found.passes == found.steps + 1
    predicted = cross @ found.coefficients
    np.testing.assert_allclose(predicted, np.asarray(cross) @ expected, rtol=1e-7)
    exact = KernelRegression(train, y, 0.1)
    np.testing.assert_allclose(exact.predict(cross).reshape(9, -1), predicted, rtol=1e-7)


def test_goes_on_from_a_checkpoint_of_its_own(problem, tmp_path):
    train, _, y = problem
    path = tmp_path / "state.npz"
    whole = solve(train, y, 0.1, tolerance=1e-11, rank=10)
    coarse = solve(train, y, 0.1, tolerance=1e-11, rank=10, checkpoint=path)
    again = solve(train, y, 0.1, tolerance=1e-11, rank=10, checkpoint=path)
    np.testing.assert_array_equal(again.coefficients, whole.coefficients)
    np.testing.assert_array_equal(coarse.coefficients, whole.coefficients)
    assert again.passes == 1
    with pytest.raises(ValueError, match="is of other work: ridge was"):
        solve(train, y, 0.2, tolerance=1e-11, rank=10, checkpoint=path)


def test_refusals(problem):
    train, cross, y = problem
    with pytest.raises(TypeError, match="K must be a kernel on disk, got ndarray"):
        solve(np.asarray(train), y)
    with pytest.raises(ValueError, match="K must be the kernel of one batch with itself"):
        solve(cross, y)
    with pytest.raises(ValueError, match="one label for each of the 50"):
        solve(train, y[:3])
    with pytest.raises(ValueError, match="tolerance must lie between 0 and 1"):
        solve(train, y, tolerance=0.0)
