"""Time and memory of an empirical kernel, counted from sizes alone.

docs/theory/empirical.md has the formulas; the weights of the operations are in ``tiling.tuning``.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from rnntk.tiling import tuning


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


class BatchSizes(NamedTuple):
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

    one: BatchSizes
    two: BatchSizes
    mirror: bool
    width: int
    depth: int  # of both directions together
    layers: tuple[tuple[int, int], ...]  # c and k of backprop.Factors, where gradients count
    tokens: int  # numbers of a token, in all copies that a pass makes of it
    itemsize: int
    cpu: bool


class Panels(NamedTuple):
    """What a size of panels makes of a kernel.

    Attributes:
        size1: sequences of a panel of the first batch.
        size2: likewise of the second.
        rows: panels of the first batch.
        columns: panels of the second.
        blocks: pairs of panels that are computed.
        area: entries of a block.
    """

    size1: int
    size2: int
    rows: int
    columns: int
    blocks: int
    area: int


def cost_of(sizes: Sizes, method: str, panel: int, keep: bool, units: int) -> Plan:
    """The plan of a method at one size of panels, with its time and memory."""
    tile = _tile(panel, max(sizes.one.t, sizes.two.t) * max(sizes.one.r, sizes.two.r), sizes.cpu)
    part = max(tuning.SMALLEST, math.ceil(panel / tuning.CORES)) if sizes.cpu else panel
    plan = Plan(method, 0.0, 0, panel, part, keep, tile, units)
    panels = _panels(sizes, panel)
    contract = _gram if method == "gram" else _jacobian
    cost, work = contract(sizes, plan, panels)
    diagonal = panels.rows if sizes.mirror else 0
    share = _diagonal_share(sizes, plan, panels)
    cost = cost * (panels.blocks - diagonal + share * diagonal)
    passes, transient = _passes(sizes, plan, panels)
    memory = _stored(sizes, plan, panels) + max(transient, work) + 3 * panels.area
    return replace(plan, cost=float(cost + passes), memory=int(sizes.itemsize * memory))


def _panels(sizes: Sizes, panel: int) -> Panels:
    one, two = sizes.one, sizes.two
    size1, size2 = min(panel, one.n), min(panel, two.n)
    rows, columns = math.ceil(one.n / size1), math.ceil(two.n / size2)
    blocks = rows * (rows + 1) // 2 if sizes.mirror else rows * columns
    return Panels(size1, size2, rows, columns, blocks, size1 * size2 * one.r * two.r)


def _tile(panel: int, steps: int, cpu: bool) -> int:
    """Sequences a side of a tile, of which each makes so many rows of a Gram matrix.

    Two matrices stay in the cores' cache. Where few tiles make a panel, ``gram`` cuts each out
    once, and smaller ones are the fastest.
    """
    for rows in tuning.GRAM_ROWS if cpu else tuning.GRAM_ROWS_ACCELERATOR:
        tile = max(1, rows // steps)
        tile = min(panel, tile - tile % 16 if tile > 16 else tile)
        if math.ceil(panel / tile) ** 2 <= tuning.UNROLLED:
            break
    return tile


def _diagonal_share(sizes: Sizes, plan: Plan, panels: Panels) -> float:
    """The part of a block on the diagonal that is computed."""
    if not sizes.mirror:
        return 1.0
    tiles = math.ceil(panels.size1 / plan.tile)
    return (tiles + 1) / (2 * tiles) if plan.method == "gram" else 0.75


def _gram(sizes: Sizes, plan: Plan, panels: Panels) -> tuple[float, float]:
    """Operations of a block, and numbers of work space."""
    one, two, layers = sizes.one, sizes.two, sizes.layers
    entries = panels.area * one.t * two.t
    signals = sum(2 * entries * (c + tuning.ENTRY) for c, _ in layers)
    reads = sum(2 * entries / (one.r * two.r) * k for _, k in layers)
    tiles = math.ceil(panels.size1 / plan.tile) * math.ceil(panels.size2 / plan.tile)
    if tiles <= tuning.UNROLLED:  # XLA may hold the products of all tiles
        share = _diagonal_share(sizes, plan, panels) if panels.blocks == 1 else 1.0
        products = 2.0 * entries * share
    else:
        products = 4.0 * math.prod(min(plan.tile, side.n) * side.r * side.t for side in (one, two))
    steps = max(one.t, two.t) * max(one.r, two.r)
    factors = 2.0 * plan.panel * steps * sum(c + k for c, k in layers)
    return float(signals + reads), products + factors


def _jacobian(sizes: Sizes, plan: Plan, panels: Panels) -> tuple[float, float]:
    """Likewise."""
    one, two, area = sizes.one, sizes.two, panels.area
    cores = tuning.CORES if sizes.cpu else 1
    gradient = max((min(plan.units, c) * k for c, k in sizes.layers), default=0)
    alone = sizes.mirror and panels.blocks == 1
    sides = panels.size1 * one.r + (0 if alone else panels.size2 * two.r)
    form = panels.size1 * one.r * one.t + panels.size2 * two.r * two.t
    each = tuning.FORM * form + tuning.MULTIPLY * area
    cost = sum(2 * each * c * k for c, k in sizes.layers)
    return float(cost), float(cores * (2 * gradient * sides + plan.units * form + area) + area)


def _passes(sizes: Sizes, plan: Plan, panels: Panels) -> tuple[float, float]:
    """Operations of all passes, and numbers that one of them holds for a time."""
    m, depth = sizes.width, sizes.depth
    # of every panel once, or of the second side's for every block
    counts = (
        panels.rows,
        (0 if sizes.mirror else panels.columns) if plan.keep else panels.blocks,
    )
    cost, transient = 0.0, 0.0
    for count, size, side in zip(
        counts, (panels.size1, panels.size2), (sizes.one, sizes.two), strict=True
    ):
        states = size * side.t * m * depth
        # below 32 sequences, reading the weights takes the time
        each = 2 * max(1, 32 / size) * states * m * (2 + side.coordinates)
        cost += count * tuning.BACKPROPAGATE * each
        held = states * (3 + 3 * side.coordinates) + size * side.t * sizes.tokens
        transient = max(transient, held)
    return cost, float(transient + math.ceil(plan.panel / plan.part) * 4 * m * m * depth)


def _stored(sizes: Sizes, plan: Plan, panels: Panels) -> float:
    """Numbers of the gradients' factors that are kept."""
    each = [
        sum(side.r * side.t * c + side.t * k for c, k in sizes.layers)
        + side.r * sizes.width * sizes.depth
        for side in (sizes.one, sizes.two)
    ]
    if plan.keep:
        return float(sizes.one.n * each[0] + (0 if sizes.mirror else sizes.two.n * each[1]))
    return float(panels.size1 * each[0] + panels.size2 * each[1])
