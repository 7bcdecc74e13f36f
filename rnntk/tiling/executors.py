"""Calls on any executor, and on all devices of this process: results in the order of their end."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

import jax

from rnntk.tiling.threads import in_threads

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
    call: Callable[[Item], Result], items: Iterable[Item], devices: list[jax.Device]
) -> Iterator[Result]:
    """Likewise, each call on the first device that is free.

    An accelerator gets two at a time, by reasoning: one computes while the other's result is
    copied and written.
    """
    free: SimpleQueue[jax.Device] = SimpleQueue()
    places = [device for device in devices for _ in range(1 if device.platform == "cpu" else 2)]
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
    """How this process runs calls by itself, on all that it has.

    Args:
        threads: whether a call leaves the other cores of a CPU idle.
    """
    chosen = jax.config.jax_default_device  # type: ignore[attr-defined]
    devices = [chosen] if isinstance(chosen, jax.Device) else jax.local_devices()
    if len(devices) > 1 or devices[0].platform != "cpu":
        return partial(on_devices, devices=devices)
    return partial(in_threads, device=devices[0]) if threads else map
