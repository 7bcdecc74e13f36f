"""Kernel systems solved without their matrix, or with it in single precision."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from rnntk import checkpoint
from rnntk.files import fingerprint
from rnntk.linalg.conjugate_gradients import Iterate, LowRankPreconditioner, begin, iterate
from rnntk.linalg.pivoted_cholesky import pivoted_cholesky
from rnntk.linalg.tiles import multiply
from rnntk.predict.sequence_kernel import BLOCK, SequenceKernel
from rnntk.predict.stored_system import StoredSystem

_INNER = 1e-4  # what one solve in single precision gains before it is refined
_ROUNDED = 256  # residual that rounding of products may leave, over the dtype's own
_LIMIT = 1000  # steps of conjugate gradients


@dataclass(frozen=True, eq=False)
class Solution:
    r"""Coefficients of a kernel regression, and how good they are.

    Attributes:
        coefficients: a, shape (n, o).
        residual: :math:`|y - (K + \lambda I) a| / |y|` of each output, with K computed once more
            for it in the dtype of the tokens.
        steps: of conjugate gradients.
        passes: how often the whole kernel was computed.
        rank: of the preconditioner.
    """

    coefficients: Float[np.ndarray, "n o"]
    residual: Float[np.ndarray, " o"]
    steps: int
    passes: int
    rank: int


class _Counted:
    """The kernel plus ridge as a product with columns, counting how often it is computed."""

    def __init__(self, kernel: SequenceKernel | StoredSystem, ridge: float, bar: tqdm) -> None:
        self.kernel, self.ridge, self.bar, self.passes = kernel, ridge, bar, 0

    def __call__(self, v: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
        self.passes += 1
        return multiply(self._tiles(), v) + self.ridge * v

    def stored(self) -> Callable[[Float[np.ndarray, "n k"]], Float[np.ndarray, "n k"]]:
        """The same product from tiles that are kept in single precision."""
        self.passes += 1
        kept = [(rows, columns, tile.astype(np.float32)) for rows, columns, tile in self._tiles()]
        return lambda v: multiply(iter(kept), v) + self.ridge * v

    def _tiles(self):  # type: ignore[no-untyped-def]
        self.bar.reset(total=self.kernel.tile_count)
        for tile in self.kernel.tiles():
            yield tile
            self.bar.update()


def solve(
    kernel: SequenceKernel | StoredSystem,
    y: Float[np.ndarray, "n o"],
    ridge: float,
    *,
    method: Literal["float32", "matrix-free"],
    tolerance: float,
    rank: int,
    seed: int = 0,
    path: Path | None = None,
    progress: bool = True,
) -> Solution:
    """Solve (K + ridge I) a = y by preconditioned conjugate gradients.

    ``"matrix-free"`` computes the kernel once for each step. ``"float32"`` keeps it in single
    precision, half of it, solves with that, and refines by residuals in the dtype of the tokens,
    each of which computes the kernel once more (Higham 2002, section 12). Memory beside the
    tokens: O(n (rank + outputs)), and 2 n^2 bytes for ``"float32"``.

    Raises:
        FloatingPointError: if the matrix is not positive definite, or too ill-conditioned for the
            tolerance, or for refinement from single precision.
        ValueError: if the checkpoint belongs to another problem.
    """
    part = pivoted_cholesky(kernel.columns, kernel.diagonal, rank, seed)
    precondition = LowRankPreconditioner.of(part, ridge)
    record = _Record(
        path,
        {
            **kernel.problem,
            "y": fingerprint(y),
            "ridge": repr(ridge),
            "method": method,
            "tolerance": repr(tolerance),
            "preconditioner": repr((rank, seed, BLOCK)),
        },
    )
    with tqdm(total=kernel.tile_count, desc="kernel", disable=not progress) as bar:
        product = _Counted(kernel, ridge, bar)
        if method == "matrix-free":
            state = record.read() or begin(y, precondition)
            state = _run(product, precondition, state, y, tolerance, record, bar)
            solution, steps = state.solution, state.steps
            residual = _relative(y - product(solution), y)
            # the residual that the steps carried along is free of what rounding did to them
            if residual.max() > max(2 * tolerance, _ROUNDED * float(np.finfo(kernel.dtype).eps)):
                raise FloatingPointError(
                    f"the system is too ill-conditioned for tolerance={tolerance:.1e}: the "
                    f"residual stays at {residual.max():.1e}. Raise the ridge or the tolerance."
                )
        else:
            solution, residual, steps = _refine(product, precondition, y, tolerance, record, bar)
    return Solution(solution, residual, steps, product.passes, part.factor.shape[1])


def _run(
    product: Callable[[np.ndarray], np.ndarray],
    precondition: Callable[[np.ndarray], np.ndarray],
    state: Iterate,
    right: Float[np.ndarray, "n o"],
    tolerance: float,
    record: "_Record",
    bar: tqdm,
) -> Iterate:
    """Conjugate gradients from a state until every column's residual is below the tolerance."""
    if _relative(state.residual, right).max() <= tolerance:
        return state
    for found in iterate(product, precondition, state):
        record.write(found)
        relative = float(_relative(found.residual, right).max())
        bar.set_postfix(step=found.steps, residual=f"{relative:.1e}")
        if relative <= tolerance:
            return found
        if found.steps >= _LIMIT:
            raise FloatingPointError(
                f"conjugate gradients have not converged in {_LIMIT} steps, the residual is "
                f"{relative:.1e}: raise the ridge, the rank or the tolerance."
            )
    raise AssertionError("the iteration has no end")


def _refine(
    product: _Counted,
    precondition: Callable[[np.ndarray], np.ndarray],
    y: Float[np.ndarray, "n o"],
    tolerance: float,
    record: "_Record",
    bar: tqdm,
) -> tuple[Float[np.ndarray, "n o"], Float[np.ndarray, " o"], int]:
    """Solves in single precision, each of what the sum of those before has left."""
    stored = product.stored()
    state = record.read()
    while True:
        left = y if record.refined is None else record.left
        size = float(_relative(left, y).max())
        state = state or begin(left, precondition)
        goal = max(_INNER, min(0.3 * tolerance / size, 0.1)) if size > 0 else _INNER
        state = _run(stored, precondition, state, left, goal, record, bar)
        before = 0.0 if record.refined is None else record.refined
        solution = before + state.solution
        residual = y - product(solution)
        relative = _relative(residual, y)
        record.steps += state.steps
        if relative.max() <= tolerance:
            return solution, relative, record.steps
        if relative.max() > size / 3:
            raise FloatingPointError(
                f"the kernel is too ill-conditioned for single precision: refinement stays at a "
                f"residual of {relative.max():.1e}. Use method='matrix-free', or a larger ridge."
            )
        record.refined, record.left, state = solution, residual, None


class _Record:
    """The checkpoint of a solve, if one is wanted, and the refinement that it belongs to."""

    def __init__(self, path: Path | None, problem: dict[str, Any]) -> None:
        self.path, self.problem, self.steps = path, problem, 0
        self.refined: Float[np.ndarray, "n o"] | None = None
        self.left: Float[np.ndarray, "n o"] = np.zeros((0, 0))

    def read(self) -> Iterate | None:
        """Where the solve was interrupted, or None."""
        arrays = None if self.path is None else checkpoint.load(self.path, self.problem)
        if arrays is None:
            return None
        self.steps = int(arrays["refined_steps"])
        if "refined" in arrays:
            self.refined, self.left = arrays["refined"], arrays["left"]
        return Iterate(
            solution=arrays["solution"],
            residual=arrays["residual"],
            direction=arrays["direction"],
            energy=arrays["energy"],
            steps=int(arrays["steps"]),
        )

    def write(self, state: Iterate) -> None:
        """Replace the checkpoint by a state."""
        if self.path is None:
            return
        arrays = {
            "solution": state.solution,
            "residual": state.residual,
            "direction": state.direction,
            "energy": state.energy,
            "steps": np.array(state.steps),
            "refined_steps": np.array(self.steps),
        }
        if self.refined is not None:
            arrays |= {"refined": self.refined, "left": self.left}
        checkpoint.save(self.path, self.problem, arrays)


def _relative(residual: Float[np.ndarray, "n o"], y: Float[np.ndarray, "n o"]) -> np.ndarray:
    """Norms of the columns relative to those of the right-hand side; 0 where that is 0."""
    size = np.linalg.norm(y, axis=0)
    gap = np.linalg.norm(residual, axis=0)
    return np.divide(gap, size, out=np.zeros_like(gap), where=size > 0)
