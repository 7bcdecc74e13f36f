"""The exact infinite-width NTK in ball arithmetic (python-flint): every entry with its radius.

The recursion of docs/theory/infinite.md in covariances, cell by cell. Here digits that cancel are
bought with precision, so that nothing needs to be carried apart.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from tqdm import tqdm

from rnntk.activations.activation import BallMoments
from rnntk.activations.registry import NAMES, resolve
from rnntk.linalg import enclosure
from rnntk.network.elman import ElmanRNN

FIRST_BITS, MAX_BITS = 128, 1024  # of precision: where to begin, and where to give up
Ball = Any  # flint.arb


class Scales(NamedTuple):
    """Squared multipliers, exact numbers squared in ball arithmetic."""

    w2: Ball
    tokens: Ball  # of the first layer's input weights
    u2: Ball  # of the deeper layers'
    b2: Ball
    v2: Ball
    h2: Ball


class Side(NamedTuple):
    """Sequences read in one direction, and all that their recursion needs."""

    rnn: ElmanRNN
    scales: Scales
    moments: BallMoments
    tokens: list[np.ndarray]
    rows: list[list[Any]]
    columns: list[list[Any]]  # tokens as rows and as columns of ball matrices
    variances: list[list[list[Ball]]]  # sequence, step, layer


class Cell(NamedTuple):
    """Two steps of two sequences in one layer.

    Attributes:
        signal: covariance L of the pre-activations.
        tangent: their tangent kernel T.
        state: covariance K of the states.
        slope: E of the derivatives' product, Kd.
    """

    signal: Ball
    tangent: Ball
    state: Ball
    slope: Ball


def flint() -> Any:
    """The python-flint package.

    Raises:
        ImportError: naming the extra, where it is not installed.
    """
    try:
        import flint
    except ImportError as error:
        raise ImportError(
            "Ball arithmetic needs python-flint: install the extra, pip install 'rnntk[certify]'."
        ) from error
    return flint


def check_supported(rnn: ElmanRNN) -> None:
    """Refuse activations whose moments have no ball arithmetic.

    Raises:
        ValueError: naming the activation and those that are covered.
    """
    if rnn.phi.balls is None:
        covered = [name for name in NAMES if resolve(name).balls]
        raise ValueError(
            f"activation must be {', '.join(covered)} or leaky_relu for proved enclosures, "
            f"got {rnn.phi.name!r}."
        )


def moments(rnn: ElmanRNN) -> BallMoments:
    """Those of the activation of a network that :func:`check_supported` lets pass."""
    assert rnn.phi.balls is not None
    return rnn.phi.balls(flint())


def ntk(
    rnn: ElmanRNN, x: Float[np.ndarray, "n t d"], lengths: Int[np.ndarray, " n"], bits: int
) -> list[list[Ball]]:
    """The tangent kernel of ``rnn``, by rows, in balls that contain its exact entries.

    Exact means: for the tokens and standard deviations as the numbers that their floating-point
    values are; with ``input_scaling="fan_in"`` the multiplier of the tokens is u_std^2 / d.

    Args:
        rnn: a network that :func:`check_supported` lets pass.
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
    sequences = [x[i, :length] for i, length in enumerate(lengths)]
    readings = [sequences, [s[::-1] for s in sequences]] if rnn.bidirectional else [sequences]
    sides = [prepare(rnn, reading) for reading in readings]
    spread, v2 = rnn.readout == "sequence", sides[0].scales.v2
    offsets = np.concatenate([[0], np.cumsum(lengths)]).tolist() if spread else range(len(x) + 1)
    size = offsets[len(x)]
    matrix = [[arb(0)] * size for _ in range(size)]
    for i in tqdm(range(len(x)), desc="kernel in ball arithmetic", delay=5):
        for j in range(i + 1):
            for backwards, side in enumerate(sides):
                mean = arb(0)
                for s1, s2, _, layers in cells(side, i, j):
                    if rnn.readout == "last" and s1 < lengths[i] - 1:
                        continue
                    top = layers[-1]
                    back = top.slope * top.tangent
                    value = v2 * (top.state + back if "V" in rnn.trainable else back)
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


def prepare(rnn: ElmanRNN, sequences: list[np.ndarray]) -> Side:
    """Sequences (t, d) with the recursion of each with itself, at the working precision."""
    arb_mat, scales, phi = flint().arb_mat, _scales(rnn, sequences[0].shape[1]), moments(rnn)
    rows = [[arb_mat([token]) for token in np.asarray(s, float).tolist()] for s in sequences]
    columns = [[token.transpose() for token in row] for row in rows]
    variances = []
    for row, column in zip(rows, columns, strict=True):
        states, steps = [scales.h2] * rnn.depth, []
        for left, right in zip(row, column, strict=True):
            drive, step = scales.tokens * (left * right)[0, 0], []
            for layer, state in enumerate(states):
                step.append(scales.w2 * state + drive + scales.b2)
                states[layer] = phi.own(step[-1])[0]
                drive = scales.u2 * states[layer]
            steps.append(step)
        variances.append(steps)
    return Side(rnn, scales, phi, sequences, rows, columns, variances)


def _scales(rnn: ElmanRNN, d: int) -> Scales:
    stds = (rnn.w_std, rnn.u_std, rnn.b_std, rnn.v_std, rnn.initial_state_std)
    w2, u2, b2, v2, h2 = (flint().arb(float(np.asarray(std))) ** 2 for std in stds)
    return Scales(w2, u2 / d if rnn.input_scaling == "fan_in" else u2, u2, b2, v2, h2)


def _diagonals(readout: str, t1: int, t2: int, same: bool) -> Iterator[tuple[int, int]]:
    """First cells of the diagonals that a readout needs; of one sequence with itself, half."""
    if readout == "last":
        yield max(t1 - t2, 0), max(t2 - t1, 0)
        return
    yield from ((s, 0) for s in range(t1))
    if not same:
        yield from ((0, s) for s in range(1, t2))


def _common(side: Side, i: int, j: int) -> int:
    """How many steps two sequences have seen the same, so that their correlation is 1, exactly.

    A ball around 1 would lose half of its digits.
    """
    one, two = side.tokens[i], side.tokens[j]
    if i == j:
        return len(one)
    if side.rnn.initial_state == "independent":
        return 0
    t = min(len(one), len(two))
    equal = (one[:t] == two[:t]).all(axis=1)
    return t if equal.all() else int(np.argmin(equal))


def cells(side: Side, i: int, j: int) -> Iterator[tuple[int, int, bool, list[Cell]]]:
    """All cells that the readout depends on, diagonal by diagonal.

    Yields:
        The two steps, whether all up to them is the same, and the layers.
    """
    rnn, scales, zero = side.rnn, side.scales, flint().arb(0)
    t1, t2 = len(side.rows[i]), len(side.rows[j])
    common = _common(side, i, j)
    for first1, first2 in _diagonals(rnn.readout, t1, t2, i == j):
        started = rnn.initial_state == "shared" or i == j
        begin = scales.h2 if started and first1 == first2 == 0 else zero
        layers = [Cell(zero, zero, begin, zero)] * rnn.depth
        for s1, s2 in zip(range(first1, t1), range(first2, t2), strict=False):
            token = scales.tokens * (side.rows[i][s1] * side.columns[j][s2])[0, 0]
            same = s1 == s2 < common
            two = None if same else side.variances[j][s2]
            layers = _advance(side, layers, token, side.variances[i][s1], two)
            yield s1, s2, same, layers


def _advance(
    side: Side, layers: list[Cell], token: Ball, one: list[Ball], two: list[Ball] | None
) -> list[Cell]:
    """One step of all layers; ``two`` is None where all up to it is the same."""
    scales, groups, below, after = side.scales, side.rnn.trainable, None, []
    for number, before in enumerate(layers):
        recurrent = scales.w2 * before.state
        tangent = scales.w2 * (before.slope * before.tangent)
        if "W" in groups:
            tangent += recurrent
        if "U" in groups:
            tangent += token
        if "b" in groups:
            tangent += scales.b2
        if below is not None:
            tangent += scales.u2 * (below.slope * below.tangent)
        if two is None:
            signal = one[number]
            state, slope = side.moments.own(signal)
        else:
            signal = recurrent + token + scales.b2
            state, slope = side.moments.pair(one[number], two[number], signal)
        below = Cell(signal, tangent, state, slope)
        after.append(below)
        token = scales.u2 * state
    return after


def rounded(matrix: Any) -> tuple[Float[np.ndarray, "n n"], float, int]:
    """A symmetric ball matrix, by rows, as float64 numbers times a power of two.

    Returns:
        The numbers, a bound in the Frobenius norm on what separates them from any symmetric matrix
        in the balls, infinite if there is none, and the exponent of two.

    Example:
        >>> middle, radius, power = rounded([[flint().arb(3.0)]])
        >>> middle.tolist(), radius < 1e-150, power
        ([[0.75]], True, 2)
    """
    n, arb = len(matrix), flint().arb
    middle, error = np.zeros((2, n, n))
    if not all(v.is_finite() for row in matrix for v in row):
        return middle, math.inf, 0
    power = max(_exponent(matrix[i][i].abs_upper()) for i in range(n))
    scale = arb(2) ** -power
    for i in range(n):
        for j in range(i + 1):
            v = matrix[i][j] * scale
            middle[i, j] = middle[j, i] = float(v.mid())
            # the conversion rounds to a neighbour
            gap = math.nextafter(float((v - arb(middle[i, j])).abs_upper()), math.inf)
            error[i, j] = error[j, i] = gap
    if not np.isfinite(middle).all() or not np.isfinite(error).all():
        return middle, math.inf, 0
    return middle, enclosure.round_up(enclosure.frobenius_norm(error)), power


def _exponent(v: Any) -> int:
    """Of an exact number, so that v < 2^exponent."""
    mantissa, exponent = v.man_exp()
    return int(exponent) + int(mantissa).bit_length()
