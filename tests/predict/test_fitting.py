"""Regression from sequences at any size: four methods, checkpoints, kills."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

import rnntk
from rnntk.linalg import tiles
from rnntk.predict import KernelRegression, fit, sequence_kernel
from rnntk.predict.sequence_kernel import SequenceKernel


def data(n=96, seed=0, d=2):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 4, d))
    return x, np.stack([x[:, -1, 0], np.sin(x.sum(axis=(1, 2)))], axis=1)


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(sequence_kernel, "BLOCK", 32)
    monkeypatch.setattr(sequence_kernel, "_DIAGONAL_BLOCK", 8)


RNNS = {
    "sin": rnntk.ElmanRNN("sin", b_std=0.3),
    "independent states": rnntk.ElmanRNN(
        "sin", initial_state="independent", initial_state_std=0.7, readout="mean"
    ),
}


# 96 are three whole tiles; of 90, the last is smaller.
@pytest.mark.parametrize(
    ("name", "kind", "n"), [("sin", "ntk", 90), ("independent states", "nngp", 96)]
)
def test_tiles_columns_and_diagonal_are_the_matrix(x64, small_tiles, name, kind, n):
    x, y = data(n)
    lengths = np.random.default_rng(1).integers(1, 5, len(x))
    kernel = SequenceKernel.of(RNNS[name], x, lengths, kind)
    matrix = np.asarray(getattr(rnntk.infinite_kernel(RNNS[name], x, lengths1=lengths), kind))
    close = {"rtol": 1e-12, "atol": 1e-13}
    np.testing.assert_allclose(kernel.matrix(), matrix, **close)
    np.testing.assert_allclose(kernel.diagonal, np.diagonal(matrix), **close)
    index = np.array([3, 40, 89])
    np.testing.assert_allclose(kernel.columns(index), matrix[:, index], **close)
    np.testing.assert_allclose(tiles.multiply(kernel.tiles(), y), matrix @ y, **close)
    assert kernel.tile_count == len(list(kernel.tiles())) == 6
    new, _ = data(n - 32, seed=2)
    cross = getattr(rnntk.infinite_kernel(RNNS[name], new, x, lengths2=lengths), kind)
    np.testing.assert_allclose(kernel.predict(new, None, y), np.asarray(cross) @ y, **close)


@pytest.mark.parametrize("method", ["exact", "float32", "matrix-free", "nystrom"])
def test_every_method_is_the_direct_solve(x64, small_tiles, method):
    x, y = data()
    new, _ = data(32, seed=3)
    rnn, ridge = RNNS["sin"], 0.05
    kernel, cross = (np.asarray(rnntk.infinite_kernel(rnn, *pair).ntk) for pair in ((x,), (new, x)))
    expected = cross @ np.linalg.solve(kernel + ridge * np.eye(len(x)), y)
    rank = {"nystrom": 96}.get(method, 20)
    model = fit(rnn, x, y, ridge, method=method, rank=rank, tolerance=1e-10)
    assert (model.method, model.reason) == (method, "as asked")
    found = model.predict(new)
    # tolerance times the condition, 1e3; all 96 landmarks span the kernel
    np.testing.assert_allclose(found, expected, atol=1e-7)
    if method != "nystrom":
        gap = y - (kernel + ridge * np.eye(len(x))) @ model.coefficients
        relative = np.linalg.norm(gap, axis=0) / np.linalg.norm(y, axis=0)
        assert model.residual <= 1e-10
        assert relative.max() <= 2e-10
        prior = np.diagonal(np.asarray(rnntk.infinite_kernel(rnn, new).ntk))
        bound = model.prediction_bound * np.sqrt(prior)[:, None]
        assert (np.abs(found - expected) <= bound + 1e-11).all()
    if method == "matrix-free":
        assert 1 < model.steps < 40
        assert model.passes == model.steps + 1
    if method == "float32":
        assert 2 <= model.passes <= 5  # one stored, one for each refinement


def test_one_output_and_the_bound_on_predictions(x64):
    x, y = data(64)
    rnn = RNNS["sin"]
    model = fit(rnn, x, y[:, 0], 0.1, method="matrix-free", tolerance=1e-2, rank=2)
    exact = fit(rnn, x, y[:, 0], 0.1)
    new, _ = data(64, seed=5)
    prior = np.diagonal(np.asarray(rnntk.infinite_kernel(rnn, new).ntk))
    error = np.abs(model.predict(new) - exact.predict(new))
    assert error.max() > 1e-5  # stopped early: an error worth a bound
    assert (error <= model.prediction_bound * np.sqrt(prior)).all()
    assert fit(rnn, x, y, 0.0).prediction_bound == np.inf
    assert exact.passes == 1


def test_nystrom_comes_nearer_with_its_rank(x64):
    x, y = data(96, d=1)
    rnn = RNNS["sin"]
    exact = fit(rnn, x, y, 0.1).predict(x)
    errors, remainders = [], []
    for rank in (6, 60):
        model = fit(rnn, x, y, 0.1, method="nystrom", rank=rank)
        assert model.coefficients.shape == (rank, 2)
        S = model.landmarks
        K = np.asarray(rnntk.infinite_kernel(rnn, x).ntk)
        low = K[:, S] @ np.linalg.solve(K[np.ix_(S, S)], K[S])
        assert model.remainder == pytest.approx(1 - np.trace(low) / np.trace(K), abs=1e-9)
        direct = low @ np.linalg.solve(low + 0.1 * np.eye(96), y)
        np.testing.assert_allclose(model.predict(x), direct, atol=1e-6)
        errors.append(np.linalg.norm(model.predict(x) - exact))
        remainders.append(model.remainder)
    assert errors[0] > 2 * errors[1]
    assert remainders[0] > 2 * remainders[1]


def test_nystrom_keeps_its_digits_at_any_ridge(x64):
    x, y = data(24, d=1)
    K = np.asarray(rnntk.infinite_kernel(rnntk.ElmanRNN(), x).ntk)
    for ridge in (1e8, 1e160, 1e300):
        model = fit(rnntk.ElmanRNN(), x, y, ridge, method="nystrom", rank=24)
        # beside such a ridge the kernel is nothing; the features may drop 1e-14 of it
        limit = (K / ridge) @ y
        np.testing.assert_allclose(model.predict(x), limit, atol=1e-5 * np.abs(limit).max())


def test_auto_takes_what_fits_and_says_so():
    x, y = data(40)
    x = x.astype(np.float32)
    found = {
        memory: fit(RNNS["sin"], x, y, 1.0, memory=memory, tolerance=1e-5)
        for memory in (1e6, 40e3, 1e3)
    }
    assert [m.method for m in found.values()] == ["exact", "float32", "matrix-free"]
    assert "exact solving takes 6.4e-05 GB for 40 sequences, of 0.001 GB" in found[1e6].reason
    assert "even in single precision the kernel of 40 sequences takes" in found[1e3].reason
    for model in found.values():
        np.testing.assert_allclose(model.predict(x), found[1e6].predict(x), atol=1e-4)


def test_single_precision_that_does_not_suffice_says_so(x64):
    x, y = data(60)
    x[30:] = x[:30] + 1e-5  # condition 1e9 and more: float32 sees duplicates
    with pytest.raises(FloatingPointError, match=r"too ill-conditioned|not converged|definite"):
        fit(RNNS["sin"], x, y, 0.0, method="float32", rank=10)


def test_steps_that_rounding_stops_say_so(x64):
    x, y = data(8)
    with pytest.raises(FloatingPointError, match=r"too ill-conditioned for tolerance=1\.0e-08"):
        fit(rnntk.ElmanRNN(), np.repeat(x[:4], 2, axis=0), y, 1e-12, method="matrix-free")


def test_zero_labels_and_zero_kernels(x64):
    x, y = data(8)
    found = fit(RNNS["sin"], x, 0 * y, 1.0, method="float32")
    assert not found.coefficients.any()
    with pytest.raises(ValueError, match="x must not be zero throughout"):
        fit(rnntk.ElmanRNN(), 0 * x, y, 1.0, method="nystrom")


def test_steps_go_on_from_a_checkpoint_to_the_same_numbers(x64, small_tiles, tmp_path):
    x, y = data()
    for method in ("matrix-free", "float32"):
        options = {"method": method, "rank": 10, "tolerance": 1e-11}
        whole = fit(RNNS["sin"], x, y, 0.01, **options)
        path = tmp_path / f"{method}.npz"
        calls = 0
        original = tiles.multiply

        def interrupted(tiles, v, original=original):
            nonlocal calls
            calls += 1
            if calls == 13:
                raise KeyboardInterrupt("stop")
            return original(tiles, v)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("rnntk.predict.iterative.multiply", interrupted)
            with pytest.raises(KeyboardInterrupt, match="stop"):
                fit(RNNS["sin"], x, y, 0.01, checkpoint=path, **options)
        resumed = fit(RNNS["sin"], x, y, 0.01, checkpoint=path, **options)
        np.testing.assert_array_equal(resumed.coefficients, whole.coefficients)
        assert resumed.passes < whole.passes or method == "float32"
        with pytest.raises(ValueError, match=r"is of other work: ridge was 0\.01, and is 0\.02"):
            fit(RNNS["sin"], x, y, 0.02, checkpoint=path, **options)
        with pytest.raises(ValueError, match=r"is of other work: b_std was 0\.3, and is 0\.4"):
            fit(rnntk.ElmanRNN("sin", b_std=0.4), x, y, 0.01, checkpoint=path, **options)


SCRIPT = """
import sys, time
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
import rnntk
from rnntk.predict import fit, iterative, sequence_kernel

sequence_kernel.BLOCK = 32
slow = float(sys.argv[2])
original = iterative.multiply
def multiply(tiles, v):
    time.sleep(slow)
    return original(tiles, v)
iterative.multiply = multiply
rng = np.random.default_rng(0)
x = rng.standard_normal((90, 4, 2))
model = fit(rnntk.ElmanRNN("sin", b_std=0.3), x, x[:, -1, 0], 0.01, method="matrix-free", rank=5,
            tolerance=1e-10, checkpoint=sys.argv[1] or None)
np.save(sys.argv[3], model.coefficients)
"""


def test_a_killed_solve_resumes_to_the_same_numbers(tmp_path):
    script = tmp_path / "solve.py"
    script.write_text(textwrap.dedent(SCRIPT))
    path, out = tmp_path / "state.npz", tmp_path / "out.npy"

    def run(checkpoint, slow, out):
        command = [sys.executable, str(script), str(checkpoint), str(slow), str(out)]
        return subprocess.Popen(command, stderr=subprocess.PIPE)

    process = run(path, 0.2, out)
    deadline = time.monotonic() + 120
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not out.exists()
    with np.load(path) as state:
        assert 0 < int(state["steps"]) < 20
    for checkpoint, target in ((path, out), ("", tmp_path / "whole.npy")):
        process = run(checkpoint, 0.0, target)
        assert process.communicate()[1] == b""
        assert process.returncode == 0
    np.testing.assert_array_equal(np.load(out), np.load(tmp_path / "whole.npy"))


def test_a_chosen_ridge_is_that_of_the_matrix(x64):
    x, y = data(40)
    model = fit(RNNS["sin"], x, y, "leave_one_out")
    kernel = rnntk.infinite_kernel(RNNS["sin"], x).ntk
    assert model.ridge == KernelRegression(kernel, y, "leave_one_out").ridge


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "lu"}, r"method must be one of \('auto', .*got 'lu'"),
        ({"kind": "rbf"}, r"kind must be one of \('ntk', 'nngp'\), got 'rbf'"),
        ({"tolerance": 0.0}, "tolerance must lie between 0 and 1, got 0"),
        ({"rank": 0}, "rank must be a whole number of at least 1, got 0"),
        ({"memory": -1.0}, "memory must be finite and positive, got -1.0"),
        ({"ridge": -1.0}, "ridge must be finite and not negative, got -1"),
        ({"ridge": -1.0, "method": "nystrom"}, "ridge must be finite and not negative, got -1"),
        (
            {"ridge": "leave_one_out", "method": "float32"},
            "ridge must be a number for method='float32', got 'leave_one_out'",
        ),
        ({"rnn": rnntk.ElmanRNN(readout="sequence")}, r"readout must be 'last' or 'mean'.*'sequ"),
        ({"y": np.ones(3)}, r"one label for each of the 4 training points"),
        ({"lengths": np.ones(3, int)}, r"lengths must hold one length per sequence"),
    ],
)
def test_bad_arguments_are_named(options, message):
    arguments = {"rnn": rnntk.ElmanRNN(), "y": np.ones(4), "ridge": 0.1, **options}
    with pytest.raises(ValueError, match=message):
        fit(arguments.pop("rnn"), np.ones((4, 3, 2), np.float32), **arguments)


def test_predictions_check_their_sequences():
    x, y = data(8)
    model = fit(rnntk.ElmanRNN(), x.astype(np.float32), y, 1.0)
    with pytest.raises(ValueError, match=r"x must have tokens of size 2 like the training seq.*5"):
        model.predict(np.ones((2, 3, 5), np.float32))
