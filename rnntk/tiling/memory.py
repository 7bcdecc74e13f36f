"""How much memory a call may take where its caller does not say."""

import os
from contextlib import suppress
from functools import cache
from pathlib import Path

import jax


def free_memory() -> int:
    """Bytes of memory that can be had, what the system keeps of files included.

    Example:
        >>> free_memory() > 0
        True
    """
    with suppress(OSError):  # there on Linux
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


@cache
def quarter(device: jax.Device) -> int:
    """A quarter of the memory of a device, in bytes."""
    if device.platform == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    return (device.memory_stats() or {}).get("bytes_limit", 2**32) // 4


def default_limit(x: jax.Array) -> int:
    """A quarter of the memory, in bytes, of the device that holds ``x``, or of the first."""
    traced = isinstance(x, jax.core.Tracer)
    return quarter(jax.devices()[0] if traced else next(iter(x.devices())))
