"""One pass over samples that a generator makes: blocks come in, batches of many steps go out."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from rnntk import checks
from rnntk.network.elman import ElmanRNN
from rnntk.train import labels
from rnntk.train.descent import Batch
from rnntk.train.losses import Loss

Block = tuple[np.ndarray, ...]


class Stream:
    """An iterable of blocks (x, y) or (x, y, lengths), cut into batches.

    All blocks have the shapes of the first. What is too little for a batch waits for the next
    block. Memory holds two chunks of batches, whatever the number of samples.

    Args:
        blocks: the iterable; it is begun once.
        rnn: what will read the tokens.
        loss: what will read the labels.
        batch_size: sequences of a batch; those of a block if None.
        output_dim: number of outputs; that of the labels if None.
    """

    def __init__(
        self,
        blocks: Iterable[Any],
        rnn: ElmanRNN,
        loss: Loss,
        batch_size: int | None,
        output_dim: int | None,
    ) -> None:
        self._blocks, self._rnn, self._loss = iter(blocks), rnn, loss
        self._number = 0
        self._shapes: list[Any] = []
        first = self._next()
        if first is None:
            raise ValueError("x must yield blocks (x, y) or (x, y, lengths), got none at all.")
        x, lengths = checks.check_batch(first[0], first[2] if len(first) == 3 else None)
        if loss.labels == "class" and output_dim is None:
            raise ValueError(
                f"output_dim must say how many classes there are for loss={loss.name!r} on a "
                "generator, got None."
            )
        _, self.output_dim = labels.check(rnn, loss, first[1], x, lengths, output_dim)
        self.x, self.lengths = x, lengths
        self.batch_size = len(x) if batch_size is None else batch_size
        self._rest = first
        # fills what the samples leave of a chunk
        self._row = [part[:1] for part in first]

    def chunks(self, counts: Iterable[int], capacity: int) -> Iterator[tuple[Batch, int]]:
        """Batches of so many steps each time, and how many there are.

        The arrays have room for ``capacity`` steps. There are fewer than asked for only in the
        last, where the iterable ends. The next chunk is made while the caller works with one.
        """
        pool = ThreadPoolExecutor(1, "rnntk-stream")
        x64 = jax.dtypes.canonicalize_dtype(np.float64) == np.float64
        ahead: deque[tuple[int, Future[tuple[Batch, int]]]] = deque()
        try:
            for count in chain(counts, [0]):
                ahead.append((count, pool.submit(self._ahead, count, capacity, x64)))
                if len(ahead) < 2:
                    continue
                asked, future = ahead.popleft()
                batches, filled = future.result()
                if filled:
                    yield batches, filled
                if filled < asked:
                    return
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _ahead(self, count: int, capacity: int, x64: bool) -> tuple[Batch, int]:
        # JAX keeps these settings by thread.
        (device,) = self.x.devices()
        with jax.enable_x64(x64), jax.default_device(device):
            return self._chunk(count, capacity)

    def _chunk(self, count: int, capacity: int) -> tuple[Batch, int]:
        size = self.batch_size
        out = [np.repeat(row, capacity * size, axis=0) for row in self._row]
        filled = self._fill(out, count * size) // size
        given = out[2] if len(out) == 3 else None
        x, lengths = checks.check_batch(out[0], given)
        checked, _ = labels.check(self._rnn, self._loss, out[1], x, lengths, self.output_dim)
        if (
            given is not None and lengths is None
        ):  # given ones stay, also where all are full: else a program more
            lengths = jnp.asarray(given).astype(int)

        def cut(values: Array) -> Array:
            return values.reshape(capacity, size, *values.shape[1:])

        steps = None if lengths is None else cut(lengths)
        return Batch(cut(x), steps, cut(checked), None), filled

    def skip(self, batches: int) -> None:
        """Leave batches out, as they were trained on before."""
        for _ in range(batches):
            self._fill(
                [np.repeat(row, self.batch_size, axis=0) for row in self._row], self.batch_size
            )

    def _fill(self, out: list[np.ndarray], wanted: int) -> int:
        """Copy rows of the blocks; how many there were."""
        filled = 0
        while filled < wanted:
            if len(self._rest[0]) == 0:
                block = self._next()
                if block is None:
                    return filled
                self._rest = block
            take = min(wanted - filled, len(self._rest[0]))
            for into, part in zip(out, self._rest, strict=True):
                into[filled : filled + take] = part[:take]
            self._rest = tuple(part[take:] for part in self._rest)
            filled += take
        return filled

    def _next(self) -> Block | None:
        """The next block, which must be like the first."""
        try:
            given = next(self._blocks)
        except StopIteration:
            return None
        if not isinstance(given, tuple | list) or len(given) not in (2, 3):
            raise TypeError(
                f"x must yield blocks (x, y) or (x, y, lengths), got {type(given).__name__} as "
                f"block {self._number}."
            )
        block = tuple(map(np.asarray, given))
        shapes = [(part.shape, part.dtype) for part in block]
        self._shapes = self._shapes or shapes
        if shapes != self._shapes:
            need, got = (
                ", ".join(f"{shape} {dtype}" for shape, dtype in each)
                for each in (self._shapes, shapes)
            )
            raise ValueError(
                f"x must yield blocks of one shape and dtype, {need} as the first, got {got} as "
                f"block {self._number}."
            )
        self._number += 1
        return block
