"""Kernels on disk, larger than memory: Zarr stores of one chunk a tile."""

from rnntk.storage.kernels import StoredKernel, open_kernel
from rnntk.storage.matrices import StoredMatrix

__all__ = ["StoredKernel", "StoredMatrix", "open_kernel"]
