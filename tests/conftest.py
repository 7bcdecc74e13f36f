"""What holds in every test: JAX on the CPU, strict numerics, no windows, reproducible examples."""

import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests compile much and compute little: light optimization halves their time.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
os.environ.setdefault("MPLBACKEND", "agg")
# Compilation takes most of the time, and the many small programs most of that: all are kept.
# Variables, as processes that tests start read them too.
CACHE = Path(__file__).parent.parent / ".cache" / "jax"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import hypothesis
import jax
import jaxtyping
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

MANY_MAPS = 4000

hypothesis.settings.register_profile("rnntk", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("rnntk")


@pytest.fixture
def x64() -> Iterator[None]:
    """Float64 on the device, for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def lenient() -> Iterator[None]:
    """Implicit promotion of dtypes and ranks, which neural-tangents relies on."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def nt() -> ModuleType:
    """neural-tangents on this JAX."""
    from rnntk import interop  # not above: the annotations of what is imported here go unchecked

    return interop.neural_tangents()


@pytest.fixture(scope="module", autouse=True)
def compiled() -> Iterator[None]:
    """Let go of compiled programs where there are many; else later modules use them too.

    Each program takes memory maps, of which Linux gives a process 65530; beyond, it crashes. The
    programs of 8000 take up to five gigabytes.
    """
    yield
    maps = Path("/proc/self/maps")
    if not maps.exists() or maps.read_bytes().count(b"\n") > MANY_MAPS:
        jax.clear_caches()


@pytest.fixture(autouse=True)
def annotations(request: pytest.FixtureRequest) -> Iterator[None]:
    """Switch the checked annotations off where a test expects an error.

    They would refuse bad input before the library does, and hide the message under test.
    """
    test = getattr(request, "function", None)
    expects_error = test is not None and "pytest.raises" in inspect.getsource(test)
    jaxtyping.config.update("jaxtyping_disable", expects_error)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
