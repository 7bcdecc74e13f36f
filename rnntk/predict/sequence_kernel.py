"""The infinite-width kernel of many sequences as an operator that recomputes its tiles."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from rnntk import checks
from rnntk.files import fingerprint
from rnntk.infinite.kernel import infinite_kernel
from rnntk.network.description import describe
from rnntk.network.elman import ElmanRNN

KINDS = ("ntk", "nngp")
BLOCK = 2048  # sequences on a side: 32 MB in float64, beside which a product costs nothing
_DIAGONAL_BLOCK = 32
_COLUMNS = 32

Batch = tuple[Float[Array, "_ t d"], Int[Array, " _"] | None]


@dataclass(frozen=True, eq=False)
class SequenceKernel:
    """One of the two kernels of a network over sequences, of which no matrix is kept.

    Attributes:
        rnn: the network.
        x: tokens; their dtype is that of the kernel.
        lengths: steps of each sequence, or None.
        kind: ``"ntk"`` or ``"nngp"``.
    """

    rnn: ElmanRNN
    x: Float[Array, "n t d"]
    lengths: Int[Array, " n"] | None
    kind: str

    @classmethod
    def of(
        cls, rnn: ElmanRNN, x: ArrayLike, lengths: ArrayLike | None, kind: str
    ) -> "SequenceKernel":
        """The kernel of checked arguments."""
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {KINDS}, got {kind!r}.")
        if rnn.r.per_step:
            raise ValueError(
                "rnn.readout must be 'last' or 'mean' for predictions of one label a sequence, "
                f"got {rnn.readout!r}."
            )
        return cls(rnn, *checks.check_batch(x, lengths), kind)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def problem(self) -> dict[str, Any]:
        """What it is the kernel of, for checkpoints."""
        return {
            "x": fingerprint(self.x, self.lengths),
            **describe(self.rnn),
            "kernel": self.kind,
        }

    def matrix(self) -> Float[np.ndarray, "n n"]:
        """The whole train kernel."""
        return self._kernel(self._part(slice(None)), None)

    @cached_property
    def diagonal(self) -> Float[np.ndarray, " n"]:
        """Each sequence's kernel with itself, float64."""
        blocks = _cuts(len(self), _DIAGONAL_BLOCK)
        parts = [np.diagonal(self._kernel(self._part(rows), None)) for rows in blocks]
        return np.concatenate(parts).astype(np.float64)

    def columns(self, index: Int[np.ndarray, " k"]) -> Float[np.ndarray, "n k"]:
        """Columns of the train kernel, float64."""
        # whole multiples of one number: each number of columns would be compiled anew
        padded = np.resize(index, -(-len(index) // _COLUMNS) * _COLUMNS)
        kernel = self._kernel(self._part(slice(None)), self._part(padded))
        block = np.array(kernel[:, : len(index)], np.float64)
        # of two batches all sequences count as different: initial states of their own differ
        block[index, np.arange(len(index))] = self.diagonal[index]
        return block

    def tiles(self) -> Iterator[tuple[slice, slice, Float[np.ndarray, "rows columns"]]]:
        """The tiles of the train kernel on and above the diagonal, each computed anew."""
        cuts = _cuts(len(self), BLOCK)
        for i, rows in enumerate(cuts):
            yield rows, rows, self._kernel(self._part(rows), None)
            for columns in cuts[i + 1 :]:
                yield rows, columns, self._kernel(self._part(rows), self._part(columns))

    @property
    def dtype(self) -> np.dtype:
        """Of its tiles."""
        return np.dtype(self.x.dtype)

    @property
    def tile_count(self) -> int:
        """How many tiles :meth:`tiles` yields."""
        count = len(_cuts(len(self), BLOCK))
        return count * (count + 1) // 2

    def at(self, index: Int[np.ndarray, " k"]) -> "SequenceKernel":
        """The kernel of some of the sequences."""
        return SequenceKernel(self.rnn, *self._part(index), self.kind)

    def cross(self, x: ArrayLike, lengths: ArrayLike | None) -> Float[np.ndarray, "n_test n"]:
        """Kernel of new sequences (rows) with these."""
        return self._kernel(self._new(x, lengths), self._part(slice(None)))

    def predict(
        self,
        x: ArrayLike,
        lengths: ArrayLike | None,
        coefficients: Float[np.ndarray, "k o"],
        index: Int[np.ndarray, " k"] | None = None,
    ) -> Float[np.ndarray, "n_test o"]:
        """Kernel of new sequences with the training ones (at an index) times coefficients."""
        new = self._new(x, lengths)
        train = self._part(slice(None) if index is None else index)
        predictions = np.zeros((len(new[0]), coefficients.shape[1]))
        for rows in _cuts(len(new[0]), BLOCK):
            for columns in _cuts(len(train[0]), BLOCK):
                tile = self._kernel(_take(new, rows), _take(train, columns))
                predictions[rows] += tile.astype(np.float64) @ coefficients[columns]
        return predictions

    def _new(self, x: ArrayLike, lengths: ArrayLike | None) -> Batch:
        new, counts = checks.check_batch(x, lengths)
        if new.shape[-1] != self.x.shape[-1]:
            raise ValueError(
                f"x must have tokens of size {self.x.shape[-1]} like the training sequences, got "
                f"{new.shape[-1]}."
            )
        return new, counts

    def _part(self, rows: slice | Int[np.ndarray, " k"]) -> Batch:
        return _take((self.x, self.lengths), rows)

    def _kernel(self, one: Batch, two: Batch | None) -> Float[np.ndarray, "n1 n2"]:
        x2, lengths2 = (None, None) if two is None else two
        kernel = infinite_kernel(self.rnn, one[0], x2, lengths1=one[1], lengths2=lengths2)
        return np.asarray(jax.block_until_ready(getattr(kernel, self.kind)))


def _take(batch: Batch, rows: slice | Int[np.ndarray, " k"]) -> Batch:
    return batch[0][rows], None if batch[1] is None else batch[1][rows]


def _cuts(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]
