"""Calls in threads: XLA runs some programs on one core, and several of them keep all busy."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from threading import current_thread, local
from typing import Any, TypeVar

import jax
import numpy as np

from rnntk.checks import is_concrete
from rnntk.tiling import tuning

NAME = "rnntk"  # of the threads
_here = local()
Item = TypeVar("Item")
Result = TypeVar("Result")


def cores(values: Any) -> int:
    """How many programs on a pytree to run side by side: one, unless one CPU holds all of it."""
    leaves = jax.tree.leaves(values)
    if not all(map(is_concrete, leaves)):  # a trace belongs to its thread
        return 1
    devices = {d for leaf in leaves if isinstance(leaf, jax.Array) for d in leaf.devices()}
    return tuning.CORES if [device.platform for device in devices] == ["cpu"] else 1


def in_threads(
    call: Callable[[Item], Result], items: Iterable[Item], device: jax.Device
) -> Iterator[Result]:
    """The results of ``call``, in the order of ``items``, computed on all cores.

    At most one result more than there are cores waits to be taken, as results take memory.
    """
    x64 = jax.dtypes.canonicalize_dtype(np.float64) == np.float64

    def compute(item: Item) -> Result:
        # JAX keeps these settings by thread.
        with jax.enable_x64(x64), jax.default_device(device):
            return jax.block_until_ready(call(item))

    # a call in a call: its threads may all be waiting, or its neighbours need the other cores
    if current_thread().name.startswith(NAME) or is_one_of_many():
        yield from map(compute, items)
        return
    running: deque[Future[Result]] = deque()
    try:
        for item in items:
            running.append(_pool().submit(compute, item))
            if len(running) > tuning.CORES:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:  # left early, by an error or an interrupt
        for future in running:
            future.cancel()


@contextmanager
def one_core() -> Iterator[None]:
    """Keep :func:`in_threads` to the calling thread, for one of many calls side by side."""
    before, _here.alone = is_one_of_many(), True
    try:
        yield
    finally:
        _here.alone = before


def is_one_of_many() -> bool:
    """Whether the calling thread is in :func:`one_core`."""
    return getattr(_here, "alone", False)


@cache
def _pool() -> ThreadPoolExecutor:
    """Threads that stay, as starting them takes longer than a small kernel."""
    return ThreadPoolExecutor(tuning.CORES, NAME)
