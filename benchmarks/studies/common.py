"""What the studies share: their command line, and parts that are kept as they are finished.

    python benchmarks/studies/NAME.py [--quick | --full] [--out FOLDER]

``--quick`` is for a CPU with two cores, and its numbers stand in docs/studies.md; ``--full`` is for
an accelerator, and goes on from where it was interrupted. Both write FOLDER/NAME-MODE.json,
which says what ran where, and figures FOLDER/NAME-*.png. Everything repeats from the scripts' keys.
"""

import argparse
import inspect
import json
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, ScalarFormatter

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from harness import environment, save  # noqa: E402

Parts = Mapping[str, Callable[[], Any]]


def plain(value: Any) -> Any:
    """What JSON can hold; infinity and NaN as text."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value


def numbers(value: Any) -> np.ndarray:
    """A list of JSON as an array, text for infinity and NaN included."""
    return np.array(value, dtype=object).astype(float)


def finite(values: Any) -> np.ndarray:
    """NaN, which is not drawn, for infinity."""
    array = numbers(values)
    return np.where(np.isfinite(array), array, np.nan)


def length_axis(ax: Axes, lengths: Any) -> None:
    """Logarithmic, with a tick at every length."""
    ax.set_xscale("log")
    ax.set_xticks(list(lengths), [str(length) for length in lengths])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("length $L$")


def plain_log(ax: Axes) -> None:
    """A logarithmic axis of values that span less than a decade or two, in plain numbers."""
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(ScalarFormatter())
    ax.yaxis.set_minor_formatter(ScalarFormatter())
    ax.tick_params(axis="y", which="both", labelsize=8)


def error_bars(ax: Axes, at: Any, intervals: Any, **look: Any) -> None:
    """Means with their intervals, of rows (mean, low, high); what is not finite is left out."""
    mean, low, high = finite(intervals).T
    kept = np.isfinite(mean)
    gaps = [(mean - low)[kept], (high - mean)[kept]]
    ax.errorbar(np.array(at)[kept], mean[kept], yerr=gaps, capsize=3, ms=5, **look)


def main(
    parts: Callable[[bool], Parts],
    figures: Callable[[dict[str, Any]], Mapping[str, Figure]],
    lines: Callable[[dict[str, Any]], list[str]],
) -> None:
    """Run a study from the command line.

    Args:
        parts: maps ``full`` to what is computed, by name, each on its own.
        figures: draws the results of all parts.
        lines: what the study found, in words and numbers.
    """
    script = Path(inspect.getfile(parts))
    parser = argparse.ArgumentParser(description=(sys.modules["__main__"].__doc__ or "").strip())
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--quick", action="store_true", help="the default")
    mode.add_argument("--full", action="store_true")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    # An interrupt ends the process: rnntk.train.fit would return half a training, to be kept here.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    path = options.out / f"{script.stem}-{'full' if options.full else 'quick'}.json"
    results: dict[str, Any] = {"environment": environment(), "seconds": {}, "parts": {}}
    if options.full and path.exists():
        results = json.loads(path.read_text())
    for name, compute in parts(options.full).items():
        if name in results["parts"]:
            continue
        start = time.perf_counter()
        results["parts"][name] = plain(compute())
        results["seconds"][name] = round(time.perf_counter() - start, 1)
        save(path, results)
    found = json.loads(path.read_text())["parts"]
    for name, figure in figures(found).items():
        figure.savefig(options.out / f"{script.stem}-{name}.png", dpi=110)
    print("\n".join(lines(found)))
