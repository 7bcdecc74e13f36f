"""The report from end to end at a small size, its numbers against independent recomputation."""

import json
import os

import jax
import numpy as np
import pytest
import scipy.stats
import sklearn.kernel_ridge

import rnntk
from rnntk import compare, datasets
from rnntk.cli import commands
from rnntk.report import pipeline, problem
from rnntk.report.settings import Settings, read

WIDTHS = (16, 32, 64)
FILES = {"kernels.npz", "report.html", "results.json", "config.toml"}


def test_only_the_files_are_left(folder, results):
    assert set(os.listdir(folder)) == FILES | {"certificate.npz"}
    assert results["failures"] == {}
    assert set(results["seconds"]) == set(pipeline.STAGES)
    assert results["schema"] == 2


def test_results_say_what_ran(results):
    environment = results["environment"]
    assert environment["dtype"] == "float64"
    assert environment["jax"] == jax.__version__
    assert environment["numpy"] == np.__version__
    assert "cpu" in environment["device"]
    assert results["settings"]["widths"] == list(WIDTHS)
    assert results["data"]["train_shape"] == [24, 8, 8]


def test_kernels_are_symmetric_and_of_the_data(arrays):
    for name in ("ntk", "nngp"):
        assert arrays[name].shape == (24, 24)
        np.testing.assert_array_equal(arrays[name], arrays[name].T)
        assert arrays[f"{name}_test_train"].shape == (100, 24)
    train, test = datasets.split(datasets.digits(), 24, n_test=100)
    np.testing.assert_array_equal(arrays["x"], train.x)
    np.testing.assert_array_equal(arrays["y_test"], test.y)


@pytest.mark.parametrize("kind", ["ntk", "ntk_unit_diagonal", "nngp", "nngp_unit_diagonal"])
def test_slope_is_the_least_squares_line(results, kind):
    stage = results["widths"]["kinds"][kind]
    deviations = np.array(stage["deviations"])
    assert deviations.shape == (3, 2)
    slope, _ = np.polyfit(np.log(np.repeat(WIDTHS, 2)), np.log(deviations).ravel(), 1)
    assert stage["slope"] == pytest.approx(slope, rel=1e-10)
    assert stage["geometric_mean"] == pytest.approx(scipy.stats.gmean(deviations, axis=1))


def test_deviation_by_the_jacobian(results, arrays):
    """One empirical kernel again, from the definition."""
    rnn = rnntk.ElmanRNN()
    made = problem.prepare(Settings(n=24))
    with jax.enable_x64(True):
        params = rnn.init(made.key(32, 1), input_dim=8, width=32)
        jacobian = jax.jacobian(lambda p: rnn.apply(p, arrays["x"])[:, 0])(params)
        flat = np.concatenate([np.reshape(j, (24, -1)) for j in jax.tree.leaves(jacobian)], axis=1)
    finite, limit = flat @ flat.T, arrays["ntk"]
    deviation = np.linalg.norm(finite - limit) / np.linalg.norm(limit)
    kinds = results["widths"]["kinds"]
    got = kinds["ntk"]["deviations"][1][1]
    assert got == pytest.approx(deviation, rel=1e-10)
    roots = [np.sqrt(np.diag(matrix)) for matrix in (finite, limit)]
    corr, corr_limit = finite / np.outer(roots[0], roots[0]), limit / np.outer(roots[1], roots[1])
    deviation = np.linalg.norm(corr - corr_limit) / np.linalg.norm(corr_limit)
    got = kinds["ntk_unit_diagonal"]["deviations"][1][1]
    assert got == pytest.approx(deviation, rel=1e-10)
    smallest = results["widths"]["min_eigenvalues"][1][1]
    # The smallest eigenvalue is exact to rounding of the largest.
    largest = np.linalg.eigvalsh(finite)[-1]
    assert smallest == pytest.approx(np.linalg.eigvalsh(finite)[0], abs=1e-12 * largest)


def test_spectrum_is_numpys(results, arrays):
    stage = results["spectrum"]
    expected = np.linalg.eigvalsh(arrays["ntk"])
    assert stage["eigenvalues"] == pytest.approx(expected, abs=1e-12 * expected[-1])
    smallest = stage["min_eigenvalue"]
    assert smallest["lower"] <= expected[0] <= smallest["upper"]
    assert stage["lower_bounds"]
    assert all(bound <= smallest["upper"] for bound in stage["lower_bounds"].values())
    assert stage["upper_bounds"]
    assert all(bound >= smallest["lower"] for bound in stage["upper_bounds"].values())
    ratio = np.array(results["widths"]["min_eigenvalues"]) / smallest["value"]
    np.testing.assert_allclose(stage["over_limit"], ratio, rtol=1e-12)
    lower, upper = stage["certificate"]  # of the exact kernel
    assert abs(lower - expected[0]) < 1e-10 * expected[-1]
    assert lower <= upper < (1 + 1e-5) * lower


@pytest.mark.parametrize("kind", ["ntk", "nngp"])
def test_predictions_are_scikit_learns(results, arrays, kind):
    row = results["predictions"]["methods"][kind.upper()]
    classes = np.unique(arrays["y"])
    targets = (arrays["y"][:, None] == classes) - 1 / len(classes)
    model = sklearn.kernel_ridge.KernelRidge(alpha=row["ridge"], kernel="precomputed")
    model.fit(arrays[kind], targets)
    guess = classes[model.predict(arrays[f"{kind}_test_train"]).argmax(axis=1)]
    assert row["score"] == np.mean(guess == arrays["y_test"])
    errors = []
    for i in range(len(targets)):  # leave one out, by leaving one out
        rest = np.delete(np.arange(len(targets)), i)
        model.fit(arrays[kind][np.ix_(rest, rest)], targets[rest])
        errors.append((model.predict(arrays[kind][None, i, rest])[0] - targets[i]) ** 2)
    assert row["leave_one_out"] == pytest.approx(np.mean(errors), rel=1e-6)


def test_baselines_are_scored(results, arrays):
    methods = results["predictions"]["methods"]
    assert set(methods) == {"NTK", "NNGP", "RBF", "linear", "constant"}
    values, counts = np.unique(arrays["y"], return_counts=True)
    constant = np.mean(arrays["y_test"] == values[counts.argmax()])
    assert methods["constant"]["score"] == constant
    assert all(row["score"] > constant for name, row in methods.items() if name != "constant")


def test_training_is_set_beside_gradient_flow(results, arrays):
    stage = results["training"]
    assert stage["width"] == 64
    assert stage["diverged"] == [-1, -1]
    assert len(stage["scores"]) == 2
    classes = np.unique(arrays["y"])
    targets = (arrays["y"][:, None] == classes) - 1 / len(classes)
    time = np.median(stage["learning_rates"]) * 40
    # The flow's equation, integrated by the matrix exponential.
    decay = scipy.linalg.expm(-arrays["ntk"] * time / 24)
    weights = np.linalg.solve(arrays["ntk"], targets - decay @ targets)
    guess = classes[(arrays["ntk_test_train"] @ weights).argmax(axis=1)]
    assert stage["flow_score"] == np.mean(guess == arrays["y_test"])
    loss = ((decay @ targets) ** 2).sum() / (2 * 24)
    assert stage["flow_final_loss"] == pytest.approx(loss, rel=1e-8)
    assert np.shape(stage["losses"]) == np.shape(stage["loss_times"])
    assert max(stage["final_losses"]) < stage["losses"][0][0]


@pytest.mark.usefixtures("x64")
def test_each_network_has_the_rate_of_its_own_kernel(results, arrays):
    made = problem.prepare(Settings(n=24))
    for seed, rate in enumerate(results["training"]["learning_rates"]):
        key = jax.random.fold_in(made.key(64, 2 + seed), 0)
        x = np.asarray(arrays["x"], np.float32)
        params = rnntk.ElmanRNN().init(key, input_dim=8, width=64)
        kernel = np.asarray(rnntk.empirical_kernel(rnntk.ElmanRNN(), params, x).ntk, float)
        # a sixteenth of 2 n / largest, in float32
        assert rate == pytest.approx(24 / 8 / np.linalg.eigvalsh(kernel)[-1], rel=1e-4)


@pytest.mark.usefixtures("x64")
def test_comparison_is_that_of_the_library(results, arrays):
    made = problem.prepare(Settings(n=24))
    stage = results["comparison"]
    assert stage["diverged"] == [0, 0, 0]
    found = compare.with_kernel(
        made.rnn,
        made.key(0, 6),
        np.asarray(arrays["x"], np.float32),
        np.asarray(np.eye(10)[arrays["y"].astype(int)] - 0.1, np.float32),
        widths=[32],
        steps=40,
        seeds=2,
        step_size=1 / 16,
        batch_size=24,
    )
    for name, gap in stage["gaps"].items():
        alone = np.median(found.column(name))
        assert gap["median"][1] == pytest.approx(alone, rel=1e-3), name
    logs = np.log(arrays["comparison_gap_infinite"].reshape(3, 2, -1)[:, :, -1]).mean(axis=1)
    slope = np.polyfit(np.log(WIDTHS), logs, 1)[0]
    assert stage["gaps"]["gap_infinite"]["slope"] == pytest.approx(slope, abs=1e-12)


def test_summary_fits_every_terminal(finished):
    text = commands.summary(finished)
    assert text.isascii()
    assert f"slope {finished.widths.kinds['ntk_unit_diagonal'].slope:.2f} +/- " in text
    assert f"NTK {finished.predictions.methods['NTK'].score:.3f}" in text


def test_a_report_is_repeated_from_its_configuration(folder, tmp_path):
    again = Settings(**read(folder / "config.toml"))
    assert (again.n, again.widths, again.certify) == (24, WIDTHS, True)
    results, text = json.loads((folder / "results.json").read_text()), pipeline.command(again)
    assert results["settings"]["widths"] == list(again.widths)
    assert "--n 24 --widths 16,32,64 --seeds 2 --steps 40 --certify" in text
