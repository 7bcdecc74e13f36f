"""Kernels in object stores: the numbers of a folder, going on, damage, spectra, two processes."""

import os
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import jax
import numpy as np
import pytest
import uploads
from batches import KINDS, draw
from runs import compute

import rnntk
from rnntk import ElmanRNN, empirical_kernel, infinite_kernel

HERE = Path(__file__).parent


@pytest.fixture
def url():
    """Of a store in the memory of this process."""
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    yield "memory://bucket/k.zarr"
    memory.store.clear()


def assert_same(stored, expected):
    for kind in KINDS:
        np.testing.assert_array_equal(getattr(stored, kind), getattr(expected, kind))


@pytest.mark.parametrize("case", ["one", "ragged", "cross"])
def test_the_numbers_of_a_folder(tmp_path, url, case):
    batches = (draw(40), draw(23, seed=1)) if case == "cross" else (draw(40),)
    lengths = np.random.default_rng(0).integers(1, 6, 40) if case == "ragged" else None
    options = {"tile": 16, "lengths1": lengths}
    folder = infinite_kernel(ElmanRNN(), *batches, out=tmp_path / "k.zarr", **options)
    there = infinite_kernel(ElmanRNN(), *batches, out=url, **options)
    assert there.path == url
    assert there.missing() == there.verify() == []
    assert_same(there, folder)
    again = rnntk.open_kernel(url)
    assert again.identity == folder.identity
    np.testing.assert_array_equal(again.ntk[3:20, -1], folder.ntk[3:20, -1])
    v = np.random.default_rng(0).standard_normal((again.ntk.shape[1], 2))
    np.testing.assert_array_equal(again.ntk @ v, folder.ntk @ v)
    for kind in KINDS:  # chunk by chunk, what any reader of Zarr sees
        for file in (tmp_path / "k.zarr" / kind).rglob("*"):
            if file.is_file():
                name = file.relative_to(tmp_path).as_posix()
                assert fsspec.filesystem("memory").cat_file(f"/bucket/{name}") == file.read_bytes()


def test_empirical_kernels_with_their_parameters(tmp_path, url):
    rnn, x = ElmanRNN("sin"), draw(30)
    params = rnn.init(jax.random.key(0), input_dim=3, width=8)
    folder = empirical_kernel(rnn, params, x, out=tmp_path / "k.zarr", tile=16)
    assert_same(empirical_kernel(rnn, params, x, out=url, tile=16), folder)


def test_other_readers_of_zarr(url):
    dask = pytest.importorskip("dask.array")
    there = infinite_kernel(ElmanRNN(), draw(30), out=url, tile=16)
    found = dask.from_zarr(there.path, component="ntk").compute(scheduler="synchronous")
    np.testing.assert_array_equal(found, np.asarray(there.ntk))


def test_damage_is_mended_and_only_that(url, count):
    x = draw(40)
    whole = infinite_kernel(ElmanRNN(), x, out=url, tile=16)
    before = [np.asarray(whole.ntk), np.asarray(whole.nngp)]
    files = fsspec.filesystem("memory")
    for name, keep in (("ntk/c/0/1", 100), ("nngp/c/2/2", 16 * 16 * 4)):
        files.pipe_file(f"{url}/{name}", files.cat_file(f"{url}/{name}")[:keep])
    files.rm_file(f"{url}/ntk/c/2/1")
    assert whole.missing() == [(1, 2)]
    with pytest.raises(ValueError, match=rf"{url} lacks tile \(2, 1\) of ntk"):
        whole.ntk[39, 20]
    with pytest.raises(ValueError, match=rf"{url} has a damaged tile \(0, 1\) of ntk \(it has 100"):
        whole.ntk[0]
    assert whole.verify(discard=True) == [(0, 1), (2, 2)]
    count.clear()
    mended = infinite_kernel(ElmanRNN(), x, out=url, tile=16)
    assert sorted(count) == [(0, 1), (1, 2), (2, 2)]
    for kind, expected in zip(KINDS, before, strict=True):
        np.testing.assert_array_equal(getattr(mended, kind), expected)


def test_another_run_is_refused_and_touches_nothing(url):
    infinite_kernel(ElmanRNN(), draw(30), out=url, tile=16)
    files = fsspec.filesystem("memory")
    before = {name: files.cat_file(name) for name in files.find("/bucket")}
    for other, options in ((draw(30, seed=1), {"tile": 16}), (draw(30), {"tile": 8})):
        with pytest.raises(ValueError, match=f"{url} holds another kernel: (x1|tile) is"):
            infinite_kernel(ElmanRNN(), other, out=url, **options)
    assert {name: files.cat_file(name) for name in files.find("/bucket")} == before


def test_a_store_whose_making_was_broken_off(tmp_path, url, monkeypatch):
    """After each of its first uploads in turn, which another run then finds."""
    x = draw(30)
    expected = infinite_kernel(ElmanRNN(), x, out=tmp_path / "k.zarr", tile=16)
    files = fsspec.filesystem("memory")
    original = type(files).pipe_file
    for number in range(1, 7):
        files.store.clear()
        left = number

        def put(self, *args, **more):
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt("stop")
            original(self, *args, **more)

        with monkeypatch.context() as patch:
            patch.setattr(type(files), "pipe_file", put)
            with pytest.raises(KeyboardInterrupt, match="stop"):
                infinite_kernel(ElmanRNN(), x, out=url, tile=16)
        assert len(files.find("/bucket")) == number
        with pytest.raises(ValueError, match="holds another kernel"):
            infinite_kernel(ElmanRNN(), draw(30, seed=1), out=url, tile=16)
        assert_same(infinite_kernel(ElmanRNN(), x, out=url, tile=16), expected)


def test_the_first_of_two_runs_that_begin_at_once_keeps_the_store(tmp_path, url, monkeypatch):
    first, second = draw(30), draw(30, seed=1)
    expected = infinite_kernel(ElmanRNN(), first, out=tmp_path / "k.zarr", tile=16)
    files = fsspec.filesystem("memory")
    original = type(files).pipe_file

    def put(self, path, *args, **more):
        if path.endswith("k.zarr/zarr.json"):  # another is faster, and as far as its tokens
            monkeypatch.setattr(type(files), "pipe_file", original)
            assert_same(infinite_kernel(ElmanRNN(), first, out=url, tile=16), expected)
        return original(self, path, *args, **more)

    monkeypatch.setattr(type(files), "pipe_file", put)
    with pytest.raises(ValueError, match="holds another kernel: x1 is"):
        infinite_kernel(ElmanRNN(), second, out=url, tile=16)
    assert_same(rnntk.open_kernel(url), expected)
    assert rnntk.open_kernel(url).verify() == []


@pytest.mark.usefixtures("x64")
def test_spectra_and_their_factors(tmp_path, url):
    x = draw(60, dtype=np.float64)
    there = infinite_kernel(ElmanRNN(), x, out=url, tile=16).ntk
    folder = infinite_kernel(ElmanRNN(), x, out=tmp_path / "k.zarr", tile=16).ntk
    expected = rnntk.spectrum.min_eigenvalue(folder, "tiles")
    before = set(fsspec.filesystem("memory").find("/bucket"))
    assert rnntk.spectrum.min_eigenvalue(there, "tiles") == expected
    assert rnntk.spectrum.min_eigenvalue(there, "tiles", scratch=tmp_path / "f") == expected
    assert set(fsspec.filesystem("memory").find("/bucket")) == before
    exact = np.linalg.eigvalsh(np.asarray(folder))
    assert expected.lower <= exact[0] <= expected.upper
    np.testing.assert_allclose(
        rnntk.spectrum.largest_eigenvalues(there, 2).values, exact[:-3:-1], rtol=1e-12
    )
    y = np.asarray(x[:, -1, 0])
    found = rnntk.predict.solve(there, y, ridge=1e-2).coefficients
    solution = np.linalg.solve(np.asarray(folder) + 1e-2 * np.eye(60), y[:, None])
    np.testing.assert_allclose(found, solution, rtol=1e-5, atol=1e-7)


def test_urls_of_this_machine_are_folders(tmp_path):
    kernel = infinite_kernel(ElmanRNN(), draw(20), out=f"file://{tmp_path}/k.zarr", tile=8)
    assert kernel.path == str(tmp_path / "k.zarr")
    assert rnntk.open_kernel(f"local://{tmp_path}/k.zarr").missing() == []


def test_nothing_there(url):
    with pytest.raises(FileNotFoundError, match=f"There is no kernel at {url}"):
        rnntk.open_kernel(url)
    fsspec.filesystem("memory").pipe_file(f"{url}/other", b"")
    with pytest.raises(ValueError, match=f"{url} is no stored kernel"):
        infinite_kernel(ElmanRNN(), draw(4), out=url)


def test_urls_that_a_path_has_changed_are_refused():
    for path in (Path("s3://bucket/k.zarr"), Path("memory://k.zarr")):
        with pytest.raises(TypeError, match="out must be a str if it is a URL, which a path chang"):
            infinite_kernel(ElmanRNN(), draw(4), out=path)


def test_missing_packages_are_named(monkeypatch):
    with pytest.raises(ImportError, match=r"out 'gcs://b/k' needs another package: .*gcsfs"):
        infinite_kernel(ElmanRNN(), draw(4), out="gcs://b/k")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ImportError, match=r"package fsspec: pip install 'rnntk\[scale\]'"):
        rnntk.open_kernel("s3://bucket/k.zarr")


# -- processes, by a store of uploads in a folder -------------------------------------------------

PROCESS = """
import sys
import uploads, runs
runs.compute(sys.argv[1])
"""


@pytest.fixture
def uploaded(tmp_path, monkeypatch):
    """The folder of a store that processes share, and its URL."""
    (tmp_path / "parts").mkdir()
    monkeypatch.setenv("UPLOADS", str(tmp_path / "parts"))
    return tmp_path / "k.zarr", f"{uploads.Uploads.protocol[0]}://{tmp_path}/k.zarr"


def begin(url):
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS, url],
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_processes_that_share_an_object_store_and_one_that_is_killed(tmp_path, uploaded):
    folder, url = uploaded
    expected = compute(tmp_path / "expected.zarr")
    victim = begin(url)
    while len(list(folder.glob("ntk/c/*/*"))) < 20 and victim.poll() is None:
        time.sleep(0.005)
    victim.kill()
    assert victim.wait() < 0
    victim.stderr.close()
    assert 0 < len(rnntk.open_kernel(url).missing()) < 190
    both = [begin(url) for _ in range(2)]
    told = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    kernel = rnntk.open_kernel(url)
    assert kernel.missing() == kernel.verify() == []
    assert_same(kernel, expected)
