"""The NTK of Elman networks of finite width, in bounded memory.

Backpropagation gives the gradients as thin factors (``backprop``), which are contracted in one of
two ways (``contraction``), panel by panel of sequences, whichever ``planning`` finds cheaper. No
Jacobian is ever formed.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
from tqdm import tqdm

from rnntk import checks, sequences
from rnntk.empirical.backprop import Batch, Gradients, gradients
from rnntk.empirical.contraction import gram, jacobian, join, starts
from rnntk.empirical.planning import Plan, plan
from rnntk.kernel import Kernel, symmetric
from rnntk.network.elman import (
    PRECISION,
    SECOND,
    ElmanRNN,
    Params,
    check_params,
    networks,
    sequence_keys,
)
from rnntk.tiling.threads import cores, in_threads

BRIEF = 2e9  # operations: some milliseconds, for which threads cost more than they gain


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
            those of ``x2`` come from ``jax.random.fold_in(key, rnntk.network.elman.SECOND)``.

    Returns:
        Kernel of shape (n1, n2), or (n1, t1, n2, t2) for the "sequence" readout, zero at padded
        steps; ``outputs="full"`` appends (o, o) to ``ntk``. ``nngp`` is v^2/m <r(h), r(h')>.

    Raises:
        ValueError: for wrong shapes, unequal token sizes, lengths out of range, NaN or infinity,
            parameters of another architecture, an unknown name, a missing ``key``, or a
            ``memory_limit`` that is too small.
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
    x1, lengths1 = sequences.check_batch(x1, lengths1, "1")
    x2, lengths2 = sequences.check_second(x1, x2, lengths2)
    check_params(rnn, params, x1.shape[-1])
    chosen = plan(rnn, params, x1, x2, outputs=outputs, method=method, memory_limit=memory_limit)
    one = Batch(x1, lengths1, sequence_keys(rnn, key, len(x1)))
    two = None
    if x2 is not None:
        key = None if key is None else jax.random.fold_in(key, SECOND)
        two = Batch(x2, lengths2, sequence_keys(rnn, key, len(x2)))
    # As in a trace, everything is then one program, and no core takes a part.
    single = chosen.panel >= max(len(x1), 0 if x2 is None else len(x2))
    find = _at_once if single and chosen.cost < BRIEF else _kernel
    kernel, finite = find(rnn, params, one, two, outputs == "mean", chosen)
    if sequences.is_concrete(finite) and not bool(finite):
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            checks.check_finite(f"params{jax.tree_util.keystr(path)}", leaf)
        raise FloatingPointError(
            f"The empirical kernel overflows {x1.dtype}: states or gradients grow by a constant "
            "factor a step. Reduce w_std or the tokens, or use shorter sequences."
        )
    return kernel


def _kernel(
    rnn: ElmanRNN, params: Params, one: Batch, two: Batch | None, average: bool, plan: Plan
) -> tuple[Kernel, Bool[Array, ""]]:
    """The kernel, block by block, and whether it is finite."""
    mirror = two is None
    two = one if two is None else two
    size1, size2 = (min(plan.panel, len(batch.x)) for batch in (one, two))
    # The last panel reaches back over the one before it, so that one shape is compiled.
    rows, columns = starts(len(one.x), size1), starts(len(two.x), size2)
    find = partial(_gradients, rnn, params, average, plan.part)
    outputs = 1 if average else networks(rnn, params)[0]["V"].shape[0]
    block = partial(_block, rnn, outputs=outputs, plan=plan)
    if len(rows) == len(columns) == 1:
        side1 = find(one, 0, size1)
        side2 = side1 if mirror else find(two, 0, size2)
        return _shaped(rnn, block(side1, side2, mirror=mirror), average)
    kept = {j: find(two, j, size2) for j in columns} if plan.keep else {}
    kernel: Kernel | None = None
    with tqdm(total=len(rows) * len(columns), desc="empirical kernel", delay=5) as progress:
        for i in rows:
            side1 = kept[i] if mirror and kept else find(one, i, size1)
            for j in columns:
                progress.update()
                if mirror and j < i:
                    continue
                diagonal = mirror and i == j
                side2 = side1 if diagonal else kept[j] if kept else find(two, j, size2)
                part = block(side1, side2, mirror=diagonal)
                if kernel is None:
                    kernel = jax.tree.map(partial(_empty, n1=len(one.x), n2=len(two.x)), part)
                kernel = _store(kernel, part, i, j, mirror=mirror)
    assert kernel is not None
    return _shaped(rnn, kernel, average)


_at_once = jax.jit(_kernel, static_argnames=("average", "plan"))


def _gradients(
    rnn: ElmanRNN, params: Params, average: bool, part: int, batch: Batch, start: int, size: int
) -> tuple[Gradients, ...]:
    """Gradients of some of the sequences; on a CPU, each core backpropagates a part of them.

    XLA runs the small products of a step on one core.
    """
    parts = -(-size // part) if cores((rnn, params, batch)) > 1 else 1
    if parts == 1:
        return (gradients(rnn, params, batch, average, start, size),)
    part = -(-size // parts)
    (device,) = batch.x.devices()
    firsts = [start + i for i in starts(size, part)]
    find = partial(gradients, rnn, params, batch, average, size=part)
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
            total = gram(layers1, layers2, tile=plan.tile, mirror=mirror)
        else:
            total = jacobian(layers1, layers2, units=plan.units, mirror=mirror)
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


def _empty(block: Array, n1: int, n2: int) -> Array:
    return jnp.zeros((n1, block.shape[1], n2, block.shape[3]), block.dtype)


@partial(jax.jit, static_argnames="mirror", donate_argnames="kernel")
def _store(
    kernel: Kernel, block: Kernel, i: Int[ArrayLike, ""], j: Int[ArrayLike, ""], mirror: bool
) -> Kernel:
    """Write a block, and its mirror image, into the kernel in place."""

    def put(full: Array, part: Array) -> Array:
        if mirror:
            full = jax.lax.dynamic_update_slice(full, part.transpose(2, 3, 0, 1), (j, 0, i, 0))
        return jax.lax.dynamic_update_slice(full, part, (i, 0, j, 0))

    return jax.tree.map(put, kernel, block)


@partial(jax.jit, static_argnames="average")
def _shaped(rnn: ElmanRNN, kernel: Kernel, average: bool) -> tuple[Kernel, Bool[Array, ""]]:
    """Axes for steps and outputs where the call has them, both outputs last; is all finite?"""
    (n1, s1, n2, s2), outputs = kernel.nngp.shape, kernel.ntk.shape[1] // kernel.nngp.shape[1]
    shape = (n1, s1, n2, s2) if rnn.readout == "sequence" else (n1, n2)
    nngp, finite = kernel.nngp.reshape(shape), jnp.isfinite(kernel.ntk).all()
    if average:
        return Kernel(kernel.ntk.reshape(shape), nngp), finite
    full = kernel.ntk.reshape(n1, s1, outputs, n2, s2, outputs).transpose(0, 1, 3, 4, 2, 5)
    return Kernel(full.reshape(*shape, outputs, outputs), nngp), finite
