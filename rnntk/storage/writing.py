"""Kernels tile by tile onto disk: tasks that any process may run, any number of times."""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from rnntk import checks
from rnntk.files import fingerprint
from rnntk.kernel import Kernel
from rnntk.storage.kernels import StoredKernel
from rnntk.storage.layout import KINDS, Index, create, opened
from rnntk.storage.places import Place, place_of
from rnntk.tiling import tuning
from rnntk.tiling.executors import Run, on_executor
from rnntk.tiling.threads import one_core

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Destination:
    """Where a kernel goes, and who computes it.

    Attributes:
        place: where the store is.
        executor: any of ``concurrent.futures``; None runs the tasks in this process.
        tile: sequences a side of a tile; None chooses.
        kinds: which kernels are stored.
    """

    place: Place
    executor: Executor | None
    tile: int | None
    kinds: tuple[str, ...]

    @classmethod
    def of(
        cls,
        out: str | os.PathLike[str] | None,
        executor: Any,
        tile: int | None,
        kinds: Sequence[str],
    ) -> "Destination | None":
        """Checked arguments, or None without ``out``.

        Raises:
            TypeError: for what is no path, or no executor.
            ValueError: for the others without ``out``, or wrong ones.
        """
        if isinstance(kinds, str) or not isinstance(kinds, Collection):
            raise ValueError(f"kinds must be a selection of {KINDS}, got {kinds!r}.")
        if out is None:
            if executor is not None or tile is not None or tuple(kinds) != KINDS:
                raise ValueError("executor, tile and kinds must come with out, got them alone.")
            return None
        place = place_of(out, "out")
        if executor is not None and (isinstance(executor, type) or not hasattr(executor, "submit")):
            raise TypeError(
                "executor must be one of concurrent.futures, or have its submit (of a Dask client: "
                f"client.get_executor()), got {executor!r}."
            )
        if not kinds or not set(kinds) <= set(KINDS):
            raise ValueError(f"kinds must be a selection of {KINDS}, got {kinds!r}.")
        size = None if tile is None else checks.check_size("tile", tile)
        # the tangent kernel comes last: what completes a tile
        chosen = tuple(kind for kind in reversed(KINDS) if kind in kinds)
        return cls(place, executor, size, chosen)

    def tiles(self, sequences: tuple[int, int], part: Callable[[int], int]) -> tuple[int, int]:
        """Sequences a side of a stored tile, for both batches.

        By default an eighth of a batch, so that several cores find something to do, in whole parts
        as an engine computes them, and no more than ``tuning.STORED_TILE``.

        Args:
            sequences: of both batches.
            part: what an engine computes at once of so many sequences.
        """
        sizes = []
        for n in sequences:
            size = part(n)
            number = min(-(-n // (8 * size)), max(1, tuning.STORED_TILE // size))
            sizes.append(min(self.tile or number * size, n))
        return sizes[0], sizes[1]


def check_concrete(*values: Any) -> None:
    """Refuse what has no numbers yet, in ``jit`` and the like.

    Raises:
        TypeError: saying so.
    """
    if not all(map(checks.is_concrete, jax.tree.leaves(values))):
        raise TypeError("out must be left out in jit, grad and vmap, got it for traced arrays.")


@dataclass(frozen=True)
class Problem:
    """A kernel of which tiles are computed.

    Attributes:
        identity: from :func:`rnntk.storage.identity.identity`.
        one: arrays of the first batch, whose axis of sequences is the first.
        two: arrays of the second batch, None for a symmetric kernel.
        shared: arrays that every tile needs.
        tile: sequences a side of a tile, for both batches.
        compute: gives a tile from parts of ``one`` and ``two`` and all of ``shared``; ``two`` is
            None on the diagonal. Anything that pickles.
        dtype: of the kernel.
        title: of the progress bar.
    """

    identity: Mapping[str, Any]
    one: Arrays
    two: Arrays | None
    shared: Arrays
    tile: tuple[int, int]
    compute: Callable[[Arrays, Arrays | None, Arrays], Kernel]
    dtype: np.dtype
    title: str

    @property
    def shape(self) -> tuple[int, int]:
        """Sequences of the two batches."""
        n1, n2 = (len(batch["x"]) for batch in (self.one, self.two or self.one))
        return n1, n2


@dataclass(frozen=True)
class Task:
    """Computes a tile from what the store holds, and writes it there, unless it is there.

    Attributes:
        place: of the store.
        mark: tells what it held when the tasks were made.
        compute: of the problem.
        x64: whether the caller's JAX has float64.
    """

    place: Place
    mark: str
    compute: Callable[[Arrays, Arrays | None, Arrays], Kernel]
    x64: bool

    def __call__(self, index: Index) -> None:
        """Compute and write one tile."""
        layout = opened(self.place, self.mark)
        if layout.has(index):  # by another process
            return
        diagonal = layout.mirror and index[0] == index[1]
        with jax.enable_x64(self.x64), one_core():
            one = layout.part("one", index[0])
            two = None if diagonal else layout.part("one" if layout.mirror else "two", index[1])
            kernel = self.compute(one, two, _whole(self.place, self.mark))
            for kind in layout.kinds:
                block = np.asarray(getattr(kernel, kind))
                for image in layout.images(index):
                    layout.write(kind, image, block if image == index else block.T)


def write(problem: Problem, to: Destination, run: Run[Index, None]) -> StoredKernel:
    """Compute the tiles that are missing, and return the kernel.

    Args:
        problem: the kernel.
        to: where it goes.
        run: how this process runs tasks, where no executor does.

    Raises:
        ValueError: if the place holds another kernel.
        OSError: where the disk is full, say; what is there stays, and the call can be repeated.
    """
    attributes = {
        "identity": dict(problem.identity),
        "mirror": problem.two is None,
        "tile": list(problem.tile),
        "kinds": list(to.kinds),
    }
    folders = {"one": problem.one, "two": problem.two or {}, "shared": problem.shared}
    try:
        to.place.sweep()
        layout = create(to.place, attributes, problem.dtype, problem.shape, folders)
    except OSError as error:
        raise _told(error, f"the kernel {to.place} cannot be begun") from error
    mark = fingerprint(attributes)
    x64 = jax.dtypes.canonicalize_dtype(np.float64) == np.float64
    task = Task(to.place, mark, problem.compute, x64)
    wanted = layout.missing()
    every = len(layout.tiles())
    done = every - len(wanted)
    results = run(task, wanted) if to.executor is None else on_executor(to.executor, task, wanted)
    bar = tqdm(desc=problem.title, initial=done, total=every, unit="tile", delay=5)
    try:
        with bar:
            for _ in results:
                done += 1
                bar.update()
    except OSError as error:
        told = f"the kernel {to.place} has {done} of {every} tiles; once that is mended, the same "
        raise _told(error, f"{told}call goes on with the others") from error
    if left := layout.missing():
        raise OSError(
            f"{len(left)} of {every} tiles that were computed are not in {to.place}: every worker "
            "must see this folder."
        )
    return StoredKernel.of(layout)


def _told(error: OSError, text: str) -> OSError:
    told = f"{str(error.strerror or error).rstrip('.')}: {text}"
    return OSError(told) if error.errno is None else OSError(error.errno, told)


@lru_cache(maxsize=2)
def _whole(place: Place, mark: str) -> Arrays:
    layout = opened(place, mark)
    return {name: layout.array(f"shared/{name}")[...] for name in layout.names("shared")}
