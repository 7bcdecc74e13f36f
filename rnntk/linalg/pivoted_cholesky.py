"""Partial Cholesky factors of large kernels from few of their columns, with random pivots."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Float, Int

_BLOCK = 32  # pivots drawn at a time: a product of matrices, not of vectors, updates the rest


class PartialCholesky(NamedTuple):
    r"""A low-rank part of a positive semidefinite matrix, :math:`A \approx F F^\top`.

    Attributes:
        factor: F, shape (n, rank).
        pivots: the columns of A that it spans, in the order in which they were chosen.
        remainder: trace of :math:`A - F F^\top`, which is positive semidefinite.
    """

    factor: Float[np.ndarray, "n rank"]
    pivots: Int[np.ndarray, " rank"]
    remainder: float


def pivoted_cholesky(
    columns: Callable[[Int[np.ndarray, " k"]], Float[np.ndarray, "n k"]],
    diagonal: Float[np.ndarray, " n"],
    rank: int,
    seed: int = 0,
    tolerance: float = 1e-14,
) -> PartialCholesky:
    """Partial Cholesky factorization with pivots drawn in proportion to what is left.

    Randomly pivoted Cholesky (Chen, Epperly, Tropp & Webber 2025, algorithm 2), in blocks: pivots
    of one block that the others have explained are dropped. Needs ``rank`` columns of the matrix
    and O(n rank^2) operations, in float64.

    Args:
        columns: gives the columns at some indices.
        diagonal: of the matrix.
        rank: number of pivots wanted; fewer come back if the rest falls below the tolerance.
        seed: of the random pivots.
        tolerance: relative to the largest diagonal entry, below which a pivot is rounding.

    Example:
        >>> import numpy as np
        >>> A = np.diag([2.0, 1.0, 0.0])
        >>> part = pivoted_cholesky(lambda k: A[:, k], np.diagonal(A), 3)
        >>> part.factor.shape, bool(np.allclose(part.factor @ part.factor.T, A))
        ((3, 2), True)
    """
    n, rank = len(diagonal), min(rank, len(diagonal))
    rng = np.random.default_rng(seed)
    left = np.array(diagonal, np.float64)
    floor = tolerance * float(left.max(initial=0.0))
    factor, pivots = np.zeros((n, rank), order="F"), np.zeros(rank, np.int64)
    count = 0
    while count < rank and (left > floor).any():
        weights = np.where(left > floor, left, 0.0)
        wanted = min(_BLOCK, rank - count, int((weights > 0).sum()))
        drawn = np.unique(rng.choice(n, wanted, p=weights / weights.sum()))
        block = columns(drawn) - factor[:, :count] @ factor[drawn, :count].T
        kept, small = _independent(block[drawn], floor)
        if kept.size == 0:  # the diagonal promised what the columns do not hold
            left[drawn] = 0.0
            continue
        new = scipy.linalg.solve_triangular(small, block[:, kept].T, lower=True).T
        factor[:, count : count + len(kept)] = new
        pivots[count : count + len(kept)] = drawn[kept]
        count += len(kept)
        left = np.maximum(left - (new**2).sum(axis=1), 0.0)
        left[drawn[kept]] = 0.0
    return PartialCholesky(factor[:, :count], pivots[:count], float(left.sum()))


def _independent(
    block: Float[np.ndarray, "k k"], floor: float
) -> tuple[Int[np.ndarray, " kept"], Float[np.ndarray, "kept kept"]]:
    """Pivots that keep a tenth of their size beside the others, largest first, and their factor."""
    size = np.diagonal(block).copy()
    left, kept = size.copy(), []
    rows: list[np.ndarray] = []
    for _ in range(len(size)):
        j = int(np.argmax(left))
        if left[j] <= max(floor, 0.1 * size[j]):
            break
        row = (block[j] - sum((r * r[j] for r in rows), np.zeros(len(size)))) / np.sqrt(left[j])
        rows.append(row)
        kept.append(j)
        left = left - row**2
        left[j] = -np.inf
    index = np.array(kept, np.int64)
    if not kept:
        return index, np.zeros((0, 0))
    return index, np.tril(np.array(rows)[:, index].T)
