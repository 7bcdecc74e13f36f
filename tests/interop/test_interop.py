"""neural-tangents on current JAX: how it is loaded, what of it works, and what it agrees with."""

import functools
import math
import pickle
import subprocess
import sys
import threading
from importlib.metadata import PackageNotFoundError

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.special

from rnntk import ElmanRNN, infinite_kernel, interop
from rnntk.activations import leaky_relu
from rnntk.interop import loading

pytestmark = pytest.mark.usefixtures("lenient")


@pytest.fixture
def fresh(monkeypatch):
    """As if the package had not been loaded yet, though its modules are there."""
    interop.neural_tangents()
    load = functools.cache(loading._load.__wrapped__)
    monkeypatch.setattr(loading, "_load", load)


def package_modules():
    return {name: module for name, module in sys.modules.items() if name.startswith(loading.NAME)}


# --- Loading


FIRST = """
import sys, threading
import jax.core, jax.interpreters.ad, scipy.linalg
import rnntk

try:
    import neural_tangents  # fails, and leaves parts of itself behind
except (ImportError, AttributeError):
    pass

names = "jax jax.core jax.interpreters jax.interpreters.ad jax.numpy scipy scipy.linalg".split()
before = {name: dict(vars(sys.modules[name])) for name in names}
modules = {name: sys.modules[name] for name in names}
hooks, path, imported = list(sys.meta_path), list(sys.path), __import__
results = []
threads = [
    threading.Thread(target=lambda: results.append(rnntk.interop.neural_tangents()))
    for _ in range(8)
]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(results) == 8 and len(set(map(id, results))) == 1

assert sys.meta_path == hooks and sys.path == path and __import__ is imported
for name in names:
    assert sys.modules[name] is modules[name], name
    now = vars(sys.modules[name])
    changed = {key for key in before[name] if now.get(key) is not before[name][key]}
    # Submodules that are now loaded are attributes of their packages.
    added = {key for key in now.keys() - before[name] if f"{name}.{key}" not in sys.modules}
    assert not changed and not added, (name, changed, added)
assert not hasattr(jax.core, "Jaxpr") and "jax.util" not in sys.modules
assert not {"tensorflow", "tf2jax"} & set(sys.modules)

import neural_tangents
assert neural_tangents is results[0]
"""


def test_first_import_changes_nothing_else_after_a_failed_one_from_many_threads():
    command = [sys.executable, "-W", "error", "-X", "pycache_prefix=/nonexistent", "-c", FIRST]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr


def test_second_call_returns_the_same_package(nt):
    assert interop.neural_tangents() is nt
    assert nt.__version__ in loading.TESTED["neural-tangents"]
    assert sys.modules["neural_tangents"] is nt


def test_objects_can_be_pickled(nt):
    method = nt.NtkImplementation.NTK_VECTOR_PRODUCTS
    assert pickle.loads(pickle.dumps(method)) is method


@pytest.mark.usefixtures("fresh")
def test_package_that_a_caller_imported_stays_in_place():
    before = package_modules()
    nt = interop.neural_tangents()
    assert nt is not before["neural_tangents"]
    assert package_modules() == before
    with pytest.raises(NotImplementedError, match="implementation=3"):
        nt.empirical_ntk_fn(None, implementation=3)


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    "source, message",
    [
        ("import frozendict_that_is_missing", "frozendict_that_is_missing.*pip install --no-deps"),
        ("from jax.core import Vanished", r"cannot import name 'Vanished'.*It does with"),
        ("raise RuntimeError('too old')", "does not import: too old"),
    ],
)
def test_failed_import_leaves_no_trace(source, message, tmp_path, monkeypatch):
    (tmp_path / "neural_tangents").mkdir()
    (tmp_path / "neural_tangents" / "__init__.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    before, core, hooks = package_modules(), dict(vars(jax.core)), list(sys.meta_path)
    for _ in range(2):  # the failure is not remembered
        with pytest.raises(ImportError, match=message) as caught:
            interop.neural_tangents()
        assert caught.value.name == "neural_tangents"
    assert package_modules() == before
    assert dict(vars(jax.core)) == core
    assert sys.meta_path == hooks


@pytest.mark.usefixtures("fresh")
def test_absent_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [])
    with pytest.raises(ImportError, match=r"pip install --no-deps neural-tangents frozendict"):
        interop.neural_tangents()
    with pytest.raises(ImportError, match=r"the extra rnntk\[neural-tangents\]"):
        interop.neural_tangents()


@pytest.mark.usefixtures("fresh")
def test_untested_versions_warn(monkeypatch):
    found = {"jax": "99.1", "neural-tangents": "0.6.5"}
    monkeypatch.setattr(loading, "version", found.get)
    with pytest.warns(UserWarning, match=r"0\.6\.5 on jax 0\.10\.2 or .*found .*jax 99\.1"):
        interop.neural_tangents()


@pytest.mark.usefixtures("fresh")
def test_unknown_version_warns(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(loading, "version", missing)
    with pytest.warns(UserWarning, match="found neural-tangents of unknown version"):
        interop.neural_tangents()


def test_versions_of_the_pinned_list_are_tested_ones():
    assert jax.__version__ in loading.TESTED["jax"]


# --- What is refused


@pytest.mark.parametrize("method, name", [(0, "AUTO"), (3, "STRUCTURED_DERIVATIVES")])
def test_implementations_that_do_not_work_are_refused(nt, method, name):
    message = rf"implementation={method} \({name}\).*Use 1 .* or 2 .*empirical_kernel"
    for chosen in (method, nt.NtkImplementation(method)):
        with pytest.raises(NotImplementedError, match=message):
            nt.empirical_ntk_fn(jnp.dot, implementation=chosen)
        with pytest.raises(NotImplementedError, match=message):
            nt.empirical_kernel_fn(jnp.dot, implementation=chosen)
        with pytest.raises(NotImplementedError, match=message):
            nt.monte_carlo_kernel_fn(None, jnp.dot, jax.random.key(0), 1, implementation=chosen)


def test_experimental_is_refused(nt):
    from neural_tangents.experimental import empirical_ntk_fn_tf

    with pytest.raises(NotImplementedError, match="empirical_ntk_fn_tf needs TensorFlow"):
        empirical_ntk_fn_tf(None)
    with pytest.raises(NotImplementedError, match="get_apply_fn_and_params needs TensorFlow"):
        nt.experimental.get_apply_fn_and_params(None)


# --- What works


X = np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32)
Y = np.random.default_rng(1).standard_normal((6, 2)).astype(np.float32)


@pytest.fixture
def network(nt):
    layers = nt.stax.Dense(64, b_std=0.1), nt.stax.Erf(), nt.stax.Dense(2)
    init_fn, apply_fn, kernel_fn = nt.stax.serial(*layers)
    kernel_fn = jax.jit(kernel_fn, static_argnums=2)
    return init_fn, apply_fn, kernel_fn, init_fn(jax.random.PRNGKey(0), X.shape)[1]


def test_convolutional_kernel(nt):
    layers = nt.stax.Conv(1, (1,)), nt.stax.Relu(), nt.stax.GlobalAvgPool()
    kernel = nt.stax.serial(*layers)[2](X.reshape(6, 5, 1), None, "nngp")
    u = X.astype(float)[:, None, :, None] * X[None, :, None, :]
    # Positions are scalars: E relu(x g) relu(y g) is x y / 2 where the signs agree, else 0.
    np.testing.assert_allclose(kernel, np.maximum(u, 0).mean((2, 3)) / 2, rtol=1e-5, atol=1e-6)


def test_predictions(nt, network):
    kernel_fn = network[2]
    train, cross = (np.asarray(kernel_fn(X[:4], x2, "ntk"), float) for x2 in (None, X[4:]))
    time, rate = 30.0, 0.7
    decay = scipy.linalg.expm(-train * time * rate / Y[:4].size)
    learnt = np.linalg.solve(train, (np.eye(4) - decay) @ Y[:4])
    mse = nt.predict.gradient_descent_mse(jnp.asarray(train, jnp.float32), Y[:4], rate)
    got = mse(time, 0.0, 0.0, jnp.asarray(cross.T, jnp.float32))[1]
    np.testing.assert_allclose(got, cross.T @ learnt, rtol=1e-4, atol=1e-5)
    ensemble = nt.predict.gradient_descent_mse_ensemble(kernel_fn, X[:4], Y[:4], rate)
    np.testing.assert_allclose(ensemble(time, X[4:], "ntk"), got, rtol=1e-4, atol=1e-5)
    final = cross.T @ np.linalg.solve(train, Y[:4])
    np.testing.assert_allclose(ensemble(None, X[4:], "ntk"), final, rtol=1e-3, atol=1e-4)
    # Compiled: the package looks for eval_context of jax.core only then.
    compiled = jax.jit(lambda t: mse(t, 0.0, 0.0, jnp.asarray(cross.T, jnp.float32))[1])(time)
    np.testing.assert_allclose(compiled, got, rtol=1e-4, atol=1e-5)


def test_posterior_of_the_gaussian_process(nt, network):
    kernel_fn, ridge = network[2], 0.1
    pairs = (X[:4], None), (X[4:], X[:4]), (X[4:], None)
    train, cross, test = (kernel_fn(*pair, "nngp") for pair in pairs)
    process = nt.predict.gp_inference(train, Y[:4], ridge, diag_reg_absolute_scale=True)
    mean, covariance = process("nngp", cross, test)
    inverse = np.linalg.inv(np.asarray(train, float) + ridge * np.eye(4))
    np.testing.assert_allclose(mean, cross @ inverse @ Y[:4], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(covariance, test - cross @ inverse @ cross.T, rtol=1e-3, atol=1e-5)


def test_largest_learning_rate(nt, network):
    kernel = network[2](X, None, "ntk")
    largest = np.linalg.eigvalsh(kernel)[-1]
    rate = nt.predict.max_learning_rate(kernel, Y.size)
    np.testing.assert_allclose(rate, 2 * Y.size / largest, rtol=1e-5)


@pytest.mark.parametrize("store_on_device", [True, False])
def test_batches(nt, network, store_on_device):
    kernel_fn = network[2]
    batched = nt.batch(kernel_fn, batch_size=2, store_on_device=store_on_device)(X, None, "ntk")
    np.testing.assert_allclose(batched, kernel_fn(X, None, "ntk"), rtol=1e-6)


def test_monte_carlo(nt, network):
    init_fn, apply_fn, kernel_fn, _ = network
    sample_fn = nt.monte_carlo_kernel_fn(init_fn, apply_fn, jax.random.key(1), 200)
    sampled, exact = sample_fn(X, None, "ntk"), kernel_fn(X, None, "ntk")
    # Of 200 samples at width 64 with two outputs the mean is off by some percent.
    assert np.linalg.norm(sampled - exact) < 0.05 * np.linalg.norm(exact)


def test_linearized_and_taylor_expanded_networks(nt, network):
    _, apply_fn, _, params = network
    step = jax.tree.map(lambda leaf: 1e-2 * jnp.ones_like(leaf), params)
    moved = jax.tree.map(jnp.add, params, step)
    first = apply_fn(params, X) + jax.jvp(lambda p: apply_fn(p, X), (params,), (step,))[1]
    np.testing.assert_allclose(nt.linearize(apply_fn, params)(moved, X), first, atol=1e-5)
    second = nt.taylor_expand(apply_fn, params, 2)(moved, X)
    exact = apply_fn(moved, X)
    assert np.abs(second - exact).max() < 0.5 * np.abs(first - exact).max()


@pytest.mark.parametrize("method, vmap_axes", [(1, None), (2, 0)])
def test_empirical_kernels(nt, network, method, vmap_axes):
    _, apply_fn, _, params = network
    gradients = jax.jit(jax.jacobian(apply_fn))(params, X)
    rows = np.concatenate([g.reshape(*Y.shape, -1) for g in jax.tree.leaves(gradients)], axis=-1)
    expected = np.tensordot(rows, rows[:4], axes=((1, 2), (1, 2))) / 2
    kernel_fn = nt.empirical_kernel_fn(apply_fn, vmap_axes=vmap_axes, implementation=method)
    kernel = jax.jit(kernel_fn, static_argnums=2)(X, X[:4], None, params)
    np.testing.assert_allclose(kernel.ntk, expected, rtol=1e-5, atol=1e-5)
    outputs = apply_fn(params, X)
    np.testing.assert_allclose(kernel.nngp, outputs @ outputs[:4].T / 2, rtol=1e-5, atol=1e-6)


def test_loads_in_a_thread_while_others_import(nt):
    seen = []
    thread = threading.Thread(target=lambda: seen.append(interop.neural_tangents()))
    thread.start()
    thread.join()
    assert seen == [nt]


# --- The infinite-width kernel of one step is that of a network with one hidden layer


def gaussian(u):
    return jnp.exp(-jnp.square(u) / 2)


ACTIVATIONS = {
    "relu": ("relu", lambda stax: stax.Relu()),
    "abs": ("abs", lambda stax: stax.Abs()),
    "leaky_relu": (leaky_relu(0.1), lambda stax: stax.LeakyRelu(0.1)),
    "linear": ("linear", lambda stax: stax.Identity()),
    "erf": ("erf", lambda stax: stax.Erf()),
    "sin": ("sin", lambda stax: stax.Sin()),
    "cos": ("cos", lambda stax: stax.Cos()),
    "gelu": ("gelu", lambda stax: stax.Gelu(approximate=False)),
    "gaussian": (gaussian, lambda stax: stax.Gaussian(b=-0.5)),
}

KINKED = {"relu", "abs", "leaky_relu"}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "b_std"),
    [
        *((name, 0.4) for name in ("relu", "leaky_relu", "erf", "sin")),
        *(
            pytest.param(name, 0.4, marks=pytest.mark.slow)
            for name in ("abs", "linear", "cos", "gelu", "gaussian")
        ),
        *((name, 0.0) for name in ("relu", "erf", "gaussian")),
    ],
)
def test_one_step_is_the_kernel_of_one_hidden_layer(nt, name, b_std):
    (activation, layer), u_std, v_std, d = ACTIVATIONS[name], 0.8, 0.7, 5
    rnn = ElmanRNN(activation, u_std=u_std, b_std=b_std, v_std=v_std)
    # Dense divides by the root of its inputs' number, u_std is as it is; the readout has no bias.
    layers = nt.stax.Dense(1, u_std * math.sqrt(d), b_std), layer(nt.stax), nt.stax.Dense(1, v_std)
    kernel_fn = jax.jit(nt.stax.serial(*layers)[2], static_argnums=2)
    rng = np.random.default_rng(3)
    x1, x2 = 0.9 * rng.standard_normal((20, 1, d)), rng.standard_normal((4, 1, d))
    # No closed form on our side: the accuracy that infinite_kernel promises there.
    tolerance = 1e-8 if activation is gaussian else 1e-12
    scale = [np.sqrt(np.diagonal(kernel_fn(x[:, 0], None, "nngp"))) for x in (x1, x2)]
    for other, scale2 in zip((None, x2), scale, strict=True):
        ours = infinite_kernel(rnn, x1, other)
        theirs = kernel_fn(x1[:, 0], None if other is None else other[:, 0], ("nngp", "ntk"))
        expected = {kind: np.array(getattr(theirs, kind)) for kind in ("nngp", "ntk")}
        if other is None and name in KINKED:
            # Of a sequence with itself, neural-tangents' angle is off by the root of the
            # rounding, and its NTK by 1e-9. Euler's theorem: u phi'(u) = phi(u).
            np.fill_diagonal(expected["ntk"], 2 * np.diagonal(expected["nngp"]))
        for kind, kernel in expected.items():
            # Entries may cancel to nothing: relative to the root of the diagonal's.
            error = np.abs(getattr(ours, kind) - kernel) / np.outer(scale[0], scale2)
            assert error.max() < tolerance, kind
