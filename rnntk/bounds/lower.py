"""Lower bounds on the smallest eigenvalue of the infinite-width NTK, and how they are put together.

Points are sequences at one step ("last" readout) or all steps of all sequences. All bounds rest on
one inequality: if A lies above diag(a) and B above diag(b) in the order of positive semidefinite
matrices, ``below_product`` gives a diagonal below their entrywise product. docs/theory/bounds.md
proves it and each bound. The arithmetic is a parameter: float64 with allowances, or balls.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rnntk.bounds import power_series
from rnntk.bounds.arithmetic import Arithmetic, Matrix, Number, Points, Vector
from rnntk.network.elman import ElmanRNN

POWERS = 12  # entrywise powers of R whose smallest eigenvalues "schur_series" takes
SPLIT = 4  # lowest powers that "schur_split" keeps as they are
KINDS = ("series", "separation")


@dataclass
class LayerDiagonals:
    """Diagonals of one layer, a row for each step once ``stack`` has put them together."""

    slope: list[Vector] = field(default_factory=list)  # Kd_ii
    tangent: list[Vector] = field(default_factory=list)  # T_ii
    drive: list[Vector] = field(default_factory=list)  # at most the trained part of L
    below: dict[str, list[tuple[Vector, Vector]]] = field(default_factory=dict)  # Kd and K, by kind


@dataclass(frozen=True)
class Direction:
    """All that the bounds need of a network that reads in one direction."""

    layers: list[LayerDiagonals]
    top: Points  # at the last step, or at all
    one: power_series.Coefficients


def below_product(a: Any, A: Vector, b: Any, B: Vector) -> Vector:
    """The diagonal a_i B_ii + b_i A_ii - a_i b_i below A o B, from diagonals below A and B."""
    return a * B + b * (A - a)


def read(
    rnn: ElmanRNN, frames: Iterable[tuple[Points, ...]], n: int, real: Arithmetic
) -> Direction:
    """Go through the steps and keep the diagonals, and the matrices of the last step."""
    w2, u2 = real.number(rnn.w_std) ** 2, real.number(rnn.u_std) ** 2
    layers = [LayerDiagonals(below={kind: [] for kind in KINDS}) for _ in range(rnn.depth)]
    backs: list[Matrix] = []
    below: Any
    frame: tuple[Points, ...] = ()
    one = None
    for frame in frames:
        below = 0.0
        new_backs = []
        for number, (layer, points) in enumerate(zip(layers, frame, strict=True)):
            back = points.Kd * points.T
            before = backs[number] if backs else np.zeros_like(back)
            if len(back) > n:  # all steps at once
                before = np.zeros_like(back)
                before[n:, n:] = back[:-n, :-n]
            if {"W", "U", "b"} <= set(rnn.trainable):
                drive = real.smallest(points.L)
            else:
                size = float(real.floats(np.diagonal(points.T)).sum())
                drive = real.smallest(points.T - w2 * before - below, size)
            one = power_series.coefficients(rnn.phi, real.floats(points.variance))
            for kind, bracket in zip(KINDS, power_series.brackets(points.decay), strict=True):
                layer.below[kind].append(bracket.below(one))
            layer.slope.append(np.diagonal(points.Kd))
            layer.tangent.append(np.diagonal(points.T))
            layer.drive.append(np.full_like(np.diagonal(back), max(drive, 0 * drive)))
            new_backs.append(back)
            below = u2 * back
        backs = new_backs
    assert one is not None
    return Direction(layers, frame[-1], one)


def along_time(
    rnn: ElmanRNN, layers: list[LayerDiagonals], n: int, kind: str | None, real: Arithmetic
) -> tuple[Vector, Vector]:
    """Diagonals below T and below Kd o T of the top layer, (t, n), by the recursion of T.

    T_s = (trained parts of L_s) + w^2 (Kd o T)_(s-1) + u^2 (Kd o T)_s of the layer below.

    Args:
        rnn: the network.
        layers: their diagonals.
        n: number of sequences.
        kind: "series" or "separation", of the diagonals below Kd and K; None takes the smallest
            eigenvalues of the trained parts of L, and nothing of Kd but its diagonal.
        real: the arithmetic.
    """
    w2, u2 = real.number(rnn.w_std) ** 2, real.number(rnn.u_std) ** 2
    start = real.number(rnn.initial_state_std) ** 2 * (rnn.initial_state == "independent")
    has = {group: real.number(group in rnn.trainable) for group in ("W", "U")}
    under: Any = None
    for number, layer in enumerate(layers):
        slope, tangent, drive = (
            np.concatenate(v).reshape(-1, n) for v in (layer.slope, layer.tangent, layer.drive)
        )
        kappa, state = np.zeros_like(slope), np.zeros_like(slope)
        if kind:
            kappa, state = (
                np.concatenate(v).reshape(-1, n) for v in zip(*layer.below[kind], strict=True)
            )
        taus: list[Vector] = []
        products: list[Vector] = []
        for s in range(len(slope)):
            tau = drive[s]
            if kind:
                tau = 0 * tau + has["W"] * w2 * (state[s - 1] if s else start)
                if number:
                    tau = tau + has["U"] * u2 * under[1][s]
            tau = tau + (w2 * products[-1] if s else 0) + (u2 * under[0][s] if number else 0)
            taus.append(tau)
            products.append(below_product(kappa[s], slope[s], tau, tangent[s]))
        under = np.stack(products), state
    return np.stack(taus), under[0]


def read_out(rnn: ElmanRNN, matrix: Matrix, n: int, backward: bool, real: Arithmetic) -> Matrix:
    """What the readout sees of a matrix over the points of the top layer.

    Of p = t n points the first n are step 0 of all sequences, and so on; backward networks have
    their steps in the order in which they read.
    """
    if rnn.r.ends_only:
        return matrix
    t = len(matrix) // n
    blocks = matrix.reshape(t, n, t, n)
    if rnn.r.per_step:
        return (blocks[::-1, :, ::-1] if backward else blocks).reshape(matrix.shape)
    shares = _shares(rnn, t, real)
    weighted = blocks * shares[:, None, None, None] * shares[None, None, :, None]
    return weighted.sum(axis=2).sum(axis=0)


def read_out_diagonal(
    rnn: ElmanRNN, values: Vector, n: int, backward: bool, real: Arithmetic
) -> Vector:
    """Likewise of a diagonal matrix."""
    rows = values.reshape(-1, n)
    if rnn.r.ends_only:
        return rows[-1]
    if rnn.r.per_step:
        return (rows[::-1] if backward else rows).reshape(-1)
    shares = _shares(rnn, len(rows), real)
    return (rows * (shares * shares)[:, None]).sum(axis=0)


def _shares(rnn: ElmanRNN, t: int, real: Arithmetic) -> Vector:
    """Of each step in what the readout sees, in the arithmetic of the bounds."""
    one, count = real.number(1.0), real.number(float(t))
    return np.array([one * rnn.r.share(real.number(float(s)), count) for s in range(t)])


def kernel(rnn: ElmanRNN, directions: list[Direction], n: int, real: Arithmetic) -> Matrix:
    """The tangent kernel itself, from the points of the top layer."""
    v2, has_V = real.number(rnn.v_std) ** 2, real.number("V" in rnn.trainable)
    parts = []
    for i, direction in enumerate(directions):
        top = direction.top
        parts.append(v2 * read_out(rnn, top.Kd * top.T + has_V * top.K, n, i == 1, real))
    return total(parts)


def lower_bounds(
    rnn: ElmanRNN, directions: list[Direction], n: int, real: Arithmetic
) -> dict[str, float]:
    """All lower bounds by name."""
    state = total([read_out(rnn, one.top.K, n, i == 1, real) for i, one in enumerate(directions)])
    if "V" not in rnn.trainable:
        state = 0 * state
    floor = max(real.smallest(state), real.number(0.0))  # a covariance has none below 0
    each = [_diagonals(rnn, one, n, real, i == 1) for i, one in enumerate(directions)]
    found = {name: real.least(total([one[name] for one in each])) for name in each[0]}
    for name in ("schur", "schur_series", "schur_both", "schur_time"):
        found[name] = floor + found[name]
    split = [_split(rnn, one, n, real, i == 1) for i, one in enumerate(directions)]
    found["schur_split"] = real.smallest(state + total(split))
    v2 = real.number(rnn.v_std) ** 2
    return {name: max(0.0, real.down(v2 * value)) for name, value in found.items()}


def total(parts: list[Any]) -> Any:
    """The sum of one part for each direction of reading."""
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]


def _diagonals(
    rnn: ElmanRNN, direction: Direction, n: int, real: Arithmetic, backward: bool
) -> dict[str, Vector]:
    """By name, diagonals below Kd o T, or below K + Kd o T, as the readout sees them."""
    top, layers = direction.top, direction.layers
    slope, tangent, zero = np.diagonal(top.Kd), np.diagonal(top.T), real.number(0.0)
    tau, kappa = (max(real.smallest(m), zero) for m in (top.T, top.Kd))
    drives = along_time(rnn, layers, n, None, real)[0].reshape(-1)[-len(slope) :]
    points = {
        "schur": max((slope * tau, tangent * kappa), key=real.least),
        "schur_series": _term_by_term(top, direction.one, tau, real),
        "schur_both": below_product(kappa, slope, tau, tangent),
        "schur_time": slope * drives,
    }
    for kind in KINDS:
        below, state = layers[-1].below[kind][-1]
        state = state * real.number("V" in rnn.trainable)
        moving = along_time(rnn, layers, n, kind, real)[1].reshape(-1)[-len(slope) :]
        points |= {kind: state + below * tangent, f"{kind}_time": state + moving}
    return {name: read_out_diagonal(rnn, v, n, backward, real) for name, v in points.items()}


def _split(rnn: ElmanRNN, direction: Direction, n: int, real: Arithmetic, backward: bool) -> Matrix:
    """The lowest powers of Kd's series times T, and a diagonal below the rest times T."""
    top = direction.top
    low = _low_powers(top, direction.one)
    rest, tangent = top.Kd - low, np.diagonal(top.T)
    size = float(real.floats(np.diagonal(top.Kd)).sum())
    tau = max(real.smallest(top.T), real.number(0.0))
    added = below_product(real.smallest(rest, size), np.diagonal(rest), tau, tangent)
    seen = np.diag(read_out_diagonal(rnn, added, n, backward, real))
    return read_out(rnn, low * top.T, n, backward, real) + seen


def _low_powers(top: Points, one: power_series.Coefficients) -> Matrix:
    low: Matrix = np.outer(one.slopes[0], one.slopes[0])
    # products, as a ball around 0 has no power in python-flint
    for k, power in zip(range(1, SPLIT), _powers(top.R), strict=False):
        low = low + np.outer(one.slopes[k], one.slopes[k]) * power
    return low


def _powers(correlation: Matrix) -> Iterator[Matrix]:
    power = correlation
    while True:
        yield power
        power = power * correlation


def _term_by_term(
    top: Points, one: power_series.Coefficients, tau: Number, real: Arithmetic
) -> Vector:
    """sum_k d_k^2 max(lmin(T), T_ii lmin(R^k)), the larger one chosen for all i together."""
    last = power_series.tails(one, np.array([float(POWERS)]))[0]
    shares = np.concatenate([one.slopes[:POWERS] ** 2 * (1 - power_series.MARGIN), last])
    t_diagonal = np.diagonal(top.T)
    least, found, smallest = real.least(t_diagonal), 0.0 * t_diagonal, real.number(0.0)
    raised = _powers(top.R)
    for k, share in enumerate(shares):
        power = next(raised) if 0 < k < POWERS else None
        if not share.any():
            continue
        if power is not None:
            smallest = max(smallest, real.smallest(power))
        found = found + share * (tau if tau > least * smallest else t_diagonal * smallest)
    return found
