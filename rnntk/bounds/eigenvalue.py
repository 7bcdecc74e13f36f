"""Bounds on the smallest eigenvalue of the NTK, without small norms, and what follows from it.

docs/theory/bounds.md states and proves each. All need one thing of the data: that no two of the
last pre-activations are parallel.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import jax
import numpy as np
import scipy.linalg
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from rnntk import sequences
from rnntk.bounds import lower as below
from rnntk.bounds.arithmetic import Enclosed, frames
from rnntk.infinite import marginals
from rnntk.infinite.kernel import infinite_kernel
from rnntk.infinite.preactivations import Preactivation, preactivation_grid, preactivations
from rnntk.network.elman import ElmanRNN
from rnntk.spectrum import ball_kernel


@dataclass(frozen=True)
class Bounds:
    """Lower and upper bounds on one smallest eigenvalue.

    Attributes:
        lower: lower bounds by name.
        upper: upper bounds by name.
        left_out: names that are not defined for the network or the data, each with the reason.
        rigorous: whether the values are proved bounds for the exact kernel of the given numbers,
            all rounding included.
    """

    lower: dict[str, float]
    upper: dict[str, float]
    left_out: dict[str, str]
    rigorous: bool


def min_eigenvalue(
    rnn: ElmanRNN, x: Float[ArrayLike, "n t d"], *, rigorous: bool = False
) -> Bounds:
    r"""Bounds on the smallest eigenvalue of ``infinite_kernel(rnn, x).ntk``.

    For any activation, depth, readout, reading direction, initial state and trained groups. With
    :math:`R` the correlations of the last pre-activations, :math:`L` their covariance, :math:`T`
    their tangent kernel, :math:`K` and :math:`\dot K` the moments of the activation and of its
    derivative, so that the kernel is :math:`v^2 (K + \dot K \circ T)`; for the "mean" and
    "sequence" readouts the points are all steps of all sequences. Lower bounds that take
    eigenvalues:

    - ``"schur"``: :math:`\lambda(K) + \max(\min_i \dot K_{ii} \lambda(T), \min_i T_{ii}
      \lambda(\dot K))`, by Schur's product theorem;
    - ``"schur_series"``: the same for every Hadamard power in the series of :math:`\dot K`;
    - ``"schur_both"``: :math:`\lambda(K) + \min_i (\lambda(T) \dot K_{ii} + \lambda(\dot K) T_{ii}
      - \lambda(T) \lambda(\dot K))`, at or above both of the former;
    - ``"schur_split"``: the four lowest powers of :math:`\dot K`'s series kept as they are,
      ``"schur_both"`` for the rest: the tightest, within a few per cent on generic data;
    - ``"schur_time"``: :math:`\lambda(K) + \min_i \dot K_{ii} \tau_i` with :math:`\tau` summed
      along time from the smallest eigenvalues of L at every step.

    Lower bounds in closed form, without eigenvalues:

    - ``"series"``: every Hadamard power bounded by Gershgorin's theorem;
    - ``"separation"``: the same with every row sum replaced by :math:`(n - 1) \rho^k`,
      :math:`\rho = \max_{i \ne j} |R_{ij}|`: a function of n, :math:`\rho`, :math:`L_{ii}` and
      :math:`T_{ii}`;
    - ``"series_time"``, ``"separation_time"``: the former at every step, carried through the
      recursion of :math:`T` by ``"schur_both"``.

    Upper bounds: ``"diagonal"``, the smallest diagonal entry; ``"pair"``, the smallest eigenvalue
    of any two points; ``"residual"``, the squared distance of one point's gradient from a mixture
    c of the others', over :math:`1 + |c|^2`.

    Args:
        rnn: the network.
        x: tokens, sequences of one length; float32 or float64.
        rigorous: round every value to the safe side: the kernel's entries are enclosed in ball
            arithmetic, which needs python-flint (the extra ``certify``) and relu, leaky_relu, abs,
            linear, erf, gelu, sin or cos. Otherwise they are computed in float64 from the kernel in
            the dtype of ``x``, with allowances for its rounding, n eps of the eigenvalues that
            enter, which are estimates.

    Raises:
        ValueError: for bad tokens, and with ``rigorous`` for another activation.
        TypeError: for tokens that are not floating point.
        FloatingPointError: where the kernel leaves the range of the dtype, or its enclosure is
            not finite at 1024 bits.
        ImportError: for ``rigorous`` without python-flint.

    Example:
        >>> import jax, rnntk
        >>> x = jax.random.normal(jax.random.key(0), (5, 4, 3))
        >>> bounds = rnntk.bounds.min_eigenvalue(rnntk.ElmanRNN(), x)
        >>> 0 < bounds.lower["separation"] <= bounds.lower["schur_split"] <= bounds.upper["pair"]
        True
    """
    if rigorous:
        # not the JAX array, which is float32 where x64 is off
        with jax.enable_x64(True):
            sequences.check_batch(x, None)
        lower, upper = _rigorous(rnn, np.asarray(x, np.float64))
    else:
        tokens, _ = sequences.check_batch(x, None)
        n, t, _ = tokens.shape
        kernel = infinite_kernel(rnn, tokens).ntk
        points = n * t if rnn.readout == "sequence" else n
        ntk = np.asarray(kernel, np.float64).reshape(points, points)
        real = _Rounded(float(np.finfo(kernel.dtype).eps), _roundings(rnn, tokens))
        orders = (tokens, sequences.reverse(tokens, None))[: 1 + rnn.bidirectional]
        directions = [below.read(rnn, _frames(rnn, order, real), n, real) for order in orders]
        lower = below.lower_bounds(rnn, directions, n, real)
        upper = real.upper_bounds(ntk)
    alone = "needs two or more points"
    left_out = {name: alone for name in ("pair", "residual") if name not in upper}
    return Bounds(lower, upper, left_out, rigorous)


def _rigorous(
    rnn: ElmanRNN, x: Float[np.ndarray, "n t d"]
) -> tuple[dict[str, float], dict[str, float]]:
    """At a precision that is raised until the balls are finite and some lower bound is positive."""
    ball_kernel.check_supported(rnn)
    ball_kernel.flint()
    bits = ball_kernel.FIRST_BITS
    while True:
        last = 2 * bits > ball_kernel.MAX_BITS
        try:
            lower, upper = _enclosed(rnn, x, bits)
        except FloatingPointError:
            if last:
                raise
        else:
            if last or max(lower.values()) > 0:
                return lower, upper
        bits *= 2


def _enclosed(
    rnn: ElmanRNN, x: Float[np.ndarray, "n t d"], bits: int
) -> tuple[dict[str, float], dict[str, float]]:
    n, flint = len(x), ball_kernel.flint()
    with flint.ctx.workprec(bits):
        real = Enclosed(flint)
        directions = [
            below.read(rnn, frames(rnn, order), n, real)
            for order in (x, x[:, ::-1])[: 1 + rnn.bidirectional]
        ]
        v2 = real.number(rnn.v_std) ** 2
        kernels = []
        for i, direction in enumerate(directions):
            top = direction.top
            one = top.slope * top.tangent + ("V" in rnn.trainable) * top.covariance
            kernels.append(v2 * below.readout(rnn, one, n, i == 1))
        lower = below.lower_bounds(rnn, directions, n, real)
        return lower, real.upper_bounds(below.total(kernels))


@dataclass(frozen=True)
class _Rounded:
    """Arithmetic of :mod:`rnntk.bounds.lower` in float64, for entries known to ``eps``."""

    eps: float
    steps: float  # allowance for the recursion, in roundings

    def number(self, value: ArrayLike) -> float:
        return float(np.asarray(value))

    def floats(self, values: np.ndarray) -> np.ndarray:
        return np.asarray(values, np.float64)

    def smallest(self, matrix: np.ndarray, size: float = 0.0) -> float:
        values = scipy.linalg.eigvalsh(matrix)
        size = max(size, abs(values[0]), abs(values[-1]))
        return float(values[0] - (len(matrix) + self.steps) * self.eps * size)

    def least(self, values: np.ndarray) -> float:
        return float(np.min(values))

    def down(self, value: float) -> float:
        return value - self.steps * self.eps * abs(value)

    def upper_bounds(self, ntk: Float[np.ndarray, "n n"]) -> dict[str, float]:
        n, diagonal, rounding = len(ntk), np.diagonal(ntk), self.steps * self.eps
        bounds = {"diagonal": float(diagonal.min()) * (1 + rounding)}
        if n > 1:
            half_gap = (diagonal[:, None] - diagonal) / 2
            mean = (diagonal[:, None] + diagonal) / 2
            # a negative difference is rounding: what remains is the allowance, never 0
            pairs = np.maximum(mean - np.hypot(half_gap, ntk), 0) + mean * rounding
            bounds["pair"] = float(pairs[~np.eye(n, dtype=bool)].min())
            vector = below.residual(ntk)
            # an entry is known to eps times the mean of its two diagonal entries
            size = float(np.abs(vector) @ diagonal * np.abs(vector).sum())
            quotient = max(float(vector @ ntk @ vector) / float(vector @ vector), 0.0)
            bounds["residual"] = quotient + (n * self.eps + rounding) * size
        return bounds


def _roundings(rnn: ElmanRNN, x: Float[Array, "n t d"]) -> float:
    """Of the recursion: eight a step, which opposite sequences of large variance can amplify."""
    steps = 8.0 * x.shape[1] * rnn.depth
    if rnn.phi.homogeneous:
        return steps
    largest = max(float(layer.std.max()) for layer in marginals.prepare(rnn, x, None).layers)
    return steps * max(1.0, largest**2 / 10)


def _frames(
    rnn: ElmanRNN, x: Float[Array, "n t d"], real: _Rounded
) -> Iterator[tuple[below.Points, ...]]:
    """The recursion's matrices on the host, in float64."""
    steps = preactivations(rnn, x) if rnn.readout == "last" else [preactivation_grid(rnn, x)]
    for layers in steps:
        yield tuple(_points(rnn, layer, real) for layer in layers)


def _points(rnn: ElmanRNN, layer: Preactivation, real: _Rounded) -> below.Points:
    std, angle, tangent, covariance, slope = (np.asarray(v, np.float64) for v in layer)
    scale = np.outer(std, std)
    half = np.clip(np.where(scale > 0, angle / np.where(scale > 0, 4 * scale, 1), 0.5), 0, 1)
    np.fill_diagonal(half, 0)  # sin^2 of half the angle
    # in which rounding is relative to its root, as distances come from differences of vectors
    near = np.minimum(half, 1 - half)
    allowed = near - 2 * real.steps * real.eps * np.sqrt(near)
    with np.errstate(divide="ignore"):
        decay = np.maximum(0.0, -np.log1p(-2 * np.clip(allowed, 0, 0.5)))
    np.fill_diagonal(decay, np.inf)
    if rnn.phi.homogeneous:  # whose angle with a pre-activation 0 counts as 0 elsewhere
        apart = (scale == 0) & ~np.eye(len(std), dtype=bool)
        slope = np.where(apart, (sum(rnn.phi.slopes or ()) / 2) ** 2, slope)
    return below.Points(std**2, scale - angle / 2, 1 - 2 * half, decay, tangent, covariance, slope)
