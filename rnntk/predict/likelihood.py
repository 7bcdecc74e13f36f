"""Marginal likelihood of an RNN's Gaussian process, and the hyper-parameters that maximize it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
import scipy.linalg
import scipy.optimize
from jax.typing import ArrayLike
from jaxtyping import Float, Int, PRNGKeyArray, Real
from tqdm import tqdm

from rnntk import checks
from rnntk.infinite.kernel import infinite_kernel
from rnntk.network.elman import STDS, ElmanRNN
from rnntk.predict.arguments import check_ridge
from rnntk.predict.derivatives import kernel_with_derivatives
from rnntk.predict.gaussian_process import GaussianProcess

PARAMETERS = (*STDS, "noise")
BOUNDS = {
    "w_std": (0.1, 3.0),
    "u_std": (1e-2, 10.0),
    "b_std": (1e-3, 3.0),
    "v_std": (1e-2, 100.0),
    "noise": (1e-6, 1.0),
}
"""Default bounds of the search; those of the noise are multiples of the mean square of y."""
_LARGEST = {np.dtype(np.float32): 1e30, np.dtype(np.float64): 1e150}  # of a kernel in the search


@dataclass(frozen=True)
class MarginalLikelihood:
    """Made by :func:`log_marginal_likelihood`.

    Attributes:
        value: logarithm of the density of the labels, summed over outputs.
        gradient: its derivatives by ``"w_std"``, ``"u_std"``, ``"b_std"``, ``"v_std"`` and
            ``"noise"``.
    """

    value: float
    gradient: Mapping[str, float]


@dataclass(frozen=True)
class Hyperparameters:
    """Made by :func:`fit_hyperparameters`.

    Attributes:
        rnn: the network with the standard deviations found.
        noise: variance of the noise.
        log_marginal_likelihood: at these.
        bounds: of the search, after those of ``w_std`` were lowered so that no kernel overflows.
        maxima: log marginal likelihood that each start ended at, in their order; minus infinity
            where its first kernel was singular already.
        at_bound: the parameters that ended at a bound.
    """

    rnn: ElmanRNN
    noise: float
    log_marginal_likelihood: float
    bounds: Mapping[str, tuple[float, float]]
    maxima: tuple[float, ...]
    at_bound: tuple[str, ...]


def log_marginal_likelihood(
    rnn: ElmanRNN,
    x: Float[ArrayLike, "n t d"],
    y: Real[ArrayLike, " n"] | Real[ArrayLike, "n o"],
    noise: float,
    *,
    lengths: Int[ArrayLike, " n"] | None = None,
    kind: str = "nngp",
) -> MarginalLikelihood:
    r"""Marginal likelihood of labels under the Gaussian process of a network, with its gradient.

    .. math::

        \frac{\partial}{\partial \theta} = \frac12 \mathrm{tr}\Bigl(\bigl(a a^\top - (K + \sigma^2
        I)^{-1}\bigr) \frac{\partial K}{\partial \theta}\Bigr), \qquad a = (K + \sigma^2 I)^{-1} y

    (Rasmussen & Williams 2006, equation 5.9), summed over outputs. The kernel's derivatives are
    those of forward mode; the cost is that of about 8 kernels and one factorization.

    Args:
        rnn: the network.
        x: tokens; their dtype is that of the kernel. What follows is computed in float64.
        y: labels, shape (n,), or (n, o) for o outputs.
        noise: variance of the noise of the labels, added to the diagonal.
        lengths: number of steps of each sequence; the rest is padding.
        kind: ``"nngp"``, the prior of infinitely wide networks, or ``"ntk"``.

    Raises:
        TypeError, ValueError: for bad tokens, labels or noise, or a kernel with noise that is
            singular to rounding.
        FloatingPointError: where the kernel overflows.

    Example:
        >>> import numpy as np, rnntk
        >>> x = np.random.default_rng(0).standard_normal((6, 3, 1)).astype("float32")
        >>> rnn = rnntk.ElmanRNN("erf", b_std=0.1)
        >>> result = log_marginal_likelihood(rnn, x, x[:, -1, 0], noise=0.1)
        >>> sorted(result.gradient)
        ['b_std', 'noise', 'u_std', 'v_std', 'w_std']
    """
    _check_kind(kind)
    tokens, checked = checks.check_batch(x, lengths)
    labels = checks.check_labels(y, len(tokens))
    variance = check_ridge(noise, "noise")
    kernel, derivatives = kernel_with_derivatives(rnn, tokens, checked, kind)
    process = GaussianProcess(kernel.astype(tokens.dtype), labels, variance)
    a = process.coefficients.reshape(len(kernel), -1)
    inverse, _ = scipy.linalg.lapack.dpotri(process._factorization.factor, lower=1)
    inverse += np.tril(inverse, -1).T
    weight = a @ a.T - a.shape[1] * inverse
    gradient = {name: float(np.vdot(weight, dK)) / 2 for name, dK in derivatives.items()}
    gradient["noise"] = float(np.trace(weight)) / 2
    return MarginalLikelihood(process.log_marginal_likelihood, gradient)


def fit_hyperparameters(
    rnn: ElmanRNN,
    x: Float[ArrayLike, "n t d"],
    y: Real[ArrayLike, " n"] | Real[ArrayLike, "n o"],
    key: PRNGKeyArray,
    *,
    lengths: Int[ArrayLike, " n"] | None = None,
    kind: str = "nngp",
    parameters: Sequence[str] = PARAMETERS,
    noise: float | None = None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    starts: int = 4,
    iterations: int = 50,
    progress: bool = True,
) -> Hyperparameters:
    """Standard deviations and noise that maximize the marginal likelihood.

    SciPy's L-BFGS-B in the logarithms of the parameters, within bounds, from several starts: the
    first is the network as given, moved into the bounds, the others are drawn uniformly between
    the logarithms of the bounds. Before the search the upper bound of ``w_std`` is lowered until
    the kernel at all upper bounds is in range, so that no step overflows. Steps to a kernel that
    is singular to rounding count as worse than all before.

    Args:
        rnn: the network; its architecture stays.
        x: tokens; float64 ones are worth their time here.
        y: labels, shape (n,), or (n, o) for o outputs.
        key: JAX random key, of the starts.
        lengths: number of steps of each sequence; the rest is padding.
        kind: ``"nngp"`` or ``"ntk"``.
        parameters: those that are fitted; the others stay as they are.
        noise: first value of the noise's variance, or its value if it is not fitted; a hundredth
            of the mean square of ``y`` if None.
        bounds: of each parameter by name, positive; :data:`BOUNDS` where one is not given.
        starts: number of searches.
        iterations: at most, of each search.
        progress: show a bar.

    Raises:
        TypeError, ValueError: for bad tokens or labels, what is no key, numbers of starts or
            iterations below 1, an unknown parameter, bounds that are not positive and ascending,
            or if every start's kernel is singular.
        FloatingPointError: if the kernel overflows within the bounds, whatever ``w_std``.

    Example:
        >>> import jax, numpy as np, rnntk
        >>> x = np.random.default_rng(0).standard_normal((6, 3, 1)).astype("float32")
        >>> found = fit_hyperparameters(
        ...     rnntk.ElmanRNN("erf"), x, x[:, -1, 0], jax.random.key(0),
        ...     parameters=("v_std", "noise"), starts=1, iterations=5, progress=False)
        >>> found.log_marginal_likelihood == max(found.maxima)
        True
    """
    _check_kind(kind)
    checks.check_key(key)
    checks.check_size("starts", starts)
    checks.check_size("iterations", iterations)
    tokens, checked = checks.check_batch(x, lengths)
    labels = checks.check_labels(y, len(tokens))
    names = _check_parameters(parameters)
    scale = float(np.mean(labels**2)) or 1.0
    value = 0.01 * scale if noise is None else check_ridge(noise, "noise")
    limits = _limits(names, bounds or {}, scale)
    limits = _in_range(rnn, tokens, checked, names, limits)
    low, high = np.log([limits[name] for name in names]).T
    given = [float(getattr(rnn, name)) if name in STDS else value for name in names]
    first = np.clip(np.log(np.maximum(given, 1e-300)), low, high)
    drawn = np.asarray(jax.random.uniform(key, (starts - 1, len(names))), np.float64)
    search = _Search(rnn, tokens, checked, labels, kind, names, value)
    ends, maxima = [], []
    with tqdm(total=starts * iterations, desc="hyper-parameters", disable=not progress) as bar:
        for number, start in enumerate([first, *(low + drawn * (high - low))]):
            search.worst = None
            found = scipy.optimize.minimize(
                search,
                start,
                jac=True,
                method="L-BFGS-B",
                bounds=list(zip(low, high, strict=True)),
                options={"maxiter": iterations},
                callback=lambda _: bar.update(),
            )
            bar.update((number + 1) * iterations - bar.n)
            maxima.append(-float(found.fun) if search.worst is not None else -np.inf)
            ends.append(found.x)
    best = int(np.argmax(maxima))
    if not np.isfinite(maxima[best]):
        raise ValueError(
            "The kernel is singular to rounding at every start: raise the lower bound of the "
            f"noise, {limits.get('noise', (value,))[0]:.3g}, or drop duplicate sequences."
        )
    moved, variance = search.at(ends[best])
    edge = np.minimum(ends[best] - low, high - ends[best]) < 1e-6
    bound = tuple(name for name, there in zip(names, edge, strict=True) if there)
    return Hyperparameters(moved, variance, maxima[best], limits, tuple(maxima), bound)


@dataclass
class _Search:
    """The negative log marginal likelihood as a function of logarithms, with its gradient."""

    rnn: ElmanRNN
    x: jax.Array
    lengths: jax.Array | None
    y: np.ndarray
    kind: str
    names: tuple[str, ...]
    noise: float
    worst: float | None = None  # seen since the start, of kernels that are not singular

    def at(self, logarithms: np.ndarray) -> tuple[ElmanRNN, float]:
        """The network and the noise of a point."""
        values: dict[str, Any] = dict(zip(self.names, np.exp(logarithms).tolist(), strict=True))
        noise = values.pop("noise", self.noise)
        return replace(self.rnn, **values), noise

    def __call__(self, logarithms: np.ndarray) -> tuple[float, np.ndarray]:
        rnn, noise = self.at(logarithms)
        try:
            found = log_marginal_likelihood(
                rnn, self.x, self.y, noise, lengths=self.lengths, kind=self.kind
            )
        except (ValueError, FloatingPointError):
            worst = 0.0 if self.worst is None else self.worst
            return worst + abs(worst) + len(self.y), np.zeros(len(self.names))
        self.worst = max(-found.value, -found.value if self.worst is None else self.worst)
        gradient = np.array([found.gradient[name] for name in self.names])
        return -found.value, -gradient * np.exp(logarithms)


def _check_kind(kind: str) -> None:
    if kind not in ("nngp", "ntk"):
        raise ValueError(f"kind must be 'nngp' or 'ntk', got {kind!r}.")


def _check_parameters(parameters: Sequence[str]) -> tuple[str, ...]:
    if isinstance(parameters, str) or not isinstance(parameters, Sequence):
        raise TypeError(f"parameters must be a sequence of names, got {parameters!r}.")
    names = tuple(name for name in PARAMETERS if name in parameters)
    if not names or any(name not in PARAMETERS for name in parameters):
        raise ValueError(f"parameters must be some of {PARAMETERS}, got {tuple(parameters)}.")
    return names


def _limits(
    names: Sequence[str], given: Mapping[str, tuple[float, float]], scale: float
) -> dict[str, tuple[float, float]]:
    """Bounds of each parameter that is fitted."""
    if not isinstance(given, Mapping):
        raise TypeError(f"bounds must be a mapping from names to pairs, got {given!r}.")
    if unknown := sorted(set(given) - set(names)):
        raise ValueError(f"bounds must be of fitted parameters, {tuple(names)}, got {unknown}.")
    limits = {}
    for name in names:
        pair = np.asarray(given.get(name, BOUNDS[name]))
        if pair.shape != (2,) or pair.dtype.kind not in "fiu":
            raise TypeError(f"bounds of {name} must be two real numbers, got {given[name]!r}.")
        low, high = pair.tolist()
        if name == "noise" and name not in given:
            low, high = low * scale, high * scale
        if not 0 < low < high < np.inf:
            raise ValueError(f"bounds of {name} must be positive and ascending, got {low, high}.")
        limits[name] = (float(low), float(high))
    return limits


def _in_range(
    rnn: ElmanRNN,
    x: jax.Array,
    lengths: jax.Array | None,
    names: Sequence[str],
    limits: dict[str, tuple[float, float]],
) -> dict[str, tuple[float, float]]:
    """The bounds with that of w_std lowered until the largest kernel of all is in range."""
    while True:
        top: dict[str, Any] = {name: limits[name][1] for name in names if name in STDS}
        first = None if lengths is None else lengths[:1]
        try:
            # every sequence beside one other: that is what the recursion checks, at n pairs' cost
            kernel = infinite_kernel(
                replace(rnn, **top), x, x[:1], lengths1=lengths, lengths2=first
            )
            largest = max(float(abs(values).max()) for values in kernel)
        except FloatingPointError:
            largest = np.inf
        if largest < _LARGEST[np.dtype(x.dtype)]:
            return limits
        low, high = limits.get("w_std", (1.0, 1.0))
        if not low < 0.9 * high:
            raise FloatingPointError(
                f"The kernel leaves the range of {x.dtype} within the bounds: scale the tokens "
                "down, lower the bounds, or use float64."
            )
        limits = {**limits, "w_std": (low, 0.9 * high)}
