"""The ends of spectra of kernels on disk: proved intervals, agreement with those in memory."""

import os
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor

import mpmath
import numpy as np
import pytest

import rnntk
from rnntk import ElmanRNN
from rnntk.spectrum import intervals
from rnntk.spectrum import stored as stored_spectra
from rnntk.storage import StoredMatrix
from rnntk.storage.places import Folder


def stored(folder, A, tile):
    """A matrix in the place of a kernel."""
    x = np.zeros((len(A), 1, 1), A.dtype)
    x[:, 0, 0] = np.arange(len(A))
    with np.errstate(all="ignore"):
        kernel = rnntk.infinite_kernel(ElmanRNN(), x, out=folder, tile=tile)
    for i, j in kernel.ntk.layout.tiles():
        rows, columns = (slice(k * tile, (k + 1) * tile) for k in (i, j))
        for (a, b), block in (((i, j), A[rows, columns]), ((j, i), A[columns, rows])):
            kernel.ntk.layout.write("ntk", (a, b), block)
    np.testing.assert_array_equal(kernel.ntk, A)
    return kernel.ntk


def exact_smallest(A):
    """The smallest eigenvalue of the given numbers, to 40 digits."""
    with mpmath.workdps(60):
        return mpmath.eigsy(mpmath.matrix(A.tolist()), eigvals_only=True)[0]


def matrix(kind, n=13):
    rng = np.random.default_rng(7)
    features = rng.standard_normal((n, n + 3))
    if kind == "duplicates":  # two rows that are nearly equal: an eigenvalue near 1e-9
        features[1] = features[0] + 1e-5 * features[1]
    A = features @ features.T
    if kind == "integers":
        A = np.rint(A * 8)
    if kind == "indefinite":
        A -= 9 * np.eye(n)
    if kind == "singular":
        A[1:, 1:] = 1.0
        A[0, 1:] = A[1:, 0] = 0.5
    if kind == "small":
        A *= 2.0**-300
    return (A + A.T) / 2


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("tile", [1, 4, 13])
@pytest.mark.parametrize(
    "kind", ["plain", "duplicates", "integers", "indefinite", "singular", "small"]
)
def test_interval_contains_the_exact_eigenvalue(tmp_path, kind, tile):
    A = matrix(kind)
    found = rnntk.spectrum.min_eigenvalue(stored(tmp_path / "k.zarr", A, tile), "tiles")
    with mpmath.workdps(60):
        assert found.lower <= exact_smallest(A) <= found.upper
    assert found.lower <= found.value <= found.upper
    assert found.certified
    assert found.method == "tiles"
    # theorem 1's loss is (n + 1) u trace, the gap of the shift n u norm; the same above
    assert found.upper - found.lower <= 60 * len(A) * 2.0**-53 * np.trace(np.abs(A))
    assert found.resolved == (kind != "singular")
    assert os.listdir(tmp_path) == ["k.zarr"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_agrees_with_the_methods_in_memory(tmp_path, x64, dtype):
    x = np.random.default_rng(0).standard_normal((150, 4, 3)).astype(dtype)
    K = rnntk.infinite_kernel(ElmanRNN(), x, out=tmp_path / "k.zarr", tile=40).ntk
    tiles, dense = (rnntk.spectrum.min_eigenvalue(K, method) for method in ("tiles", "dense"))
    assert max(tiles.lower, dense.lower) <= min(tiles.upper, dense.upper)
    # of the matrix in float64, to what LAPACK loses
    assert abs(tiles.value - dense.value) <= 1e-14 * float(np.trace(K))
    assert tiles.upper - tiles.lower <= 2 * (dense.upper - dense.lower)
    values = np.linalg.eigvalsh(np.asarray(K, np.float64))[::-1]
    largest = rnntk.spectrum.largest_eigenvalues(K, 4)
    np.testing.assert_allclose(largest.values, values[:4], rtol=1e-12)
    assert rnntk.spectrum.min_eigenvalue(K).method == "dense"
    there = pickle.loads(pickle.dumps(K))  # as other processes get it
    with ThreadPoolExecutor(2) as pool:
        assert rnntk.spectrum.min_eigenvalue(there, "tiles", executor=pool) == tiles


def test_summary_of_what_does_not_fit(tmp_path, x64, monkeypatch):
    x = np.random.default_rng(0).standard_normal((60, 4, 3))
    K = rnntk.infinite_kernel(ElmanRNN(), x, out=tmp_path / "k.zarr", tile=16).ntk
    whole = rnntk.spectrum.summary(K)
    monkeypatch.setattr(intervals, "free_memory", lambda: 0)
    monkeypatch.setattr(StoredMatrix, "__array__", None)
    ends = rnntk.spectrum.summary(K)
    for name in ("smallest", "largest", "condition_number", "trace", "stable_rank"):
        np.testing.assert_allclose(getattr(ends, name), getattr(whole, name), rtol=1e-9)
    np.testing.assert_allclose(ends.intrinsic_dimension, whole.intrinsic_dimension, rtol=1e-9)
    assert ends.effective_rank is ends.unresolved is ends.decay_range is None
    assert rnntk.spectrum.min_eigenvalue(K).method == "tiles"


def test_a_stopped_factorization_goes_on(tmp_path, x64, monkeypatch):
    x = np.random.default_rng(0).standard_normal((60, 4, 3))
    K = rnntk.infinite_kernel(ElmanRNN(), x, out=tmp_path / "k.zarr", tile=16).ntk
    whole = rnntk.spectrum.min_eigenvalue(K, "tiles")
    save, left = stored_spectra.write_chunk, 13  # of 20 tiles of two factors

    def stop(*arguments):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt("stop")
        save(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored_spectra, "write_chunk", stop)
        with pytest.raises(KeyboardInterrupt, match="stop") as caught:
            rnntk.spectrum.min_eigenvalue(K, "tiles", scratch=tmp_path / "f")
    assert f"The factors in {tmp_path / 'f'}/" in caught.value.__notes__[0]
    assert len(list(tmp_path.glob("f/*/*/*"))) == 13
    count = 0

    def counted(*arguments):
        nonlocal count
        count += 1
        save(*arguments)

    monkeypatch.setattr(stored_spectra, "write_chunk", counted)
    assert rnntk.spectrum.min_eigenvalue(K, "tiles", scratch=tmp_path / "f") == whole
    assert count == 7
    assert os.listdir(tmp_path / "f") == []


@pytest.fixture
def begun(tmp_path, x64, monkeypatch):
    """A kernel, and the folder of its factors, of which the first is whole."""
    x = np.random.default_rng(0).standard_normal((60, 4, 3))
    K = rnntk.infinite_kernel(ElmanRNN(), x, out=tmp_path / "k.zarr", tile=16).ntk
    with monkeypatch.context() as patch:
        patch.setattr(stored_spectra.block_lanczos, "largest", None)
        with pytest.raises(TypeError, match="not callable"):
            rnntk.spectrum.min_eigenvalue(K, "tiles")
    (folder,) = tmp_path.glob("k.zarr.factors.*")
    assert len(list(folder.glob("estimate*/*"))) == 10
    return K, folder


def test_damaged_factors_prove_nothing(begun):
    K, folder = begun
    (file,) = folder.glob("estimate*/2-1")
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"damaged tile \(2, 1\) of a factor .* remove it"):
        rnntk.spectrum.min_eigenvalue(K, "tiles")


def test_another_process_removes_the_factors(begun, monkeypatch):
    K, folder = begun
    remove = shutil.rmtree

    def also(path):  # as it begins to remove them, another does
        monkeypatch.setattr(shutil, "rmtree", remove)
        Folder(folder).clear()
        remove(path)

    monkeypatch.setattr(shutil, "rmtree", also)
    found = rnntk.spectrum.min_eigenvalue(K, "tiles")
    assert not folder.exists()
    original = stored_spectra.block_lanczos.largest

    def cleared(*arguments):
        Folder(folder).clear()
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(stored_spectra.block_lanczos, "largest", cleared)
        with pytest.raises(FileNotFoundError, match=r"another process was at the same .* Repeat"):
            rnntk.spectrum.min_eigenvalue(K, "tiles")
    assert rnntk.spectrum.min_eigenvalue(K, "tiles") == found


def test_factors_of_other_tiles_prove_nothing(begun, tmp_path):
    K, _ = begun
    block = K.layout.read("ntk", (1, 1)).copy()
    block[0, 0] += 1
    K.layout.write("ntk", (1, 1), block)
    found = rnntk.spectrum.min_eigenvalue(K, "tiles")
    expected = rnntk.spectrum.min_eigenvalue(K, "tiles", scratch=tmp_path / "new")
    assert found == expected


def test_refusals(tmp_path):
    x = np.random.default_rng(0).standard_normal((20, 4, 3)).astype(np.float32)
    K = rnntk.infinite_kernel(ElmanRNN(), x, out=tmp_path / "k.zarr", tile=8).ntk
    cross = rnntk.infinite_kernel(ElmanRNN(), x, x, out=tmp_path / "c.zarr").ntk
    for call in (
        lambda K: rnntk.spectrum.min_eigenvalue(K, "tiles"),
        rnntk.spectrum.largest_eigenvalues,
    ):
        with pytest.raises(ValueError, match="K must be the kernel of one batch with itself"):
            call(cross)
    with pytest.raises(ValueError, match="method='tiles' is for a kernel on disk, got ndarray"):
        rnntk.spectrum.min_eigenvalue(np.eye(3), "tiles")
    with pytest.raises(TypeError, match="K must be a kernel on disk, got ndarray"):
        rnntk.spectrum.largest_eigenvalues(np.eye(3))
    (tmp_path / "k.zarr/ntk/c/1/1").unlink()
    with pytest.raises(ValueError, match="lacks 1 tiles; the call that began it"):
        rnntk.spectrum.min_eigenvalue(K, "tiles")
