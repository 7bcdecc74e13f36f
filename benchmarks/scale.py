"""Kernels on disk beside those in memory: rate, memory, overhead a tile, cores, peers.

    python benchmarks/scale.py [--sizes 20000,40000] [--folder FOLDER] [--out FILE.json]

Sequences of 10 tokens of size 4, float32, the NTK alone: 4 n^2 bytes on disk. A pair-step is one
step of the recursion for one pair of sequences; all n^2 pairs count, though half are computed.
Each size runs in a process of its own, whose peak memory is told; ``disk`` writes the same bytes in
files of the same size by Python alone, as they come, and some with every file synced.

Peers of the second table, all with the same tiles of 208 sequences and as many workers: the same
tasks in a process pool and on a local Dask cluster, and a joblib loop over the same block function
into a memory map, as one would write it. Overhead is the time beyond the kernel in memory, times
the workers, over the tiles. dask_ml.metrics.pairwise_kernels was not installable where this ran.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from harness import environment, save, table

STEPS, DIM = 10, 4
PEERS_N, PEERS_TILE = 4160, 208


def tokens(n: int) -> np.ndarray:
    """Random sequences."""
    rng = np.random.default_rng(0)
    return (rng.standard_normal((n, STEPS, DIM)) / DIM**0.5).astype(np.float32)


def once(call: Callable[[], Any]) -> float:
    """Seconds of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def in_memory(n: int, cores: int) -> dict[str, float]:
    """Seconds of the engine in memory, compiled before."""
    import jax

    import rnntk

    x, rnn = tokens(n), rnntk.ElmanRNN()
    jax.block_until_ready(rnntk.infinite_kernel(rnn, x[:2080]))
    return {"seconds": once(lambda: jax.block_until_ready(rnntk.infinite_kernel(rnn, x)))}


def on_disk(n: int, cores: int, folder: str) -> dict[str, float]:
    """Seconds of the kernel into a store, compiled before, and of syncing the disk after it."""
    import rnntk

    x, rnn = tokens(n), rnntk.ElmanRNN()
    rnntk.infinite_kernel(rnn, x[:4160], out=f"{folder}/warm.zarr", kinds=["ntk"])
    out = f"{folder}/k.zarr"
    seconds = once(lambda: rnntk.infinite_kernel(rnn, x, out=out, kinds=["ntk"]))
    synced = once(os.sync)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 2**30
    return {"seconds": seconds, "sync": synced, "GiB": memory}


def disk(n: int, cores: int, folder: str) -> dict[str, float]:
    """Bytes a second of plain files of one tile's size, as they come and each synced."""
    content = np.random.default_rng(0).bytes(2080**2 * 4)
    count = max(1, int(4 * n * n / len(content)))
    found = {}
    for name, synced in (("disk", False), ("disk synced", True)):
        some = count if not synced else min(count, 100)
        start = time.perf_counter()
        for i in range(some):
            with open(f"{folder}/{name}{i}", "wb") as file:
                file.write(content)
                if synced:
                    os.fsync(file.fileno())
        found[name] = some * len(content) / (time.perf_counter() - start) / 1e9
    return found


def peers(n: int, cores: int, folder: str) -> dict[str, float]:
    """Seconds of ways to run the same tiles, the best of three rounds in which they alternate."""
    import jax
    import joblib
    from distributed import Client, LocalCluster

    import rnntk

    x, rnn, times = tokens(PEERS_N), rnntk.ElmanRNN(), {}

    def stored(executor: Any = None) -> None:
        shutil.rmtree(f"{folder}/p.zarr", ignore_errors=True)
        rnntk.infinite_kernel(
            rnn, x, out=f"{folder}/p.zarr", tile=PEERS_TILE, kinds=["ntk"], executor=executor
        )

    def loop() -> None:
        whole = np.lib.format.open_memmap(
            f"{folder}/m.npy", mode="w+", dtype=np.float32, shape=(PEERS_N, PEERS_N)
        )
        cuts = [slice(i, i + PEERS_TILE) for i in range(0, PEERS_N, PEERS_TILE)]

        def block(a: slice, b: slice) -> None:
            other = None if a == b else x[b]
            ntk = np.asarray(rnntk.infinite_kernel(rnn, x[a], other).ntk)
            whole[a, b], whole[b, a] = ntk, ntk.T

        pairs = [(a, b) for i, a in enumerate(cuts) for b in cuts[i:]]
        jobs = (joblib.delayed(block)(*pair) for pair in pairs)
        joblib.Parallel(n_jobs=cores, prefer="threads")(jobs)
        whole.flush()

    with (
        ProcessPoolExecutor(cores, get_context("spawn")) as pool,
        LocalCluster(
            n_workers=cores, threads_per_worker=1, dashboard_address=None, local_directory=folder
        ) as cluster,
        Client(cluster) as client,
    ):
        ways: dict[str, Callable[[], Any]] = {
            "memory": lambda: jax.block_until_ready(rnntk.infinite_kernel(rnn, x)),
            "threads": stored,
            "processes": lambda: stored(pool),
            "dask": lambda: stored(client.get_executor()),
            "joblib": loop,
        }
        for call in ways.values():
            call()
        for _ in range(3):
            for name, call in ways.items():
                times[name] = min(times.get(name, np.inf), once(call))
    return times


def child(mode: str, n: int, cores: int, folder: Path) -> dict[str, float]:
    """A mode in a process of its own, on some of the cores, in a folder that goes afterwards."""
    with tempfile.TemporaryDirectory(dir=folder) as inner:
        run = [sys.executable, __file__, "--mode", mode, "--sizes", str(n)]
        told = subprocess.run(
            [*run, "--cores", str(cores), "--folder", inner],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    return json.loads(told.stdout.splitlines()[-1])


def measure(n: int, cores: int, folder: Path, most: int) -> dict[str, Any]:
    """One size: on disk, and in memory where it fits."""
    found = child("on_disk", n, cores, folder)
    rate = n * n * STEPS / 1e6
    row: dict[str, Any] = {"n": n, "cores": cores, "seconds": found["seconds"]}
    row["Mpair-steps/s"] = rate / found["seconds"]
    row["peak GiB"], row["GB"] = found["GiB"], 4 * n * n / 1e9
    row["GB/s"], row["sync s"] = row["GB"] / found["seconds"], found["sync"]
    row["in memory"] = row["ratio"] = float("nan")
    if n <= most:
        row["in memory"] = rate / child("in_memory", n, cores, folder)["seconds"]
        row["ratio"] = row["Mpair-steps/s"] / row["in memory"]
    return row


def main() -> None:
    """Run all sizes and the peers, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=lambda text: [int(n) for n in text.split(",")])
    parser.add_argument("--memory", type=int, default=20000, help="largest size in memory")
    parser.add_argument("--folder", type=Path, default=Path("."), help="on the disk to measure")
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--mode", choices=("in_memory", "on_disk", "disk", "peers"))
    parser.add_argument("--out", type=Path, help="where to write JSON")
    options = parser.parse_args()
    sizes, cores = options.sizes or [20000], options.cores
    if options.mode:
        os.sched_setaffinity(0, set(range(cores)))
        call = globals()[options.mode]
        more = () if options.mode == "in_memory" else (str(options.folder),)
        print(json.dumps(call(sizes[0], cores, *more)))
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    written = child("disk", 20000, cores, options.folder)
    times = child("peers", PEERS_N, cores, options.folder)
    tiles = (PEERS_N // PEERS_TILE) * (PEERS_N // PEERS_TILE + 1) // 2
    ways = [
        {"way": k, "seconds": v, "ms a tile": 1e3 * cores * (v - times["memory"]) / tiles}
        for k, v in times.items()
    ]
    results = {"environment": environment(), "disk GB/s": written, "ways": ways, "rows": []}
    print(f"{results['environment']}\n{written}\n{table(ways)}", flush=True)
    for n, some in ((8000, 1), *((n, cores) for n in (8000, *sizes))):
        results["rows"].append(measure(n, some, options.folder, options.memory))
        print(table(results["rows"]).splitlines()[-1], flush=True)
        if options.out:  # the last ones take minutes
            save(options.out, results)
    print(table(results["rows"]))


if __name__ == "__main__":
    main()
