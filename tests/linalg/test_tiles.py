"""Matrices in tiles: block Lanczos, and Cholesky factors."""

from dataclasses import dataclass

import numpy as np
import pytest

from rnntk.linalg import block_lanczos
from rnntk.linalg.tiled_cholesky import NotPositiveError, TiledFactor


@dataclass(frozen=True)
class Dense:
    """Tiles of a matrix in memory."""

    A: np.ndarray
    starts: tuple[int, ...]

    def lower(self, index):
        (a, b), (c, d) = (self.starts[k : k + 2] for k in index)
        return self.A[a:b, c:d].copy()


class Kept(dict):
    """Tiles of a factor in memory."""

    def __init__(self):
        super().__init__()
        self.written = []

    def has(self, index):
        return index in self

    def read(self, index, shape):
        assert self[index].shape == shape
        return self[index].copy()

    def write(self, index, tile):
        self.written.append(index)
        self[index] = tile.copy()


def spectrum(values, seed=0):
    """A symmetric matrix with given eigenvalues."""
    basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(values),) * 2))[0]
    A = (basis * np.asarray(values)) @ basis.T
    return (A + A.T) / 2


VALUES = {
    "decay": 1 / np.arange(1, 61.0) ** 2,
    "multiple": np.array([3.0] * 4 + [1.0] * 20 + [0.5] * 6),
    "indefinite": np.linspace(-2, 1, 30),
    "small": np.array([2.0, 1.0]),
    "zero": np.zeros(9),
}


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("count", [1, 3])
def test_largest_eigenvalues_lie_within_their_residuals(name, count):
    values = np.sort(VALUES[name])[::-1]
    A = spectrum(values)
    found = block_lanczos.largest(lambda v: A @ v, len(A), count, 1e-9)
    count = min(count, len(A))
    assert found.values.shape == found.residuals.shape == (count,)
    rounding = 1e-14 * np.abs(values).max()
    # each has its own place in the spectrum, multiple ones too; convergence is to 1e-9
    np.testing.assert_allclose(found.values, values[:count], atol=1e-12 * np.abs(values).max())
    nearest = np.abs(found.values[:, None] - np.linalg.eigvalsh(A)).min(axis=1)
    assert (nearest <= found.residuals + rounding).all()
    gap = np.linalg.norm(A @ found.vectors - found.vectors * found.values, axis=0)
    np.testing.assert_allclose(found.residuals, gap, atol=rounding)
    assert (found.residuals <= 1e-8 * np.abs(values).max()).all()


def test_residuals_tell_when_steps_run_out():
    values = np.linspace(0.99, 1, 200)
    found = block_lanczos.largest(lambda v: spectrum(values) @ v, 200, 1, 1e-12, steps=3)
    assert found.products == 4
    assert 1 - found.values[0] <= found.residuals[0]
    assert found.residuals[0] > 1e-8


@pytest.mark.parametrize("starts", [(0, 30), (0, 7, 14, 21, 28, 30), (0, 1, 2, 29, 30)])
def test_factor_and_solution(starts):
    A = spectrum(np.linspace(0.1, 3, 30))
    factor = TiledFactor(Kept(), Dense(A, starts), -0.5)
    factor.compute(map)
    full = np.zeros((30, 30))
    for i, j in factor.indices():
        rows, columns = (slice(*starts[k : k + 2]) for k in (i, j))
        full[rows, columns] = factor._tile((i, j))
    assert (full == np.tril(full)).all()
    np.testing.assert_allclose(full, np.linalg.cholesky(A + 0.5 * np.eye(30)), atol=1e-14)
    b = np.random.default_rng(0).standard_normal((30, 2))
    np.testing.assert_allclose(factor.solve(b), np.linalg.solve(A + 0.5 * np.eye(30), b))
    np.testing.assert_array_equal(factor.diagonal(0), (np.diagonal(A) + 0.5)[slice(*starts[:2])])


def test_factorization_goes_on_and_changes_nothing():
    source = Dense(spectrum(np.linspace(0.1, 3, 30)), (0, 10, 20, 30))
    whole = TiledFactor(Kept(), source, 0.0)
    whole.compute(map)
    begun = TiledFactor(Kept(), source, 0.0)
    count = 0

    def stop():
        nonlocal count
        count += 1
        if count == 4:
            raise KeyboardInterrupt("stop")

    with pytest.raises(KeyboardInterrupt, match="stop"):
        begun.compute(map, stop)
    assert len(begun.store) == 4
    begun.compute(map)
    for index in whole.indices():
        np.testing.assert_array_equal(begun._tile(index), whole._tile(index))
    assert sorted(begun.store.written) == sorted(whole.indices())  # none of them twice


@pytest.mark.parametrize("shift", [0.1001, 5.0, np.nan])
def test_pivots_that_are_not_positive_are_told(shift):
    A = spectrum(np.linspace(0.1, 3, 30))
    with pytest.raises(NotPositiveError, match="pivot in tile"):
        TiledFactor(Kept(), Dense(A, (0, 10, 20, 30)), shift).compute(map)
