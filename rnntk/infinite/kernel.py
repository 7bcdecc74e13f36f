"""The NTK and NNGP kernels of Elman networks of infinite width.

``marginals`` is the recursion of each sequence with itself, ``recursion`` that of pairs, ``angles``
the form in which kernels are carried, ``cells`` the loop that a readout needs; here tiles of all
pairs are compiled and put together. Derivation: docs/theory/infinite.md.
"""

import math
from collections.abc import Callable
from functools import lru_cache, partial

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
from rnntk.network.elman import STDS, ElmanRNN
from rnntk.network.multipliers import Squares, squares
from rnntk.tiling import tuning
from rnntk.tiling.threads import in_threads
from rnntk.tiling.tiles import Grid, InMemory, Tile, assemble, cut, even_cuts


def infinite_kernel(
    rnn: ElmanRNN,
    x1: Float[ArrayLike, "n1 t1 d"],
    x2: Float[ArrayLike, "n2 t2 d"] | None = None,
    *,
    lengths1: Int[ArrayLike, " n1"] | None = None,
    lengths2: Int[ArrayLike, " n2"] | None = None,
) -> Kernel:
    """Tangent and conjugate kernel of ``rnn`` in the limit of infinite width.

    The recursions of Alemohammad et al. (2021) and Yang (2020) in the parameterization of
    :class:`~rnntk.ElmanRNN`; docs/theory/infinite.md derives them. The cost is n1 n2 t for the
    "last" readout and n1 n2 t1 t2 for the others. Beside the result the work space is a few tiles,
    and what is known of each token alone: d and about ten numbers, and for activations without
    closed forms their series' terms, up to 2.6 KB (tanh, float64).

    Args:
        rnn: the network.
        x1: tokens of the first batch; their dtype is the kernel's.
        x2: tokens of the second batch; omitted, the kernel is that of ``x1`` with itself and
            exactly symmetric. Sequences of two batches are different sequences, also where their
            tokens are equal: this matters for ``initial_state="independent"`` alone.
        lengths1: steps of each sequence of ``x1``; the rest is padding, whose values are ignored.
            Sequences of different lengths are compared aligned at their ends ("last").
        lengths2: likewise for ``x2``.

    Returns:
        Kernel of shape (n1, n2), or (n1, t1, n2, t2) for the "sequence" readout, zero at padded
        steps.

    Raises:
        ValueError: for wrong shapes, unequal token sizes, lengths out of range, NaN or infinity.
        TypeError: for tokens that are not floating point or of two dtypes.
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
    scales = squares(rnn, x1.shape[-1], x1.dtype)
    steps = x1.shape[1], (x1 if x2 is None else x2).shape[1]
    if all(map(checks.is_concrete, (rnn.w_std, rnn.u_std, rnn.b_std, rnn.v_std, x1, x2))):
        pairs = len(x1) * len(x1 if x2 is None else x2)
        if pairs * (min(steps) if rnn.r.ends_only else math.prod(steps)) <= tuning.BUCKETED:
            x1, lengths1 = _bucketed(x1, lengths1, max(steps))
            if x2 is not None:
                x2, lengths2 = _bucketed(x2, lengths2, max(steps))
    one = _prepare(rnn, scales, x1, lengths1)
    two = None if x2 is None else _prepare(rnn, scales, x2, lengths2)
    if not all(map(checks.is_concrete, jax.tree.leaves((rnn, one, two)))):
        return _compiled(None)(rnn, scales, one, two or one, mirror=two is None)
    for side in (*one, *(two or ())):
        marginals.check_range(rnn, side)
    layers = (layer for side in (*one, *(two or ())) for layer in side.layers)
    check_accuracy(rnn.phi, np.concatenate([np.square(layer.root_L).ravel() for layer in layers]))
    kernel = _in_tiles(rnn, scales, one, two)
    if rnn.r.per_step:
        return jax.tree.map(lambda k: k[:, : steps[0], :, : steps[1]], kernel)
    return kernel


def _bucketed(
    x: Float[Array, "n t d"], lengths: Int[Array, " n"] | None, steps: int
) -> tuple[Float[Array, "n bucket d"], Int[Array, " n"]]:
    """Padding up to a power of two of steps, of which there are few; it changes no kernel."""
    n, t, d = x.shape
    padded = np.zeros((n, max(8, 1 << (steps - 1).bit_length()), d), x.dtype)
    padded[:, :t] = x
    return jnp.asarray(padded), jnp.full(n, t) if lengths is None else lengths


def _in_tiles(
    rnn: ElmanRNN, scales: Squares, one: tuple[Marginals, ...], two: tuple[Marginals, ...] | None
) -> Kernel:
    """Tile by tile: each is one program of elementwise passes, which one core of a CPU runs."""
    mirror, two = two is None, one if two is None else two
    device = next(iter(one[0].layers[0].root_L.devices()))
    on_cpu = device.platform == "cpu"
    largest = tuning.INFINITE_TILE if on_cpu else tuning.INFINITE_TILE_ACCELERATOR
    n1, n2 = one[0].size, two[0].size
    grid = Grid(
        rows=even_cuts(n1, largest, tuning.LANES),
        columns=even_cuts(n2, largest, tuning.LANES),
        mirror=mirror,
    )
    block = partial(_compiled(device.platform), rnn, scales)
    if len(grid) == 1:
        return block(one, two, mirror=mirror)

    def compute(tile: Tile) -> Kernel:
        part1, part2 = (
            cut(side, *some, axis=-1) for side, some in ((one, tile.rows), (two, tile.columns))
        )
        return block(part1, part2, mirror=tile.diagonal)

    whole = InMemory(mirror, n1, n2)
    assemble(compute, grid, whole.put, partial(in_threads, device=device), "infinite kernel")
    assert whole.kernel is not None
    return whole.kernel


@lru_cache
def _compiled(platform: str | None) -> Callable[..., Kernel]:
    """``_block`` compiled for a platform; None where it becomes part of a larger program."""
    options = tuning.elementwise_options(platform)
    return jax.jit(_block, static_argnames=("mirror",), compiler_options=options)


@jax.jit
def _prepare(
    rnn: ElmanRNN, scales: Squares, x: Float[Array, "n t d"], lengths: Int[Array, " n"] | None
) -> tuple[Marginals, ...]:
    """Marginals for each direction of reading."""
    forward = marginals.prepare(rnn, scales, x, lengths)
    if not rnn.bidirectional:
        return (forward,)
    return forward, marginals.prepare(rnn, scales, sequences.reverse(x, lengths), lengths)


def _block(
    rnn: ElmanRNN,
    scales: Squares,
    one: tuple[Marginals, ...],
    two: tuple[Marginals, ...],
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
    return jax.tree.map(symmetric, total) if mirror else total
