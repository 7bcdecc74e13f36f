"""Kernels on disk to jaxmg, whose solvers span GPUs: one process each, of ``jax.distributed``.

jaxmg (github.com/flatironinstitute/jaxmg, from 1.0 on) passes matrices to NVIDIA's cuSOLVERMp. No
GPU was at hand when this was written, so nothing that comes back is trusted: eigenvalues must have
the trace and the norm of the kernel, and solutions a small residual, all computed on the host.
"""

import math
from types import ModuleType
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike
from jaxtyping import Float, Real

from rnntk import checks
from rnntk.spectrum import stored
from rnntk.storage import StoredMatrix

_TILE = 256  # of cuSOLVERMp, unless there are fewer rows
_SAFE = 16  # times n roundoffs of float64, by which a result may be off
_AXES = "rows", "columns"


def eigenvalues(K: StoredMatrix) -> Float[np.ndarray, " n"]:
    """All eigenvalues of a kernel on disk, by jaxmg on all GPUs; every process calls it.

    Each reads the rows that its GPU holds, and all of the kernel once to check the result.

    Args:
        K: a symmetric kernel, from :func:`rnntk.open_kernel`.

    Returns:
        Eigenvalues, ascending, in float64. They carry no proof.

    Raises:
        ImportError: if jaxmg is missing.
        RuntimeError: if this process has not one GPU, or no float64.
        TypeError, ValueError: for what is no symmetric and complete kernel on disk.
        ArithmeticError: if what jaxmg gives has not the trace and the norm of the kernel.

    Example:
        >>> kernel = rnntk.open_kernel("kernel.zarr")  # doctest: +SKIP
        >>> rnntk.interop.jaxmg.eigenvalues(kernel.ntk)  # doctest: +SKIP
    """
    package = _ready(K)
    n, found = len(K), stored.sums(K)
    # beyond all others, so that those of the rows that fill up are the last
    matrix, mesh, tile = _spread(K, 0.0, 2 * found.norm)
    with jax.set_mesh(mesh):
        values = package.syevd(matrix, T_A=tile, return_eigenvectors=False)
    values = np.sort(np.asarray(values, np.float64))[:n]
    allowed = _SAFE * n * np.finfo(np.float64).eps * found.norm
    trace = abs(math.fsum(values) - found.trace) if np.isfinite(values).all() else math.nan
    norm = abs(float(np.linalg.norm(values)) - found.norm)
    if len(values) != n or not max(trace / math.sqrt(n), norm) <= allowed:
        raise ArithmeticError(
            f"jaxmg's eigenvalues of {K!r} must have its trace and norm, but these are off by "
            f"{trace:.3g} and {norm:.3g}."
        )
    return values


def solve(
    K: StoredMatrix, y: Real[ArrayLike, " n"] | Real[ArrayLike, "n o"], ridge: float = 0.0
) -> Float[np.ndarray, "n o"]:
    r"""Coefficients :math:`(K + \lambda I)^{-1} y`, by jaxmg's Cholesky factor on all GPUs.

    Args:
        K: a symmetric kernel, from :func:`rnntk.open_kernel`.
        y: labels.
        ridge: :math:`\lambda \ge 0`.

    Returns:
        Coefficients of shape (n, o), in float64, on every process.

    Raises:
        ImportError: if jaxmg is missing.
        RuntimeError: if this process has not one GPU, or no float64.
        TypeError, ValueError: for what is no symmetric and complete kernel on disk, or bad labels.
        ArithmeticError: if what jaxmg gives does not solve the system, as where the kernel is not
            positive definite.

    Example:
        >>> kernel = rnntk.open_kernel("kernel.zarr")  # doctest: +SKIP
        >>> rnntk.interop.jaxmg.solve(kernel.ntk, y, ridge=1e-3)  # doctest: +SKIP
    """
    package = _ready(K)
    if not 0 <= ridge < math.inf:
        raise ValueError(f"ridge must be finite and not negative, got {ridge}.")
    n, found = len(K), stored.sums(K)
    labels = np.asarray(checks.check_labels(y, n), np.float64).reshape(n, -1)
    matrix, mesh, tile = _spread(K, ridge, found.norm)
    sharding = NamedSharding(mesh, PartitionSpec(_AXES[0], None))
    padded = np.zeros((len(matrix), labels.shape[1]))
    padded[:n] = labels
    right = jax.make_array_from_callback(padded.shape, sharding, lambda index: padded[index])
    with jax.set_mesh(mesh):
        spread = package.potrs(matrix, right, T_A=tile)
    x = np.asarray(multihost_utils.process_allgather(spread, tiled=True), np.float64)[:n]
    off = np.linalg.norm(stored.product(K, x) + ridge * x - labels, axis=0)
    sizes = (found.norm + ridge) * np.linalg.norm(x, axis=0) + np.linalg.norm(labels, axis=0)
    if not (off <= _SAFE * n * np.finfo(np.float64).eps * sizes).all():
        raise ArithmeticError(
            f"jaxmg's solution must solve the system of {K!r}, but leaves {off.max():.3g} of "
            f"labels of norm {np.linalg.norm(labels):.3g}."
        )
    return x


def _ready(K: StoredMatrix) -> ModuleType:
    """The package, where it can do something with a kernel."""
    try:
        import jaxmg
    except ImportError:
        raise ImportError(
            "Solvers across GPUs need the package jaxmg: pip install 'jaxmg[cuda13]'. It pins JAX."
        ) from None
    if not isinstance(K, StoredMatrix):
        raise TypeError(f"K must be a kernel on disk, got {type(K).__name__}.")
    stored.check_stored(K)
    devices = _local_devices()
    if [device.platform for device in devices] != ["gpu"]:
        raise RuntimeError(f"jaxmg needs one GPU in each process, this one has {devices}.")
    if jax.dtypes.canonicalize_dtype(np.float64) != np.float64:
        raise RuntimeError("Kernels go to jaxmg in float64: switch on jax_enable_x64.")
    return jaxmg


def _local_devices() -> list[jax.Device]:
    return jax.local_devices()


def _spread(K: StoredMatrix, ridge: float, filler: float) -> tuple[jax.Array, Mesh, int]:
    """The kernel by rows over all devices, in float64, and a size of tiles.

    Rows that fill up what every device holds have ``filler`` on the diagonal.
    """
    mesh = Mesh(np.array(jax.devices())[:, None], _AXES)
    n, each = len(K), -(-len(K) // mesh.size)
    size = each * mesh.size

    def part(index: Any) -> np.ndarray:
        rows, columns = (np.arange(*cut.indices(size)) for cut in index)
        block = np.where(rows[:, None] == columns, filler, 0.0)
        inside = tuple(slice(at[0], min(at[-1] + 1, n)) for at in (rows, columns))
        if rows[0] < n:
            block[: np.sum(rows < n), : np.sum(columns < n)] = K[inside]
        block[(rows[:, None] == columns) & (rows[:, None] < n)] += ridge
        return block

    sharding = NamedSharding(mesh, PartitionSpec(*_AXES))
    matrix = jax.make_array_from_callback((size, size), sharding, part)
    return matrix, mesh, min(_TILE, each)
