"""Which way to compute an empirical kernel, and in how much memory: decided from sizes alone."""

import math
import os
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from rnntk.empirical.backprop import aligned
from rnntk.empirical.contraction import UNROLLED
from rnntk.network.elman import ElmanRNN, Params, networks
from rnntk.sequences import is_concrete
from rnntk.tiling.threads import CORES

METHODS = ("auto", "gram", "jacobian")
OUTPUTS = ("mean", "full")
PANEL = 512  # sequences; larger ones gain no speed, and leave progress unseen for longer

# Time of an operation, over that of one in a large matrix product: chosen so that plans agree with
# the crossovers measured in docs/theory/empirical.md.
FORM = 2.5  # forming gradients, one small product for each sequence
MULTIPLY = 1.25  # multiplying them, products with few rows and long columns
BACKPROPAGATE = 1.5
SMALLEST = 16  # sequences that one core backpropagates; fewer take hardly less time
WORTH = 24e6  # multiplications that make a chunk of gradients, of some tenths of a millisecond
ENTRY = 80  # operations that an entry of a Gram matrix costs beside the product


@dataclass(frozen=True)
class Plan:
    """How an empirical kernel is computed.

    Attributes:
        method: ``"gram"`` or ``"jacobian"``.
        cost: expected time of this method, in operations of a large matrix product.
        memory: bytes of work space beyond the result, estimated from above.
        panel: sequences that are backpropagated together, and whose kernel is one block.
        part: sequences of a panel that one core of a CPU backpropagates.
        keep: whether the gradients' factors of all panels are kept, or found again for each block.
        tile: sequences a side of one product of Gram matrices.
        units: rows of the gradients that are formed at a time.
    """

    method: str
    cost: float
    memory: int
    panel: int
    part: int
    keep: bool
    tile: int
    units: int


class Side(NamedTuple):
    """Sizes of a batch.

    Attributes:
        n: sequences.
        t: steps.
        r: output coordinates that stay apart.
        coordinates: all output coordinates.
    """

    n: int
    t: int
    r: int
    coordinates: int


class Sizes(NamedTuple):
    """All that a plan depends on."""

    one: Side
    two: Side
    mirror: bool
    width: int
    depth: int  # of both directions together
    layers: tuple[tuple[int, int], ...]  # c and k of backprop.Factors, where gradients count
    tokens: int  # numbers of a token, in all copies that a pass makes of it
    itemsize: int
    cpu: bool


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
    if memory_limit is not None and (
        isinstance(memory_limit, bool)
        or not isinstance(memory_limit, int | np.integer)
        or memory_limit < 1
    ):
        raise ValueError(
            f"memory_limit must be a positive whole number of bytes, got {memory_limit!r}."
        )
    architecture = (rnn.depth, rnn.bidirectional, rnn.readout, rnn.trainable)
    shape1, shape2 = np.shape(x1), None if x2 is None else np.shape(x2)
    v_shape = np.shape(networks(rnn, params)[0]["V"])
    x1 = x1 if isinstance(x1, jax.Array) else jnp.asarray(x1)
    itemsize, device = x1.dtype.itemsize, _device(x1)
    on_cpu = device.platform == "cpu"
    sizes = _sizes(architecture, v_shape, shape1, shape2, itemsize, on_cpu, outputs)
    limit = _default_limit(device) if memory_limit is None else int(memory_limit)
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


def default_limit(x: Array) -> int:
    """A quarter of the memory, in bytes, of the device that holds ``x``."""
    return _default_limit(_device(x))


@cache
def _default_limit(device: jax.Device) -> int:
    if device.platform == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    return (device.memory_stats() or {}).get("bytes_limit", 2**32) // 4


@lru_cache  # as working it out takes longer than a small kernel
def _sizes(
    architecture: tuple[int, bool, str, tuple[str, ...]],
    v_shape: tuple[int, int],
    shape1: tuple[int, int, int],
    shape2: tuple[int, int, int] | None,
    itemsize: int,
    cpu: bool,
    outputs: str,
) -> Sizes:
    (depth, bidirectional, readout, trainable), (o, m) = architecture, v_shape
    directions = 2 if bidirectional else 1
    groups = {"W": m, "b": 1}
    layers = []
    for layer in range(depth):
        reads = groups | {"U": m if layer else shape1[2]}
        k = aligned(sum(reads[g] for g in trainable if g in reads))
        layers.append((m if outputs == "full" else m * o, k))

    def side(shape: tuple[int, int, int]) -> Side:
        n, t, _ = shape
        steps = t if readout == "sequence" else 1
        r = steps * (o if outputs == "full" else 1)
        return Side(n, t, r, steps * o)

    return Sizes(
        side(shape1),
        side(shape1 if shape2 is None else shape2),
        shape2 is None,
        m,
        depth * directions,
        tuple(layers) * directions if layers[0][1] else (),
        (2 + directions) * shape1[2],
        itemsize,
        cpu,
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
    panels = math.ceil(n / PANEL)
    while True:
        panel = math.ceil(n / panels)  # of equal sizes, as the last one reaches back to be as large
        units = _units(sizes, panel)
        while True:
            found = _at(sizes, method, panel, keep, units)
            if found.memory <= limit or method == "gram" or units == 1:
                break
            units //= 2
        if found.memory <= limit or panel == 1:
            return found
        panels *= 2


def _units(sizes: Sizes, panel: int) -> int:
    """Rows of the gradients to form at a time.

    On a CPU few are the fastest, as XLA multiplies small matrices on one core, which is what
    :func:`rnntk.empirical.contraction.jacobian` wants; but a chunk must be worth its overhead.
    """
    if not sizes.cpu:
        return 64
    steps = max(min(panel, side.n) * side.t * side.r for side in (sizes.one, sizes.two))
    c, k = map(max, zip(*sizes.layers, (1, 1), strict=True))
    enough = int(WORTH / (steps * k))
    return min(c, max(16, enough - enough % 16))


def _tile(panel: int, steps: int, cpu: bool) -> int:
    """Sequences a side of a tile, of which each makes so many rows of a Gram matrix.

    Two matrices stay in the cores' cache. Where few tiles make a panel, ``gram`` cuts each out
    once, and smaller ones are the fastest.
    """
    for rows in (320, 640) if cpu else (4096,):
        tile = max(1, rows // steps)
        tile = min(panel, tile - tile % 16 if tile > 16 else tile)
        if math.ceil(panel / tile) ** 2 <= UNROLLED:
            break
    return tile


def _at(sizes: Sizes, method: str, panel: int, keep: bool, units: int) -> Plan:
    one, two, layers = sizes.one, sizes.two, sizes.layers
    size1, size2 = min(panel, one.n), min(panel, two.n)
    steps = max(one.t, two.t) * max(one.r, two.r)
    tile = _tile(panel, steps, sizes.cpu)
    part = max(SMALLEST, math.ceil(panel / CORES)) if sizes.cpu else panel
    chosen = Plan(method, 0.0, 0, panel, part, keep, tile, units)
    panels1, panels2 = math.ceil(one.n / size1), math.ceil(two.n / size2)
    blocks = panels1 * (panels1 + 1) // 2 if sizes.mirror else panels1 * panels2
    area = size1 * size2 * one.r * two.r

    if method == "gram":
        tiles = math.ceil(size1 / tile)
        share = (tiles + 1) / (2 * tiles) if sizes.mirror else 1.0
        entries = area * one.t * two.t
        cost = sum(2 * entries * (c + ENTRY) + 2 * entries / (one.r * two.r) * k for c, k in layers)
        if tiles * math.ceil(size2 / tile) <= UNROLLED:  # XLA may hold the products of all tiles
            products = 2 * entries * (share if blocks == 1 else 1.0)
        else:
            rows = (min(tile, side.n) * side.r * side.t for side in (one, two))
            products = 4 * math.prod(rows)
        work = products + 2 * panel * steps * sum(c + k for c, k in layers)
    else:
        share = 0.75 if sizes.mirror else 1.0
        cores = CORES if sizes.cpu else 1
        gradient = max((min(units, c) * k for c, k in layers), default=0)
        sides = size1 * one.r + (0 if sizes.mirror and blocks == 1 else size2 * two.r)
        form = size1 * one.r * one.t + size2 * two.r * two.t
        cost = sum(2 * (FORM * form + MULTIPLY * area) * c * k for c, k in layers)
        work = cores * (2 * gradient * sides + units * form + area) + area
    diagonal = panels1 if sizes.mirror else 0
    cost = cost * (blocks - diagonal + share * diagonal)

    m, depth = sizes.width, sizes.depth
    # passes over each side: of every panel once, or of the second side's for every block
    passes = (panels1, (0 if sizes.mirror else panels2) if keep else blocks)
    transient = 0
    for count, size, side in zip(passes, (size1, size2), (one, two), strict=True):
        states = size * side.t * m * depth
        # below 32 sequences, reading the weights takes the time
        each = 2 * max(1, 32 / size) * states * m * (2 + side.coordinates)
        cost += count * BACKPROPAGATE * each
        held = states * (3 + 3 * side.coordinates) + size * side.t * sizes.tokens
        transient = max(transient, held)
    stored = [
        sum(side.r * side.t * c + side.t * k for c, k in layers) + side.r * m * depth
        for side in (one, two)
    ]
    if keep:
        store = one.n * stored[0] + (0 if sizes.mirror else two.n * stored[1])
    else:
        store = size1 * stored[0] + size2 * stored[1]
    transient += math.ceil(panel / part) * 4 * m * m * depth
    memory = sizes.itemsize * (store + max(transient, work) + 3 * area)
    return replace(chosen, cost=float(cost), memory=int(memory))
