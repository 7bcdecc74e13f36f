"""Calls in threads: XLA runs some programs on one core, and several of them keep all busy."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import jax
import numpy as np

CORES = os.cpu_count() or 1
Item = TypeVar("Item")
Result = TypeVar("Result")


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

    running: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(CORES) as pool:
        for item in items:
            running.append(pool.submit(compute, item))
            if len(running) > CORES:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
