"""Kernels larger than memory: rate, memory, overhead a tile, cores, peers, spectra, wide networks.

    python benchmarks/scale.py [--parts disk,ways,rows,spectra,wide] [--sizes 20000,100000]
                               [--folder FOLDER] [--out FILE.json]

Sequences of 10 tokens of size 4. Every measurement runs in a process of its own, whose peak memory
is told; what is in ``--out`` of other parts stays.

disk: bytes a second of files of one tile's size, through the system's cache, past it, and synced.

rows: float32. A pair-step is one step of the recursion for one pair of sequences; all n^2 pairs
count, though half are computed. In memory both kernels are always computed and kept.

ways: the same small tiles by threads, in a process pool, on a local Dask cluster, and by a joblib
loop over the same block function into a memory map, as one would write it. Overhead is the time
beyond the kernel in memory, times the workers, over the tiles. ``dask_ml.metrics.pairwise_kernels``
takes no function for a kernel, so it shows its own linear one, into Zarr as well, where dask_ml is
installed: a matrix product, so that its time is overhead, for all tiles, as it knows no symmetry.

spectra: the smallest eigenvalue with its interval, float64, from disk and by LAPACK in memory.

wide: an empirical kernel of which the gradients with respect to W, n m^2, exceed any memory here.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from harness import environment, save, table

STEPS, DIM = 10, 4
PEERS_N, PEERS_TILE = 4160, 208
WIDE_N, WIDTH = 256, 8192
PARTS = ("disk", "ways", "rows", "spectra", "wide")


def tokens(n: int, dtype: Any = np.float32) -> np.ndarray:
    """Random sequences."""
    rng = np.random.default_rng(0)
    return (rng.standard_normal((n, STEPS, DIM)) / DIM**0.5).astype(dtype)


def once(call: Callable[[], Any]) -> float:
    """Seconds of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def peak() -> float:
    """The largest memory of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 2**30


def in_memory(n: int, folder: str) -> dict[str, float]:
    """Seconds of the engine in memory, the second time."""
    import jax

    import rnntk

    def find() -> Any:
        return jax.block_until_ready(rnntk.infinite_kernel(rnn, x))

    x, rnn = tokens(n), rnntk.ElmanRNN()
    find()
    return {"seconds": once(find)}


def on_disk(n: int, folder: str, kinds: str = "ntk") -> dict[str, float]:
    """Seconds of the kernel into a store, and of syncing the disk after it.

    Programs have been compiled before, for the largest kernel all but those of its last tiles.
    """
    import rnntk

    x, rnn, chosen = tokens(n), rnntk.ElmanRNN(), kinds.split("+")
    rnntk.infinite_kernel(rnn, x[:20000], out=f"{folder}/warm.zarr", kinds=chosen)
    out = f"{folder}/k.zarr"
    seconds = once(lambda: rnntk.infinite_kernel(rnn, x, out=out, kinds=chosen))
    return {"seconds": seconds, "GiB": peak(), "sync": once(os.sync)}


def disk(n: int, folder: str) -> dict[str, float]:
    """Bytes a second of n files of one tile's size, in threads, one a core."""
    from rnntk.files import save_large

    content = np.random.default_rng(0).integers(0, 256, 2080**2 * 4, np.uint8)

    def cached(i: int, synced: bool = False) -> None:
        with open(f"{folder}/{synced}{i}", "wb") as file:
            file.write(content)
            if synced:
                os.fsync(file.fileno())

    def past(i: int) -> None:
        save_large(Path(folder, f"past{i}"), len(content), lambda to: np.copyto(to, content))

    found = {}
    ways = {"through the cache": cached, "past it": past, "synced": partial(cached, synced=True)}
    for name, write in ways.items():
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            seconds = once(lambda write=write: list(pool.map(write, range(n))))
        found[f"{name}, GB/s"] = n * len(content) / seconds / 1e9
    return found


def ways(n: int, folder: str) -> dict[str, float]:
    """Seconds of ways to run the same tiles, the best of three rounds in which they alternate."""
    import jax
    import joblib
    from distributed import Client, LocalCluster

    import rnntk

    x, rnn, count = tokens(n), rnntk.ElmanRNN(), len(os.sched_getaffinity(0))

    def new(name: str) -> str:
        return tempfile.mkdtemp(prefix=name, dir=folder) + "/k"

    def stored(executor: Any = None) -> None:
        options = {"tile": PEERS_TILE, "kinds": ["ntk"], "executor": executor}
        rnntk.infinite_kernel(rnn, x, out=new("rnntk"), **options)

    def loop() -> None:
        whole = np.lib.format.open_memmap(new("joblib"), "w+", np.float32, (n, n))
        cuts = [slice(i, i + PEERS_TILE) for i in range(0, n, PEERS_TILE)]

        def block(a: slice, b: slice) -> None:
            other = None if a == b else x[b]
            ntk = np.asarray(rnntk.infinite_kernel(rnn, x[a], other).ntk)
            whole[a, b], whole[b, a] = ntk, ntk.T

        pairs = [(a, b) for i, a in enumerate(cuts) for b in cuts[i:]]
        jobs = (joblib.delayed(block)(*pair) for pair in pairs)
        joblib.Parallel(n_jobs=count, prefer="threads")(jobs)
        whole.flush()

    def linear() -> None:
        flat = dask.array.from_array(x.reshape(n, -1), chunks=(PEERS_TILE, -1))
        pairwise_kernels(flat, flat, metric="linear").to_zarr(new("dask_ml"))

    with (
        ProcessPoolExecutor(count, get_context("spawn")) as pool,
        LocalCluster(
            n_workers=count, threads_per_worker=1, dashboard_address=None, local_directory=folder
        ) as cluster,
        Client(cluster) as client,
    ):
        every: dict[str, Callable[[], Any]] = {
            "memory": lambda: jax.block_until_ready(rnntk.infinite_kernel(rnn, x)),
            "threads": stored,
            "processes": lambda: stored(pool),
            "dask": lambda: stored(client.get_executor()),
            "joblib": loop,
        }
        try:
            import dask.array
            from dask_ml.metrics.pairwise import pairwise_kernels

            every["dask_ml, linear"] = linear
        except ImportError:
            pass
        times = dict.fromkeys(every, np.inf)
        for call in every.values():
            call()
        for _ in range(3):
            for name, call in every.items():
                times[name] = min(times[name], once(call))
    return times


def spectrum(n: int, folder: str, where: str) -> dict[str, float]:
    """Seconds of the smallest eigenvalue of a float64 kernel, which is made before."""
    import jax

    import rnntk

    jax.config.update("jax_enable_x64", True)
    x, rnn = tokens(n, np.float64), rnntk.ElmanRNN()
    if where == "disk":
        K = rnntk.infinite_kernel(rnn, x, out=f"{folder}/k.zarr", kinds=["ntk"]).ntk
    else:
        K = np.asarray(rnntk.infinite_kernel(rnn, x).ntk)
    method = "tiles" if where == "disk" else "cholesky"
    start = time.perf_counter()
    found = rnntk.spectrum.min_eigenvalue(K, method)
    seconds = time.perf_counter() - start
    ends = {"value": found.value, "lower": found.lower, "upper": found.upper}
    return {"seconds": seconds, "GiB": peak(), **ends}


def wide(n: int, folder: str, method: str) -> dict[str, float]:
    """Seconds of the kernel of a wide network into a store."""
    import jax

    import rnntk

    rnn = rnntk.ElmanRNN()
    params = rnn.init(jax.random.key(0), input_dim=DIM, width=WIDTH)
    options = {"out": f"{folder}/k.zarr", "tile": 64, "kinds": ["ntk"], "memory_limit": 2**31}
    find = partial(rnntk.empirical_kernel, rnn, params, tokens(n), method=method, **options)
    seconds = once(find)
    return {"seconds": seconds, "GiB": peak(), "gradients GB": 4 * n * WIDTH**2 / 1e9}


def child(mode: Callable[..., Any], folder: Path, n: int, *more: str, cores: int = 0) -> Any:
    """A mode in a process of its own, on some of the cores, in a folder that goes afterwards."""
    with tempfile.TemporaryDirectory(dir=folder) as inner:
        run = [sys.executable, __file__, "--mode", mode.__name__, str(n), inner, *more]
        told = subprocess.run(
            [*run, "--cores", str(cores)], check=True, stdout=subprocess.PIPE, text=True
        )
    return json.loads(told.stdout.splitlines()[-1])


def rate_rows(folder: Path, sizes: list[int], most: int) -> list[dict[str, Any]]:
    """Kernels on disk beside those in memory."""
    every, rows = len(os.sched_getaffinity(0)), []
    memory: dict[tuple[int, int], float] = {}
    cases = [(sizes[0], 1, "ntk")]
    cases += [(n, every, kinds) for n in sizes for kinds in ("ntk", "ntk+nngp") if n <= most]
    cases += [(n, every, "ntk") for n in sizes if n > most]
    for n, cores, kinds in cases:
        work, size = n * n * STEPS / 1e6, 4 * n * n * (1 + kinds.count("+")) / 1e9
        if n <= most and (n, cores) not in memory:
            memory[n, cores] = work / child(in_memory, folder, n, cores=cores)["seconds"]
        found = child(on_disk, folder, n, kinds, cores=cores)
        row = {"n": n, "cores": cores, "kinds": kinds, "seconds": found["seconds"], "GB": size}
        row |= {"GB/s": size / found["seconds"], "sync s": found["sync"], "peak GiB": found["GiB"]}
        row["Mpair-steps/s"] = work / found["seconds"]
        row["in memory"] = memory.get((n, cores))
        row["ratio"] = row["Mpair-steps/s"] / memory[n, cores] if n <= most else None
        rows.append(row)
    return rows


def measure(part: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of one part."""
    folder = options.folder
    if part == "disk":
        return [child(disk, folder, 60)]
    if part == "ways":
        times = child(ways, folder, PEERS_N)
        side, cores = PEERS_N // PEERS_TILE, len(os.sched_getaffinity(0))
        rows = []
        for name, seconds in times.items():
            theirs = name == "dask_ml, linear"
            tiles = side**2 if theirs else side * (side + 1) // 2
            beyond = seconds - (0 if theirs else times["memory"])
            rows.append(
                {"way": name, "seconds": seconds, "ms a tile": 1e3 * cores * beyond / tiles}
            )
        return rows
    if part == "rows":
        return rate_rows(folder, options.sizes, options.memory)
    if part == "spectra":
        cases = [(n, where) for n in options.orders for where in ("disk", "memory")]
        cases += [(n, "disk") for n in options.disk_orders]
        return [{"n": n, "where": w, **child(spectrum, folder, n, w)} for n, w in cases]
    methods = ("gram", "jacobian")
    return [{"method": name, **child(wide, folder, WIDE_N, name)} for name in methods]


def main() -> None:
    """Measure the parts, print their tables, write the JSON."""

    def numbers(text: str) -> list[int]:
        return [int(n) for n in text.split(",") if n]

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", type=lambda text: text.split(","), default=PARTS)
    parser.add_argument("--sizes", type=numbers, default=[20000], help="of rows")
    parser.add_argument("--memory", type=int, default=20000, help="largest of them in memory")
    parser.add_argument("--orders", type=numbers, default=[6000], help="of spectra")
    parser.add_argument("--disk-orders", type=numbers, default=[], help="of spectra on disk alone")
    parser.add_argument("--folder", type=Path, default=Path("."), help="on the disk to measure")
    parser.add_argument("--out", type=Path, help="where to write JSON")
    parser.add_argument("--mode", nargs="+", help="one measurement, of a process of its own")
    parser.add_argument("--cores", type=int, default=0)
    options = parser.parse_args()
    if options.mode:
        if options.cores:
            os.sched_setaffinity(0, set(range(options.cores)))
        mode, n, *more = options.mode
        print(json.dumps(globals()[mode](int(n), *more)))
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    there = options.out is not None and options.out.exists()
    results = json.loads(options.out.read_text()) if there else {}
    results["environment"] = environment()
    for part in options.parts:
        results[part] = measure(part, options)
        print(f"{part}\n{table(results[part])}\n", flush=True)
        if options.out:
            save(options.out, results)


if __name__ == "__main__":
    main()
