"""The NTK and NNGP kernels of Elman networks of infinite width.

``marginals`` is the recursion of each sequence with itself, ``recursion`` that of pairs, ``angles``
the form in which kernels are carried, ``cells`` the loop that a readout needs; here tiles of all
pairs are compiled and put together. Derivation: docs/theory/infinite.md.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from rnntk import checks, sequences
from rnntk.activations.accuracy import check_accuracy
from rnntk.infinite import marginals
from rnntk.infinite.cells import pair_kernel, reverse_steps
from rnntk.infinite.marginals import Marginals
from rnntk.infinite.recursion import Pairing
from rnntk.kernel import Kernel, symmetric
from rnntk.network.description import describe
from rnntk.network.elman import STDS, ElmanRNN
from rnntk.network.multipliers import Squares, squares
from rnntk.storage import layout, writing
from rnntk.storage.identity import identity
from rnntk.storage.kernels import StoredKernel
from rnntk.tiling import tuning
from rnntk.tiling.executors import local_run
from rnntk.tiling.threads import in_threads
from rnntk.tiling.tiles import Cut, Grid, InMemory, Tile, assemble, cut, cuts, equal_cuts, even_size

Batch = tuple[Float[Array | np.ndarray, "_ _ d"], Int[Array | np.ndarray, " _"] | None]
Sides = tuple[Marginals, ...]  # for each direction of reading
Pieces = dict[Cut, Sides]  # of a batch, as tiles need them
_CHECKED = 4096  # sequences whose marginals are looked at together


def infinite_kernel(
    rnn: ElmanRNN,
    x1: Float[ArrayLike, "n1 t1 d"],
    x2: Float[ArrayLike, "n2 t2 d"] | None = None,
    *,
    lengths1: Int[ArrayLike, " n1"] | None = None,
    lengths2: Int[ArrayLike, " n2"] | None = None,
    out: str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
    tile: int | None = None,
    kinds: Sequence[str] = layout.KINDS,
) -> Kernel:
    """Tangent and conjugate kernel of ``rnn`` in the limit of infinite width.

    The recursions of Alemohammad et al. (2021) and Yang (2020) in the parameterization of
    :class:`~rnntk.ElmanRNN`; docs/theory/infinite.md derives them. The cost is n1 n2 t for the
    "last" readout and n1 n2 t1 t2 for the others. Beside the result the work space is a few tiles,
    and what is known of each token alone: d and about ten numbers, and for activations without
    closed forms their series' terms, up to 0.5 KB (tanh, float64).

    Args:
        rnn: the network.
        x1: tokens of the first batch; their dtype is the kernel's.
        x2: tokens of the second batch; omitted, the kernel is that of ``x1`` with itself and
            exactly symmetric. Sequences of two batches are different sequences, also where their
            tokens are equal: this matters for ``initial_state="independent"`` alone.
        lengths1: steps of each sequence of ``x1``; the rest is padding, whose values are ignored.
            Sequences of different lengths are compared aligned at their ends ("last").
        lengths2: likewise for ``x2``.
        out: folder or URL of a Zarr store, into which the kernel goes tile by tile instead of
            memory. A call that was interrupted goes on where it is repeated. docs/scale.md tells
            how.
        executor: of ``concurrent.futures``, Dask (``client.get_executor()``) or MPI, which
            computes the tiles; by default all cores or accelerators of this process do.
        tile: sequences a side of a stored tile; by default up to 2,080.
        kinds: which kernels are stored, of ``"ntk"`` and ``"nngp"``.

    Returns:
        Kernel of shape (n1, n2), or (n1, t1, n2, t2) for the "sequence" readout, zero at padded
        steps; with ``out`` a :class:`rnntk.storage.StoredKernel`.

    Raises:
        ValueError: for wrong shapes, unequal token sizes, lengths out of range, NaN or infinity;
            for the "sequence" readout with ``out``, or a store of another kernel.
        TypeError: for tokens that are not floating point or of two dtypes.
        OSError: where a store cannot be written; what was written stays.
        FloatingPointError: where the recursion leaves the range of the dtype, naming the step. In
            ``jit``, ``grad`` and ``vmap`` neither this is raised, nor that the moments of a user's
            function are not accurate.

    Warns:
        UserWarning: where the ``tolerance`` of an activation accepts moments that are less accurate
            than the dtype's, with their estimated error.

    Example:
        >>> import jax, jax.numpy as jnp, rnntk
        >>> x = jax.random.normal(jax.random.key(0), (5, 4, 3))
        >>> kernel = rnntk.infinite_kernel(rnntk.ElmanRNN(), x)
        >>> kernel.ntk.shape, bool((kernel.ntk == kernel.ntk.T).all())
        ((5, 5), True)
    """
    checks.check_single(rnn, STDS)
    x1, lengths1 = checks.check_batch(x1, lengths1, "1")
    x2, lengths2 = checks.check_second(x1, x2, lengths2)
    to = writing.Destination.of(out, executor, tile, kinds)
    if to is not None:
        return _stored(rnn, (x1, lengths1), None if x2 is None else (x2, lengths2), to)
    scales = squares(rnn, x1.shape[-1], x1.dtype)
    batches: list[Batch] = [(x1, lengths1)] if x2 is None else [(x1, lengths1), (x2, lengths2)]
    (n1, t1), (n2, t2) = (batches[i][0].shape[:2] for i in (0, -1))
    cells = min(t1, t2) if rnn.r.ends_only else t1 * t2
    concrete = all(map(checks.is_concrete, jax.tree.leaves((rnn, batches))))
    platform = _device(x1).platform if concrete else None
    if concrete and n1 * n2 * cells <= tuning.BUCKETED:
        batches = [_bucketed(batch, max(t1, t2)) for batch in batches]
    one, *other = (
        _marginals(rnn, scales, batch, _size(len(batch[0]), platform)) for batch in batches
    )
    two = other[0] if other else one
    if not concrete:
        return _compiled(None)(rnn, scales, _joined(one), _joined(two), mirror=x2 is None)
    for side in (one, *other):
        _check_range(rnn, side)
    kernel = _in_tiles(rnn, scales, one, two, mirror=x2 is None)
    if rnn.r.per_step:
        return jax.tree.map(lambda k: k[:, :t1, :, :t2], kernel)
    return kernel


def _check_range(rnn: ElmanRNN, pieces: Pieces) -> None:
    """Refuse sequences whose recursion leaves the dtype's range, or that of the moments."""
    for piece, sides in pieces.items():
        for side in sides:
            marginals.check_range(rnn, side, piece.start)
    layers = [layer for sides in pieces.values() for side in sides for layer in side.layers]
    if rnn.phi.error is not None:
        roots = [np.asarray(layer.root_L).ravel() for layer in layers]
        check_accuracy(rnn.phi, np.square(np.concatenate(roots)))


def _stored(rnn: ElmanRNN, one: Batch, two: Batch | None, to: writing.Destination) -> StoredKernel:
    """The kernel of checked batches on disk."""
    writing.check_concrete(rnn, one, two)
    if rnn.r.per_step:
        raise ValueError(
            "rnn.readout must be 'last' or 'mean' with out, of whose kernels a tile is a matrix, "
            f"got {rnn.readout!r}."
        )
    for x, lengths in (one, *(() if two is None else (two,))):
        scales = squares(rnn, x.shape[-1], x.dtype)
        for start, size in cuts(len(x), _CHECKED):
            part = cut((x, lengths), start, size, axis=0)
            (sides,) = _marginals(rnn, scales, part, _CHECKED).values()
            _check_range(rnn, {Cut(start, size): sides})
    arrays = [None if batch is None else _named(batch) for batch in (one, two)]
    assert arrays[0] is not None
    sequences_of = len(one[0]), len((one if two is None else two)[0])
    tile = to.tiles(sequences_of, partial(_size, platform=jax.default_backend()))
    problem = writing.Problem(
        identity=identity("infinite-width kernel", describe(rnn), arrays[0], arrays[1], {}),
        one=arrays[0],
        two=arrays[1],
        shared={},
        tile=tile,
        compute=partial(_stored_tile, rnn, sequences_of, tile, to.kinds),
        dtype=np.dtype(one[0].dtype),
        title="infinite kernel",
    )
    return writing.write(problem, to, local_run(threads=True))


def _named(batch: Batch) -> dict[str, np.ndarray]:
    x, lengths = batch
    found = {"x": np.asarray(x)}
    return found if lengths is None else found | {"lengths": np.asarray(lengths)}


def _stored_tile(
    rnn: ElmanRNN,
    of: tuple[int, int],
    tile: tuple[int, int],
    kinds: tuple[str, ...],
    one: writing.Arrays,
    two: writing.Arrays | None,
    shared: writing.Arrays,
) -> Kernel:
    """A tile of so many sequences from what the store holds of its own, which were checked.

    Its parts have the size that those of the whole kernel would have in memory, if they fit.
    """
    sides = []
    for n, size, arrays in zip(of, tile, (one, two), strict=True):
        if arrays is None:
            break
        x = jnp.asarray(arrays["x"])
        lengths = jnp.asarray(arrays["lengths"]) if "lengths" in arrays else None
        platform = _device(x).platform
        whole = _size(n, platform)
        scales = squares(rnn, x.shape[-1], x.dtype)
        part = whole if size % whole == 0 else _size(size, platform)
        sides.append(_marginals(rnn, scales, (x, lengths), part))
    return _in_tiles(rnn, scales, sides[0], sides[-1], mirror=two is None, kinds=kinds)


def _bucketed(batch: Batch, steps: int) -> Batch:
    """Padding up to a power of two of steps, of which there are few; it changes no kernel."""
    x, lengths = batch
    n, t, d = x.shape
    padded = np.zeros((n, max(8, 1 << (steps - 1).bit_length()), d), x.dtype)
    padded[:, :t] = x
    lengths = np.full(n, t) if lengths is None else lengths
    if isinstance(x, jax.Array) and x.committed:
        return jax.device_put(padded, x.sharding), lengths
    return padded, lengths  # which the program takes sooner than it is put anywhere


def _device(x: Array) -> jax.Device:
    return next(iter(x.devices()))


def _size(n: int, platform: str | None) -> int:
    """Of a side of the tiles of a batch: the last bits of a kernel depend on it."""
    if platform is None:  # a part of a larger program
        return n
    on_cpu = platform == "cpu"
    largest = tuning.INFINITE_TILE if on_cpu else tuning.INFINITE_TILE_ACCELERATOR
    return even_size(n, largest, tuning.LANES)


def _in_tiles(
    rnn: ElmanRNN,
    scales: Squares,
    one: Pieces,
    two: Pieces,
    mirror: bool,
    kinds: Sequence[str] = layout.KINDS,
) -> Kernel:
    """Tile by tile: each is one program of elementwise passes, which one core of a CPU runs.

    Of the kernels only ``kinds`` are put together.
    """
    grid = Grid(tuple(one), tuple(two), mirror)
    device = _device(one[grid.rows[0]][0].layers[0].root_L)
    block = partial(_compiled(device.platform), rnn, scales)
    if len(grid) == 1:
        return block(*one.values(), *two.values(), mirror=mirror)
    pairs_with_itself = rnn.initial_state == "independent"

    def compute_kinds(tile: Tile) -> Kernel:
        # one program for all tiles, on the diagonal or not, wherever that is possible
        own = tile.diagonal and pairs_with_itself
        kernel = block(one[tile.rows], two[tile.columns], mirror=own)
        chosen: Any = {kind: None for kind in layout.KINDS if kind not in kinds}
        kernel = kernel._replace(**chosen)
        return _symmetric(kernel) if tile.diagonal and not own else kernel

    whole = InMemory(mirror, sum(grid.rows[-1]), sum(grid.columns[-1]))
    assemble(compute_kinds, grid, whole.put, partial(in_threads, device=device), "infinite kernel")
    assert whole.kernel is not None
    return whole.kernel


@lru_cache
def _compiled(platform: str | None) -> Callable[..., Kernel]:
    """``_block`` compiled for a platform; None where it becomes part of a larger program."""
    options = tuning.one_core_options(platform)
    return jax.jit(_block, static_argnames=("mirror",), compiler_options=options)


def _marginals(rnn: ElmanRNN, scales: Squares, batch: Batch, size: int) -> Pieces:
    """Marginals of so many sequences at a time, and never of fewer.

    The last bits depend on their number, and would be others in a part of the batch.
    """
    pieces = equal_cuts(len(batch[0]), size)
    if len(pieces) == 1 and pieces[0].size == size:
        return {pieces[0]: _prepare(rnn, scales, *batch)}

    def compute(piece: Cut) -> Sides:
        if piece.size == size:
            return _prepare(rnn, scales, *cut(batch, piece.start, size, axis=0))
        x, lengths = _padded(cut(batch, piece.start, piece.size, axis=0), size)
        return cut(_prepare(rnn, scales, x, lengths), 0, piece.size, axis=-1)

    return {piece: compute(piece) for piece in pieces}


@partial(jax.jit, static_argnames="size")
def _padded(batch: Batch, size: int) -> Batch:
    x, lengths = batch
    more = size - len(x)
    x = jnp.pad(x, ((0, more), (0, 0), (0, 0)))
    return x, None if lengths is None else jnp.pad(lengths, (0, more), constant_values=1)


@jax.jit
def _joined(pieces: Pieces) -> Sides:
    return jax.tree.map(lambda *v: jnp.concatenate(v, axis=-1), *pieces.values())


@jax.jit
def _prepare(
    rnn: ElmanRNN, scales: Squares, x: Float[Array, "n t d"], lengths: Int[Array, " n"] | None
) -> Sides:
    """Marginals for each direction of reading."""
    forward = marginals.prepare(rnn, scales, x, lengths)
    if not rnn.bidirectional:
        return (forward,)
    return forward, marginals.prepare(rnn, scales, sequences.reverse(x, lengths), lengths)


def _block(
    rnn: ElmanRNN,
    scales: Squares,
    one: Sides,
    two: Sides,
    mirror: bool,
) -> Kernel:
    """The kernel of all pairs at once; ``mirror`` says that both batches are the same."""
    same = jnp.eye(one[0].size, dtype=bool) if mirror else None
    # On CPU, XLA does not vectorize passes that read one array both as rows and as columns.
    two = jax.lax.optimization_barrier(two)
    kernels = [
        pair_kernel(Pairing(rnn, scales, side1, side2, same))
        for side1, side2 in zip(one, two, strict=True)
    ]
    if rnn.bidirectional and rnn.r.per_step:
        kernels[1] = reverse_steps(kernels[1], one[1].lengths, two[1].lengths)
    total = jax.tree.map(lambda *parts: sum(parts[1:], parts[0]), *kernels)
    return _symmetric(total) if mirror else total


@jax.jit
def _symmetric(kernel: Kernel) -> Kernel:
    return jax.tree.map(symmetric, kernel)
