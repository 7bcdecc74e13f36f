"""Files of chunks: what Zarr reads, past the cache and through it, and writes that fail."""

import errno
import os

import numpy as np
import pytest

from rnntk.storage.chunks import read_chunk, write_chunk
from rnntk.storage.places import Folder

zarr = pytest.importorskip("zarr")


def draw(shape, dtype=np.float32):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


@pytest.fixture
def flags(monkeypatch):
    """With which flags files were opened."""
    seen, original = [], os.open

    def opened(path, flags, *rest):
        seen.append(flags)
        return original(path, flags, *rest)

    monkeypatch.setattr(os, "open", opened)
    return seen


def array(folder, shape, chunk, dtype):
    return zarr.create_array(
        str(folder), shape=shape, chunks=chunk, dtype=dtype, compressors=zarr.codecs.Crc32cCodec()
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("chunk", [(7, 5), (700, 600)])
def test_zarr_reads_what_is_written_and_writes_what_is_read(tmp_path, chunk, dtype):
    rows, columns = chunk
    whole = draw((rows + 3, columns + 2), dtype)
    ours, theirs = (
        array(tmp_path / name, whole.shape, chunk, dtype) for name in ("ours", "theirs")
    )
    theirs[...] = whole
    for i in range(2):
        for j in range(2):
            block = whole[i * rows :, j * columns :][:rows, :columns]
            name = f"c/{i}/{j}"
            write_chunk(
                Folder(tmp_path / "ours"), name, block.T.copy().T if i else block, chunk
            )  # in either order
            there = read_chunk(Folder(tmp_path / "theirs"), name, block.dtype, chunk)
            np.testing.assert_array_equal(there[: block.shape[0], : block.shape[1]], block)
            assert np.isnan(
                read_chunk(Folder(tmp_path / "ours"), name, block.dtype, chunk)
            ).sum() == (rows * columns - block.size)
    np.testing.assert_array_equal(ours[...], whole)


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="no such flag here")
def test_only_large_files_go_past_the_cache(tmp_path, flags):
    write_chunk(Folder(tmp_path), "large", draw((600, 600)), (600, 600))
    write_chunk(Folder(tmp_path), "small", draw((5, 6)), (5, 6))
    assert [bool(given & os.O_DIRECT) for given in flags] == [True, False]
    assert (tmp_path / "small").stat().st_size == 5 * 6 * 4 + 4
    np.testing.assert_array_equal(
        read_chunk(Folder(tmp_path), "small", np.dtype(np.float32), (5, 6)), draw((5, 6))
    )


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="no such flag here")
def test_file_systems_that_have_but_their_cache(tmp_path, monkeypatch):
    original, given = os.open, []

    def opened(path, flags, *rest):
        given.append(flags)
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return original(path, flags, *rest)

    monkeypatch.setattr(os, "open", opened)
    block = draw((600, 600))
    write_chunk(Folder(tmp_path), "k", block, block.shape)
    np.testing.assert_array_equal(
        read_chunk(Folder(tmp_path), "k", block.dtype, block.shape), block
    )
    assert [bool(flags & os.O_DIRECT) for flags in given] == [True, False]
    assert os.listdir(tmp_path) == ["k"]


def test_what_was_there_stays_where_a_write_fails(tmp_path, monkeypatch):
    block = draw((600, 600))
    write_chunk(Folder(tmp_path), "k", block, block.shape)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", full)
        with pytest.raises(OSError, match="No space left"):
            write_chunk(Folder(tmp_path), "k", block + 1, block.shape)
    np.testing.assert_array_equal(
        read_chunk(Folder(tmp_path), "k", block.dtype, block.shape), block
    )
    assert os.listdir(tmp_path) == ["k"]
