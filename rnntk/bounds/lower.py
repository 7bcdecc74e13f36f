"""Lower bounds on the smallest eigenvalue of the infinite-width NTK, and how they are put together.

Points are sequences at one step ("last" readout) or all steps of all sequences. All bounds rest on
one inequality: if A lies above diag(a) and B above diag(b) in the order of positive semidefinite
matrices, their entrywise product lies above ``product(a, A, b, B)``. docs/theory/bounds.md proves
it and each bound. The arithmetic is a parameter: float64 with allowances, or balls.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import scipy.linalg
from jax.typing import ArrayLike
from jaxtyping import Float

from rnntk.bounds import power_series
from rnntk.network.elman import ElmanRNN

Matrix = np.ndarray  # of float64, or of balls
Vector = np.ndarray
Number = Any

POWERS = 12  # entrywise powers of R whose smallest eigenvalues "schur_series" takes
SPLIT = 4  # lowest powers that "schur_split" keeps as they are
KINDS = ("series", "separation")


@dataclass(frozen=True)
class Points:
    """Pre-activations of one layer at p points."""

    variance: Vector
    signal: Matrix  # L, their covariance
    correlation: Matrix  # R
    decay: Float[np.ndarray, "p p"]  # no more than -log|R|, infinite on the diagonal
    tangent: Matrix  # T
    covariance: Matrix  # K
    slope: Matrix  # Kd


@runtime_checkable
class Arithmetic(Protocol):
    """What the bounds need beyond NumPy's elementwise operations."""

    def number(self, value: ArrayLike) -> Number:
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
    one: power_series.Coefficients


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
    below: Any
    frame: tuple[Points, ...] = ()
    one = None
    for frame in frames:
        below = 0.0
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
            one = power_series.coefficients(rnn.phi, real.floats(points.variance))
            for kind, bracket in zip(KINDS, power_series.brackets(points.decay), strict=True):
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
    state = total([readout(rnn, one.top.covariance, n, i == 1) for i, one in enumerate(directions)])
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
    slope, tangent, zero = np.diagonal(top.slope), np.diagonal(top.tangent), real.number(0.0)
    tau, kappa = (max(real.smallest(m), zero) for m in (top.tangent, top.slope))
    drives = along_time(rnn, layers, n, None, real)[0].reshape(-1)[-len(slope) :]
    points = {
        "schur": max((slope * tau, tangent * kappa), key=real.least),
        "schur_series": _term_by_term(top, direction.one, tau, real),
        "schur_both": product(kappa, slope, tau, tangent),
        "schur_time": slope * drives,
    }
    for kind in KINDS:
        below, state = layers[-1].below[kind][-1]
        state = state * real.number("V" in rnn.trainable)
        moving = along_time(rnn, layers, n, kind, real)[1].reshape(-1)[-len(slope) :]
        points |= {kind: state + below * tangent, f"{kind}_time": state + moving}
    return {name: readout_diagonal(rnn, v, n, backward) for name, v in points.items()}


def _split(rnn: ElmanRNN, direction: Direction, n: int, real: Arithmetic, backward: bool) -> Matrix:
    """The lowest powers of Kd's series times T, and a diagonal below the rest times T."""
    top = direction.top
    low = _low_powers(top, direction.one)
    rest, tangent = top.slope - low, np.diagonal(top.tangent)
    size = float(real.floats(np.diagonal(top.slope)).sum())
    tau = max(real.smallest(top.tangent), real.number(0.0))
    added = product(real.smallest(rest, size), np.diagonal(rest), tau, tangent)
    seen = np.diag(readout_diagonal(rnn, added, n, backward))
    return readout(rnn, low * top.tangent, n, backward) + seen


def _low_powers(top: Points, one: power_series.Coefficients) -> Matrix:
    low: Matrix = np.outer(one.slopes[0], one.slopes[0])
    # products, as a ball around 0 has no power in python-flint
    for k, power in zip(range(1, SPLIT), _powers(top.correlation), strict=False):
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
    t_diagonal = np.diagonal(top.tangent)
    least, found, smallest = real.least(t_diagonal), 0.0 * t_diagonal, real.number(0.0)
    raised = _powers(top.correlation)
    for k, share in enumerate(shares):
        power = next(raised) if 0 < k < POWERS else None
        if not share.any():
            continue
        if power is not None:
            smallest = max(smallest, real.smallest(power))
        found = found + share * (tau if tau > least * smallest else t_diagonal * smallest)
    return found


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
