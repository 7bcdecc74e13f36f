"""Bounds on the smallest eigenvalue of the NTK, without small norms, and what follows from it.

docs/theory/bounds.md states and proves each. All need one thing of the data: that no two of the
last pre-activations are parallel. ``lower`` and ``upper`` have the bounds, ``rounded`` and
``enclosed`` the two arithmetics that they are evaluated in.
"""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float

from rnntk import checks
from rnntk.bounds.arithmetic import Arithmetic, Matrix
from rnntk.bounds.enclosed import Enclosed
from rnntk.bounds.lower import kernel, lower_bounds, read
from rnntk.bounds.rounded import Rounded
from rnntk.bounds.upper import upper_bounds
from rnntk.infinite.kernel import infinite_kernel
from rnntk.network.elman import ElmanRNN
from rnntk.spectrum import ball_kernel

Ends = tuple[dict[str, float], dict[str, float]]  # lower and upper bounds by name


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
            arithmetic, which needs python-flint (the extra ``certify``) and a leaky_relu or an
            activation by name but elu. Otherwise they are computed in float64 from the kernel in
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
            checks.check_batch(x, None)
        lower, upper = _rigorous(rnn, np.asarray(x, np.float64))
    else:
        tokens, _ = checks.check_batch(x, None)
        ntk = np.asarray(infinite_kernel(rnn, tokens).ntk, np.float64)
        points = len(tokens) * rnn.r.outputs(tokens.shape[1])
        real = Rounded.of(rnn, tokens)
        lower, upper = _evaluated(rnn, tokens, real, ntk.reshape(points, points))
    alone = "needs two or more points"
    left_out = {name: alone for name in ("pair", "residual") if name not in upper}
    return Bounds(lower, upper, left_out, rigorous)


def _evaluated(rnn: ElmanRNN, x: Float[Any, "n t d"], real: Arithmetic, ntk: Matrix | None) -> Ends:
    """All bounds in one arithmetic, in which the kernel is computed unless it is given."""
    readings = (x, x[:, ::-1])[: 1 + rnn.bidirectional]
    directions = [read(rnn, real.frames(rnn, tokens), len(x), real) for tokens in readings]
    ntk = kernel(rnn, directions, len(x), real) if ntk is None else ntk
    return lower_bounds(rnn, directions, len(x), real), upper_bounds(ntk, real)


def _rigorous(rnn: ElmanRNN, x: Float[np.ndarray, "n t d"]) -> Ends:
    """At a precision that is raised until the balls are finite and some lower bound is positive."""
    ball_kernel.check_supported(rnn)
    flint = ball_kernel.flint()
    bits = ball_kernel.FIRST_BITS
    while True:
        last = 2 * bits > ball_kernel.MAX_BITS
        try:
            with flint.ctx.workprec(bits):
                lower, upper = _evaluated(rnn, x, Enclosed(flint), None)
        except FloatingPointError:
            if last:
                raise
        else:
            if last or max(lower.values()) > 0:
                return lower, upper
        bits *= 2
