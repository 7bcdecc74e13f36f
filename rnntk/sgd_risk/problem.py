"""A least-squares problem as SGD's risk sees it: eigenvalues, initial error, noise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Real

from rnntk import checks


@dataclass(frozen=True, eq=False)
class LeastSquares:
    r"""Linear regression in the eigenbasis of its covariance :math:`H = E\,x x^\top`.

    Labels are :math:`y = \langle w^*, x \rangle` plus noise of mean 0, and the loss is
    :math:`\frac12 E (y - \langle w, x \rangle)^2`, so that the excess risk of w is
    :math:`\frac12 \langle w - w^*, H (w - w^*) \rangle`.

    Args:
        eigenvalues: :math:`\lambda_i \ge 0` of H, in any order, not all zero.
        errors: coordinates :math:`v_i^\top (w_0 - w^*)` of the initial error.
        noise: variance of the noise, :math:`\sigma^2`.

    Raises:
        TypeError, ValueError: for what is not finite, negative, or of unequal lengths.

    Example:
        >>> import numpy as np, rnntk
        >>> problem = rnntk.sgd_risk.LeastSquares(1 / np.arange(1.0, 9) ** 2, np.ones(8), noise=0.1)
        >>> round(problem.initial_risk, 6)
        0.763711
    """

    eigenvalues: Float[np.ndarray, " d"]
    errors: Float[np.ndarray, " d"]
    noise: float

    def __init__(
        self,
        eigenvalues: Real[ArrayLike, " d"],
        errors: Real[ArrayLike, " d"],
        noise: float = 0.0,
    ) -> None:
        values, parts = (
            checks.check_values(np.asarray(given), name)
            for given, name in ((eigenvalues, "eigenvalues"), (errors, "errors"))
        )
        if values.ndim != 1 or values.size == 0 or (values < 0).any() or not values.any():
            raise ValueError(
                "eigenvalues must be numbers of one axis, none negative and not all zero, got "
                f"shape {values.shape} with the smallest {values.min(initial=np.inf):.3g}."
            )
        if parts.shape != values.shape:
            raise ValueError(
                f"errors must hold one number for each of the {len(values)} eigenvalues, got shape "
                f"{parts.shape}."
            )
        if not 0 <= noise < math.inf:
            raise ValueError(f"noise must be finite and not negative, got {noise}.")
        order = np.argsort(-values, kind="stable")
        object.__setattr__(self, "eigenvalues", values[order])
        object.__setattr__(self, "errors", parts[order])
        object.__setattr__(self, "noise", float(noise))

    @property
    def trace(self) -> float:
        """Trace of H, the mean square norm of the features."""
        return float(self.eigenvalues.sum())

    @property
    def initial_risk(self) -> float:
        """Excess risk of the initial weights."""
        return float(self.eigenvalues @ self.errors**2) / 2


def check_step(step_size: float, limit: float, why: str) -> float:
    """Return a step below its limit, or name the limit."""
    if not 0 < step_size < math.inf:
        raise ValueError(f"step_size must be positive and finite, got {step_size}.")
    if step_size >= limit:
        raise ValueError(f"step_size must be below {limit:.6g}, {why}, got {step_size:.6g}.")
    return float(step_size)


def check_samples(n: int | Sequence[int]) -> list[int]:
    """Numbers of samples as an ascending list."""
    given = list(n) if np.iterable(n) else [n]
    if not given:
        raise ValueError("n must hold at least one number of samples, got none.")
    found = [checks.check_size("n", one) for one in given]
    if sorted(set(found)) != found:
        raise ValueError(f"n must be ascending numbers of samples, got {found}.")
    return found
