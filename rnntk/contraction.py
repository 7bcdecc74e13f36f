"""Inner products of gradients that are given as thin factors, without ever forming a Jacobian.

Two exact ways to contract sum_{s,s'} <delta_s, delta'_s'> <a_s, a'_s'> over two batches:

- :func:`gram`: the two thin Gram matrices, multiplied entrywise and summed over the steps,
  2 n1 n2 t1 t2 (c + k) operations;
- :func:`jacobian`: the gradients sum_s delta_s a_s^T themselves, a few rows of all sequences at a
  time, 2 (n1 t1 + n2 t2) c k operations to form and 2 n1 n2 c k to multiply them.

Neither needs memory for n c k numbers. docs/theory/empirical.md compares the two.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from rnntk.backprop import Factors
from rnntk.elman import PRECISION
from rnntk.kernel import symmetric
from rnntk.parallel import CORES, in_threads
from rnntk.sequences import is_concrete

Layers = tuple[Factors, ...]
UNROLLED = 64  # products of tiles; in a loop each tile would be cut out again and again


@partial(jax.jit, static_argnames=("tile", "mirror"))
def gram(one: Layers, two: Layers, tile: int, mirror: bool) -> Float[Array, "n1 r1 n2 r2"]:
    """The sum over layers, ``tile`` sequences a side at a time.

    The last tile reaches back over the one before it, so that one shape is compiled.
    """
    (n1, r1), (n2, r2) = (layers[0].signals.shape[1:3] for layers in (one, two))
    tile1, tile2 = min(tile, n1), min(tile, n2)
    corners = [
        (i, j)
        for i in starts(n1, tile1)
        for j in starts(n2, tile2)
        if not mirror or i <= j  # the last diagonal tile comes last, and is symmetric
    ]

    def add(kernel: Array, sides: tuple[list[Factors], list[Factors]], i: Any, j: Any) -> Array:
        part = sum(map(_product, *sides), jnp.zeros((tile1, r1, tile2, r2), kernel.dtype))
        if mirror:
            part = jnp.where(i == j, symmetric(part), part)
            transposed = part.transpose(2, 3, 0, 1)
            kernel = jax.lax.dynamic_update_slice(kernel, transposed, (j, 0, i, 0))
        return jax.lax.dynamic_update_slice(kernel, part, (i, 0, j, 0))

    def step(kernel: Array, corner: Int[Array, " 2"]) -> tuple[Array, None]:
        i, j = corner[0], corner[1]
        return add(kernel, (_cut(one, i, tile1), _cut(two, j, tile2)), i, j), None

    kernel = jnp.zeros((n1, r1, n2, r2), one[0].signals.dtype)
    if len(corners) > UNROLLED:
        return jax.lax.scan(step, kernel, jnp.asarray(corners))[0]
    rows = {i: _cut(one, i, tile1) for i, _ in corners}
    columns = {j: _cut(two, j, tile2) for _, j in corners}
    for i, j in corners:
        kernel = add(kernel, (rows[i], columns[j]), i, j)
    return kernel


def starts(n: int, size: int) -> list[int]:
    """Starts of parts of equal size that cover n; the last may reach back."""
    return [min(start, n - size) for start in range(0, n, size)]


def _cut(layers: Layers, start: Any, size: int) -> list[Factors]:
    return [
        jax.tree.map(lambda v: jax.lax.dynamic_slice_in_dim(v, start, size, axis=1), factors)
        for factors in layers
    ]


def _product(one: Factors, two: Factors) -> Float[Array, "n1 r1 n2 r2"]:
    # As steps are the outer axes, the sum over them runs along rows, which vectorizes.
    signals = jnp.tensordot(one.signals, two.signals, axes=(-1, -1), precision=PRECISION)
    reads = jnp.tensordot(one.reads, two.reads, axes=(-1, -1), precision=PRECISION)
    # On a CPU, a product that is multiplied as it is written takes a fourth longer.
    signals, reads = jax.lax.optimization_barrier((signals, reads))
    return (signals * reads[:, :, None, :, :, None]).sum(axis=(0, 3))


def jacobian(one: Layers, two: Layers, units: int, mirror: bool) -> Float[Array, "n1 r1 n2 r2"]:
    """The sum over layers, ``units`` rows of the gradients at a time.

    XLA forms the gradients of a batch on one core of a CPU, so every core gets rows of its own.
    """
    (n1, r1), (n2, r2) = (layers[0].signals.shape[1:3] for layers in (one, two))
    workers = workers_of(one)
    total = jnp.zeros((n1 * r1, n2 * r2), one[0].signals.dtype)
    for factors1, factors2 in zip(one, two, strict=True):
        c = factors1.signals.shape[-1]
        size = min(units, c)
        firsts = np.arange(0, c, size)
        share = -(-len(firsts) // workers)
        firsts = np.pad(firsts, (0, share * workers - len(firsts)), constant_values=c)
        rows = partial(_rows, factors1, factors2, size=size, mirror=mirror)
        if workers == 1:
            total = total + rows(firsts)
        else:
            (device,) = factors1.signals.devices()
            for part in in_threads(rows, firsts.reshape(workers, share), device):
                total = total + part
    return (symmetric(total) if mirror else total).reshape(n1, r1, n2, r2)


def workers_of(layers: Layers) -> int:
    """How many threads :func:`jacobian` runs."""
    signals = layers[0].signals
    devices = list(signals.devices()) if is_concrete(signals) else []
    return CORES if [device.platform for device in devices] == ["cpu"] else 1


@partial(jax.jit, static_argnames=("size", "mirror"))
def _rows(
    one: Factors, two: Factors, firsts: Int[ArrayLike, " chunks"], size: int, mirror: bool
) -> Float[Array, "n1_r1 n2_r2"]:
    """Inner products of the gradients' rows from each of ``firsts`` on, ``size`` of them.

    The last rows reach back, without those that were counted before. If ``mirror``, only the upper
    half of the result is complete.
    """
    (_, n1, r1, c), (_, n2, r2, _) = one.signals.shape, two.signals.shape
    half = n1 * r1 // 2 if mirror else 0

    # The products are one for each sequence: its own steps together, once for all.
    one, two = (side._replace(reads=side.reads.swapaxes(0, 1)) for side in (one, two))

    def form(factors: Factors, first: Array) -> Float[Array, "n_r size_k"]:
        start = jnp.minimum(first, c - size)
        signals = jax.lax.dynamic_slice_in_dim(factors.signals, start, size, axis=3)
        signals = jnp.where(start + jnp.arange(size) >= first, signals, 0)
        gradient = jnp.einsum("tirc,itk->irck", signals, factors.reads, precision=PRECISION)
        return gradient.reshape(gradient.shape[0] * gradient.shape[1], -1)

    def step(total: Array, first: Array) -> tuple[Array, None]:
        rows1 = form(one, first)
        rows2 = rows1 if mirror else form(two, first)
        if half:
            upper = jnp.matmul(rows1[:half], rows2.T, precision=PRECISION)
            lower = jnp.matmul(rows1[half:], rows2[half:].T, precision=PRECISION)
            return total.at[:half].add(upper).at[half:, half:].add(lower), None
        return total + jnp.matmul(rows1, rows2.T, precision=PRECISION), None

    start = jnp.zeros((n1 * r1, n2 * r2), one.signals.dtype)
    return jax.lax.scan(step, start, jnp.asarray(firsts))[0]
