"""MAML on mixtures of linear regressions: one step of adaptation is a change of the design."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, PRNGKeyArray, Real

from rnntk import checks
from rnntk.keys import generator
from rnntk.sgd_risk.adapted_moments import DesignMoments, moments
from rnntk.sgd_risk.problem import LeastSquares, check_samples, check_step
from rnntk.sgd_risk.recursion import mean_risks
from rnntk.sgd_risk.simulation import averaged_risks
from rnntk.sgd_risk.theorems import GAUSSIAN, RiskBound, lower_bound, step_limit, upper_bound


@dataclass(frozen=True, eq=False)
class MetaRegression:
    r"""MAML under mixed linear regression, with Gaussian tokens of covariance H.

    A task has labels :math:`y = \langle \theta, x \rangle` plus noise, with :math:`\theta` of mean
    :math:`\theta^*` and a covariance that is diagonal in the eigenbasis of H. The weights w adapt
    by one gradient step of rate a on :math:`n_1` samples of the task, and SGD on w minimizes half
    the squared error of the adapted weights on one more. With :math:`\hat H = X_1^\top X_1 / n_1`
    that is least squares with the feature :math:`(I - a \hat H) x`, of covariance

    .. math::

        H_a = H (I - a H)^2 + \frac{a^2}{n_1} \bigl( H^3 + \mathrm{tr}(H^2)\, H \bigr) ;

    docs/theory/sgd_risk.md derives it, with the constants of the bounds.

    Args:
        eigenvalues: of H.
        errors: coordinates of :math:`w_0 - \theta^*`.
        diversity: variances of the coordinates of :math:`\theta`.
        noise: variance of the labels' noise.
        rate: a, the rate of adaptation; may be 0 or negative.
        inner: :math:`n_1`.

    Raises:
        TypeError, ValueError: for what is out of range or of unequal lengths.

    Example:
        >>> import numpy as np, rnntk
        >>> meta = rnntk.sgd_risk.MetaRegression(
        ...     np.array([1.0, 0.5]), np.ones(2), np.zeros(2), rate=1.0, inner=5)
        >>> meta.adapted  # (1 + 1.25) / 5, 0.5 (0.25 + (0.25 + 1.25) / 5)
        array([0.45 , 0.275])
    """

    eigenvalues: Float[np.ndarray, " d"]
    errors: Float[np.ndarray, " d"]
    diversity: Float[np.ndarray, " d"]
    noise: float = 0.0
    rate: float = 0.1
    inner: int = 10

    def __init__(
        self,
        eigenvalues: Real[ArrayLike, " d"],
        errors: Real[ArrayLike, " d"],
        diversity: Real[ArrayLike, " d"],
        *,
        noise: float = 0.0,
        rate: float = 0.1,
        inner: int = 10,
    ) -> None:
        plain = LeastSquares(eigenvalues, errors, noise)
        order = np.argsort(-np.asarray(eigenvalues, float), kind="stable")
        spread = checks.check_values(np.asarray(diversity), "diversity")
        if spread.shape != plain.errors.shape or (spread < 0).any():
            raise ValueError(
                f"diversity must hold one variance for each of the {len(plain.errors)} "
                f"eigenvalues, got shape {spread.shape}, the smallest {spread.min(initial=0):.3g}."
            )
        if not math.isfinite(rate):
            raise ValueError(f"rate must be finite, got {rate}.")
        for name, value in (
            ("eigenvalues", plain.eigenvalues),
            ("errors", plain.errors),
            ("diversity", spread[order]),
            ("noise", plain.noise),
            ("rate", float(rate)),
            ("inner", checks.check_size("inner", inner)),
        ):
            object.__setattr__(self, name, value)

    @cached_property
    def moments(self) -> DesignMoments:
        """Second and fourth moments of the design, exactly."""
        return moments(self.eigenvalues, self.rate, self.inner)

    @property
    def adapted(self) -> Float[np.ndarray, " d"]:
        """Eigenvalues of H_a, in the order of those of H."""
        return self.moments.second

    @property
    def gradient_noise(self) -> Float[np.ndarray, " d"]:
        r""":math:`E\,\xi^2 b_i^2`, of the residual at :math:`\theta^*`: tasks and labels."""
        return self.moments.fourth @ self.diversity + self.noise * self.moments.labels

    def exact_risk(self, step_size: float, n: int | Sequence[int]) -> Float[np.ndarray, " k"]:
        r"""Expected excess risk of averaged one-pass SGD on w, of :meth:`simulate`'s runs.

        The diagonal of the error's second moment in the eigenbasis of H obeys a recursion of its
        own, as the design's coordinates can change their signs one by one. Its cost is that of N
        products of a matrix (d, d) with a vector.

        Args:
            step_size: of SGD on w.
            n: numbers of tasks N, ascending, or one.

        Raises:
            ValueError: for what is out of range.
            FloatingPointError: where the risk exceeds the range of float64.

        Example:
            >>> import jax, numpy as np, rnntk
            >>> meta = rnntk.sgd_risk.MetaRegression(np.ones(2), np.ones(2), np.zeros(2), rate=0.1)
            >>> exact = meta.exact_risk(0.1, [1, 20])
            >>> runs = meta.simulate(jax.random.key(0), 0.1, [1, 20], runs=2000).mean(axis=0)
            >>> bool((abs(runs / exact - 1) < 0.05).all())
            True
        """
        step = np.array([check_step(step_size, np.inf, "")])
        second, noise = self.moments.second, self.gradient_noise
        beyond = self.moments.fourth - np.diag(second**2)

        def spread(b: np.ndarray) -> np.ndarray:
            return b @ beyond + noise

        found = mean_risks(second, self.errors**2, step, check_samples(n), spread)[:, 0]
        if not np.isfinite(found).all():
            raise FloatingPointError(
                f"the risk exceeds the range of float64 at step size {step[0]:.6g}."
            )
        return found

    @property
    def alpha(self) -> float:
        r"""Of Theorem 2.1: 3 times the largest :math:`E\,b_i^2 b_j^2` over that of Gaussians."""
        return GAUSSIAN * float(self._shares.max())

    @property
    def beta(self) -> float:
        r"""Of Theorem 2.2: the least :math:`E\,b_i^2 b_j^2` over that of Gaussians; over 0.997."""
        return float(self._shares.min())

    @property
    def step_limit(self) -> float:
        """Step size below which :meth:`upper_bound` holds."""
        return step_limit(self._regression(max), self.alpha)

    def upper_bound(self, step_size: float, n: int) -> RiskBound:
        """Theorem 2.1 for MAML: the expected excess risk after N tasks is at most this.

        Args:
            step_size: of SGD on w, below :attr:`step_limit`.
            n: number of tasks N.

        Raises:
            ValueError: for a step at or above the limit, which is named, or what is out of range.

        Example:
            >>> import numpy as np, rnntk
            >>> meta = rnntk.sgd_risk.MetaRegression(
            ...     1 / np.arange(1.0, 9), np.ones(8), np.zeros(8), noise=0.1, rate=0.5)
            >>> step = 0.5 * meta.step_limit
            >>> low, high = (f(step, 600).value for f in (meta.lower_bound, meta.upper_bound))
            >>> bool(low < meta.exact_risk(step, 600)[0] < high)
            True
        """
        return upper_bound(self._regression(max), step_size, n, alpha=self.alpha)

    def lower_bound(self, step_size: float, n: int) -> RiskBound:
        """Theorem 2.2 for MAML: the expected excess risk after N tasks is at least this.

        Args:
            step_size: of SGD on w, below 1 over the largest eigenvalue of H_a.
            n: number of tasks N, at least 500.

        Raises:
            ValueError: for a step at or above the limit, which is named, fewer than 500 tasks, what
                is out of range, or a :attr:`beta` below d / (d + 2), for which nothing is proved;
                that takes more than 600 eigenvalues.
        """
        d = int(np.sum(self.eigenvalues > 0))
        if self.beta < d / (d + 2):
            raise ValueError(
                f"beta must be at least d / (d + 2) = {d / (d + 2):.6g} for the lower bound, got "
                f"{self.beta:.6g} for {d} eigenvalues."
            )
        return lower_bound(self._regression(min), step_size, n, beta=self.beta)

    @property
    def _shares(self) -> Float[np.ndarray, "d d"]:
        """Fourth moments over those of Gaussians of the same covariance."""
        kept = self.eigenvalues > 0
        second = self.adapted[kept]
        gaussian = np.outer(second, second) * (1 + 2 * np.eye(len(second)))
        return self.moments.fourth[np.ix_(kept, kept)] / gaussian

    def _regression(self, end: Callable[[Iterable[float]], float]) -> LeastSquares:
        """Of the design's covariance, with the largest or the least noise of all coordinates."""
        kept = self.eigenvalues > 0
        return LeastSquares(
            self.adapted, self.errors, float(end(self.gradient_noise[kept] / self.adapted[kept]))
        )

    def simulate(
        self,
        key: PRNGKeyArray,
        step_size: float,
        n: int | Sequence[int],
        *,
        runs: int = 32,
    ) -> Float[np.ndarray, "runs k"]:
        r"""Excess risk of averaged one-pass SGD, a fresh task for each step.

        The risk of w is :math:`\frac12 \langle w - \theta^*, H_a (w - \theta^*) \rangle`.

        Args:
            key: JAX random key.
            step_size: of SGD on w.
            n: numbers of tasks N, ascending, or one; the mean is of w_0 to w_(N-1).
            runs: how many.

        Returns:
            Risks, a row for each run.

        Raises:
            ValueError: for what is out of range.
            FloatingPointError: for runs that diverge.

        Example:
            >>> import jax, numpy as np, rnntk
            >>> meta = rnntk.sgd_risk.MetaRegression(np.ones(2), np.ones(2), np.zeros(2), rate=0.1)
            >>> risks = meta.simulate(jax.random.key(0), 0.1, [1, 400])
            >>> bool(risks[:, 1].mean() < risks[:, 0].mean())
            True
        """
        rng = generator(key)
        start = np.tile(self.errors, (checks.check_size("runs", runs), 1))
        return averaged_risks(
            partial(self._gradient, rng), start, self.adapted, step_size, check_samples(n)
        )

    def _gradient(
        self, rng: np.random.Generator, error: Float[np.ndarray, "r d"]
    ) -> Float[np.ndarray, "r d"]:
        """Of one task a run; w and theta are counted from their mean theta*."""
        runs, d = error.shape
        roots, sigma = np.sqrt(self.eigenvalues), math.sqrt(self.noise)
        task = np.sqrt(self.diversity) * rng.standard_normal((runs, d))
        first = roots * rng.standard_normal((runs, self.inner, d))
        last = roots * rng.standard_normal((runs, d))
        share = self.rate / self.inner
        gaps = np.einsum("rnd,rd->rn", first, error - task)
        gaps -= sigma * rng.standard_normal(gaps.shape)
        after = error - share * np.einsum("rnd,rn->rd", first, gaps)
        gap = np.einsum("rd,rd->r", last, after - task) - sigma * rng.standard_normal(runs)
        feature = last - share * np.einsum(
            "rnd,rn->rd", first, np.einsum("rnd,rd->rn", first, last)
        )
        return gap[:, None] * feature
