"""What the benchmark scripts share: timing, peers in plain JAX, tables and JSON."""

import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jaxlib
import numpy as np


def seconds(call: Callable[[], Any], repeats: int = 3) -> float:
    """Best wall time of ``call`` after one unmeasured run, which compiles.

    Short calls are repeated for half a second.
    """
    jax.block_until_ready(call())
    times: list[float] = []
    while len(times) < repeats or (repeats > 1 and sum(times) < 0.5):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return min(times)


def environment() -> dict[str, Any]:
    """The device and the versions that a result belongs to."""
    device = jax.devices()[0]
    return {
        "device": f"{device.platform}: {device.device_kind}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "numpy": np.__version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as aligned text; numbers with three digits."""
    names = list(rows[0])
    cells = [names] + [
        [f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows
    ]
    widths = [max(len(row[i]) for row in cells) for i in range(len(names))]
    return "\n".join(
        "  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in cells
    )


def save(path: Path, results: dict[str, Any]) -> None:
    """Write JSON in one step, so that an interrupted run leaves no half of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(results, indent=1) + "\n")
    os.replace(part, path)
