"""Kernels on disk where things go wrong: processes that die, disks that fill, other executors."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from runs import TILE, compute

import rnntk

SCRIPT = Path(__file__).with_name("runs.py")
TILES = 190


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The kernel of runs.py, computed without a fault."""
    kernel = compute(tmp_path_factory.mktemp("expected") / "k.zarr")
    return np.asarray(kernel.ntk), np.asarray(kernel.nngp)


def assert_equal(out, expected):
    kernel = rnntk.open_kernel(out)
    assert kernel.missing() == kernel.verify() == []
    np.testing.assert_array_equal(kernel.ntk, expected[0])
    np.testing.assert_array_equal(kernel.nngp, expected[1])


def begin(out, code=None, **options):
    """A process that computes the kernel."""
    run = [sys.executable, *(("-c", code) if code else (SCRIPT,)), str(out)]
    path = os.pathsep.join([str(SCRIPT.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, **options}
    return subprocess.Popen(run, env=environment, stderr=subprocess.PIPE, text=True)


def tiles_there(out):
    return sum(len(list((out / "ntk" / "c").glob(f"{i}/*"))) for i in range(19))


def wait_for_tiles(out, number, process):
    while tiles_there(out) < number and process.poll() is None:
        time.sleep(0.002)


def kill_and_go_on(out, rng, times):
    """Kill processes at random moments of their work; returns how many were still at it."""
    killed = 0
    for _ in range(times):
        process = begin(out)
        wait_for_tiles(out, tiles_there(out) + rng.randint(1, 30), process)
        time.sleep(rng.random() * 0.02)
        process.kill()
        killed += process.wait() == -signal.SIGKILL
        process.stderr.close()
        if rnntk.open_kernel(out).missing() == []:
            shutil.rmtree(out)
    return killed


def test_killed_three_times(tmp_path, expected):
    out = tmp_path / "k.zarr"
    assert kill_and_go_on(out, random.Random(0), 3) >= 2
    compute(out)
    assert_equal(out, expected)


@pytest.mark.slow
def test_killed_twenty_times(tmp_path, expected):
    out = tmp_path / "k.zarr"
    assert kill_and_go_on(out, random.Random(1), 20) >= 15
    compute(out)
    assert_equal(out, expected)


def test_two_processes_on_one_store(tmp_path, expected):
    out = tmp_path / "k.zarr"
    both = [begin(out) for _ in range(2)]
    told = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert_equal(out, expected)
    assert os.listdir(tmp_path) == ["k.zarr"]  # the loser's beginnings are gone


# A limit on the size of files makes every write of a tile fail as on a full disk: in the middle.
LIMITED = """
import resource, sys
import rnntk, runs
limit = runs.TILE**2 * 4 // 2
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
import jax; jax.config.update("jax_enable_compilation_cache", False)
try:
    runs.compute(sys.argv[1])
except OSError as error:
    print(error, file=sys.stderr)
    sys.exit(3)
"""


def test_writes_that_fail_lose_nothing(tmp_path, expected):
    out = tmp_path / "k.zarr"
    compute(out)
    shutil.rmtree(out / "ntk/c/7")
    process = begin(out, LIMITED)
    told = process.communicate(timeout=120)[1]
    assert process.returncode == 3, told
    assert f"File too large: the kernel {out} has 171 of 190 tiles; once that is mended" in told
    assert not list(out.rglob("*.partial"))
    assert len(rnntk.open_kernel(out).missing()) == 19
    compute(out)
    assert_equal(out, expected)


SMALL = """
set -e
mount -t tmpfs -o size=1200k tmpfs "$1"
status=0
"$2" "$3" "$1/k.zarr" || status=$?
cp -r "$1/k.zarr" "$1.saved"
exit $status
"""


def test_disk_full(tmp_path, expected):
    small = tmp_path / "small"
    small.mkdir()
    namespace = ["unshare", "--mount", "--map-root-user", "sh"]
    try:
        subprocess.run([*namespace, "-c", "mount -t tmpfs tmpfs /mnt"], check=True, timeout=20)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no small file system can be mounted here")
    run = [*namespace, "-c", SMALL, "sh", str(small), sys.executable, str(SCRIPT)]
    found = subprocess.run(run, capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 1, found.stderr
    assert f"No space left on device: the kernel {small}/k.zarr has" in found.stderr
    out = tmp_path / "small.saved"
    assert 0 < len(rnntk.open_kernel(out).missing()) < TILES
    compute(out)
    assert_equal(out, expected)


def test_what_killed_processes_left_half_written_goes_after_an_hour(tmp_path):
    out, x = tmp_path / "k[1].zarr", np.ones((20, 3, 2), np.float32)
    mark = 32 * "0"
    rnntk.infinite_kernel(rnntk.ElmanRNN(), x, out=out, tile=8)
    old = [out / f"ntk/c/0/1.{mark}.part", tmp_path / f"k[1].zarr.{mark}.part"]
    young = [out / f"nngp/c/1/2.{mark}.part", tmp_path / f"k[1].zarr.{32 * 'a'}.part"]
    other = [tmp_path / f"k1.zarr.{mark}.part", tmp_path / "k[1].zarr.my.part"]
    for file in (*old, *young, *other):
        file.write_bytes(b"half")
    for file in (*old, *other):
        os.utime(file, (time.time() - 3700,) * 2)
    old[1].unlink()
    old[1].mkdir()  # a store that was being made
    (old[1] / "zarr.json").write_bytes(b"")
    os.utime(old[1], (time.time() - 3700,) * 2)
    kernel = rnntk.infinite_kernel(rnntk.ElmanRNN(), x, out=out, tile=8)
    assert not any(file.exists() for file in old)
    assert all(file.exists() for file in (*young, *other))
    assert kernel.missing() == kernel.verify() == []


def test_processes(tmp_path, expected):
    out = tmp_path / "k.zarr"
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        compute(out, executor=pool)
    assert_equal(out, expected)


DEVICES = """
import sys, threading
import jax, numpy as np
import rnntk, runs
from rnntk.infinite import kernel as engine
used, original = set(), engine._in_tiles
def seen(rnn, scales, one, *rest, **more):
    used.update(*(sides[0].layers[0].root_L.devices() for sides in one.values()))
    return original(rnn, scales, one, *rest, **more)
engine._in_tiles = seen
runs.compute(sys.argv[1])
assert len(jax.local_devices()) == 2
assert used == set(jax.local_devices()), used
"""


def test_all_devices_of_a_process_are_used(tmp_path, expected):
    out = tmp_path / "k.zarr"
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    process = begin(out, DEVICES, XLA_FLAGS=flags)
    told = process.communicate(timeout=120)[1]
    assert process.returncode == 0, told
    assert_equal(out, expected)


@pytest.mark.filterwarnings("ignore")  # of Dask's own doing
def test_dask_whose_worker_is_killed(tmp_path, expected):
    distributed = pytest.importorskip("distributed")
    out = tmp_path / "k.zarr"
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=str(tmp_path)
    )
    with cluster, distributed.Client(cluster) as client:
        victim = next(iter(client.run(os.getpid).values()))

        def kill():
            while not out.exists() or tiles_there(out) < 20:
                time.sleep(0.005)
            os.kill(victim, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        compute(out, executor=client.get_executor())
        killer.join()
        assert victim not in client.run(os.getpid).values()
    assert_equal(out, expected)
    assert TILE == 16
