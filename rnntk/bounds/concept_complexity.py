"""Upper bounds on y' K^-1 y for the papers' function classes, from their features' weights."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.special
from jax.typing import ArrayLike
from jaxtyping import Float

from rnntk import checks
from rnntk.bounds.feature_weights import Steps, check_network, steps_of, weights
from rnntk.concepts import Additive, NVariable
from rnntk.infinite.kernel import infinite_kernel
from rnntk.network.elman import ElmanRNN
from rnntk.spectrum import min_eigenvalue

ALLOWANCE = 1e-5
"""Relative; for rounding of weights and norms, and Hermite series that end."""


@dataclass(frozen=True)
class ComplexityBound:
    r"""An upper bound on :math:`y^\top K^{-1} y`, and what it is made of.

    Attributes:
        value: the bound, :math:`(\sqrt{\text{norm}} + \sqrt{\text{remainder}})^2`; infinite where
            the kernel has no weight for a feature of the target.
        norm: square of the target's norm in the kernel's space, up to the degree of the series; no
            number of sequences takes y' K^-1 y beyond it.
        remainder: :math:`|r|^2 / \lambda_{\min}(K)` of what the series of f leaves out; 0 for
            polynomials.
        weights: of :func:`complexity_bound`'s features, by powers: shape (L, degree + 1) for sums
            over positions, a row for each; an axis for each position of a joint function.
    """

    value: float
    norm: float
    remainder: float
    weights: Float[np.ndarray, "..."]


def complexity_bound(
    rnn: ElmanRNN,
    x: Float[ArrayLike, "n t d"],
    concept: Additive | NVariable,
    *,
    degree: int = 9,
) -> ComplexityBound:
    r"""Bound :math:`y^\top K^{-1} y` of a concept's targets y, K the infinite-width NTK.

    The kernel is a power series in the tokens' inner products with weights :math:`a_\alpha \ge 0`,
    and the target a sum of the features of its terms, so that

    .. math::

        y^\top K^{-1} y \le \sum_\alpha \frac{c_{|\alpha|}^2}{a_\alpha}
          \Bigl( \frac{|\alpha|!}{\alpha!} \Bigr)^2 \prod_j |\beta_j|^{2 \alpha_j}

    for a joint function :math:`f(z) = \sum_k c_k z^k`, and likewise for a sum over positions. Up to
    what a series leaves out it does not depend on the number of sequences. Proof:
    docs/theory/complexity.md.

    Args:
        rnn: one layer, one direction, last readout, zero initial state.
        x: tokens, of one norm in all sequences at each step.
        concept: with a smooth f.
        degree: highest power of f that is taken from its series. What is left out is bounded by the
            smallest eigenvalue of K, which is computed then; a low degree leaves more to it.

    Raises:
        TypeError, ValueError: for other networks, tokens of several norms, tokens that are not the
            concept's, an f without a power series, a joint function of a fixed token.

    Example:
        >>> import jax, numpy as np, rnntk
        >>> x = rnntk.datasets.unit_tokens(jax.random.key(0), 20, 3, 4)
        >>> concept = rnntk.concepts.Additive.draw(jax.random.key(1), 3, 4, f="square")
        >>> rnn = rnntk.ElmanRNN()
        >>> bound = rnntk.bounds.complexity_bound(rnn, x, concept)
        >>> K = rnntk.infinite_kernel(rnn, x).ntk
        >>> bool(rnntk.bounds.generalization(K, concept(x)).complexity < bound.value)
        True
    """
    check_network(rnn)
    if not isinstance(concept, Additive | NVariable):
        raise TypeError(f"concept must be an Additive or an NVariable, got {concept!r}.")
    f = concept.f
    if f.coefficients is None:
        raise ValueError(f"f must have a power series to be bounded, got {f.name!r}.")
    y = concept(x)
    steps = steps_of(x)
    c = np.zeros(checks.check_size("degree", degree) + 1)
    known = f.coefficients[: degree + 1]
    c[: len(known)] = known
    if isinstance(concept, Additive):
        target = _of_sum(rnn, steps, x, concept, degree)
    else:
        target = _of_joint(rnn, steps, x, concept, degree)
    norm, remainder = target.norm(c), 0.0
    if f.log_sizes is not None or len(f.coefficients) > degree + 1:
        left = float(np.sum((np.abs(y - target.values(c)) + 2.0**-50 * np.abs(y)) ** 2))
        smallest = min_eigenvalue(infinite_kernel(rnn, x).ntk).lower
        remainder = left / smallest if smallest > 0 else math.inf
    value = (math.sqrt(norm) + math.sqrt(remainder)) ** 2 * (1 + ALLOWANCE)
    return ComplexityBound(value, norm, remainder, target.weights)


@dataclass(frozen=True)
class _Target:
    """A concept on some sequences, as functions of the coefficients of f.

    Attributes:
        weights: of its features.
        norm: its square norm in the kernel's space.
        values: its values.
    """

    weights: Float[np.ndarray, "..."]
    norm: Callable[[np.ndarray], float]
    values: Callable[[np.ndarray], np.ndarray]


def _of_sum(rnn: ElmanRNN, steps: Steps, x: ArrayLike, concept: Additive, degree: int) -> _Target:
    tokens = np.asarray(x, np.float64)
    free = [s for s in range(concept.length) if not steps.fixed[s]]
    rows = np.zeros((concept.length, degree + 1))
    for s in free:
        rows[s] = weights(rnn, steps, (s,), degree, tokens.shape[2])
    nothing = weights(rnn, steps, (), 0, tokens.shape[2])
    seen = np.einsum("nld,ld->nl", tokens, concept.betas)
    # fixed tokens are constants, whatever f
    shift = float(concept.f.value(seen[:1])[0, steps.fixed].sum())
    powers = np.square(concept.betas[free]).sum(axis=1)[:, None] ** np.arange(1, degree + 1)

    def norm(c: np.ndarray) -> float:
        constant = _ratio(np.array([(shift + len(free) * c[0]) ** 2]), nothing)
        return constant + _ratio(c[1:] ** 2 * powers, rows[free, 1:])

    def values(c: np.ndarray) -> np.ndarray:
        return shift + np.polynomial.polynomial.polyval(seen[:, free], c).sum(axis=1)

    return _Target(rows, norm, values)


def _of_joint(
    rnn: ElmanRNN, steps: Steps, x: ArrayLike, concept: NVariable, degree: int
) -> _Target:
    tokens = np.asarray(x, np.float64)
    at = tuple(position - 1 for position in concept.positions)
    if fixed := [s + 1 for s in at if steps.fixed[s]]:
        raise ValueError(
            f"positions must hold tokens that differ between sequences, got {fixed}, whose tokens "
            "are the same in all."
        )
    found = weights(rnn, steps, at, degree, tokens.shape[2])
    alpha = np.indices(found.shape)
    order = alpha.sum(axis=0)
    multinomial = scipy.special.factorial(order) / scipy.special.factorial(alpha).prod(axis=0)
    sizes = np.square(concept.betas).sum(axis=1).reshape(-1, *[1] * len(at))
    factors = np.where(order <= degree, multinomial**2 * (sizes**alpha).prod(axis=0), 0.0)
    seen = np.einsum("nkd,kd->n", tokens[:, list(at)], concept.betas)
    return _Target(
        found,
        lambda c: _ratio(c[np.minimum(order, degree)] ** 2 * factors, found),
        lambda c: np.polynomial.polynomial.polyval(seen, c),
    )


def _ratio(squares: np.ndarray, found: np.ndarray) -> float:
    """The sum of squares over weights, where there is something to divide."""
    needed = squares > 0
    if (found[needed] <= 0).any():
        return math.inf
    return float(np.sum(squares[needed] / found[needed]))
