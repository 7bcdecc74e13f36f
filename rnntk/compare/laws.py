"""How something grows with the length: like a power, a stretched exponential, or an exponential."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Real

from rnntk import checks

EXPONENTS = np.linspace(0.05, 0.95, 91)
"""Of stretched exponentials."""
LEAST_ERROR = 1e-6
"""Of a fit's logarithms, below which no fit counts as better than another."""


@dataclass(frozen=True)
class Law:
    r"""One law, fitted by least squares in the logarithm of the values.

    Attributes:
        formula: what it is, numbers in.
        rate: b in :math:`\log v = a + b\, g(L)`, g(L) = log L, L^c or L.
        exponent: c, for a stretched exponential; 1 for an exponential, 0 for a power.
        offset: a.
        error: root mean square error of the logarithm.
        score: Bayesian information criterion; less is better.
    """

    formula: str
    rate: float
    exponent: float
    offset: float
    error: float
    score: float

    def predict(self, lengths: Real[ArrayLike, " k"]) -> Float[np.ndarray, " k"]:
        """What the law says at these lengths."""
        at = np.asarray(lengths, float)
        g = np.log(at) if self.exponent == 0 else at**self.exponent
        return np.exp(self.offset + self.rate * g)


@dataclass(frozen=True)
class Growth:
    """Laws of growth, compared; made by :func:`growth`.

    Attributes:
        laws: ``"polynomial"``, ``"stretched exponential"``, ``"exponential"``.
        best: name of the law with the least score.
        margin: by how much the next one's score is larger. Twice the logarithm of a Bayes factor,
            roughly: below 2 says nothing, above 10 much.
    """

    laws: dict[str, Law]
    best: str
    margin: float


def growth(lengths: Sequence[int] | Real[ArrayLike, " k"], values: Real[ArrayLike, " k"]) -> Growth:
    """Fit the three laws of growth, and say which describes the values best.

    Scores are k log(mean square error of the logarithm) + p log k, with k values and p parameters:
    two of a power or an exponential, three of a stretched exponential.

    Args:
        lengths: at least four different positive numbers.
        values: positive, one for each.

    Raises:
        TypeError: for what is not a real number.
        ValueError: for fewer, or what is not positive and finite.

    Example:
        >>> import numpy as np, rnntk
        >>> L = np.array([2, 4, 8, 16, 32])
        >>> found = rnntk.compare.growth(L, 3 * L**1.5)
        >>> found.best, found.laws["polynomial"].formula
        ('polynomial', '3 L^1.5')
    """
    at, sizes = _check_positive(lengths, "lengths"), _check_positive(values, "values")
    if len(np.unique(at)) < 4:
        raise ValueError(f"lengths must be at least four different numbers, got {at.tolist()}.")
    if len(sizes) != len(at):
        raise ValueError(f"values must be one for each of {len(at)} lengths, got {len(sizes)}.")
    logs = np.log(sizes)
    fits = [_fit(at, logs, float(c)) for c in EXPONENTS]
    laws = {
        "polynomial": _fit(at, logs, 0.0),
        "stretched exponential": min(fits, key=lambda law: law.error),
        "exponential": _fit(at, logs, 1.0),
    }
    first, second, _ = sorted(laws, key=lambda name: laws[name].score)
    return Growth(laws, first, laws[second].score - laws[first].score)


def _check_positive(values: ArrayLike | Sequence[int], name: str) -> Float[np.ndarray, " k"]:
    checks.refuse_masked(name, values)
    found = checks.check_values(np.asarray(values), name)
    if found.ndim != 1 or (found <= 0).any():
        raise ValueError(f"{name} must be positive numbers along one axis, got {found.tolist()}.")
    return found


def _fit(at: np.ndarray, logs: np.ndarray, exponent: float) -> Law:
    g = np.log(at) if exponent == 0 else at**exponent
    rate, offset = np.polyfit(g, logs, 1)
    error = float(np.sqrt(np.mean((logs - offset - rate * g) ** 2)))
    parameters = 2 + (0 < exponent < 1)
    score = 2 * len(at) * np.log(max(error, LEAST_ERROR)) + parameters * np.log(len(at))
    front = f"{np.exp(offset):.3g}"
    power = "L" if exponent == 1 else f"L^{exponent:.2g}"
    formula = f"{front} L^{rate:.3g}" if exponent == 0 else f"{front} exp({rate:.3g} {power})"
    return Law(formula, float(rate), exponent, float(offset), error, float(score))
