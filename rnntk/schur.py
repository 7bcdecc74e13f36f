"""Lower bounds on the smallest eigenvalue of the infinite-width NTK, and how they are put together.

Points are sequences at one step ("last" readout) or all steps of all sequences. All bounds rest on
one inequality: if A lies above diag(a) and B above diag(b) in the order of positive semidefinite
matrices, their entrywise product lies above ``product(a, A, b, B)``. docs/theory/bounds.md proves
it and each bound. The arithmetic is a parameter: float64 with allowances, or balls.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import scipy.linalg
from jaxtyping import Float

from rnntk import powers
from rnntk.elman import ElmanRNN

Matrix = np.ndarray  # of float64, or of balls
Vector = np.ndarray
Number = Any

POWERS = 12  # entrywise powers of R whose smallest eigenvalues "schur_series" takes
SPLIT = 4  # lowest powers that "schur_split" keeps as they are
KINDS = ("series", "separation")


@dataclass(frozen=True)
class Points:
    """Pre-activations of one layer at p points; see :class:`rnntk.infinite.Preactivation`."""

    variance: Vector
    signal: Matrix  # L, their covariance
    correlation: Matrix  # R
    decay: Float[np.ndarray, "p p"]  # no more than -log|R|, infinite on the diagonal
    tangent: Matrix  # T
    covariance: Matrix  # K
    slope: Matrix  # Kd


class Arithmetic(Protocol):
    """What the bounds need beyond NumPy's elementwise operations."""

    def number(self, value: float) -> Number:
        """A number to calculate with."""

    def floats(self, values: Vector) -> Float[np.ndarray, " p"]:
        """The nearest float64 numbers."""

    def smallest(self, matrix: Matrix, size: float = 0.0) -> Number:
        """A lower bound on the smallest eigenvalue; ``size``: of what the matrix came from."""

    def least(self, values: Vector) -> Number:
        """A lower bound on the smallest entry."""

    def down(self, value: Number) -> float:
        """As a float64 number that is no larger."""


@dataclass
class Layer:
    """Diagonals of one layer, a row for each step once ``stack`` has put them together."""

    slope: list[Vector] = field(default_factory=list)  # Kd_ii
    tangent: list[Vector] = field(default_factory=list)  # T_ii
    drive: list[Vector] = field(default_factory=list)  # below the trained parts of L
    below: dict[str, list[tuple[Vector, Vector]]] = field(default_factory=dict)  # Kd and K, by kind


@dataclass(frozen=True)
class Direction:
    """All that the bounds need of a network that reads in one direction."""

    layers: list[Layer]
    top: Points  # at the last step, or at all
    one: powers.Coefficients


def product(a: Any, A: Vector, b: Any, B: Vector) -> Vector:
    """The diagonal a_i B_ii + b_i A_ii - a_i b_i below A o B, from diagonals below A and B."""
    return a * B + b * (A - a)


def read(
    rnn: ElmanRNN, frames: Iterable[tuple[Points, ...]], n: int, real: Arithmetic
) -> Direction:
    """Go through the steps and keep the diagonals, and the matrices of the last step."""
    w2, u2 = real.number(rnn.w_std) ** 2, real.number(rnn.u_std) ** 2
    layers = [Layer(below={kind: [] for kind in KINDS}) for _ in range(rnn.depth)]
    backs: list[Matrix] = []
    frame: tuple[Points, ...] = ()
    one = None
    for frame in frames:
        below: Matrix = 0.0
        new_backs = []
        for number, (layer, points) in enumerate(zip(layers, frame, strict=True)):
            back = points.slope * points.tangent
            before = backs[number] if backs else np.zeros_like(back)
            if len(back) > n:  # all steps at once
                before = np.zeros_like(back)
                before[n:, n:] = back[:-n, :-n]
            if {"W", "U", "b"} <= set(rnn.trainable):
                drive = real.smallest(points.signal)
            else:
                size = float(real.floats(np.diagonal(points.tangent)).sum())
                drive = real.smallest(points.tangent - w2 * before - below, size)
            one = powers.coefficients(rnn.phi, real.floats(points.variance))
            for kind, bracket in zip(KINDS, powers.brackets(points.decay), strict=True):
                layer.below[kind].append(bracket.below(one))
            layer.slope.append(np.diagonal(points.slope))
            layer.tangent.append(np.diagonal(points.tangent))
            layer.drive.append(np.full_like(np.diagonal(back), max(drive, 0 * drive)))
            new_backs.append(back)
            below = u2 * back
        backs = new_backs
    assert one is not None
    return Direction(layers, frame[-1], one)


def along_time(
    rnn: ElmanRNN, layers: list[Layer], n: int, kind: str | None, real: Arithmetic
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
        taus, products = [], []
        for s in range(len(slope)):
            tau = drive[s]
            if kind:
                tau = 0 * tau + has["W"] * w2 * (state[s - 1] if s else start)
                if number:
                    tau = tau + has["U"] * u2 * under[1][s]
            tau = tau + (w2 * products[-1] if s else 0) + (u2 * under[0][s] if number else 0)
            taus.append(tau)
            products.append(product(kappa[s], slope[s], tau, tangent[s]))
        under = np.stack(products), state
    return np.stack(taus), under[0]


def readout(rnn: ElmanRNN, matrix: Matrix, n: int, backward: bool) -> Matrix:
    """What the readout sees of a matrix over the top layer's points; a step's points adjoin."""
    if rnn.readout == "last":
        return matrix
    t = len(matrix) // n
    blocks = matrix.reshape(t, n, t, n)
    if rnn.readout == "mean":
        return blocks.sum(axis=2).sum(axis=0) / t**2
    return (blocks[::-1, :, ::-1] if backward else blocks).reshape(matrix.shape)


def readout_diagonal(rnn: ElmanRNN, values: Vector, n: int, backward: bool) -> Vector:
    """Likewise of a diagonal matrix."""
    rows = values.reshape(-1, n)
    if rnn.readout == "last":
        return rows[-1]
    if rnn.readout == "mean":
        return rows.sum(axis=0) / len(rows) ** 2
    return (rows[::-1] if backward else rows).reshape(-1)


def lower_bounds(
    rnn: ElmanRNN, directions: list[Direction], n: int, real: Arithmetic
) -> dict[str, float]:
    """All lower bounds by name."""
    trained = "V" in rnn.trainable
    v2 = real.number(rnn.v_std) ** 2

    def seen(values: Vector, i: int) -> Vector:
        return readout_diagonal(rnn, values, n, i == 1)

    tops = [direction.top for direction in directions]
    state = sum(readout(rnn, top.covariance, n, i == 1) for i, top in enumerate(tops))
    state = state if trained else 0 * state
    state_floor = max(real.smallest(state), real.number(0.0)) if trained else real.number(0.0)
    split, whole = state, dict.fromkeys(("schur", "schur_series"), state_floor)
    diagonals = dict.fromkeys(("schur_both", "schur_time", "series", "separation"), 0.0)
    diagonals |= dict.fromkeys(("series_time", "separation_time"), 0.0)
    for i, (top, direction) in enumerate(zip(tops, directions, strict=True)):
        layers, one = direction.layers, direction.one
        t_diagonal, s_diagonal = np.diagonal(top.tangent), np.diagonal(top.slope)
        zero = real.number(0.0)
        tau, kappa = (max(real.smallest(m), zero) for m in (top.tangent, top.slope))
        whole["schur"] += max(
            real.least(seen(s_diagonal * tau, i)), real.least(seen(t_diagonal * kappa, i))
        )
        whole["schur_series"] += real.least(seen(_term_by_term(top, one, tau, real), i))
        diagonals["schur_both"] += seen(product(kappa, s_diagonal, tau, t_diagonal), i)
        diagonals["schur_time"] += seen(
            s_diagonal * along_time(rnn, layers, n, None, real)[0].reshape(-1)[-len(s_diagonal) :],
            i,
        )
        for kind in KINDS:
            slope, states = (
                np.concatenate(v)[-len(s_diagonal) :]
                for v in zip(*layers[-1].below[kind], strict=True)
            )
            own = seen(states, i) * real.number(trained)
            diagonals[kind] += own + seen(slope * t_diagonal, i)
            moving = along_time(rnn, layers, n, kind, real)[1].reshape(-1)[-len(s_diagonal) :]
            diagonals[f"{kind}_time"] += own + seen(moving, i)
        low = _low_powers(top, one)
        rest = top.slope - low
        left = real.smallest(rest, float(real.floats(s_diagonal).sum()))
        added = seen(product(left, np.diagonal(rest), tau, t_diagonal), i)
        split = split + readout(rnn, low * top.tangent, n, i == 1) + np.diag(added)
    whole["schur_both"] = state_floor + real.least(diagonals.pop("schur_both"))
    whole["schur_split"] = real.smallest(split)
    whole["schur_time"] = state_floor + real.least(diagonals.pop("schur_time"))
    whole |= {name: real.least(values) for name, values in diagonals.items()}
    return {name: max(0.0, real.down(v2 * value)) for name, value in whole.items()}


def _low_powers(top: Points, one: powers.Coefficients) -> Matrix:
    total = 0.0 * top.slope
    for k in range(SPLIT):
        scale = np.outer(one.slopes[k], one.slopes[k])
        total = total + (scale * top.correlation**k if k else scale)
    return total


def _term_by_term(top: Points, one: powers.Coefficients, tau: Number, real: Arithmetic) -> Vector:
    """sum_k d_k^2 max(lmin(T), T_ii lmin(R^k)), the larger one chosen for all i together."""
    last = powers.tails(one, np.array([float(POWERS)]))[0]
    shares = np.concatenate([one.slopes[:POWERS] ** 2 * (1 - powers.MARGIN), last])
    t_diagonal = np.diagonal(top.tangent)
    least, total, smallest = real.least(t_diagonal), 0.0 * t_diagonal, real.number(0.0)
    for k, share in enumerate(shares):
        if not share.any():
            continue
        if 0 < k < POWERS:
            smallest = max(smallest, real.smallest(top.correlation**k))
        total = total + share * (tau if tau > least * smallest else t_diagonal * smallest)
    return total


def residual(matrix: Float[np.ndarray, "n n"]) -> Float[np.ndarray, " n"]:
    """A vector whose Rayleigh quotient is small: one sequence less the best mixture of the others.

    The vector is a column of the inverse, up to a factor, the one whose quotient is the least.
    """
    n = len(matrix)
    size = float(np.diagonal(matrix).max())
    # any vector gives a bound, so that a shift does no harm, and singular matrices need one
    shifted = matrix / (size or 1.0) + 4 * n * np.finfo(np.float64).eps * np.eye(n)
    values, vectors = scipy.linalg.eigh(shifted)
    columns = (vectors / np.maximum(np.abs(values), 2.0**-52)) @ vectors.T
    columns = columns / np.linalg.norm(columns, axis=0)
    quotients = np.sum(columns * (matrix @ columns), axis=0)
    return columns[:, int(np.argmin(quotients))]
