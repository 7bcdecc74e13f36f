"""Empirical kernels against the Jacobian of the network, formed in full."""

import itertools
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnntk import ElmanRNN, empirical_kernel, infinite_kernel
from rnntk.empirical import planning
from rnntk.empirical.planning import plan
from rnntk.network.parameters import SECOND

LENGTHS = np.array([4, 2, 1]), np.array([5, 5, 3, 1])
GRID = [
    pytest.param(*config, marks=[pytest.mark.slow] if i % 3 else [])
    for i, config in enumerate(
        itertools.product(
            ("last", "mean", "sequence"),
            (1, 2),
            (False, True),
            ("zero", "shared", "independent"),
            (("W", "U", "b", "V"), ("W",), ("V",), ("U", "b")),
        )
    )
    if i % 7 == 0  # every value of every option, and every pair of values, occurs
]


def tokens(n, t, seed, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal((n, t, 3)).astype(dtype)


def brute_force(rnn, params, x1, x2, lengths1, lengths2, key):
    """All inner products of all gradients, (n1, [t1,] n2, [t2,] o, o)."""

    def gradients(x, lengths, key):
        def apply(p):
            return rnn.apply(p, x, lengths, key=key)

        leaves = jax.tree_util.tree_leaves_with_path(jax.jit(jax.jacobian(apply))(params))
        shape = jax.eval_shape(apply, params).shape
        trained = [g.reshape(*shape, -1) for path, g in leaves if path[-1].key in rnn.trainable]
        return np.concatenate(trained, axis=-1)

    one = gradients(x1, lengths1, key)
    two = gradients(x2, lengths2, None if key is None else jax.random.fold_in(key, SECOND))
    full = np.tensordot(one, two, axes=(-1, -1))
    return np.moveaxis(full, full.ndim // 2 - 1, -2)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("readout,depth,bidirectional,state,trainable", GRID)
def test_is_the_product_of_jacobians(readout, depth, bidirectional, state, trainable):
    rnn = ElmanRNN(
        w_std=1.2,
        u_std=1.1,
        b_std=0.3,
        v_std=0.8,
        readout=readout,
        depth=depth,
        bidirectional=bidirectional,
        initial_state=state,
        initial_state_std=0.0 if state == "zero" else 0.5,
        trainable=trainable,
        input_scaling="fan_in",
    )
    params = rnn.init(jax.random.key(0), input_dim=3, width=5, output_dim=2)
    x1, x2, key = tokens(3, 4, 0), tokens(4, 5, 1), jax.random.key(7)
    expected = brute_force(rnn, params, x1, x2, *LENGTHS, key)
    arguments = {"lengths1": LENGTHS[0], "lengths2": LENGTHS[1], "key": key}
    size = np.abs(expected).max()
    trace = np.trace(expected, axis1=-2, axis2=-1) / 2
    for method in ("gram", "jacobian"):
        arguments["method"] = method
        full = empirical_kernel(rnn, params, x1, x2, outputs="full", **arguments).ntk
        mean = empirical_kernel(rnn, params, x1, x2, **arguments).ntk
        # sums of a few hundred products: 1e-12 is thousands of roundoffs
        np.testing.assert_allclose(full, expected, rtol=0, atol=1e-12 * size)
        np.testing.assert_allclose(mean, trace, rtol=0, atol=1e-12 * size)


@pytest.fixture
def in_parts(monkeypatch):
    """As if all kernels were large, and the machine had two cores."""
    for name, value in {"CORES": 2, "SMALLEST": 1, "BRIEF": 0}.items():
        monkeypatch.setattr(f"rnntk.tiling.tuning.{name}", value)
    monkeypatch.setattr(
        "rnntk.empirical.planning._largest", planning._largest.__wrapped__
    )  # no old plans


@pytest.mark.usefixtures("x64", "in_parts")
@pytest.mark.parametrize(
    "method, readout",
    [
        ("gram", "last"),
        ("jacobian", "mean"),
        pytest.param("gram", "sequence", marks=pytest.mark.slow),
        pytest.param("jacobian", "sequence", marks=pytest.mark.slow),
    ],
)
def test_cores_that_take_parts_of_the_batch_give_the_same(method, readout):
    states = {"initial_state": "independent", "initial_state_std": 0.5}
    both = method == "jacobian"
    rnn = ElmanRNN(b_std=0.3, readout=readout, bidirectional=both, **states)
    params = rnn.init(jax.random.key(0), input_dim=3, width=5)
    x1, x2, key = tokens(3, 4, 0), tokens(4, 5, 1), jax.random.key(7)
    one, two = ({f"lengths{i + 1}": LENGTHS[i]} for i in (0, 1))
    found = empirical_kernel(rnn, params, x1, x2, **one, **two, key=key, method=method).ntk
    expected = brute_force(rnn, params, x1, x2, *LENGTHS, key)[..., 0, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)

    rnn = ElmanRNN(b_std=0.3, readout=readout)
    params = rnn.init(jax.random.key(0), input_dim=3, width=5)
    found = empirical_kernel(rnn, params, x1, **one, method=method).ntk
    expected = brute_force(rnn, params, x1, x1, LENGTHS[0], LENGTHS[0], None)[..., 0, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    half = found.ndim // 2
    assert (found == jnp.moveaxis(found, range(half), range(half, 2 * half))).all()


@pytest.mark.usefixtures("x64", "in_parts")
@pytest.mark.parametrize(
    "method, side", [("gram", "params"), ("jacobian", "x1"), ("jacobian", "x2")]
)
def test_gradients_outside_of_jit(method, side):
    rnn, x1, x2 = ElmanRNN(), tokens(3, 2, 0), tokens(4, 3, 1)
    params = rnn.init(jax.random.key(0), input_dim=3, width=4)

    def total(scale):  # relu is homogeneous: no scale crosses its kink
        arguments = {"params": {"U": params["U"]}, "x1": x1, "x2": x2}
        arguments[side] = jax.tree.map(lambda v: scale * v, arguments[side])
        arguments["params"] = params | arguments["params"]
        return empirical_kernel(rnn, **arguments, method=method).ntk.sum()

    h = 1e-5  # error of central differences: about h^2 and 1e-16 / h, relative
    expected = (total(1 + h) - total(1 - h)) / (2 * h)
    np.testing.assert_allclose(jax.grad(total)(1.0), expected, rtol=1e-8)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("activation", ["erf", "abs", "linear", "sin", "cos"])
def test_activations_and_symmetric_calls(activation):
    rnn = ElmanRNN(activation, w_std=1.1, b_std=0.2)
    params = rnn.init(jax.random.key(0), input_dim=3, width=6)
    x = tokens(4, 5, 2)
    expected = brute_force(rnn, params, x, x, None, None, None)[..., 0, 0]
    kernel = empirical_kernel(rnn, params, x)
    np.testing.assert_allclose(kernel.ntk, expected, rtol=1e-12, atol=1e-12)
    assert (kernel.ntk == kernel.ntk.T).all()
    assert (kernel.nngp == kernel.nngp.T).all()


def least(rnn, params, *batches, method):
    """The least memory limit that a call accepts."""
    with pytest.raises(ValueError, match="memory_limit must be at least") as refusal:
        empirical_kernel(rnn, params, *batches, method=method, memory_limit=1)
    return int(re.search(r"at least ([\d,]+) bytes", str(refusal.value)).group(1).replace(",", ""))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "method, readout",
    [
        ("gram", "last"),
        ("jacobian", "last"),
        pytest.param("gram", "sequence", marks=pytest.mark.slow),
        pytest.param("jacobian", "sequence", marks=pytest.mark.slow),
    ],
)
def test_any_memory_that_is_accepted_gives_the_same_kernel(method, readout):
    rnn = ElmanRNN(b_std=0.2, readout=readout)
    params = rnn.init(jax.random.key(0), input_dim=3, width=6)
    x1, x2 = tokens(5, 4, 2), tokens(3, 2, 3)
    for batches in ((x1,), (x1, x2)):
        expected = brute_force(rnn, params, x1, batches[-1], None, None, None)[..., 0, 0]
        smallest = least(rnn, params, *batches, method=method)
        panels = set()
        for limit in (smallest, 2 * smallest, 3 * smallest):
            panels.add(plan(rnn, params, *map(jnp.asarray, batches), memory_limit=limit).panel)
            found = empirical_kernel(rnn, params, *batches, method=method, memory_limit=limit)
            np.testing.assert_allclose(found.ntk, expected, rtol=1e-12, atol=1e-12)
            if len(batches) == 1:
                half = found.ntk.ndim // 2
                swapped = jnp.moveaxis(found.ntk, range(half), range(half, 2 * half))
                assert (found.ntk == swapped).all()
        assert len(panels) > 1


@pytest.mark.usefixtures("x64")
def test_conjugate_kernel_is_the_kernel_of_the_readout_weights():
    rnn = ElmanRNN(v_std=0.7)
    params = rnn.init(jax.random.key(0), input_dim=3, width=6)
    x = tokens(4, 5, 2)
    outputs = jax.vmap(lambda v: rnn.apply(params | {"V": v}, x)[:, 0])(jnp.eye(6)[:, None])
    np.testing.assert_allclose(
        empirical_kernel(rnn, params, x).nngp, outputs.T @ outputs, rtol=1e-12, atol=1e-14
    )


def test_float32_in_float32_out():
    rnn = ElmanRNN()
    params = rnn.init(jax.random.key(0), input_dim=3, width=6)
    assert empirical_kernel(rnn, params, tokens(4, 5, 2, np.float32)).ntk.dtype == jnp.float32


SHARDED = """
import jax, numpy as np
import rnntk

rnn = rnntk.ElmanRNN()
params = rnn.init(jax.random.key(0), input_dim=3, width=16)
x = jax.random.normal(jax.random.key(1), (4, 5, 3))
mesh = jax.sharding.Mesh(jax.devices(), "n")
split = jax.device_put(x, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("n")))
assert len(split.devices()) == 2
for method in ("gram", "jacobian"):
    found, expected = (rnntk.empirical_kernel(rnn, params, v, method=method) for v in (split, x))
    np.testing.assert_allclose(found.ntk, expected.ntk, rtol=1e-5)
"""


@pytest.mark.slow
def test_tokens_on_several_devices():
    flags = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=2"
    environment = os.environ | {"XLA_FLAGS": flags}
    command = [sys.executable, "-c", SHARDED]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_bad_input():
    rnn = ElmanRNN()
    params = rnn.init(jax.random.key(0), input_dim=3, width=6)
    x = jnp.asarray(tokens(4, 5, 2, np.float32))
    with pytest.raises(ValueError, match=r"params\['U'\] must have shape \(6, 2\) .* got \(6, 3\)"):
        empirical_kernel(rnn, params, x[..., :2])
    with pytest.raises(ValueError, match="no matrix V"):
        empirical_kernel(ElmanRNN(bidirectional=True), params, x)
    with pytest.raises(ValueError, match=r"params\['layers'\]\[0\]\['U'\] .* got no such leaf"):
        empirical_kernel(ElmanRNN(depth=2), params, x)
    with pytest.raises(ValueError, match=r"outputs must be one of .* got 'all'"):
        empirical_kernel(rnn, params, x, outputs="all")
    with pytest.raises(ValueError, match=r"method must be one of .* got 'fast'"):
        empirical_kernel(rnn, params, x, method="fast")
    with pytest.raises(ValueError, match=r"params\['Z'\] must not be there .* got \(2,\)"):
        empirical_kernel(rnn, params | {"Z": jnp.ones(2)}, x)
    deep = ElmanRNN(depth=2).init(jax.random.key(0), input_dim=3, width=6)
    deep["layers"] = (*deep["layers"], deep["layers"][1])
    with pytest.raises(ValueError, match=r"params\['layers'\]\[2\]\['U'\] must not be there"):
        empirical_kernel(ElmanRNN(depth=2), deep, x)
    with pytest.raises(ValueError, match=r"params\['U'\] must be finite, got NaN or infinity"):
        empirical_kernel(rnn, params | {"U": jnp.full((6, 3), jnp.nan)}, x)
    for limit in (0, 1.5, "1GB", True):
        with pytest.raises(ValueError, match="memory_limit must be a whole number of at least 1"):
            empirical_kernel(rnn, params, x, memory_limit=limit)
    with pytest.raises(ValueError, match=r"must be at least [\d,]+ bytes for method='jacobian'"):
        empirical_kernel(rnn, params, x, method="jacobian", memory_limit=10)
    with pytest.raises(ValueError, match="x2 must have shape"):
        empirical_kernel(rnn, params, x, x[0])
    with pytest.raises(FloatingPointError, match="overflows float32"):
        empirical_kernel(rnn, params, 1e30 * x)
    independent = ElmanRNN(initial_state="independent", initial_state_std=1.0)
    with pytest.raises(ValueError, match="key is needed"):
        empirical_kernel(independent, params, x)


def test_float32_multipliers_are_rounded_once():
    """sqrt(2) / sqrt(512) is 1/16; rounded in between, 2 t times its error would be 8e-6."""
    rnn, x = ElmanRNN(), tokens(6, 64, 0, np.float32)
    params = rnn.init(jax.random.key(1), input_dim=3, width=512)
    single = [np.asarray(empirical_kernel(rnn, params, x).ntk), infinite_kernel(rnn, x).ntk]
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda v: v.astype(np.float64), params)
        x = x.astype(np.float64)
        double = [empirical_kernel(rnn, wide, x).ntk, infinite_kernel(rnn, x).ntk]
    for one, two in zip(single, map(np.asarray, double), strict=True):
        # the median leaves out units whose sign rounding has decided; products round at random
        assert np.median(np.abs(one / two - 1)) < 2.5e-6
