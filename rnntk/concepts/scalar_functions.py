"""Functions of one number that concepts are made of: smooth ones by power series, and others."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.special
from jaxtyping import Float

TERMS = 60
"""Coefficients kept of a series that does not end; those of sin, cos and exp are below 1e-80."""
VARIABLE = "(z)"


@dataclass(frozen=True, eq=False)
class ScalarFunction:
    """A function f of one number.

    Args:
        name: how it is asked for.
        formula: what it prints as, with ``(z)`` where its argument goes.
        value: maps arrays to arrays, elementwise.
        coefficients: of its power series at 0, lowest first; None where it has none.
        radius: of convergence.
        log_sizes: maps numbers i to the logarithms of the sizes of c_i, for series that do not end.
    """

    name: str
    formula: str
    value: Callable[[np.ndarray], np.ndarray]
    coefficients: Float[np.ndarray, " k"] | None = None
    radius: float = math.inf
    log_sizes: Callable[[np.ndarray], np.ndarray] | None = None

    @property
    def smooth(self) -> bool:
        """Whether it is a power series."""
        return self.coefficients is not None

    def of(self, argument: str) -> str:
        """The formula with its argument in.

        Example:
            >>> polynomial([0.0, 1.0, 3.0]).of("b' x_1")
            "(b' x_1) + 3 (b' x_1)^2"
        """
        return self.formula.replace(VARIABLE, f"({argument})")


def polynomial(coefficients: Sequence[float]) -> ScalarFunction:
    """The polynomial with these coefficients, that of the constant first.

    Args:
        coefficients: real numbers, not all zero.

    Raises:
        ValueError: for none, NaN or infinity, or zeros alone.

    Example:
        >>> import numpy as np
        >>> polynomial([1.0, 0.0, 2.0]).value(np.array([3.0]))
        array([19.])
    """
    c = np.asarray(coefficients, float)
    if c.ndim != 1 or not np.isfinite(c).all() or not c.any():
        raise ValueError(
            f"coefficients must be finite numbers, not all zero, got {coefficients!r}."
        )
    c = np.trim_zeros(c, "b")
    terms = [_term(factor, power) for power, factor in enumerate(c) if factor]
    formula = " + ".join(terms).replace("+ -", "- ")
    return ScalarFunction(
        "polynomial", formula, lambda z: np.polynomial.polynomial.polyval(z, c), c
    )


def _term(factor: float, power: int) -> str:
    if power == 0:
        return f"{factor:g}"
    front = "" if factor == 1 else "-" if factor == -1 else f"{factor:g} "
    return f"{front}{VARIABLE}" + (f"^{power}" if power > 1 else "")


def _factorial(i: np.ndarray) -> np.ndarray:
    return -scipy.special.gammaln(i + 1)


def _odd_factorial(i: np.ndarray) -> np.ndarray:
    return np.where(i % 2 == 1, _factorial(i), -np.inf)


def _even_factorial(i: np.ndarray) -> np.ndarray:
    return np.where(i % 2 == 0, _factorial(i), -np.inf)


def _tanh(i: np.ndarray) -> np.ndarray:
    """|c_i| = 2 (2^(i+1) - 1) zeta(i+1) / pi^(i+1) of odd i, from Bernoulli's numbers."""
    k = i + 1.0
    value = math.log(2) + k * math.log(2 / math.pi) + np.log1p(-(2.0**-k))
    return np.where(i % 2 == 1, value + np.log(scipy.special.zeta(np.maximum(k, 2))), -np.inf)


def _series(
    name: str,
    value: Callable[[np.ndarray], np.ndarray],
    signs: Sequence[int],
    log_sizes: Callable[[np.ndarray], np.ndarray],
    radius: float = math.inf,
) -> ScalarFunction:
    """A function whose coefficients have these signs, periodically."""
    coefficients = np.resize(signs, TERMS) * np.exp(log_sizes(np.arange(TERMS)))
    return ScalarFunction(name, f"{name}{VARIABLE}", value, coefficients, radius, log_sizes)


_FUNCTIONS = {
    f.name: f
    for f in (
        ScalarFunction("identity", VARIABLE, lambda z: z, np.array([0.0, 1.0])),
        ScalarFunction("square", f"{VARIABLE}^2", np.square, np.array([0.0, 0.0, 1.0])),
        ScalarFunction("cube", f"{VARIABLE}^3", lambda z: z**3, np.array([0.0, 0.0, 0.0, 1.0])),
        _series("sin", np.sin, [0, 1, 0, -1], _odd_factorial),
        _series("cos", np.cos, [1, 0, -1, 0], _even_factorial),
        _series("exp", np.exp, [1], _factorial),
        _series("tanh", np.tanh, [0, 1, 0, -1], _tanh, math.pi / 2),
        ScalarFunction("relu", f"relu{VARIABLE}", lambda z: np.maximum(z, 0)),
        ScalarFunction("abs", f"abs{VARIABLE}", np.abs),
        ScalarFunction("sign", f"sign{VARIABLE}", lambda z: np.where(z < 0, -1.0, 1.0)),
    )
}

NAMES = tuple(_FUNCTIONS)
"""Functions known by name. relu, abs and sign, which is 1 at 0, have no power series."""


def resolve(f: str | ScalarFunction) -> ScalarFunction:
    """The function of a name, or the one given."""
    if isinstance(f, ScalarFunction):
        return f
    if not isinstance(f, str) or f not in _FUNCTIONS:
        raise ValueError(f"f must be one of {NAMES} or a ScalarFunction, got {f!r}.")
    return _FUNCTIONS[f]
