"""Which way to compute an empirical kernel, and in how much memory: the cheapest plan that fits."""

import math
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from rnntk import checks
from rnntk.checks import is_concrete
from rnntk.empirical.backprop import aligned
from rnntk.empirical.costs import BatchSizes, Plan, Sizes, cost_of
from rnntk.network.elman import ElmanRNN, Params
from rnntk.network.parameters import networks
from rnntk.network.readouts import Readout
from rnntk.tiling import memory, tuning

METHODS = ("auto", "gram", "jacobian")
OUTPUTS = ("mean", "full")


def plan(
    rnn: ElmanRNN,
    params: Params,
    x1: Float[ArrayLike, "n1 t1 d"],
    x2: Float[ArrayLike, "n2 t2 d"] | None = None,
    *,
    outputs: str = "mean",
    method: str = "auto",
    memory_limit: int | None = None,
) -> Plan:
    """The method, the tiles and the memory that :func:`rnntk.empirical_kernel` uses.

    The cost counts operations, each kind weighted by how much slower than a large matrix product
    it was measured to run; docs/theory/empirical.md has the formulas.

    Args:
        rnn: the network's architecture.
        params: its parameters.
        x1: tokens of the first batch, of which the shape and dtype count.
        x2: tokens of the second batch, if there is one.
        outputs: as for :func:`rnntk.empirical_kernel`.
        method: likewise; ``"auto"`` takes the one of less cost.
        memory_limit: likewise.

    Raises:
        ValueError: for unknown names, or a ``memory_limit`` that single sequences exceed.
        MemoryError: where they exceed the default limit.

    Example:
        >>> import jax, jax.numpy as jnp, rnntk
        >>> rnn = rnntk.ElmanRNN()
        >>> params = rnn.init(jax.random.key(1), input_dim=3, width=64)
        >>> [rnntk.empirical.plan(rnn, params, jnp.ones((100, t, 3))).method for t in (2, 40)]
        ['gram', 'jacobian']
    """
    for name, value, valid in (("outputs", outputs, OUTPUTS), ("method", method, METHODS)):
        if value not in valid:
            raise ValueError(f"{name} must be one of {valid}, got {value!r}.")
    if memory_limit is not None:
        memory_limit = checks.check_size("memory_limit", memory_limit)
    architecture = (rnn.depth, rnn.bidirectional, rnn.r, rnn.trainable)
    shape1, shape2 = np.shape(x1), None if x2 is None else np.shape(x2)
    v_shape = np.shape(networks(rnn, params)[0]["V"])
    x1 = x1 if isinstance(x1, jax.Array) else jnp.asarray(x1)
    itemsize, device = x1.dtype.itemsize, _device(x1)
    on_cpu = device.platform == "cpu"
    sizes = _sizes(architecture, v_shape, shape1, shape2, itemsize, on_cpu, outputs)
    limit = memory.quarter(device) if memory_limit is None else memory_limit
    wanted = METHODS[1:] if method == "auto" else (method,)
    plans = [_largest(sizes, name, limit) for name in wanted]
    fitting = [found for found in plans if found.memory <= limit]
    if not fitting:
        least = f"{min(found.memory for found in plans):,} bytes for {method=} at these sizes"
        if memory_limit is None:
            raise MemoryError(
                f"The empirical kernel needs a work space of at least {least}, more than a quarter "
                f"of the device's memory, {limit:,}; use a narrower network, or set memory_limit."
            )
        raise ValueError(f"memory_limit must be at least {least}, got {limit:,}.")
    return min(fitting, key=lambda found: found.cost)


def _device(x: Array) -> jax.Device:
    return next(iter(x.devices())) if is_concrete(x) else jax.devices()[0]


@lru_cache  # as working it out takes longer than a small kernel
def _sizes(
    architecture: tuple[int, bool, Readout, tuple[str, ...]],
    v_shape: tuple[int, int],
    shape1: tuple[int, int, int],
    shape2: tuple[int, int, int] | None,
    itemsize: int,
    cpu: bool,
    outputs: str,
) -> Sizes:
    (depth, bidirectional, r, trainable), (o, m) = architecture, v_shape
    directions = 2 if bidirectional else 1
    groups = {"W": m, "b": 1}
    layers = []
    for layer in range(depth):
        reads = groups | {"U": m if layer else shape1[2]}
        k = aligned(sum(reads[g] for g in trainable if g in reads))
        layers.append((m if outputs == "full" else m * o, k))

    def side(shape: tuple[int, int, int]) -> BatchSizes:
        n, t, _ = shape
        steps = r.outputs(t)
        r_apart = steps * (o if outputs == "full" else 1)
        return BatchSizes(n=n, t=t, r=r_apart, coordinates=steps * o)

    return Sizes(
        one=side(shape1),
        two=side(shape1 if shape2 is None else shape2),
        mirror=shape2 is None,
        width=m,
        depth=depth * directions,
        layers=tuple(layers) * directions if layers[0][1] else (),
        tokens=(2 + directions) * shape1[2],
        itemsize=itemsize,
        cpu=cpu,
    )


@lru_cache
def _largest(sizes: Sizes, method: str, limit: int) -> Plan:
    """The plan of the largest panels that fit, or the smallest one if none does."""
    found = [_fitting(sizes, method, keep, limit) for keep in (True, False)]
    fitting = [plan for plan in found if plan.memory <= limit]
    if not fitting:
        return min(found, key=lambda plan: plan.memory)
    return min(fitting, key=lambda plan: plan.cost)


def _fitting(sizes: Sizes, method: str, keep: bool, limit: int) -> Plan:
    n = max(sizes.one.n, sizes.two.n)
    panels = math.ceil(n / tuning.PANEL)
    while True:
        panel = math.ceil(n / panels)  # of equal sizes, as the last one reaches back to be as large
        units = _units(sizes, panel)
        while True:
            found = cost_of(sizes, method, panel, keep, units)
            if found.memory <= limit or method == "gram" or units == 1:
                break
            units //= 2
        if found.memory <= limit or panel == 1:
            return found
        panels *= 2


def _units(sizes: Sizes, panel: int) -> int:
    """Rows of the gradients to form at a time.

    On a CPU few are the fastest, as XLA multiplies small matrices on one core, which is what
    ``contract_jacobian`` wants; but a chunk must be worth its overhead.
    """
    if not sizes.cpu:
        return tuning.JACOBIAN_ROWS_ACCELERATOR
    steps = max(min(panel, side.n) * side.t * side.r for side in (sizes.one, sizes.two))
    c, k = map(max, zip(*sizes.layers, (1, 1), strict=True))
    enough = int(tuning.WORTH / (steps * k))
    return min(c, max(tuning.JACOBIAN_ROWS, enough - enough % tuning.JACOBIAN_ROWS))
