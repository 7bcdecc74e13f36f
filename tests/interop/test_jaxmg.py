"""The adapter to jaxmg: refusals, and what a stand-in with its signatures is given and gives back.

The stand-in computes by NumPy. That jaxmg itself does as it says was not seen: it needs GPUs.
"""

import os
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import jax
import numpy as np
import pytest

import rnntk
from rnntk import ElmanRNN, infinite_kernel
from rnntk.interop import jaxmg as adapter

N = 23


def syevd(a, T_A, mesh=None, matrix_specs=None, *, in_specs=None, return_eigenvectors=True,
          return_status=False, pad=True, donate=True):  # fmt: skip
    """As in jaxmg 1.1.1."""
    check_matrix(a, T_A)
    assert not return_eigenvectors
    return jax.numpy.asarray(np.linalg.eigvalsh(np.asarray(a)))


def potrs(a, b, T_A, mesh=None, matrix_specs=None, *, in_specs=None, return_status=False,
          return_logdet=False, pad=True, donate=True):  # fmt: skip
    """As in jaxmg 1.1.1."""
    check_matrix(a, T_A)
    assert b.sharding.mesh == a.sharding.mesh
    assert tuple(b.sharding.spec) == (a.sharding.spec[0], None)
    return jax.device_put(np.linalg.solve(np.asarray(a), np.asarray(b)), b.sharding)


def check_matrix(a, T_A):
    """What jaxmg asks for: float64 by rows over all devices, and a tile for each."""
    count = len(jax.devices())
    assert a.dtype == np.float64
    assert a.sharding.mesh.devices.shape == (count, 1)
    assert tuple(a.sharding.spec) == a.sharding.mesh.axis_names
    each = {shard.data.shape for shard in a.addressable_shards}
    assert each == {(a.shape[0] // count, a.shape[1])}
    assert 1 <= T_A <= a.shape[0] // count
    whole = np.asarray(a)
    assert (whole == whole.T).all()


def check_results(folder):
    """Both functions against NumPy on the whole kernel."""
    x = np.random.default_rng(0).standard_normal((N, 4, 3))
    K = infinite_kernel(ElmanRNN(), x, out=f"{folder}/k.zarr", tile=8).ntk
    whole = np.asarray(K)
    np.testing.assert_allclose(
        adapter.eigenvalues(K), np.linalg.eigvalsh(whole), atol=1e-12 * np.trace(whole)
    )
    for y in (x[:, 0, 0], x[:, 0]):
        expected = np.linalg.solve(whole + 0.5 * np.eye(N), y.reshape(N, -1))
        np.testing.assert_allclose(adapter.solve(K, y, 0.5), expected, rtol=1e-9, atol=1e-12)


def as_module():
    """Both functions as a module."""
    module = ModuleType("jaxmg")
    module.syevd, module.potrs = syevd, potrs
    return module


@pytest.fixture
def stand_in(monkeypatch):
    """A module in the place of jaxmg, and a GPU."""
    module = as_module()
    monkeypatch.setitem(sys.modules, "jaxmg", module)
    monkeypatch.setattr(adapter, "_local_devices", lambda: [SimpleNamespace(platform="gpu")])
    return module


@pytest.fixture
def kernel(tmp_path, x64):
    x = np.random.default_rng(0).standard_normal((N, 4, 3))
    return infinite_kernel(ElmanRNN(), x, out=tmp_path / "k.zarr", tile=8).ntk


@pytest.mark.usefixtures("stand_in", "x64")
def test_one_device(tmp_path):
    check_results(tmp_path)


TWO = """
import sys
from types import SimpleNamespace
import jax
jax.config.update("jax_enable_x64", True)
import test_jaxmg as tests
assert len(jax.devices()) == 2
sys.modules["jaxmg"] = tests.as_module()
tests.adapter._local_devices = lambda: [SimpleNamespace(platform="gpu")]
tests.check_results(sys.argv[1])  # 23 rows, so that one is filled up
"""


def test_two_devices(tmp_path):
    path = os.pathsep.join(
        [os.path.dirname(__file__), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    found = subprocess.run(
        [sys.executable, "-c", TWO, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path, "XLA_FLAGS": flags},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("wrong", [np.nan, 1.0, "last"])
def test_wrong_results_are_not_returned(kernel, stand_in, wrong):
    def changed(values):
        values = np.array(values)
        values[..., 0] = values[..., -1] if wrong == "last" else wrong
        return jax.numpy.asarray(values)

    stand_in.syevd = lambda *a, **k: changed(syevd(*a, **k))
    with pytest.raises(ArithmeticError, match="must have its trace and norm, but these are off by"):
        adapter.eigenvalues(kernel)
    stand_in.potrs = lambda *a, **k: changed(potrs(*a, **k).T).T
    with pytest.raises(ArithmeticError, match="must solve the system of <StoredMatrix ntk"):
        adapter.solve(kernel, np.ones((N, 2)) * [1, 2], 0.5)


def test_refusals(kernel, stand_in, monkeypatch):
    with pytest.raises(TypeError, match="K must be a kernel on disk, got ndarray"):
        adapter.eigenvalues(np.eye(3))
    with pytest.raises(ValueError, match="ridge must be finite and not negative, got -1"):
        adapter.solve(kernel, np.ones(N), -1.0)
    with pytest.raises(ValueError, match="y must"):
        adapter.solve(kernel, np.ones(N + 1))
    with jax.enable_x64(False), pytest.raises(RuntimeError, match="switch on jax_enable_x64"):
        adapter.eigenvalues(kernel)
    monkeypatch.setattr(adapter, "_local_devices", jax.local_devices)
    for call in (adapter.eigenvalues, lambda K: adapter.solve(K, np.ones(N))):
        with pytest.raises(
            RuntimeError, match=r"needs one GPU in each process, this one has .*Cpu"
        ):
            call(kernel)


def test_missing_package_is_named(kernel, monkeypatch):
    monkeypatch.setitem(sys.modules, "jaxmg", None)
    for call in (rnntk.interop.jaxmg.eigenvalues, lambda K: adapter.solve(K, np.ones(N))):
        with pytest.raises(ImportError, match=r"pip install 'jaxmg\[cuda13\]'. It pins JAX"):
            call(kernel)
