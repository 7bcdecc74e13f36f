"""Large kernels in tiles, on all cores."""
