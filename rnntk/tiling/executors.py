"""Calls on any executor, and on all devices of this process: results in the order of their end."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

import jax

from rnntk.tiling import tuning

Item = TypeVar("Item")
Result = TypeVar("Result")
Run = Callable[[Callable[[Item], Result], Iterable[Item]], Iterator[Result]]


def on_executor(
    executor: Executor, call: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[Result]:
    """The results of ``call`` as they come; what has not begun is cancelled after an error.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> sorted(on_executor(ThreadPoolExecutor(2), abs, [-1, 2]))
        [1, 2]
    """
    futures = [executor.submit(call, item) for item in items]
    try:
        for future in as_completed(futures):
            yield future.result()
    finally:
        for future in futures:
            future.cancel()


def on_devices(
    call: Callable[[Item], Result], items: Iterable[Item], places: list[jax.Device]
) -> Iterator[Result]:
    """Likewise, each call on the first device that is free; one named twice takes two calls."""
    free: SimpleQueue[jax.Device] = SimpleQueue()
    for device in places:
        free.put(device)

    def placed(item: Item) -> Result:
        device = free.get()
        try:
            with jax.default_device(device):
                return call(item)
        finally:
            free.put(device)

    with ThreadPoolExecutor(len(places)) as pool:
        yield from on_executor(pool, placed, items)


def local_run(*, threads: bool) -> Run[Item, Result]:
    """How this process runs calls that end in writing, on all that it has.

    Some calls more than there are cores keep all of them busy while others write: a kernel of
    20,000 sequences took 4.1 s on 2 cores, and 4.9 s with two calls at a time. Accelerators get two
    by reasoning.

    Args:
        threads: whether a call leaves the other cores of a CPU idle.
    """
    chosen = jax.config.jax_default_device  # type: ignore[attr-defined]
    devices = [chosen] if isinstance(chosen, jax.Device) else jax.local_devices()
    if len(devices) > 1 or devices[0].platform != "cpu":
        each = 1 if devices[0].platform == "cpu" else 2
    elif threads:
        each = tuning.CORES + (tuning.CORES + 1) // 2
    else:
        return map
    return partial(on_devices, places=devices * each)
