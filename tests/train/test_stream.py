"""Generators: cut into batches as documented, checked block by block, in bounded memory."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnntk.network.elman import ElmanRNN
from rnntk.train import fit

KEY = jax.random.key(2)
T, D = 3, 2
SETTINGS = {"width": 6, "learning_rate": 0.05}


def block(size, seed=0, t=T, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((size, t, D)).astype(dtype), rng.standard_normal(size)


def joined(blocks):
    return tuple(np.concatenate(parts) for parts in zip(*blocks, strict=True))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("size", "batch_size", "steps"), [(4, None, 5), (4, 2, 10), (4, 5, 4)])
def test_a_stream_is_its_samples_in_order(size, batch_size, steps):
    stream = [block(size, seed, dtype=float) for seed in range(5)]
    found = fit(ElmanRNN(), KEY, iter(stream), batch_size=batch_size, **SETTINGS)
    assert found.steps == steps
    x, y = joined(stream)
    b = batch_size or size
    start = jax.tree.map(lambda leaf: leaf[0], found.initial_params)
    params, rnn = start, ElmanRNN()

    @jax.jit
    @jax.value_and_grad
    def loss(params, x, y):
        change = rnn.apply(params, x) - rnn.apply(start, x)
        return jnp.square(change[:, 0] - y).sum() / (2 * b)

    for step in range(steps):
        rows = slice(step * b, (step + 1) * b)
        value, gradient = loss(params, x[rows], y[rows])
        np.testing.assert_allclose(found.losses[0, step], value, rtol=1e-12)
        params = jax.tree.map(lambda p, g: p - 0.05 * g, params, gradient)
    for got, want in zip(*map(jax.tree.leaves, (found.params, params)), strict=True):
        np.testing.assert_allclose(got[0], want, rtol=1e-12, atol=1e-13)


def test_lengths_come_with_the_blocks():
    x, y = block(4)
    full = fit(ElmanRNN(), KEY, [(x, y)] * 3, **SETTINGS)
    ragged = fit(ElmanRNN(), KEY, [(x, y, np.array([3, 1, 2, 3]))] * 3, **SETTINGS)
    stored = fit(ElmanRNN(), KEY, x, y, lengths=np.array([3, 1, 2, 3]), steps=3, **SETTINGS)
    same = fit(ElmanRNN(), KEY, [(x, y, np.full(4, T))] * 3, **SETTINGS)
    np.testing.assert_allclose(ragged.losses, stored.losses, rtol=1e-4)
    np.testing.assert_allclose(same.losses, full.losses, rtol=1e-4)
    assert not np.allclose(ragged.losses, full.losses, rtol=1e-2)


def failing():
    yield block(2)
    yield block(2)
    raise OSError("no more samples")


@pytest.mark.parametrize(
    ("stream", "changes", "error", "message"),
    [
        ([], {}, ValueError, "x must yield blocks .*got none at all"),
        ([block(2)] * 3, {"steps": 4}, ValueError, "a batch of 2 for each of the 4 steps, got 3"),
        (
            [block(2), block(3)],
            {},
            ValueError,
            r"blocks of one shape and dtype, \(2, 3, 2\).* got \(3, 3, 2\).* as block 1",
        ),
        ([block(2), block(2, t=4)], {}, ValueError, "one shape and dtype.*as block 1"),
        ([block(2)[:1]], {}, TypeError, "blocks .*got tuple as block 0"),
        ([block(2)[0]], {}, TypeError, "blocks .*got ndarray as block 0"),
        ([(np.zeros((2, T)), np.zeros(2))], {}, ValueError, "x must have shape"),
        ([(block(2)[0], np.zeros(3))], {}, ValueError, "y must hold a label for each sequence"),
        ([(block(2)[0] * np.nan, np.zeros(2))], {}, ValueError, "x must be finite"),
        ([block(2)] * 2, {"lengths": np.ones(2, int)}, ValueError, "lengths must come in the"),
        (3.5, {}, TypeError, "x must be an array of tokens or an iterable of blocks, got float"),
        (
            [(block(2)[0], np.array([0, 1]))],
            {"loss": "cross_entropy"},
            ValueError,
            "output_dim must say how many classes there are",
        ),
        (failing(), {}, OSError, "no more samples"),
        (
            [block(2)],
            {"metrics": {"one": lambda p, q: 1.0}},
            ValueError,
            "record must say at which steps of a generator to record, got None",
        ),
    ],
)
def test_bad_streams_are_named(stream, changes, error, message):
    with pytest.raises(error, match=message):
        fit(ElmanRNN(), KEY, stream, **SETTINGS | changes)


def test_a_generator_cannot_begin_again_for_networks_that_do_not_fit():
    with pytest.raises(ValueError, match="at least") as told:
        fit(ElmanRNN(), KEY, [block(2)], memory_limit=1, **SETTINGS)
    settings = SETTINGS | {"seeds": 2, "memory_limit": int(str(told.value).split()[5])}
    with pytest.raises(ValueError, match="x must be iterable more than once"):
        fit(ElmanRNN(), KEY, iter([block(2)]), **settings)
    found = fit(ElmanRNN(), KEY, [block(2)], **settings)
    assert found.losses.shape == (2, 1)


def test_nan_in_a_later_block_is_named():
    x, y = block(2)
    with pytest.raises(ValueError, match="x must be finite"):
        fit(ElmanRNN(), KEY, [(x, y), (x * np.nan, y)], **SETTINGS)


ONLINE = """
import resource, sys
import jax, numpy as np, rnntk
x = np.random.default_rng(0).standard_normal((64, 10, 8)).astype(np.float32)
def stream(count):
    for i in range(count):
        yield x[i % 64, None], x[i % 64, 0, :1]
for count in (20_000, 20_000, 20_000, int(sys.argv[1])):
    rnntk.train.fit(rnntk.ElmanRNN(), jax.random.key(0), stream(count), width=256,
                    learning_rate=0.01, steps=count)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_samples():
    # Not with the light optimization of the tests, which makes 100,000 steps take minutes.
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    run = subprocess.run(
        [sys.executable, "-c", ONLINE, "100000"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    *_, few, many = (int(kib) * 1024 for kib in run.stdout.split())
    samples = 100_000 * (10 * 8 + 1) * 4
    # Losses are kept, 0.4 MB; of the 32 MB of samples nothing may stay. The allocator settles in
    # the runs before, within some MB.
    assert many - few < samples / 2
