"""Stores that are damaged, incomplete, or of another run."""

import jax
import numpy as np
import pytest
from batches import KINDS, draw

import rnntk
from rnntk import ElmanRNN, empirical_kernel, infinite_kernel


def double(x):
    return 2 * x / (1 + x * x)


def changed(name):
    """Another run, and what the message says of it."""
    x = draw(20)
    touched = x.copy()
    touched[3, 2, 1] = np.nextafter(touched[3, 2, 1], np.float32(9))
    rnn = ElmanRNN("erf")
    return {
        "tokens": ((rnn, touched), {}, "x1 is float32 20x5x3, checksum [0-9a-f]{12} there and"),
        "lengths": ((rnn, x), {"lengths1": np.array([2] + 19 * [5])}, ".*; lengths1 is None there"),
        "network": ((ElmanRNN("erf", b_std=0.1), x), {}, r"b_std is 0\.0 there and 0\.1 here"),
        "activation": ((ElmanRNN("tanh"), x), {}, "activation is erf, -0.9953.* tanh"),
        "dtype": ((rnn, x.astype(np.float64)), {}, "x1 is float32 20x5x3.*float64 20x5x3"),
        "second": ((rnn, x, x), {}, "x2 is None there"),
        "tile": ((rnn, x), {"tile": 7}, r"tile is \[8, 8\] there and \[7, 7\] here"),
        "kinds": ((rnn, x), {"kinds": ["ntk"]}, r"kinds is \['nngp', 'ntk'\] there"),
    }[name]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "name", ["tokens", "lengths", "network", "activation", "dtype", "second", "tile", "kinds"]
)
def test_another_run_is_refused(tmp_path, name):
    out = tmp_path / "k.zarr"
    infinite_kernel(ElmanRNN("erf"), draw(20), out=out, tile=8)
    batches, options, message = changed(name)
    with pytest.raises(ValueError, match=f"k.zarr holds another kernel: {message}"):
        infinite_kernel(*batches, **{"out": out, "tile": 8, **options})


def test_another_version_and_other_functions_of_one_name_are_refused(tmp_path, monkeypatch):
    out, x = tmp_path / "k.zarr", draw(12)

    def make(factor):
        def phi(v):
            return factor * jax.numpy.tanh(v)

        return ElmanRNN(phi)

    infinite_kernel(make(1.0), x, out=out)
    with pytest.raises(ValueError, match=r"activation is phi, -0\.96403 .* there and phi, -1\.92"):
        infinite_kernel(make(2.0), x, out=out)
    monkeypatch.setattr(rnntk, "__version__", "0.0.9")
    with pytest.raises(ValueError, match=r"rnntk is \d.* there and 0\.0\.9 here"):
        infinite_kernel(make(1.0), x, out=out)


def test_other_parameters_are_refused(tmp_path):
    rnn, x = ElmanRNN(), draw(12)
    one, other = (rnn.init(jax.random.key(i), input_dim=3, width=8) for i in range(2))
    empirical_kernel(rnn, one, x, out=tmp_path / "k.zarr")
    with pytest.raises(ValueError, match=r"params is .* there and .* here"):
        empirical_kernel(rnn, other, x, out=tmp_path / "k.zarr")


def cut_short(file):
    file.write_bytes(file.read_bytes()[:-9])


def emptied(file):
    file.write_bytes(b"")


def changed_bit(file):
    content = bytearray(file.read_bytes())
    content[17] ^= 1
    file.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [cut_short, emptied, changed_bit])
@pytest.mark.parametrize("place", ["ntk/c/0/1", "nngp/c/2/1", "ntk/c/1/1"])
def test_damage_is_found_and_mended(tmp_path, count, damage, place):
    x, out = draw(40), tmp_path / "k.zarr"
    whole = infinite_kernel(ElmanRNN(), x, out=out, tile=16)
    before = [np.asarray(whole.ntk), np.asarray(whole.nngp)]
    damage(out / place)
    kind, _, i, j = place.split("/")
    own = tuple(sorted((int(i), int(j))))
    assert getattr(whole, kind).verify() == [(int(i), int(j))]
    with pytest.raises(ValueError, match=r"k.zarr has a damaged tile .* verify\(discard=True\)"):
        np.asarray(getattr(whole, kind))
    assert whole.verify() == [own]
    assert whole.missing() == []
    assert whole.verify(discard=True) == [own]
    assert whole.missing() == [own]
    count.clear()
    mended = infinite_kernel(ElmanRNN(), x, out=out, tile=16)
    assert count == [own]
    for kind, expected in zip(KINDS, before, strict=True):
        np.testing.assert_array_equal(getattr(mended, kind), expected)


@pytest.mark.parametrize("place", ["ntk/c/2/1", "nngp/c/1/2"])
def test_a_tile_counts_as_missing_if_any_of_its_chunks_does(tmp_path, count, place):
    x, out = draw(40), tmp_path / "k.zarr"
    whole = infinite_kernel(ElmanRNN(), x, out=out, tile=16)
    before = np.asarray(whole.ntk)
    (out / place).unlink()
    assert whole.missing() == [(1, 2)]
    count.clear()
    np.testing.assert_array_equal(infinite_kernel(ElmanRNN(), x, out=out, tile=16).ntk, before)
    assert count == [(1, 2)]
    assert (out / place).is_file()


def test_damaged_tokens_are_never_computed_with(tmp_path):
    x, out = draw(40), tmp_path / "k.zarr"
    infinite_kernel(ElmanRNN(), x, out=out, tile=16)
    (out / "ntk/c/0/0").unlink()
    changed_bit(out / "one/x/c/0/0/0")
    with pytest.raises(
        ValueError, match=r"k.zarr has damaged sequences, .*one/x/c/0/0/0 \(its checksum is"
    ):
        infinite_kernel(ElmanRNN(), x, out=out, tile=16)
