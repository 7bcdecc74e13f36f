"""Kernels on disk from the command line: ``kernel --out kernel.zarr`` and ``status``."""

import time
from argparse import Namespace
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any

import jax.numpy as jnp

from rnntk.datasets import Dataset
from rnntk.infinite.kernel import infinite_kernel
from rnntk.network.elman import ElmanRNN
from rnntk.storage import StoredKernel, open_kernel
from rnntk.storage.places import place_of

SUFFIX = ".zarr"
_RECENT = 50  # tiles of which the rate is told


def is_store(options: Namespace) -> bool:
    """Whether the kernel goes into a store.

    Raises:
        ValueError: for options of a store without one.
    """
    if PurePath(options.out).suffix == SUFFIX:
        return True
    for name in ("dask", "tile", "resume"):
        if hasattr(options, name):
            raise ValueError(f"--{name} must come with --out FOLDER{SUFFIX}, got {options.out}.")
    return False


def store(options: Namespace, rnn: ElmanRNN, data: Dataset, dtype: str) -> StoredKernel:
    """Compute the tiles that are missing.

    Raises:
        FileExistsError: if something is there, unless it is to be resumed.
    """
    out = place_of(options.out, "--out")
    if out.exists() and not hasattr(options, "resume"):
        raise FileExistsError(f"{out} exists: --resume goes on with it, if it is of this kernel.")
    lengths = None if data.lengths is None else jnp.asarray(data.lengths)
    x = jnp.asarray(data.x.astype(dtype))
    try:
        with _executor(getattr(options, "dask", None)) as executor:
            return infinite_kernel(  # type: ignore[return-value]
                rnn,
                x,
                lengths1=lengths,
                out=str(out),
                executor=executor,
                tile=getattr(options, "tile", None),
            )
    except KeyboardInterrupt:
        if not out.exists():
            raise
        raise KeyboardInterrupt(f"{_progress(open_kernel(str(out)))}; --resume goes on") from None


@contextmanager
def _executor(address: str | None) -> Iterator[Executor | None]:
    """That of a Dask cluster; without an address none."""
    if address is None:
        yield None
        return
    try:
        from distributed import Client
    except ImportError:
        raise ImportError(
            "--dask needs the package distributed: pip install 'rnntk[scale]'."
        ) from None
    with Client(address) as client:
        yield client.get_executor()


def facts(kernel: StoredKernel) -> dict[str, Any]:
    """What a store holds, and how long the rest will take at the rate of the latest tiles."""
    layout, some = kernel.layout, kernel.matrices[0]
    missing, every = layout.missing(), layout.tiles()
    left = set(missing)
    known = (
        layout.place.modified(layout.chunk(layout.kinds[-1], index))
        for index in every
        if index not in left
    )
    times = sorted(seconds for seconds in known if seconds is not None)[-_RECENT:]
    rate = (
        (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 and times[-1] > times[0] else 0
    )
    return {
        "shape": list(some.shape),
        "dtype": str(some.dtype),
        "kinds": list(layout.kinds),
        "tiles": len(every),
        "complete": len(every) - len(missing),
        "seconds_left": len(missing) / rate if rate else None,
        "seconds_since_last": time.time() - times[-1] if times else None,
        "identity": kernel.identity,
    }


def _progress(kernel: StoredKernel) -> str:
    done = kernel.tile_count - len(kernel.missing())
    return f"{kernel.path} has {done} of {kernel.tile_count} tiles"


def text(kernel: StoredKernel, found: dict[str, Any]) -> str:
    """The facts for people."""
    lines = [f"{_progress(kernel)}: {found['shape']} {found['dtype']}, {', '.join(found['kinds'])}"]
    if found["complete"] < found["tiles"] and found["seconds_left"] is not None:
        lines.append(
            f"latest tile {found['seconds_since_last']:.0f} s ago; at the rate of the latest, "
            f"{found['seconds_left']:.0f} s are left"
        )
    lines += [f"{name}: {value}" for name, value in found["identity"].items()]
    return "\n".join(lines)
