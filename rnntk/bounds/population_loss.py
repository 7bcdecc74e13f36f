"""A bound on the test loss of a wide trained network, from the kernel and the targets alone."""

import math
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from jax.typing import ArrayLike
from jaxtyping import Float, Real

from rnntk import checks, spectrum
from rnntk.linalg import enclosure, matrices


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
"""What :class:`Generalization` rests on."""


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
    A, relative, absolute = matrices.with_uncertainty(K)
    targets, n = np.asarray(y), len(A)
    if targets.ndim not in (1, 2) or len(targets) != n or targets.dtype.kind not in "fiu":
        raise ValueError(
            f"y must hold a number, or a row of numbers, for each of the {n} rows of K, got "
            f"{targets.dtype} of shape {targets.shape}."
        )
    columns = targets.reshape(n, -1).astype(np.float64)
    if not np.isfinite(columns).all():
        raise ValueError("y must be finite, got NaN or infinity.")
    checks.check_positive("delta", delta, most=1.0)
    smallest = resolved(K, "K")
    # powers of two keep all that follows in range
    scaled, power = enclosure.rescaled(A, float(np.abs(A).max()))
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


def resolved(K: Float[ArrayLike, "n n"], name: str) -> spectrum.MinEigenvalue:
    """The smallest eigenvalue of a kernel that has one beyond rounding."""
    smallest = spectrum.min_eigenvalue(K)
    if not (smallest.resolved and smallest.value > 0):
        raise ValueError(
            f"{name} must have a smallest eigenvalue beyond rounding, got {smallest.value:.3g} in "
            f"[{smallest.lower:.3g}, {smallest.upper:.3g}]: drop duplicate samples, compute the "
            "kernel in float64, or add a ridge."
        )
    return smallest
