"""The NTK of Elman networks of finite width, in bounded memory.

Backpropagation gives the gradients as thin factors (``backprop``), which are contracted in one of
two ways (``contraction``), panel by panel of sequences, whichever ``planning`` finds cheaper. No
Jacobian is ever formed.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from rnntk import checks
from rnntk.empirical.backprop import Batch, Gradients, Network, gradients
from rnntk.empirical.contraction import contract_gram, contract_jacobian, join
from rnntk.empirical.costs import Plan
from rnntk.empirical.planning import plan
from rnntk.files import fingerprint
from rnntk.kernel import Kernel, symmetric
from rnntk.network.description import describe
from rnntk.network.elman import PRECISION, ElmanRNN, Params
from rnntk.network.multipliers import multipliers
from rnntk.network.parameters import SECOND, check_params, sequence_keys
from rnntk.storage import layout, writing
from rnntk.storage.identity import identity
from rnntk.storage.kernels import StoredKernel
from rnntk.tiling import tuning
from rnntk.tiling.executors import local_run
from rnntk.tiling.threads import cores, in_threads
from rnntk.tiling.tiles import Cut, Grid, InMemory, Tile, assemble, equal_cuts


def empirical_kernel(
    rnn: ElmanRNN,
    params: Params,
    x1: Float[ArrayLike, "n1 t1 d"],
    x2: Float[ArrayLike, "n2 t2 d"] | None = None,
    *,
    lengths1: Int[ArrayLike, " n1"] | None = None,
    lengths2: Int[ArrayLike, " n2"] | None = None,
    outputs: str = "mean",
    method: str = "auto",
    memory_limit: int | None = None,
    key: PRNGKeyArray | None = None,
    out: str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
    tile: int | None = None,
    kinds: Sequence[str] = layout.KINDS,
) -> Kernel:
    """Tangent and conjugate kernel of one network: inner products of its output's gradients.

    Args:
        rnn: the network's architecture; only the gradients of ``rnn.trainable`` count.
        params: its parameters, from ``rnn.init``.
        x1: tokens of the first batch; their dtype is the kernel's.
        x2: tokens of the second batch; omitted, the kernel is that of ``x1`` with itself, exactly
            symmetric, and costs half.
        lengths1: steps of each sequence of ``x1``; the rest is padding.
        lengths2: likewise for ``x2``.
        outputs: ``"mean"`` averages the kernel over the o outputs, each with itself;
            ``"full"`` gives all pairs of outputs.
        method: ``"gram"``, entrywise products of thin Gram matrices, for short sequences;
            ``"jacobian"``, gradients formed a few rows at a time, for long ones; ``"auto"``, the
            one that :func:`rnntk.empirical.plan` finds cheaper. Both are exact.
        memory_limit: bytes of arrays beyond the result; by default a quarter of the memory of the
            device. Compiled programs, some tens of MiB, come on top.
        key: draws the states of ``initial_state="independent"``, and may be that of ``rnn.init``;
            those of ``x2`` come from another key, folded from it.
        out: folder or URL of a Zarr store, into which the kernel goes tile by tile instead of
            memory, as for :func:`rnntk.infinite_kernel`. Each tile backpropagates its sequences
            anew.
        executor: likewise, what computes the tiles.
        tile: likewise, sequences a side of a stored tile.
        kinds: likewise, which kernels are stored.

    Returns:
        Kernel of shape (n1, n2), or (n1, t1, n2, t2) for the "sequence" readout, zero at padded
        steps; ``outputs="full"`` appends (o, o) to ``ntk``. ``nngp`` is v^2/m <r(h), r(h')>. With
        ``out`` a :class:`rnntk.storage.StoredKernel`.

    Raises:
        ValueError: for wrong shapes, unequal token sizes, lengths out of range, NaN or infinity,
            parameters of another architecture, an unknown name, a missing ``key``, or a
            ``memory_limit`` that is too small; with ``out``, for the "sequence" readout, full
            outputs, or a store of another kernel.
        TypeError: for tokens that are not floating point or of two dtypes.
        MemoryError: before the start, for sizes that exceed the default ``memory_limit``.
        FloatingPointError: where the kernel overflows its dtype.

    Example:
        >>> import jax, rnntk
        >>> rnn = rnntk.ElmanRNN()
        >>> x = jax.random.normal(jax.random.key(0), (5, 4, 3))
        >>> params = rnn.init(jax.random.key(1), input_dim=3, width=64)
        >>> rnntk.empirical_kernel(rnn, params, x).ntk.shape
        (5, 5)
    """
    x1, lengths1 = checks.check_batch(x1, lengths1, "1")
    x2, lengths2 = checks.check_second(x1, x2, lengths2)
    width = check_params(rnn, params, x1.shape[-1])
    to = writing.Destination.of(out, executor, tile, kinds)
    if to is not None:
        _check_storable(rnn, outputs)
    one = Batch(x1, lengths1, sequence_keys(rnn, key, len(x1)))
    two = None
    if x2 is not None:
        key = None if key is None else jax.random.fold_in(key, SECOND)
        two = Batch(x2, lengths2, sequence_keys(rnn, key, len(x2)))
    find_plan = partial(
        plan, rnn, params, outputs=outputs, method=method, memory_limit=memory_limit
    )
    if to is not None:
        return _stored(rnn, params, one, two, find_plan, to)
    chosen = find_plan(x1, x2)
    network = Network(rnn, params, multipliers(rnn, width, x1.shape[-1], x1.dtype))
    # As in a trace, everything is then one program, and no core takes a part.
    single = chosen.panel >= max(len(x1), 0 if x2 is None else len(x2))
    find = _at_once if single and chosen.cost < tuning.BRIEF else evaluate
    kernel, finite = find(network, one, two, outputs == "mean", chosen)
    if checks.is_concrete(finite) and not bool(finite):
        _check_finite(params)
        raise FloatingPointError(checks.overflow("The empirical kernel", x1.dtype))
    return kernel


def _check_finite(params: Params) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        checks.check_finite(f"params{jax.tree_util.keystr(path)}", leaf)


def _check_storable(rnn: ElmanRNN, outputs: str) -> None:
    for name, value, valid in (
        ("rnn.readout", rnn.readout, ("last", "mean")),
        ("outputs", outputs, ("mean",)),
    ):
        if value not in valid:
            raise ValueError(
                f"{name} must be one of {valid} with out, of whose kernels a tile is a matrix, got "
                f"{value!r}."
            )


def _stored(
    rnn: ElmanRNN,
    params: Params,
    one: Batch,
    two: Batch | None,
    find_plan: Callable[..., Plan],
    to: writing.Destination,
) -> StoredKernel:
    """The kernel of checked batches on disk, every tile by one plan."""
    writing.check_concrete(rnn, params, one.x, one.lengths, *(() if two is None else (two.x,)))
    _check_finite(params)
    second = one if two is None else two
    tile = to.tiles((len(one.x), len(second.x)), partial(min, tuning.PANEL))
    # between two batches: so is every tile off the diagonal
    chosen = find_plan(one.x[: tile[0]], second.x[: tile[1]])
    leaves, tree = jax.tree.flatten(params)
    shared = {str(i): np.asarray(leaf) for i, leaf in enumerate(leaves)}
    places = jax.tree.unflatten(tree, list(shared))
    arrays = [None if batch is None else _named(batch) for batch in (one, two)]
    assert arrays[0] is not None
    more = {"params": fingerprint(*leaves), "method": chosen.method}
    problem = writing.Problem(
        identity=identity("empirical kernel", describe(rnn), arrays[0], arrays[1], more),
        one=arrays[0],
        two=arrays[1],
        shared=shared,
        tile=tile,
        compute=partial(_stored_tile, rnn, places, chosen, _key_type(one)),
        dtype=np.dtype(one.x.dtype),
        title="empirical kernel",
    )
    return writing.write(problem, to, local_run(threads=False))


def _named(batch: Batch) -> dict[str, np.ndarray]:
    found = {"x": np.asarray(batch.x)}
    if batch.lengths is not None:
        found["lengths"] = np.asarray(batch.lengths)
    if batch.keys is not None:
        typed = jnp.issubdtype(batch.keys.dtype, jax.dtypes.prng_key)
        found["keys"] = np.asarray(jax.random.key_data(batch.keys) if typed else batch.keys)
    return found


def _key_type(batch: Batch) -> str | None:
    """The generator of typed keys; None for those that are plain numbers."""
    keys = batch.keys
    if keys is None or not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
        return None
    return str(jax.random.key_impl(keys))


def _stored_tile(
    rnn: ElmanRNN,
    places: Params,
    chosen: Plan,
    key_type: str | None,
    one: writing.Arrays,
    two: writing.Arrays | None,
    shared: writing.Arrays,
) -> Kernel:
    """A tile from what the store holds of its sequences, which were checked.

    ``places`` says where in a network's parameters each of the shared arrays belongs.
    """
    params = jax.tree.map(lambda name: jnp.asarray(shared[name]), places)
    batches = []
    for arrays in (one, *(() if two is None else (two,))):
        keys = jnp.asarray(arrays["keys"]) if "keys" in arrays else None
        if keys is not None and key_type is not None:
            keys = jax.random.wrap_key_data(keys, impl=key_type)
        lengths = jnp.asarray(arrays["lengths"]) if "lengths" in arrays else None
        batches.append(Batch(jnp.asarray(arrays["x"]), lengths, keys))
    width, x = check_params(rnn, params, batches[0].x.shape[-1]), batches[0].x
    network = Network(rnn, params, multipliers(rnn, width, x.shape[-1], x.dtype))
    second = None if two is None else batches[1]
    kernel, finite = evaluate(network, batches[0], second, True, chosen)
    if not bool(finite):
        raise FloatingPointError(checks.overflow("The empirical kernel", x.dtype))
    return kernel


def evaluate(
    network: Network, one: Batch, two: Batch | None, average: bool, plan: Plan
) -> tuple[Kernel, Bool[Array, ""]]:
    """The kernel, block by block, and whether it is finite."""
    mirror = two is None
    two = one if two is None else two
    # the last panel reaches back over the one before it
    grid = Grid(equal_cuts(len(one.x), plan.panel), equal_cuts(len(two.x), plan.panel), mirror)
    find = partial(_gradients, network, average, plan.part)
    find2 = lru_cache(None if plan.keep else 0)(partial(find, two))
    # the tiles come row by row; kept gradients are those of both batches if they are one
    find1 = lru_cache(1)(find2 if mirror else partial(find, one))
    rnn, outputs = network.rnn, 1 if average else network.outputs

    def compute(tile: Tile) -> Kernel:
        side1 = find1(tile.rows)
        side2 = side1 if tile.diagonal else find2(tile.columns)
        return _block(rnn, side1, side2, outputs=outputs, mirror=tile.diagonal, plan=plan)

    if len(grid) == 1:
        return _shaped(rnn, compute(next(iter(grid))), average)
    whole = InMemory(mirror, len(one.x), len(two.x))
    assemble(compute, grid, whole.put, map, "empirical kernel")
    assert whole.kernel is not None
    return _shaped(rnn, whole.kernel, average)


_at_once = jax.jit(evaluate, static_argnames=("average", "plan"))


def _gradients(
    network: Network, average: bool, part: int, batch: Batch, panel: Cut
) -> tuple[Gradients, ...]:
    """Gradients of some of the sequences; on a CPU, each core backpropagates a part of them.

    XLA runs the small products of a step on one core.
    """
    start, size = panel
    parts = -(-size // part) if cores((network, batch)) > 1 else 1
    if parts == 1:
        return (gradients(network, batch, average, start, size),)
    part = -(-size // parts)
    (device,) = batch.x.devices()
    firsts = [start + cut.start for cut in equal_cuts(size, part)]
    find = partial(gradients, network, batch, average, size=part)
    *found, last = in_threads(find, firsts, device)
    double = parts * part - size  # sequences, as the last part may reach back
    return (*found, jax.tree.map(lambda v: v[double:], last) if double else last)


def _block(
    rnn: ElmanRNN,
    one: tuple[Gradients, ...],
    two: tuple[Gradients, ...],
    *,
    outputs: int,
    mirror: bool,
    plan: Plan,
) -> Kernel:
    """The kernel of two panels, in parts; ``mirror`` says that they are the same."""
    total = None
    layers1, layers2 = (tuple(part.layers for part in parts) for parts in (one, two))
    if layers1[0]:
        if plan.method == "gram":
            total = contract_gram(layers1, layers2, tile=plan.tile, mirror=mirror)
        else:
            total = contract_jacobian(layers1, layers2, units=plan.units, mirror=mirror)
    features1, features2 = (tuple(part.features for part in parts) for parts in (one, two))
    return _with_readout(total, features1, features2, outputs, "V" in rnn.trainable, mirror)


@partial(jax.jit, static_argnames=("outputs", "read", "mirror"))
def _with_readout(
    total: Float[Array, "n1 r1 n2 r2"] | None,
    one: tuple[tuple[Array, ...], ...],
    two: tuple[tuple[Array, ...], ...],
    outputs: int,
    read: bool,
    mirror: bool,
) -> Kernel:
    """Add the gradients with respect to V, which ``outputs`` outputs do not share."""
    inner = [
        jnp.tensordot(f1, f2, axes=(-1, -1), precision=PRECISION)
        for f1, f2 in zip(join(one), join(two), strict=True)
    ]
    nngp = sum(inner[1:], inner[0])
    nngp = symmetric(nngp) if mirror else nngp
    if total is not None and not read:
        return Kernel(total, nngp)
    n1, s1, n2, s2 = nngp.shape
    each = jnp.eye(outputs, dtype=nngp.dtype)[None, None, :, None, None, :]
    own = (nngp[:, :, None, :, :, None] * each).reshape(n1, s1 * outputs, n2, s2 * outputs)
    return Kernel(own if total is None else total + own, nngp)


@partial(jax.jit, static_argnames="average")
def _shaped(rnn: ElmanRNN, kernel: Kernel, average: bool) -> tuple[Kernel, Bool[Array, ""]]:
    """Axes for steps and outputs where the call has them, both outputs last; is all finite?"""
    (n1, s1, n2, s2), outputs = kernel.nngp.shape, kernel.ntk.shape[1] // kernel.nngp.shape[1]
    shape = rnn.r.kernel_shape(n1, s1, n2, s2)
    nngp, finite = kernel.nngp.reshape(shape), jnp.isfinite(kernel.ntk).all()
    if average:
        return Kernel(kernel.ntk.reshape(shape), nngp), finite
    full = kernel.ntk.reshape(n1, s1, outputs, n2, s2, outputs).transpose(0, 1, 3, 4, 2, 5)
    return Kernel(full.reshape(*shape, outputs, outputs), nngp), finite
