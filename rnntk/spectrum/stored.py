"""Ends of the spectrum of a kernel on disk, in the memory of a few tiles."""

import math
from concurrent.futures import Executor
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from rnntk.files import fingerprint
from rnntk.linalg import block_lanczos, enclosure, matrices
from rnntk.linalg.block_lanczos import RitzPairs
from rnntk.linalg.tiled_cholesky import NotPositiveError, Run, TiledFactor
from rnntk.linalg.tiles import multiply
from rnntk.storage import StoredMatrix
from rnntk.storage.chunks import checksum, read_chunk, write_chunk
from rnntk.storage.places import Place, place_of
from rnntk.tiling.executors import on_executor

_TOLERANCE = 1e-5  # of Lanczos on the inverse: its square is the error of the estimate
_SCALES = 2.0**-400, 2.0**400  # magnitudes at which no product over- or underflows


@dataclass(frozen=True)
class Sums:
    """What one pass over the tiles tells.

    Attributes:
        diagonal: in float64.
        norm: Frobenius norm as computed.
        largest: magnitude of an entry.
        checksums: of the tiles, one after the other.
    """

    diagonal: Float[np.ndarray, " n"]
    norm: float
    largest: float
    checksums: bytes

    @property
    def trace(self) -> float:
        """Sum of the diagonal, rounded once."""
        return math.fsum(self.diagonal)

    @property
    def size(self) -> float:
        """What :func:`rnntk.linalg.matrices.size_of` is of the matrix."""
        return max(self.trace, self.norm)


@dataclass(frozen=True)
class _Source:
    """A stored matrix as what :mod:`rnntk.linalg.tiled_cholesky` reads."""

    matrix: StoredMatrix

    @property
    def starts(self) -> tuple[int, ...]:
        n, size = len(self.matrix), self.matrix.layout.tile[0]
        return (*range(0, n, size), n)

    def lower(self, index: tuple[int, int]) -> np.ndarray:
        return self.matrix.layout.read(self.matrix.kind, index).astype(np.float64)


@dataclass(frozen=True)
class _Files:
    """Tiles of a factor, each with its checksum: after a loss of power a file may hold anything."""

    place: Place

    def has(self, index: tuple[int, int]) -> bool:
        return self.place.has(_name(index))

    def read(self, index: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
        try:
            return read_chunk(self.place, _name(index), np.dtype(np.float64), shape)
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{self.place} lacks tile {index} of a factor: another process was at the same and "
                "removed it at its end. Repeat the call."
            ) from None
        except ValueError as error:
            raise ValueError(
                f"{self.place} has a damaged tile {index} of a factor ({error}): remove it."
            ) from error

    def write(self, index: tuple[int, int], tile: np.ndarray) -> None:
        write_chunk(self.place, _name(index), tile, tile.shape)


def _name(index: tuple[int, int]) -> str:
    return "{}-{}".format(*index)


def check_stored(K: StoredMatrix) -> None:
    """Refuse a matrix that is not symmetric, or not complete."""
    if not K.symmetric:
        raise ValueError(f"K must be the kernel of one batch with itself, got {K!r}.")
    if missing := len(K.missing()):
        raise ValueError(f"{K!r} lacks {missing} tiles; the call that began it goes on with them.")


def sums(K: StoredMatrix) -> Sums:
    """One pass over the tiles.

    Raises:
        ValueError: for entries that are not finite, or beyond the range in which bounds are proved.
    """
    squares, largest, checksums = [], 0.0, []
    for rows, columns, tile in K.tiles():
        wide = tile.astype(np.float64)
        top = max(float(wide.max()), -float(wide.min()))
        if not math.isfinite(top):
            raise ValueError(f"{K!r} must be finite, got {top} in tile {rows}, {columns}.")
        largest = max(largest, top)
        checksums.append(checksum(np.ascontiguousarray(tile).reshape(-1).view(np.uint8)).tobytes())
        flat = wide.ravel()
        squares.append(float(flat @ flat) * (1 if rows == columns else 2))
    if not _SCALES[0] <= largest <= _SCALES[1]:
        raise ValueError(
            f"{K!r} must have entries of a magnitude between 2^-400 and 2^400, got {largest:.3g}."
        )
    diagonal = K.diagonal().astype(np.float64)
    return Sums(diagonal, math.sqrt(math.fsum(squares)), largest, b"".join(checksums))


def product(K: StoredMatrix, v: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
    """K times columns, all of it in float64."""
    return multiply(((r, c, tile.astype(np.float64)) for r, c, tile in K.tiles()), v)


def largest_eigenvalues(K: StoredMatrix, k: int = 1, *, tolerance: float = 1e-8) -> RitzPairs:
    """The largest eigenvalues of a kernel on disk, by block Lanczos.

    Every product reads the kernel once, for all vectors, and is computed in float64.

    Args:
        K: a symmetric kernel, from :func:`rnntk.open_kernel`.
        k: how many.
        tolerance: of the residuals, relative to the largest eigenvalue.

    Returns:
        ``values``, descending, ``vectors``, ``residuals``, within each of which some eigenvalue
        lies up to rounding, and ``products``, how often the kernel was read.

    Raises:
        TypeError: for a matrix that is not on disk, of which :func:`eigenvalues` gives all.
        ValueError: for a kernel of two batches, or with missing or damaged tiles.

    Example:
        >>> kernel = rnntk.open_kernel("kernel.zarr")  # doctest: +SKIP
        >>> rnntk.spectrum.largest_eigenvalues(kernel.ntk, 5).values  # doctest: +SKIP
    """
    if not isinstance(K, StoredMatrix):
        raise TypeError(f"K must be a kernel on disk, got {type(K).__name__}.")
    check_stored(K)
    return block_lanczos.largest(partial(product, K), len(K), k, tolerance)


def enclose(
    K: StoredMatrix, scratch: Place | None, executor: Executor | None
) -> tuple[enclosure.Interval, Sums]:
    """The smallest eigenvalue by theorems 1 and 2, as :func:`rnntk.linalg.enclosure.enclose`.

    The first factor gives the estimate by Lanczos on the inverse, the second one the proof. Both
    are kept in ``scratch`` until the end, so that a call which was stopped goes on, if the kernel
    has the same tiles.
    """
    check_stored(K)
    found = sums(K)
    mark = fingerprint(K.layout.attributes, K.kind, found.checksums)[:16]
    place = place_of(f"{K.path}.factors.{mark}", "scratch") if scratch is None else scratch.at(mark)
    try:
        interval = _enclosed(K, found, place, executor)
    except BaseException as error:
        error.add_note(f"The factors in {place} stay: the same call goes on with them.")
        raise
    place.clear()
    return interval, found


def _enclosed(
    K: StoredMatrix, found: Sums, scratch: Place, executor: Executor | None
) -> enclosure.Interval:
    n = len(K)
    norm = enclosure.norm_bound(found.norm, n)
    run: Run = map if executor is None else partial(on_executor, executor)
    unit = n * float(enclosure.ROUNDOFF) * float(norm)

    first = _completed(K, scratch, -unit, unit, run, "estimate")
    inverse = block_lanczos.largest(first.solve, n, 1, _TOLERANCE)
    estimate = 1 / float(inverse.values[0]) + first.shift
    second = _completed(K, scratch, estimate - unit, unit, run, "proof")
    error = enclosure.completion_error(found.diagonal - second.shift)
    lower = max(Fraction(second.shift) - error, -norm)
    x = inverse.vectors[:, 0]
    for _ in range(2):
        x = second.solve(x[:, None])[:, 0]
        x /= np.abs(x).max()
    if not np.isfinite(x).all():  # of a factor near underflow
        x = np.eye(1, n, int(np.argmin(found.diagonal)))[0]
    upper, value = _upper(K, x, float(found.diagonal.min()))
    relative, absolute = matrices.uncertainty_of(K.dtype, n)
    radius = Fraction(relative) * norm + Fraction(absolute)
    low = enclosure.round_down(lower - radius)
    high = enclosure.round_up(min(upper, norm) + radius)
    return enclosure.Interval(low, high, min(max(value, low), high))


def _completed(
    K: StoredMatrix, scratch: Place, shift: float, gap: float, run: Run, title: str
) -> TiledFactor:
    """The first factor that runs to completion, at shifts that move down from the given one."""
    source, below = _Source(K), 0.0
    while True:
        tried = shift - below
        place = scratch.at(f"{title}{tried.hex()}")
        factor = TiledFactor(_Files(place), source, tried)
        count = len(list(factor.indices()))
        try:
            with tqdm(desc=f"factor, {title}", total=count, unit="tile", delay=5) as bar:
                factor.compute(run, bar.update)
            return factor
        except NotPositiveError:
            place.clear()
            below = 8 * below or gap


def _upper(K: StoredMatrix, x: Float[np.ndarray, " n"], smallest: float) -> tuple[Fraction, float]:
    """Theorem 2, its sums tile by tile."""
    quotient, magnitude, size = 0.0, 0.0, np.abs(x)
    for rows, columns, tile in K.tiles():
        wide, both = tile.astype(np.float64), 1 if rows == columns else 2
        quotient += both * float(x[rows] @ (wide @ x[columns]))
        magnitude += both * float(size[rows] @ (np.abs(wide) @ size[columns]))
    return enclosure.quotient_bound(quotient, magnitude, x, smallest)
