"""Bounds on the smallest eigenvalue of the NTK, without small norms, and what follows from it.

docs/theory/bounds.md states and proves each. All need one thing of the data: that no two of the
last pre-activations are parallel.
"""

import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, SupportsIndex

import jax
import numpy as np
import scipy.linalg
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray, Real
from tqdm import tqdm

from rnntk import balls, gram, powers, rump, schur, sequences, single, spectrum
from rnntk.elman import ElmanRNN
from rnntk.empirical import empirical_kernel
from rnntk.infinite import infinite_kernel
from rnntk.preactivations import Preactivation, preactivation_grid, preactivations
from rnntk.rigorous import Enclosed, frames


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
            linear or erf. Otherwise they are computed in float64 from the kernel in the dtype of
            ``x``, with allowances for its rounding, n eps of the eigenvalues that enter, which are
            estimates.

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
        directions = [schur.read(rnn, _frames(rnn, order, real), n, real) for order in orders]
        lower = schur.lower_bounds(rnn, directions, n, real)
        upper = real.upper_bounds(ntk)
    alone = "needs two or more points"
    left_out = {name: alone for name in ("pair", "residual") if name not in upper}
    return Bounds(lower, upper, left_out, rigorous)


def _rigorous(
    rnn: ElmanRNN, x: Float[np.ndarray, "n t d"]
) -> tuple[dict[str, float], dict[str, float]]:
    """At a precision that is raised until the balls are finite and some lower bound is positive."""
    balls.check_supported(rnn)
    balls.flint()
    bits = balls.FIRST_BITS
    while True:
        last = 2 * bits > balls.MAX_BITS
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
    n, flint = len(x), balls.flint()
    with flint.ctx.workprec(bits):
        real = Enclosed(flint)
        directions = [
            schur.read(rnn, frames(rnn, order), n, real)
            for order in (x, x[:, ::-1])[: 1 + rnn.bidirectional]
        ]
        v2 = real.number(rnn.v_std) ** 2
        kernels = []
        for i, direction in enumerate(directions):
            top = direction.top
            one = top.slope * top.tangent + ("V" in rnn.trainable) * top.covariance
            kernels.append(v2 * schur.readout(rnn, one, n, i == 1))
        lower = schur.lower_bounds(rnn, directions, n, real)
        return lower, real.upper_bounds(schur.total(kernels))


@dataclass(frozen=True)
class _Rounded:
    """Arithmetic of :mod:`rnntk.schur` in float64, with allowances for entries known to ``eps``."""

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
            vector = schur.residual(ntk)
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
    largest = max(float(layer.std.max()) for layer in single.prepare(rnn, x, None).layers)
    return steps * max(1.0, largest**2 / 10)


def _frames(
    rnn: ElmanRNN, x: Float[Array, "n t d"], real: _Rounded
) -> Iterator[tuple[schur.Points, ...]]:
    """The recursion's matrices on the host, in float64."""
    steps = preactivations(rnn, x) if rnn.readout == "last" else [preactivation_grid(rnn, x)]
    for layers in steps:
        yield tuple(_points(rnn, layer, real) for layer in layers)


def _points(rnn: ElmanRNN, layer: Preactivation, real: _Rounded) -> schur.Points:
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
        slope = np.where(apart, powers.parts(rnn.phi)[0] ** 2, slope)
    return schur.Points(std**2, scale - angle / 2, 1 - 2 * half, decay, tangent, covariance, slope)


@dataclass(frozen=True)
class Generalization:
    """A bound on the test loss, up to the constant of its second term.

    Attributes:
        bound: ``leading + confidence``, for each target.
        leading: sqrt(2 y' K^-1 y / n), for each target.
        confidence: sqrt(log(n / (lmin delta)) / n).
        complexity: y' K^-1 y, for each target.
        complexity_error: what the computed complexity may be off by, for each target; the rounding
            of K's entries to a dtype below float64 is part of it.
        min_eigenvalue: of K, with its interval.
        source: where the form comes from, and what is not known of it.
    """

    bound: Float[np.ndarray, "..."]
    leading: Float[np.ndarray, "..."]
    confidence: float
    complexity: Float[np.ndarray, "..."]
    complexity_error: Float[np.ndarray, "..."]
    min_eigenvalue: spectrum.MinEigenvalue
    source: str


SOURCE = (
    "Arora, Du, Hu, Li, Wang (2019), theorem 5.1, for two-layer networks, losses that are "
    "1-Lipschitz and at most 1, and small initial outputs; Wang, Shen, Hu, Cao (2021) carry the "
    "form to recurrent networks. The theorem leaves the constant of the second term open: here 1."
)


def generalization(
    K: Float[ArrayLike, "n n"], y: Real[ArrayLike, "n ..."], delta: float = 0.05
) -> Generalization:
    r"""Test loss of a wide network trained to fit n samples, with probability at least 1 - delta.

    .. math::

        \sqrt{2\, y^\top K^{-1} y / n} + O\bigl(\sqrt{\log(n / (\lambda \delta)) / n}\bigr)

    (Arora et al. 2019, theorem 5.1). Scale matters: their kernel is that of the trained groups,
    with inputs of norm 1 and labels of size at most 1, and its diagonal is 1/2. The second term
    depends on that scale through a logarithm alone, the first as its inverse root.

    The quadratic form is solved by Cholesky with one step of refinement, in extended precision
    (NumPy's ``longdouble``) where the machine has one. Its error counts the residual, the rounding
    of the residual, and that of K's own entries: docs/theory/bounds.md.

    Args:
        K: symmetric kernel matrix (n, n) of the training samples.
        y: targets (n,), or (n, o) for o tasks that are bounded one by one.
        delta: probability with which the bound may fail, in (0, 1).

    Raises:
        ValueError: if K is not resolved (its smallest eigenvalue could be rounding, see
            :func:`rnntk.spectrum.min_eigenvalue`), not symmetric or not finite; if y does not fit
            it or is not finite; if delta is not in (0, 1).
        TypeError: if K is not floating point.
        FloatingPointError: if y' K^-1 y exceeds the range of float64.

    Example:
        >>> import numpy as np, rnntk
        >>> result = rnntk.bounds.generalization(np.eye(100) / 2, np.ones(100))
        >>> round(float(result.leading), 6), round(result.confidence, 6)
        (2.0, 0.287994)
    """
    A, relative, absolute = gram.with_uncertainty(K)
    targets, n = np.asarray(y), len(A)
    if targets.ndim not in (1, 2) or len(targets) != n or targets.dtype.kind not in "fiu":
        raise ValueError(
            f"y must hold a number, or a row of numbers, for each of the {n} rows of K, got "
            f"{targets.dtype} of shape {targets.shape}."
        )
    columns = targets.reshape(n, -1).astype(np.float64)
    if not np.isfinite(columns).all():
        raise ValueError("y must be finite, got NaN or infinity.")
    if not 0 < delta < 1:
        raise ValueError(f"delta must lie between 0 and 1, got {delta}.")
    smallest = _resolved(K, "K")
    # powers of two keep all that follows in range
    scaled, power = rump.rescaled(A, float(np.abs(A).max()))
    powers_y = np.frexp(np.abs(columns).max(axis=0))[1]
    lower, absolute = (math.ldexp(v, power) for v in (smallest.lower, absolute))
    value, error = _quadratic_form(scaled, np.ldexp(columns, -powers_y), lower, relative, absolute)
    with np.errstate(over="ignore"):
        value, error = (np.ldexp(v, 2 * powers_y + power) for v in (value, error))
    if not np.isfinite(value + error).all():
        raise FloatingPointError("y' K^-1 y exceeds the range of float64: rescale K or y.")
    error += np.finfo(np.float64).smallest_subnormal
    complexity, error = (v.reshape(targets.shape[1:]) for v in (value, error))
    leading = np.asarray(np.sqrt(2 * np.maximum(complexity / n, 0)))
    logarithm = math.log(n) - math.log(smallest.lower) - math.log(delta)
    confidence = math.sqrt(max(0.0, logarithm) / n)
    return Generalization(
        np.asarray(leading + confidence), leading, confidence, complexity, error, smallest, SOURCE
    )


def _quadratic_form(
    K: np.ndarray, y: np.ndarray, lower: float, relative: float, absolute: float
) -> tuple[np.ndarray, np.ndarray]:
    """y' K^-1 y for each column, and its error, as docs/theory/bounds.md derives it.

    ``lower`` bounds the smallest eigenvalue of every matrix within ``relative`` of the entries of K
    and ``absolute`` in the spectral norm.
    """
    factor = scipy.linalg.cho_factor(K, lower=True)
    s = scipy.linalg.cho_solve(factor, y).astype(np.longdouble)
    wide = K.astype(np.longdouble)
    s = s + scipy.linalg.cho_solve(factor, (y - wide @ s).astype(np.float64))
    r = y - wide @ s
    value = np.sum((y + r) * s, axis=0).astype(np.float64)
    rounding = (len(K) + 2) * np.finfo(np.longdouble).eps
    size = np.abs(s)
    spread = np.abs(K) @ size.astype(np.float64)
    gap = rounding * (np.abs(y) + spread) + relative * spread + np.finfo(np.float64).tiny
    lost = absolute * np.linalg.norm(s.astype(np.float64), axis=0)
    error = np.sum(size * (gap + rounding * (np.abs(y) + np.abs(r))), axis=0)
    error += lost * np.linalg.norm(s.astype(np.float64), axis=0) + 2.0**-53 * np.abs(value)
    left = np.linalg.norm((np.abs(r) + gap).astype(np.float64), axis=0) + lost
    error = error.astype(np.float64) + left**2 / lower
    return value, error * (1 + 2.0**-30)  # for what the error itself loses


@dataclass(frozen=True)
class FiniteWidth:
    """How far kernels of finite width are from their limit, and what follows for lmin.

    Attributes:
        widths: the widths measured, ascending; the last is the one asked for.
        deviations: ||ntk_m - ntk||_2, shape (widths, seeds).
        relative: ||ntk^(-1/2) ntk_m ntk^(-1/2) - I||_2, likewise.
        slopes: of the logarithms of the two, medians over the seeds, against log width; the law
            is -1/2.
        limit: lmin of the infinite-width NTK.
        measured: lmin(ntk_m) at the width asked for, shape (seeds,).
        interval: what the networks at that width imply for lmin(ntk_m): within limit -+ the
            largest deviation (Weyl), and within limit times the extreme eigenvalues of
            ntk^(-1/2) ntk_m ntk^(-1/2) (Ostrowski). It contains all of ``measured``, and other
            draws as far as the seeds represent them.
        half_width: the width beyond which lmin(ntk_m) is at least half of ``limit``, by the law
            and the medians at the width asked for, the smaller of the two that the deviations
            give: an extrapolation, not a measurement.
    """

    widths: tuple[int, ...]
    deviations: Float[np.ndarray, "w s"]
    relative: Float[np.ndarray, "w s"]
    slopes: tuple[float, float]
    limit: float
    measured: Float[np.ndarray, " s"]
    interval: tuple[float, float]
    half_width: float


def finite_width(
    rnn: ElmanRNN,
    x: Float[ArrayLike, "n t d"],
    width: SupportsIndex,
    *,
    key: PRNGKeyArray,
    seeds: SupportsIndex = 8,
) -> FiniteWidth:
    r"""The smallest eigenvalue at width m, from measured deviations and the law of their decrease.

    :math:`|\lambda(\mathrm{ntk}_m) - \lambda(\mathrm{ntk})| \le \|\mathrm{ntk}_m -
    \mathrm{ntk}\|_2` (Weyl), which falls like :math:`m^{-1/2}`. Most of the deviation lies along
    the large eigenvalues, so that the relative one, by Ostrowski's theorem, says more. Both are
    measured at ``width``, at a half and at a quarter of it.

    Args:
        rnn: the network.
        x: tokens, sequences of one length.
        width: number of hidden units m, at least 4.
        key: draws the networks.
        seeds: networks for each width, at least 2.

    Raises:
        ValueError: for a width below 4, fewer than two seeds, bad tokens, or a kernel whose
            smallest eigenvalue could be rounding.
        TypeError: for tokens that are not floating point, numbers that are not whole, or a key that
            is none.

    Example:
        >>> import jax, rnntk
        >>> x = jax.random.normal(jax.random.key(0), (5, 4, 3))
        >>> result = rnntk.bounds.finite_width(
        ...     rnntk.ElmanRNN(), x, 64, key=jax.random.key(1), seeds=2)
        >>> result.widths, bool((result.measured >= result.interval[0]).all())
        ((16, 32, 64), True)
    """
    width, count = _whole("width", width, 4), _whole("seeds", seeds, 2)
    if not isinstance(key, jax.Array):
        raise TypeError(f"key must be a JAX key, such as jax.random.key(0), got {key!r}.")
    tokens, _ = sequences.check_batch(x, None)
    kernel = np.asarray(infinite_kernel(rnn, tokens).ntk)
    side = math.isqrt(kernel.size)
    kernel = kernel.reshape(side, side)
    smallest = _resolved(kernel, "the infinite-width kernel of x")
    exact, limit = kernel.astype(np.float64), smallest.value
    widths = (width // 4, width // 2, width)
    deviations, relative = np.zeros((2, 3, count))
    measured, quotients = np.zeros(count), np.zeros((count, 2))  # of one width after another
    with tqdm(total=3 * count, desc="finite widths", unit="network", delay=5) as bar:
        for i, m in enumerate(widths):
            for seed in range(count):
                draw, state = jax.random.split(jax.random.fold_in(key, seed * 3 + i))
                params = rnn.init(draw, input_dim=tokens.shape[-1], width=m)
                states = state if rnn.initial_state == "independent" else None
                finite = empirical_kernel(rnn, params, tokens, key=states).ntk
                matrix = np.asarray(finite, np.float64).reshape(side, side)
                deviations[i, seed] = np.abs(scipy.linalg.eigvalsh(matrix - exact)).max()
                quotients[seed] = scipy.linalg.eigvalsh(matrix, exact)[[0, -1]]
                relative[i, seed] = np.abs(quotients[seed] - 1).max()
                measured[seed] = scipy.linalg.eigvalsh(matrix)[0]
                bar.update()
    shares = np.stack([deviations / limit, relative])  # what lmin may change by, over lmin
    typical = np.median(shares, axis=2)
    slopes = [float(np.polyfit(np.log(widths), np.log(row), 1)[0]) for row in typical]
    share = float(shares[0, -1].max())
    low, high = max(1 - share, quotients.min()), min(1 + share, quotients.max())
    # what is measured lies within up to rounding
    low, high = min(limit * low, measured.min()), max(limit * high, measured.max())
    return FiniteWidth(
        widths,
        deviations,
        relative,
        (slopes[0], slopes[1]),
        limit,
        measured,
        (float(low), float(high)),
        width * float((2 * typical[:, -1].min()) ** 2),
    )


def _whole(name: str, value: Any, least: int) -> int:
    """A number that is whole and not too small."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, got {value!r}.") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}.")
    return number


def _resolved(K: Float[ArrayLike, "n n"], name: str) -> spectrum.MinEigenvalue:
    """The smallest eigenvalue of a kernel that has one beyond rounding."""
    smallest = spectrum.min_eigenvalue(K)
    if not (smallest.resolved and smallest.lower > 0):
        raise ValueError(
            f"{name} must have a smallest eigenvalue beyond rounding, got {smallest.value:.3g} in "
            f"[{smallest.lower:.3g}, {smallest.upper:.3g}]: drop duplicate samples, compute the "
            "kernel in float64, or add a ridge."
        )
    return smallest
