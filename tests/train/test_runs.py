"""Ensembles: the same numbers in any chunks, groups and threads; interrupts; resumption."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnntk.network.elman import ElmanRNN
from rnntk.tiling import threads, tuning
from rnntk.train import descent, fit, linearize, runs

KEY = jax.random.key(5)
N, T, D = 8, 4, 3
SETTINGS = {"width": 8, "learning_rate": 0.02, "steps": 30, "seeds": 3, "batch_size": 3}


def problem():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, T, D)).astype(np.float32)
    return x, rng.standard_normal(N)


def blocks(count, size=3):
    rng = np.random.default_rng(1)
    for _ in range(count):
        x = rng.standard_normal((size, T, D)).astype(np.float32)
        yield x, x[:, 0, 0]


def size_of_w(params, initial):
    return jnp.sqrt(jnp.square(params["W"] - initial["W"]).sum())


def outputs_of_one(params, initial):
    return params["V"][:, :2]


METRICS = {"moved": size_of_w, "corner": outputs_of_one}
RECORD = [0, 1, 7, 30]


def assert_same(one, two):
    np.testing.assert_array_equal(one.losses, two.losses)
    for a, b in zip(*map(jax.tree.leaves, (one.params, two.params)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert one.metrics.keys() == two.metrics.keys()
    for name, values in one.metrics.items():
        np.testing.assert_array_equal(values, two.metrics[name])


@pytest.mark.parametrize("rnn", [ElmanRNN(), linearize(ElmanRNN())], ids=["network", "expansion"])
def test_numbers_do_not_depend_on_chunks_groups_and_threads(rnn, monkeypatch):
    x, y = problem()
    want = fit(rnn, KEY, x, y, metrics=METRICS, record=RECORD, **SETTINGS)
    monkeypatch.setattr(tuning, "MOST_STEPS", 4)
    assert_same(fit(rnn, KEY, x, y, metrics=METRICS, record=RECORD, **SETTINGS), want)
    # Room for the arrays of one network: one after another, and all in the thread of the call.
    monkeypatch.setattr(descent, "in_threads", lambda call, items, device: map(call, items))
    need = fit_memory(rnn, x, y)
    found = fit(rnn, KEY, x, y, metrics=METRICS, record=RECORD, memory_limit=need, **SETTINGS)
    assert_same(found, want)


def fit_memory(rnn, x, y):
    with pytest.raises(ValueError, match="memory_limit must be at least") as told:
        fit(rnn, KEY, x, y, memory_limit=1, metrics=METRICS, record=RECORD, **SETTINGS)
    return int(str(told.value).split()[5])


def test_streams_do_not_depend_on_chunks_either(monkeypatch):
    stream = list(blocks(70))
    settings = SETTINGS | {"steps": None, "batch_size": None}
    want = fit(ElmanRNN(), KEY, stream, **settings)
    assert want.steps == 70
    monkeypatch.setattr(tuning, "MOST_STEPS", 32)
    assert_same(fit(ElmanRNN(), KEY, stream, **settings), want)
    assert_same(fit(ElmanRNN(), KEY, blocks(70), **settings), want)


def test_several_networks_as_one_program_are_the_same_to_rounding(monkeypatch):
    """What runs on accelerators."""
    x, y = problem()
    want = fit(ElmanRNN(), KEY, x, y, metrics=METRICS, record=RECORD, average=True, **SETTINGS)
    monkeypatch.setattr(descent, "together", lambda device: True)
    found = fit(ElmanRNN(), KEY, x, y, metrics=METRICS, record=RECORD, average=True, **SETTINGS)
    # float32, over 30 steps
    np.testing.assert_allclose(found.losses, want.losses, rtol=1e-4, atol=1e-6)
    for name in METRICS:
        np.testing.assert_allclose(found.metrics[name], want.metrics[name], rtol=1e-4, atol=1e-5)
    for averaged in (False, True):
        predictions = (each.predict(x, averaged=averaged) for each in (found, want))
        np.testing.assert_allclose(*predictions, rtol=1e-3, atol=1e-5)


def test_metrics_are_those_of_the_parameters_at_their_steps():
    x, y = problem()
    whole = fit(ElmanRNN(), KEY, x, y, metrics=METRICS, record=RECORD, **SETTINGS)
    assert whole.recorded == (0, 1, 7, 30)
    assert whole.metrics["moved"].shape == (3, 4)
    assert whole.metrics["corner"].shape == (3, 4, 1, 2)
    assert (whole.metrics["moved"][:, 0] == 0).all()
    for column, steps in ((1, 1), (2, 7)):  # a run that ends there
        short = fit(ElmanRNN(), KEY, x, y, **SETTINGS | {"steps": steps})
        for i in range(3):
            moved = np.asarray(short.params["W"][i] - short.initial_params["W"][i], float)
            got = whole.metrics["moved"][i, column]
            np.testing.assert_allclose(got, np.linalg.norm(moved), rtol=1e-5)
            corner = whole.metrics["corner"][i, column]
            np.testing.assert_array_equal(corner, short.params["V"][i, :, :2])
    default = fit(ElmanRNN(), KEY, x, y, metrics=METRICS, **SETTINGS)
    assert default.recorded == (0, 30)


def test_an_interrupt_keeps_what_there_is_and_the_same_call_goes_on(monkeypatch, tmp_path):
    x, y = problem()
    monkeypatch.setattr(tuning, "MOST_STEPS", 5)
    settings = SETTINGS | {"metrics": METRICS, "record": RECORD, "checkpoint": tmp_path / "run"}
    want = fit(ElmanRNN(), KEY, x, y, metrics=METRICS, record=RECORD, **SETTINGS)
    calls, run = [], descent.on_members

    def interrupted(call, *arguments):
        calls.append(call)
        if call is descent.advance_stored and calls.count(call) in (1, 5):
            raise KeyboardInterrupt
        return run(call, *arguments)

    monkeypatch.setattr(descent, "on_members", interrupted)
    with pytest.warns(RuntimeWarning, match="interrupted; 3 networks .* after 0 steps"):
        fit(ElmanRNN(), KEY, x, y, **settings)
    with pytest.warns(RuntimeWarning, match="interrupted; 3 networks .* after 7 steps"):
        part = fit(ElmanRNN(), KEY, x, y, **settings)
    assert (part.steps, part.recorded) == (7, (0, 1, 7))
    np.testing.assert_array_equal(part.losses, want.losses[:, :7])
    monkeypatch.setattr(descent, "on_members", run)
    assert_same(fit(ElmanRNN(), KEY, x, y, **settings), want)
    assert_same(fit(ElmanRNN(), KEY, x, y, **settings), want)  # finished: nothing to do


SCRIPT = """
import itertools, os, signal, sys
from rnntk.tiling import tuning
from rnntk.train import fit, runs
sys.path.insert(0, {folder!r})
from test_runs import blocks, problem, ElmanRNN, KEY, METRICS, SETTINGS
tuning.MOST_STEPS, runs.SAVE_SECONDS = 8, 0.0
saves, save = itertools.count(), runs.checkpoint.save
def killed(*arguments):
    if next(saves) == 40:  # of 377, or 96 of a stream: the steps since the last save are lost
        os.kill(os.getpid(), signal.SIGKILL)
    save(*arguments)
runs.checkpoint.save = killed
settings = SETTINGS | dict(metrics=METRICS, record=[0, 500], checkpoint={path!r}, average=True)
if {stream}:
    fit(ElmanRNN(), KEY, blocks(3000), **settings | dict(steps=3000))
else:
    fit(ElmanRNN(), KEY, *problem(), **settings | dict(steps=3000))
"""


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True], ids=["stored", "stream"])
def test_a_killed_run_resumes_to_the_same_numbers(stream, tmp_path, monkeypatch):
    path = tmp_path / "run"
    code = SCRIPT.format(folder=str(Path(__file__).parent), path=str(path), stream=stream)
    process = subprocess.run([sys.executable, "-c", code], env=os.environ, timeout=300)
    assert process.returncode == -signal.SIGKILL
    with np.load(path) as file:
        done = int(file[f"leaf{len(file.files) - 2}"])
    assert 0 < done < 3000
    settings = SETTINGS | {"steps": 3000, "metrics": METRICS, "record": [0, 500], "average": True}
    arguments = (lambda: (blocks(3000),)) if stream else problem
    want = fit(ElmanRNN(), KEY, *arguments(), **settings)
    monkeypatch.setattr(tuning, "MOST_STEPS", 8)
    found = fit(ElmanRNN(), KEY, *arguments(), checkpoint=path, **settings)
    assert_same(found, want)
    for a, b in zip(*(jax.tree.leaves(v.averaged_params) for v in (found, want)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_checkpoint_of_another_run_is_named(tmp_path):
    x, y = problem()
    path = tmp_path / "deep" / "run"
    settings = SETTINGS | {"steps": 2, "checkpoint": path}
    fit(ElmanRNN(), KEY, x, y, **settings)
    changes = {
        "learning_rate": ({"learning_rate": 0.03}, "learning_rate was 0.0199.* and is 0.0299"),
        "data": ({"y": y + 1}, "data was"),
        "rnn": ({"rnn": ElmanRNN("erf")}, "activation was relu.* and is erf"),
        "kind": ({"rnn": linearize(ElmanRNN())}, "function was ElmanRNN, and is Linearized"),
        "key": ({"key": jax.random.key(6)}, "key was"),
        "loss": ({"loss": "huber"}, "loss was squared, and is huber"),
    }
    for change, message in changes.values():
        arguments = {"rnn": ElmanRNN(), "key": KEY, "x": x, "y": y} | settings | change
        with pytest.raises(ValueError, match=f"checkpoint .*run is of other work: {message}"):
            fit(**arguments)
    other = tmp_path / "lambda"
    fit(ElmanRNN(lambda z: jnp.tanh(z)), KEY, x, y, **settings | {"checkpoint": other})
    with pytest.raises(ValueError, match="activation was <lambda>"):  # told by its values
        fit(ElmanRNN(lambda z: jnp.sin(z)), KEY, x, y, **settings | {"checkpoint": other})
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="checkpoint must be a file that this wrote"):
        fit(ElmanRNN(), KEY, x, y, **settings)


def test_networks_run_in_threads():
    assert threads.cores(jnp.zeros(1)) == tuning.CORES
    assert runs.SAVE_SECONDS > 1
