"""The exact infinite-width NTK in ball arithmetic (python-flint): every entry with its radius.

The recursion of docs/theory/infinite.md in covariances, cell by cell. Here digits that cancel are
bought with precision, so that nothing needs to be carried apart.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from tqdm import tqdm

from rnntk.elman import ElmanRNN

Ball = Any  # flint.arb
Pair = Callable[[Ball, Ball, Ball], tuple[Ball, Ball]]


class Moments(NamedTuple):
    """Gaussian moments of an activation.

    Attributes:
        own: maps a variance a to E phi(u)^2 and E phi'(u)^2.
        pair: maps variances a, a' and a covariance to E phi(u) phi(u') and E phi'(u) phi'(u').
    """

    own: Callable[[Ball], tuple[Ball, Ball]]
    pair: Pair


class Scales(NamedTuple):
    """Squared multipliers, exact numbers squared in ball arithmetic."""

    w2: Ball
    tokens: Ball  # of the first layer's input weights
    u2: Ball  # of the deeper layers'
    b2: Ball
    v2: Ball
    h2: Ball


class Side(NamedTuple):
    """Sequences read in one direction: tokens as rows and as columns, and variances by layer."""

    rows: list[list[Any]]
    columns: list[list[Any]]
    variances: list[list[list[Ball]]]  # sequence, step, layer


def flint() -> Any:
    """The python-flint package.

    Raises:
        ImportError: naming the extra, where it is not installed.
    """
    try:
        import flint
    except ImportError as error:
        raise ImportError(
            "certify(rnn, x) needs python-flint: install the extra, pip install 'rnntk[certify]'."
        ) from error
    return flint


def ntk(
    rnn: ElmanRNN, x: Float[np.ndarray, "n t d"], lengths: Int[np.ndarray, " n"], bits: int
) -> list[list[Ball]]:
    """The tangent kernel of ``rnn``, by rows, in balls that contain its exact entries.

    Exact means: for the tokens and standard deviations as the numbers that their floating-point
    values are; with ``input_scaling="fan_in"`` the multiplier of the tokens is u_std^2 / d.

    Args:
        rnn: a relu, erf or linear network.
        x: tokens.
        lengths: steps of each sequence; rows and columns of the "sequence" readout are the steps
            that exist, sequence after sequence.
        bits: working precision.

    Example:
        >>> import numpy as np, rnntk
        >>> rnn = rnntk.ElmanRNN("linear", w_std=1.0, u_std=1.0)
        >>> ntk(rnn, np.array([[[3.0]]]), np.array([1]), 64)[0][0]  # two groups see 3 * 3
        18.0000000000000
    """
    context = flint().ctx
    with context.workprec(bits):
        return _assemble(rnn, x, [int(length) for length in lengths])


def _assemble(rnn: ElmanRNN, x: np.ndarray, lengths: list[int]) -> list[list[Ball]]:
    arb = flint().arb
    scales, moments = _scales(rnn, x.shape[2]), MOMENTS[rnn.phi.name]()
    sequences = [x[i, :length] for i, length in enumerate(lengths)]
    readings = [sequences, [s[::-1] for s in sequences]] if rnn.bidirectional else [sequences]
    sides = [_prepare(rnn, scales, moments, reading) for reading in readings]
    spread = rnn.readout == "sequence"
    offsets = np.concatenate([[0], np.cumsum(lengths)]).tolist() if spread else range(len(x) + 1)
    size = offsets[len(x)]
    matrix = [[arb(0)] * size for _ in range(size)]
    for i in tqdm(range(len(x)), desc="kernel in ball arithmetic", delay=5):
        for j in range(i + 1):
            for backwards, side in enumerate(sides):
                mean = arb(0)
                for s1, s2, k, b in _cells(rnn, scales, moments, side, i, j):
                    value = scales.v2 * (k + b if "V" in rnn.trainable else b)
                    if not spread:
                        mean += value if i != j or s1 == s2 else 2 * value
                        continue
                    if backwards:
                        s1, s2 = lengths[i] - 1 - s1, lengths[j] - 1 - s2
                    p, q = offsets[i] + s1, offsets[j] + s2
                    matrix[p][q] = matrix[p][q] + value
                    if p != q:
                        matrix[q][p] = matrix[p][q]
                if not spread:
                    count = lengths[i] * lengths[j] if rnn.readout == "mean" else 1
                    matrix[i][j] = matrix[i][j] + mean / count
                    matrix[j][i] = matrix[i][j]
    return matrix


def _scales(rnn: ElmanRNN, d: int) -> Scales:
    stds = (rnn.w_std, rnn.u_std, rnn.b_std, rnn.v_std, rnn.initial_state_std)
    w2, u2, b2, v2, h2 = (flint().arb(float(np.asarray(std))) ** 2 for std in stds)
    return Scales(w2, u2 / d if rnn.input_scaling == "fan_in" else u2, u2, b2, v2, h2)


def _prepare(rnn: ElmanRNN, scales: Scales, moments: Moments, sequences: list[np.ndarray]) -> Side:
    """The recursion of each sequence with itself."""
    arb_mat = flint().arb_mat
    rows = [[arb_mat([token]) for token in np.asarray(s, float).tolist()] for s in sequences]
    columns = [[token.transpose() for token in row] for row in rows]
    variances = []
    for row, column in zip(rows, columns, strict=True):
        states, steps = [scales.h2] * rnn.depth, []
        for left, right in zip(row, column, strict=True):
            drive, step = scales.tokens * (left * right)[0, 0], []
            for layer, state in enumerate(states):
                step.append(scales.w2 * state + drive + scales.b2)
                states[layer] = moments.own(step[-1])[0]
                drive = scales.u2 * states[layer]
            steps.append(step)
        variances.append(steps)
    return Side(rows, columns, variances)


def _diagonals(readout: str, t1: int, t2: int, same: bool) -> Iterator[tuple[int, int]]:
    """First cells of the diagonals that a readout needs; of one sequence with itself, half."""
    if readout == "last":
        yield max(t1 - t2, 0), max(t2 - t1, 0)
        return
    yield from ((s, 0) for s in range(t1))
    if not same:
        yield from ((0, s) for s in range(1, t2))


def _cells(
    rnn: ElmanRNN, scales: Scales, moments: Moments, side: Side, i: int, j: int
) -> Iterator[tuple[int, int, Ball, Ball]]:
    """The cells that the readout sees, with K and B of the top layer."""
    zero = flint().arb(0)
    t1, t2 = len(side.rows[i]), len(side.rows[j])
    for first1, first2 in _diagonals(rnn.readout, t1, t2, i == j):
        common = rnn.initial_state == "shared" or i == j
        begin = scales.h2 if common and first1 == first2 == 0 else zero
        # K and B of each layer
        layers = [(begin, zero)] * rnn.depth
        for s1, s2 in zip(range(first1, t1), range(first2, t2), strict=False):
            token = scales.tokens * (side.rows[i][s1] * side.columns[j][s2])[0, 0]
            _advance(rnn, scales, moments, layers, token, *_variances(side, i, j, s1, s2))
            if rnn.readout != "last" or s1 == t1 - 1:
                yield s1, s2, *layers[-1]


def _variances(
    side: Side, i: int, j: int, s1: int, s2: int
) -> tuple[list[Ball], list[Ball] | None]:
    """Variances of the two steps by layer; the second None where they are one and the same."""
    one = side.variances[i][s1]
    return one, None if i == j and s1 == s2 else side.variances[j][s2]


def _advance(
    rnn: ElmanRNN,
    scales: Scales,
    moments: Moments,
    layers: list[tuple[Ball, Ball]],
    token: Ball,
    one: list[Ball],
    two: list[Ball] | None,
) -> None:
    """One step of all layers, in place."""
    groups, below = rnn.trainable, None
    for layer, (state, back) in enumerate(layers):
        recurrent = scales.w2 * state
        tangent = scales.w2 * back
        if "W" in groups:
            tangent += recurrent
        if "U" in groups:
            tangent += token
        if "b" in groups:
            tangent += scales.b2
        if below is not None:
            tangent += below
        if two is None:
            state, slope = moments.own(one[layer])
        else:
            covariance = recurrent + token + scales.b2
            state, slope = moments.pair(one[layer], two[layer], covariance)
        back = slope * tangent
        layers[layer] = state, back
        token, below = scales.u2 * state, scales.u2 * back


def _linear() -> Moments:
    one = flint().arb(1)
    return Moments(lambda a: (a, one), lambda a1, a2, c: (c, one))


def _relu() -> Moments:
    """Arc-cosine kernels (Cho & Saul 2009) of the angle theta = atan2(s, c), s^2 = a a' - c^2.

    E phi phi' = (s + (pi - theta) c) / (2 pi) has a slope in c between 0 and 1/2, which its ball
    would not show, and nearly equal sequences would lose the digits of 1/theta at every step. So it
    is taken at the midpoint of c, plus half the radius: docs/theory/spectrum.md.
    """
    arb = flint().arb
    zero, half, pi = arb(0), arb(1) / 2, arb.pi()
    turn = 1 / (2 * pi)

    def angle(area: Ball, c: Ball) -> tuple[Ball, Ball, bool]:
        """s, pi - theta, and whether s is known to be positive."""
        square = area - c * c  # not negative, but its ball may reach below
        apart = square > 0
        s = square.sqrt() if apart else square.abs_upper().sqrt().union(zero)
        # away from the branch cut
        return s, pi - arb.atan2(s, c) if c > 0 else arb.atan2(s, -c), apart

    def pair(a1: Ball, a2: Ball, c: Ball) -> tuple[Ball, Ball]:
        if a1.is_zero() or a2.is_zero():
            # every tangent kernel that the slope multiplies is zero as well
            return zero, half
        area, middle = a1 * a2, c.mid()
        s, psi, apart = angle(area, middle)
        if apart or not middle > 0:
            state = (s + psi * middle) * turn
        else:
            # s - theta c <= (pi/2)^3 s^3 / (3 c^2) < 1.3 s^3 / c^2
            rest = 13 * s.abs_upper() ** 3 / (10 * middle * middle)
            state = middle / 2 + rest.abs_upper().union(zero) * turn
        return state + half * (c - middle), angle(area, c)[1] * turn

    return Moments(lambda a: (a / 2, half), pair)


def _erf() -> Moments:
    """Arcsine kernel (Williams 1997)."""
    arb = flint().arb
    two = 2 / arb.pi()

    def own(a: Ball) -> tuple[Ball, Ball]:
        root = (1 + 4 * a).sqrt()
        return two * arb.atan2(2 * a, root), 2 * two / root

    def pair(a1: Ball, a2: Ball, c: Ball) -> tuple[Ball, Ball]:
        root = ((1 + 2 * a1) * (1 + 2 * a2) - 4 * c * c).sqrt()
        return two * arb.atan2(2 * c, root), 2 * two / root

    return Moments(own, pair)


MOMENTS: dict[str, Callable[[], Moments]] = {"relu": _relu, "erf": _erf, "linear": _linear}
