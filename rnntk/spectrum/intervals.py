"""Eigenvalues of kernel matrices, in float64 on the host, each smallest one with its interval.

The eigensolvers are LAPACK's, on the host, wherever the matrix was made: those of accelerators are
known to return NaN without a word where they fail. NaN in a matrix is refused before anything is
computed. The intervals are those of ``linalg.enclosure``, proved in docs/theory/spectrum.md; those
of exact kernels come from :func:`rnntk.spectrum.certify`.
"""

import math
import os
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from jax.typing import ArrayLike
from jaxtyping import Float

from rnntk.linalg import enclosure, lanczos, matrices
from rnntk.spectrum import stored
from rnntk.storage import StoredMatrix
from rnntk.storage.places import Place, place_of
from rnntk.tiling.memory import free_memory

METHODS = ("auto", "dense", "cholesky", "lanczos", "tiles")
"""Ways to the smallest eigenvalue, for :func:`min_eigenvalue`."""
_COPIES = 4  # of a matrix in float64, that all eigenvalues or a factorization take


@dataclass(frozen=True)
class MinEigenvalue:
    """A smallest eigenvalue and what is known about it.

    Attributes:
        value: the eigenvalue as computed.
        lower: lower end of the interval; -inf where the method knows none.
        upper: upper end of the interval.
        method: how ``value`` was computed.
        certified: whether [lower, upper] provably contains the smallest eigenvalue of the given
            matrix; for a float32 matrix, of every matrix that rounds to it.
        resolved: whether the sign of ``value`` is known: it exceeds what rounding can make
            (docs/theory/spectrum.md, "Singular to rounding") and ``residual``, and a certified
            interval leaves 0 out.
        residual: of ``"lanczos"``, how far the nearest eigenvalue may lie from ``value``, up to
            rounding; a large one means that the iteration ran out of steps. 0 otherwise.
    """

    value: float
    lower: float
    upper: float
    method: str
    certified: bool
    resolved: bool
    residual: float = 0.0


@dataclass(frozen=True)
class Summary:
    r"""Numbers that describe a spectrum :math:`\lambda_1 \ge \dots \ge \lambda_n`.

    Attributes:
        smallest: :math:`\lambda_n`.
        largest: :math:`\lambda_1`.
        condition_number: :math:`\lambda_1 / \lambda_n`; infinite where :math:`\lambda_n` is not
            positive and resolved.
        trace: :math:`\sum_i \lambda_i`.
        effective_rank: exponential of the entropy of :math:`\lambda_i / \sum_j \lambda_j`
            (Roy & Vetterli 2007), negative eigenvalues counting as 0; None for a kernel on disk
            that is too large for memory.
        intrinsic_dimension: :math:`\sum_i \lambda_i / \lambda_1`.
        stable_rank: :math:`\sum_i \lambda_i^2 / \lambda_1^2`.
        effective_dimension: :math:`\sum_i \lambda_i / (\lambda_i + r)` at the ridge r, None
            without one.
        decay_exponent: a in :math:`\lambda_k \sim k^{-a}`, by least squares in logarithms over
            ``decay_range``; None where fewer than 8 eigenvalues are resolved and positive.
        decay_range: first and last k of the fit: of the resolved eigenvalues the first half, less
            their first twentieth. What finite samples do to a power law shows in its tail.
        unresolved: fraction of the eigenvalues that rounding may have made, see
            :attr:`MinEigenvalue.resolved`; None like ``effective_rank``.
    """

    smallest: float
    largest: float
    condition_number: float
    trace: float
    effective_rank: float | None
    intrinsic_dimension: float
    stable_rank: float
    effective_dimension: float | None
    decay_exponent: float | None
    decay_range: tuple[int, int] | None
    unresolved: float | None


def eigenvalues(K: ArrayLike) -> Float[np.ndarray, " n"]:
    """All eigenvalues of a symmetric matrix, ascending.

    Args:
        K: symmetric matrix (n, n).

    Returns:
        float64 NumPy array (n,), by LAPACK on the host.

    Raises:
        TypeError: for what is no floating-point matrix.
        ValueError: for a matrix that is not square, finite and symmetric.

    Example:
        >>> import numpy as np, rnntk
        >>> rnntk.spectrum.eigenvalues(np.diag([2.0, 1.0])).tolist()
        [1.0, 2.0]
    """
    return scipy.linalg.eigvalsh(matrices.check_symmetric(K), check_finite=False)


def summary(K: ArrayLike | StoredMatrix, ridge: float | None = None) -> Summary:
    """Condition, ranks and decay of a spectrum.

    Args:
        K: symmetric matrix (n, n). Of a kernel on disk that is too large for memory, the ends of
            the spectrum are found by :func:`min_eigenvalue` and :func:`largest_eigenvalues`, and
            what takes all eigenvalues is None.
        ridge: added to the diagonal in kernel regression, not divided by n.

    Returns:
        See :class:`Summary`; every number is computed from all eigenvalues, in float64.

    Raises:
        TypeError: for what is no floating-point matrix.
        ValueError: for a matrix that is not square, finite and symmetric, or has no positive
            eigenvalue; for a ridge that is not positive.
        FloatingPointError: if the trace exceeds the range of float64.

    Example:
        >>> import numpy as np, rnntk
        >>> result = rnntk.spectrum.summary(np.diag([3.0, 1.0]), ridge=1.0)
        >>> result.condition_number, result.stable_rank, result.effective_dimension
        (3.0, 1.1111111111111112, 1.25)
    """
    if ridge is not None and not 0 < ridge < math.inf:
        raise ValueError(f"ridge must be positive and finite, got {ridge}.")
    if isinstance(K, StoredMatrix):
        if not _fits(K):
            return _ends(K)
        K = np.asarray(K)
    values = eigenvalues(K)[::-1]
    largest, smallest = float(values[0]), float(values[-1])
    with np.errstate(over="ignore", invalid="ignore"):
        trace = float(values.sum())
    if not math.isfinite(trace):
        raise FloatingPointError("The trace exceeds the range of float64: rescale K.")
    if largest <= 0:
        raise ValueError(f"K must have a positive eigenvalue, got {largest:.3g} as the largest.")
    floor = matrices.resolution(len(values), matrices.size_of_spectrum(values), np.asarray(K).dtype)
    relative = values / largest  # squares and sums of these are in range
    shares = np.maximum(relative, 0) / np.maximum(relative, 0).sum()
    entropy = -float(np.sum(shares * np.log(np.where(shares > 0, shares, 1))))
    exponent, fitted = _decay(values[: int(np.sum(values > floor))])
    kept = np.maximum(values, 0)
    return Summary(
        smallest=smallest,
        largest=largest,
        condition_number=largest / smallest if smallest > floor else math.inf,
        trace=trace,
        effective_rank=math.exp(entropy),
        intrinsic_dimension=float(relative.sum()),
        stable_rank=float(np.sum(relative**2)),
        effective_dimension=None if ridge is None else float(np.sum(kept / (kept + ridge))),
        decay_exponent=exponent,
        decay_range=fitted,
        unresolved=float(np.mean(np.abs(values) <= floor)),
    )


def _fits(K: StoredMatrix) -> bool:
    return _COPIES * 8 * K.size <= free_memory()


def _ends(K: StoredMatrix) -> Summary:
    """What the ends of the spectrum and sums over the entries tell."""
    smallest, found = min_eigenvalue(K, "tiles"), stored.sums(K)
    largest = float(stored.largest_eigenvalues(K).values[0])
    positive = smallest.resolved and smallest.value > 0
    return Summary(
        smallest=smallest.value,
        largest=largest,
        condition_number=largest / smallest.value if positive else math.inf,
        trace=found.trace,
        effective_rank=None,
        intrinsic_dimension=found.trace / largest,
        stable_rank=(found.norm / largest) ** 2,
        effective_dimension=None,
        decay_exponent=None,
        decay_range=None,
        unresolved=None,
    )


def _decay(values: np.ndarray) -> tuple[float | None, tuple[int, int] | None]:
    """Slope of -log(value) against log(rank), of descending positive values."""
    if len(values) < 8:
        return None, None
    first, last = 1 + len(values) // 20, len(values) // 2
    ranks = np.arange(first, last + 1)
    slope = np.polyfit(np.log(ranks), np.log(values[first - 1 : last]), 1)[0]
    return -float(slope), (first, last)


def min_eigenvalue(
    K: Any,
    method: str = "auto",
    *,
    scratch: str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
) -> MinEigenvalue:
    """Smallest eigenvalue of a symmetric matrix, in an interval that rounding cannot escape.

    Args:
        K: symmetric matrix (n, n), for which a float32 one counts as known to its own rounding; or
            an operator, anything that has ``shape`` and multiplies a vector by ``matvec``, ``mv``,
            ``@`` or a call, such as SciPy's and lineax's.
        method: ``"dense"``, all eigenvalues by LAPACK; ``"cholesky"``, Lanczos on the inverse by
            one factorization, and a second one for the interval: a fraction of the cost of all
            eigenvalues, for large n; ``"lanczos"``, Lanczos on the matrix itself, which only
            multiplies by it; ``"tiles"``, for a kernel on disk, two factorizations on disk, tile by
            tile, in the memory of a few; ``"auto"``, the first that fits.
        scratch: folder or URL for the factors of ``"tiles"``, half of the kernel in float64 each;
            beside the kernel by default. A call that was stopped leaves them there, and the same
            call goes on with them.
        executor: of ``concurrent.futures`` or Dask, which computes the tiles of the factors; by
            default one after the other, each on all cores.

    Returns:
        The eigenvalue with its interval, in float64. ``"lanczos"`` bounds it from above alone, up
        to rounding: ``lower`` is -inf, ``certified`` False. It takes 400 products at most, and may
        stop above a smallest eigenvalue that is far smaller than the largest: see ``residual``.

    Raises:
        ValueError: for an unknown method, an operator with another method than ``"lanczos"``, a
            matrix that is not square, finite and symmetric, or an operator that a random pair of
            vectors shows not to be symmetric.
        TypeError: for a matrix or an operator that is not floating point.
        FloatingPointError: if an operator's product is not finite.

    Example:
        >>> import numpy as np, rnntk
        >>> result = rnntk.spectrum.min_eigenvalue(np.diag([2.0, 1.0]))
        >>> result.lower <= 1 <= result.upper, result.certified
        (True, True)
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}.")
    if isinstance(K, StoredMatrix):
        if method == "tiles" or (method == "auto" and not _fits(K)):
            return _in_tiles(K, None if scratch is None else place_of(scratch, "scratch"), executor)
        K = np.asarray(K)
    if method == "tiles":
        raise ValueError(f"method='tiles' is for a kernel on disk, got {type(K).__name__}.")
    if _is_operator(K):
        if method not in ("auto", "lanczos"):
            raise ValueError(f"method must be 'lanczos' for an operator, got {method!r}.")
        n, dtype = _size(K), np.dtype(getattr(K, "dtype", np.float64))
        matrices.check_dtype(dtype)
        product = _product(K, dtype)
        _check_symmetric(product, n, dtype)
        return _from_above(product, n, dtype)
    A, relative, absolute = matrices.with_uncertainty(K)
    dtype, n = np.asarray(K).dtype, len(A)
    if method == "lanczos":
        return _from_above(lambda v: A @ v, n, dtype, matrices.size_of(A))
    ends = lanczos.ends(A, method)
    interval = enclosure.enclose(A, ends.smallest, relative, absolute)
    # in the cholesky method the estimate is what Lanczos has come to, and the quotient finishes it
    value = ends.smallest if ends.method == "dense" else interval.value
    value = min(max(value, interval.lower), interval.upper)
    return MinEigenvalue(
        value=value,
        lower=interval.lower,
        upper=interval.upper,
        method=ends.method,
        certified=math.isfinite(interval.lower) and math.isfinite(interval.upper),
        resolved=abs(value) > matrices.resolution(n, matrices.size_of(A), dtype)
        and not interval.lower <= 0 <= interval.upper,
    )


def _in_tiles(K: StoredMatrix, scratch: Place | None, executor: Executor | None) -> MinEigenvalue:
    interval, found = stored.enclose(K, scratch, executor)
    return MinEigenvalue(
        value=interval.value,
        lower=interval.lower,
        upper=interval.upper,
        method="tiles",
        certified=True,
        resolved=abs(interval.value) > matrices.resolution(len(K), found.size, K.dtype)
        and not interval.lower <= 0 <= interval.upper,
    )


def _is_operator(K: Any) -> bool:
    """Whether K multiplies vectors without being an array."""
    if hasattr(K, "__array__") or not (hasattr(K, "shape") or hasattr(K, "in_size")):
        return False
    return any(hasattr(K, name) for name in ("matvec", "mv", "__matmul__", "__call__"))


def _size(K: Any) -> int:
    """Rows of an operator; lineax's have sizes for a shape."""
    shape = tuple(K.shape) if hasattr(K, "shape") else (K.out_size(), K.in_size())
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] == 0:
        raise ValueError(f"K must be a square operator, got shape {shape}.")
    return int(shape[0])


def _product(K: Any, dtype: np.dtype) -> Callable[[np.ndarray], np.ndarray]:
    """Multiplication by an operator in its own dtype, the result in float64."""
    if hasattr(K, "matvec"):
        multiply = K.matvec
    elif hasattr(K, "mv"):
        multiply = K.mv
    else:
        multiply = K.__matmul__ if hasattr(K, "__matmul__") else K

    def product(v: np.ndarray) -> np.ndarray:
        given = np.asarray(multiply(v.astype(dtype)))
        matrices.check_dtype(given.dtype, "K times a vector")
        result = given.astype(np.float64).reshape(-1)
        if result.shape != v.shape or not np.isfinite(result).all():
            raise FloatingPointError(
                f"K must map a vector to a finite vector, got shape {result.shape} from {v.shape}, "
                f"{int(np.sum(~np.isfinite(result)))} of its entries not finite."
            )
        return result

    return product


def _check_symmetric(product: Callable[[np.ndarray], np.ndarray], n: int, dtype: np.dtype) -> None:
    """Refuse an operator A that has u' A v and v' A u apart by more than half of its digits."""
    u, v = np.random.default_rng(1).standard_normal((2, n))
    left, right = product(v), product(u)
    gap = abs(float(u @ left - v @ right))
    norm = scipy.linalg.norm
    size = max(norm(u) * norm(left), norm(v) * norm(right))
    if gap > math.sqrt(2 * matrices.unit_roundoff(dtype)) * size:
        raise ValueError(
            f"K must be symmetric, got u' K v and v' K u that differ by {gap / size:.3g} of "
            "|u| |K v| for random u and v."
        )


def _from_above(
    product: Callable[[np.ndarray], np.ndarray],
    n: int,
    dtype: np.dtype,
    size: float | None = None,
) -> MinEigenvalue:
    """Lanczos on the matrix itself, to what its dtype resolves.

    Of an operator the ``size`` is not known, and its products are computed in its own dtype. With
    entries that are not negative they err by n u times the largest eigenvalue at most.
    """
    eps = 2 * matrices.unit_roundoff(dtype)
    values, residual = lanczos.ritz(product, n, 0, eps**0.75)
    value, largest = float(values[0]), float(np.abs(values).max())
    if size is None:
        floor = matrices.resolution(n, largest, dtype, arithmetic=dtype)
    else:
        floor = matrices.resolution(n, size, dtype)
    return MinEigenvalue(
        value=value,
        lower=-math.inf,
        upper=value + n * eps * largest,
        method="lanczos",
        certified=False,
        resolved=abs(value) > max(floor, residual),
        residual=residual,
    )
