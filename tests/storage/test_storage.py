"""Kernels on disk: the same numbers as in memory, reading, going on, refusals, damage."""

import dataclasses
import itertools
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
from batches import KINDS, draw
from hypothesis import given, settings
from hypothesis import strategies as st

import rnntk
from rnntk import ElmanRNN, empirical_kernel, infinite_kernel
from rnntk.tiling import tuning

NETWORKS = {
    "last": ElmanRNN(),
    "mean": ElmanRNN("sin", readout="mean", b_std=0.2),
    "deep": ElmanRNN("sin", depth=2, bidirectional=True, w_std=1.0, u_std=1.0),
    "states": ElmanRNN(initial_state="independent", initial_state_std=0.4),
}

# Directions with lengths, and what one batch and two have of states that are independent.
SUFFICIENT = {
    ("last", "cross"),
    ("mean", "ragged"),
    ("deep", "ragged"),
    ("states", "one"),
    ("states", "cross"),
}


@pytest.fixture
def parts(monkeypatch):
    """Engines that compute 32 sequences at a time, in one program for each pair of panels."""
    monkeypatch.setattr(tuning, "INFINITE_TILE", 32)
    monkeypatch.setattr(tuning, "PANEL", 32)
    monkeypatch.setattr(tuning, "BRIEF", 0.0)


def arguments(case, seed=0):
    """Batches and lengths: of one batch, ragged, of two."""
    x1 = draw(96, seed=seed)
    if case == "ragged":
        return (x1,), {"lengths1": np.random.default_rng(1).integers(1, 6, len(x1))}
    return ((x1, draw(64, seed=seed + 1)), {}) if case == "cross" else ((x1,), {})


def assert_same(stored, expected):
    for kind in KINDS:
        np.testing.assert_array_equal(getattr(stored, kind), getattr(expected, kind))


@pytest.mark.parametrize(
    ("name", "case"),
    [
        pytest.param(*pair, marks=[] if pair in SUFFICIENT else pytest.mark.slow)
        for pair in itertools.product(NETWORKS, ("one", "ragged", "cross"))
    ],
)
def test_infinite_kernel_bit_for_bit(tmp_path, parts, name, case):
    batches, lengths = arguments(case)
    expected = infinite_kernel(NETWORKS[name], *batches, **lengths)
    for tile in (32, 64):  # of which the last is smaller
        out = tmp_path / f"{tile}.zarr"
        stored = infinite_kernel(NETWORKS[name], *batches, **lengths, out=out, tile=tile)
        assert_same(stored, expected)
        assert stored.missing() == stored.verify() == []
        assert_same(rnntk.open_kernel(out), expected)


@pytest.mark.parametrize("case", ["one", "ragged", "cross"])
@pytest.mark.parametrize("method", ["gram", "jacobian"])
@pytest.mark.parametrize("name", ["mean", "states"])
def test_empirical_kernel_bit_for_bit(tmp_path, parts, name, method, case):
    rnn, (batches, lengths) = NETWORKS[name], arguments(case)
    params = rnn.init(jax.random.key(1), input_dim=3, width=16, output_dim=2)
    options = {**lengths, "method": method, "key": jax.random.key(2)}
    expected = empirical_kernel(rnn, params, *batches, **options)
    out = tmp_path / "k.zarr"
    assert_same(empirical_kernel(rnn, params, *batches, **options, out=out, tile=32), expected)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rnntk.empirical.kernel.evaluate", None)  # nothing is computed again
        assert_same(empirical_kernel(rnn, params, *batches, **options, out=out), expected)


@pytest.mark.parametrize("name", ["last", "states"])
def test_other_tiles_agree_to_rounding(tmp_path, x64, name):
    x = draw(90, dtype=np.float64)
    rnn = NETWORKS[name]
    params = jax.tree.map(
        lambda v: v.astype(np.float64), rnn.init(jax.random.key(1), input_dim=3, width=16)
    )
    key = jax.random.key(2)
    for find, arrays in (
        (infinite_kernel, (x,)),
        (lambda *a, **k: empirical_kernel(rnn, params, x, key=key, **k), (x,)),
    ):
        expected = find(rnn, *arrays)
        out = tmp_path / f"{len(os.listdir(tmp_path))}.zarr"
        stored = find(rnn, *arrays, out=out, tile=37)
        for kind in KINDS:
            K, L = np.asarray(getattr(stored, kind)), np.asarray(getattr(expected, kind))
            size = np.sqrt(np.outer(np.diagonal(L), np.diagonal(L)))
            assert K.dtype == np.float64
            assert (K == K.T).all()
            # a few of the sums over 5 steps, or 16 units, that another order rounds otherwise
            assert (np.abs(K - L) <= 4e-15 * size).all()


def test_default_tile_is_whole_parts_of_the_engine(tmp_path):
    x = draw(500, t=2)  # three parts of 176
    stored = infinite_kernel(ElmanRNN(), x, out=tmp_path / "k.zarr")
    assert_same(stored, infinite_kernel(ElmanRNN(), x))
    assert stored.tile_count == 6


def test_tokens_that_are_zero(tmp_path):
    x = draw(40)
    x[10:30] = 0
    stored = infinite_kernel(ElmanRNN(b_std=0.1), x, out=tmp_path / "k.zarr", tile=8)
    expected = infinite_kernel(ElmanRNN(b_std=0.1), x)
    np.testing.assert_allclose(stored.ntk, expected.ntk, rtol=1e-5)


def test_one_kind_alone(tmp_path):
    x = draw(60)
    stored = infinite_kernel(ElmanRNN(), x, out=tmp_path / "k.zarr", kinds=["nngp"])
    assert stored.ntk is None
    np.testing.assert_array_equal(stored.nngp, infinite_kernel(ElmanRNN(), x).nngp)


# -- reading --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A symmetric kernel and one of two batches, on disk and in memory."""
    folder, pairs = tmp_path_factory.mktemp("read"), []
    for batches in ((draw(23),), (draw(23), draw(17, seed=1))):
        stored = infinite_kernel(ElmanRNN(), *batches, out=folder / f"{len(batches)}", tile=5)
        pairs.append((stored.ntk, np.asarray(infinite_kernel(ElmanRNN(), *batches).ntk)))
    return pairs


def index(n):
    ends = st.integers(-n - 3, n + 3) | st.none()
    return st.one_of(
        st.integers(-n, n - 1),
        st.builds(slice, ends, ends, st.sampled_from([None, 1, 2, 4, -1, -3])),
        st.lists(st.integers(-n, n - 1), max_size=6).map(lambda v: np.array(v, int)),
        st.lists(st.booleans(), min_size=n, max_size=n).map(np.array),
    )


@given(st.data())
@settings(max_examples=60)
def test_indexing_is_that_of_numpy(both, data):
    stored, expected = both[data.draw(st.integers(0, 1))]
    at = tuple(data.draw(index(n)) for n in stored.shape)
    if all(isinstance(part, np.ndarray) for part in at):
        at = at[:1]
    at = data.draw(
        st.sampled_from([at, at[0], (..., *at), (*at, ...), (at[0], ...), (..., at[-1]), ..., ()])
    )
    found = stored[at]
    np.testing.assert_allclose(found, expected[at], rtol=1e-5)
    assert np.shape(found) == expected[at].shape


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ((0, 0, 0), "takes one or two indices"),
        ((..., 0, ...), "takes one or two indices"),
        ((0, 0, ..., 0), "takes one or two indices"),
        (None, "takes one or two indices"),
        (23, r"indices must lie in -23\.\.22, got 23"),
        (1.5, "whole numbers, slices, vectors of them or masks of 23, got float64"),
        (np.ones(22, bool), r"vectors of them or masks of 23, got bool of shape \(22,\)"),
        (np.array([], bool), r"masks of 23, got bool of shape \(0,\)"),
        (True, r"masks of 23, got bool of shape \(\)"),
        ((np.array([0]), np.array([1])), "for one axis only"),
    ],
)
def test_other_indices_are_refused(both, at, message):
    with pytest.raises(IndexError, match=message):
        both[0][0][at]


def test_products_diagonal_and_tiles(both):
    for stored, expected in both:
        for shape in ((stored.shape[1],), (stored.shape[1], 3)):
            v = np.random.default_rng(0).standard_normal(shape)
            found = stored @ v
            assert found.dtype == np.float64
            np.testing.assert_allclose(found, expected @ v, atol=1e-4 * np.abs(expected).max())
        whole = np.full(stored.shape, np.nan)
        for rows, columns, block in stored.tiles():
            whole[rows, columns] = block
            if stored.symmetric:
                whole[columns, rows] = block.T
        np.testing.assert_array_equal(whole, np.asarray(stored))
    np.testing.assert_array_equal(both[0][0].diagonal(), np.diagonal(both[0][0]))
    with pytest.raises(ValueError, match="kernel of two batches, which has no diagonal"):
        both[1][0].diagonal()
    with pytest.raises(ValueError, match=r"multiplied by 23 rows, got shape \(3,\)"):
        both[0][0] @ np.ones(3)
    with pytest.raises(TypeError, match="multiplied by real numbers, got complex128"):
        both[0][0] @ np.ones(23, complex)


@pytest.mark.parametrize("size", [1e-60, 1e60, 1e300])
def test_products_with_columns_of_any_magnitude(both, size):
    for stored, _ in both:
        v = np.random.default_rng(0).standard_normal((stored.shape[1], 2))
        scale = np.ldexp(1.0, [0, np.frexp(size)[1]])
        np.testing.assert_array_equal(stored @ (v * scale), (stored @ v) * scale)


def test_array_only_where_it_fits(both, monkeypatch):
    stored, _ = both[0]
    assert np.asarray(stored, np.float64).dtype == np.float64
    with pytest.raises(ValueError, match=r"copy of <StoredMatrix ntk.* cannot be avoided"):
        np.asarray(stored, copy=False)
    monkeypatch.setattr("rnntk.storage.matrices.free_memory", lambda: 2 * stored.nbytes - 1)
    with pytest.raises(MemoryError, match="more than half of the free memory: take slices"):
        np.asarray(stored)


def test_other_readers_of_zarr_see_a_matrix(both):
    array = pytest.importorskip("dask.array").from_zarr(both[0][0].path, component="ntk")
    np.testing.assert_array_equal(array.compute(scheduler="synchronous"), np.asarray(both[0][0]))


# -- going on -------------------------------------------------------------------------------------


def test_goes_on_with_what_is_missing(tmp_path, count):
    x, out = draw(40), tmp_path / "k.zarr"
    whole = infinite_kernel(ElmanRNN(), x, out=tmp_path / "whole.zarr", tile=16)
    count.clear()

    def stop(task, index, original=rnntk.storage.writing.Task.__call__):
        if len(count) == 2:
            raise KeyboardInterrupt("stop")
        original(task, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rnntk.storage.writing.Task, "__call__", stop)
        patch.setattr("rnntk.infinite.kernel.local_run", lambda *, threads: map)
        with pytest.raises(KeyboardInterrupt, match="stop"):
            infinite_kernel(ElmanRNN(), x, out=out, tile=16)
    begun = rnntk.open_kernel(out)
    assert begun.missing() == [(0, 2), (1, 1), (1, 2), (2, 2)]
    with pytest.raises(ValueError, match=r"lacks tile \(0, 2\) of ntk; the call that began it"):
        begun.ntk[0]
    np.testing.assert_array_equal(begun.ntk[:16, :20], whole.ntk[:16, :20])  # what is there
    count.clear()
    assert_same(infinite_kernel(ElmanRNN(), x, out=out, tile=16), whole)
    assert sorted(count) == [(0, 2), (1, 1), (1, 2), (2, 2)]


# -- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"executor": ThreadPoolExecutor(1)}, "must come with out"),
        ({"tile": 8}, "executor, tile and kinds must come with out"),
        ({"out": "k.zarr", "tile": 0}, "tile must be a whole number of at least 1, got 0"),
        ({"out": "k.zarr", "kinds": []}, r"kinds must be a selection of \('ntk', 'nngp'\)"),
        ({"out": "k.zarr", "kinds": "ntk"}, "kinds must be a selection"),
        ({"out": "k.zarr", "kinds": iter(["ntk"])}, "kinds must be a selection"),
        ({"out": "nothing://k.zarr"}, "out must be a folder or a URL that fsspec knows, got 'noth"),
        ({"out": "simplecache::memory://k"}, "folder, or one URL of a place in a store, got"),
        ({"out": "memory://"}, "out must be a folder, or one URL of a place in a store, got 'mem"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        infinite_kernel(ElmanRNN(), draw(4), **options)


def test_what_is_no_executor_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"client\.get_executor\(\)\), got 2"):
        infinite_kernel(ElmanRNN(), draw(4), out=tmp_path / "k", executor=2)
    with pytest.raises(TypeError, match=r"got <class .*ThreadPoolExecutor'>"):
        infinite_kernel(ElmanRNN(), draw(4), out=tmp_path / "k", executor=ThreadPoolExecutor)


@pytest.mark.parametrize("path", [3, b"k", ["k"]])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(TypeError, match=f"out must be a path, got {type(path).__name__}"):
        infinite_kernel(ElmanRNN(), draw(4), out=path)
    with pytest.raises(TypeError, match=f"path must be a path, got {type(path).__name__}"):
        rnntk.open_kernel(path)


def test_traced_arrays_are_refused(tmp_path):
    rnn, x = ElmanRNN(), draw(4)
    params = rnn.init(jax.random.key(0), input_dim=3, width=4)
    for call, argument in (
        (lambda v: infinite_kernel(rnn, v, out=tmp_path / "k").ntk, x),
        (lambda v: infinite_kernel(v, x, out=tmp_path / "k").ntk, rnn),
        (lambda v: empirical_kernel(rnn, v, x, out=tmp_path / "k").ntk, params),
    ):
        with pytest.raises(TypeError, match="out must be left out in jit, grad and vmap"):
            jax.jit(call)(argument)


def test_a_path_from_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    stored = infinite_kernel(ElmanRNN(), draw(4), out="~/k.zarr")
    assert stored.path == rnntk.open_kernel("~/k.zarr").path == str(tmp_path / "k.zarr")


def test_kernels_with_more_axes_are_refused(tmp_path):
    rnn, x = ElmanRNN(readout="sequence"), draw(4)
    params = rnn.init(jax.random.key(0), input_dim=3, width=4)
    last = dataclasses.replace(rnn, readout="last")
    for call in (
        lambda: infinite_kernel(rnn, x, out=tmp_path / "k"),
        lambda: empirical_kernel(rnn, params, x, out=tmp_path / "k"),
    ):
        with pytest.raises(ValueError, match=r"readout must be .* with out, .* got 'sequence'"):
            call()
    with pytest.raises(ValueError, match=r"outputs must be \('mean',\)|one of \('mean',\) with"):
        empirical_kernel(last, params, x, outputs="full", out=tmp_path / "k")
    assert not (tmp_path / "k").exists()


def test_ranges_are_checked_before_a_store_is_made(tmp_path):
    with pytest.raises(FloatingPointError, match="overflows float32"):
        infinite_kernel(ElmanRNN(w_std=1e9), draw(20), out=tmp_path / "k")
    rnn = ElmanRNN()
    params = rnn.init(jax.random.key(0), input_dim=3, width=4)
    params["W"] = params["W"].at[0, 0].set(np.nan)
    with pytest.raises(ValueError, match=r"params\['W'\] must be finite"):
        empirical_kernel(rnn, params, draw(4), out=tmp_path / "k")
    assert os.listdir(tmp_path) == []


def test_opening_what_is_no_kernel(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no kernel at"):
        rnntk.open_kernel(tmp_path / "none")
    with pytest.raises(ValueError, match="is no stored kernel"):
        rnntk.open_kernel(tmp_path)
    with pytest.raises(ValueError, match="is no stored kernel"):
        infinite_kernel(ElmanRNN(), draw(4), out=tmp_path)


@pytest.mark.parametrize("damage", ["", '{"zarr_format": 3, "node_ty', "{}", "other", "format"])
def test_damaged_descriptions_are_refused(tmp_path, damage):
    out, x = tmp_path / "k.zarr", draw(4)
    infinite_kernel(ElmanRNN(), x, out=out)
    file = out / "zarr.json"
    told = json.loads(file.read_text())
    if damage == "format":
        told["attributes"]["rnntk"]["format"] = 99
    else:
        told["attributes"]["rnntk"].pop("identity")
    file.write_text(json.dumps(told) if damage in ("format", "other") else damage)
    for call in (
        lambda: rnntk.open_kernel(out),
        lambda: infinite_kernel(ElmanRNN(), x, out=out),
    ):
        with pytest.raises(ValueError, match=r"(is no stored kernel|must have the format 1)"):
            call()


def test_what_is_gone_is_named(tmp_path):
    out, x = tmp_path / "k.zarr", draw(40)
    infinite_kernel(ElmanRNN(), x, out=out, tile=16)
    shutil.rmtree(out / "one")
    (out / "ntk/c/0/0").unlink()
    with pytest.raises(
        ValueError, match=r"k\.zarr has damaged sequences, .*one/x/c/0/0/0 \(.*No such"
    ):
        infinite_kernel(ElmanRNN(), x, out=out, tile=16)
    shutil.rmtree(out / "nngp")
    with pytest.raises(ValueError, match=r"k\.zarr lacks its array nngp: remove the store"):
        rnntk.open_kernel(out).ntk.shape  # noqa: B018


def test_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "zarr", None)
    with pytest.raises(ImportError, match=r"package zarr: pip install 'rnntk\[scale\]'"):
        infinite_kernel(ElmanRNN(), draw(4), out=tmp_path / "k")


# -- damage ---------------------------------------------------------------------------------------
