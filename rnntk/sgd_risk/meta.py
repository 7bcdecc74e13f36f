"""MAML on mixtures of linear regressions: one step of adaptation is a change of the design."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, PRNGKeyArray, Real

from rnntk import checks
from rnntk.keys import generator
from rnntk.sgd_risk.problem import LeastSquares, check_samples
from rnntk.sgd_risk.simulation import averaged_risks
from rnntk.sgd_risk.theorems import GAUSSIAN

FOURTH = 243.0
"""alpha of the design's fourth moments: 3 of the last Gaussian factor, 3^4 of a quadratic one."""
LABELS = 81 * math.sqrt(3)
"""Of the labels' noise that the adaptation carries on."""


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

    @property
    def adapted(self) -> Float[np.ndarray, " d"]:
        """Eigenvalues of H_a, in the order of those of H."""
        values, a = self.eigenvalues, self.rate
        second = values**2 + np.sum(values**2)
        return values * ((1 - a * values) ** 2 + a**2 / self.inner * second)

    @property
    def alpha(self) -> float:
        """Of the fourth moments of the design, for :func:`upper_bound`: 3 without adaptation."""
        return FOURTH if self.rate else GAUSSIAN

    @property
    def problem(self) -> LeastSquares:
        r"""The regression that SGD on w solves, with a proved bound on its noise.

        .. math::

            \sigma^2 \le \alpha\, \mathrm{tr}(H_a \Sigma)
              + \tau^2 \Bigl( 1 + \frac{81 \sqrt3\, a^2\, \mathrm{tr}(H^2)}{n_1} \Bigr) ,

        :math:`\Sigma` the covariance of the tasks and :math:`\tau^2` the noise of the labels. With
        ``problem``, :func:`upper_bound` at this ``alpha`` bounds the risk of MAML. The lower bound
        does not apply: the noise is not independent of the design.
        """
        tasks = self.alpha * float(self.adapted @ self.diversity)
        second = float(np.sum(self.eigenvalues**2))
        labels = self.noise * (1 + LABELS * self.rate**2 * second / self.inner)
        return LeastSquares(self.adapted, self.errors, tasks + labels)

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
