"""The report from end to end at a small size, its numbers against independent recomputation."""

import base64
import dataclasses
import html.parser
import json
import os
import re
import shutil
import subprocess

import jax
import numpy as np
import pytest
import scipy.stats
import sklearn.kernel_ridge

from rnntk import cli, datasets, report
from rnntk.cli import commands
from rnntk.report import kernels, page, pipeline, problem, sections, words
from rnntk.report.results import Convergence, Method, Predictions
from rnntk.report.settings import Settings, read, written

WIDTHS = (16, 32, 64)
FILES = {"kernels.npz", "report.html", "results.json", "config.toml"}
FIGURES = {
    "convergence",
    "spectrum",
    "min_eigenvalue",
    "min_eigenvalue_by_width",
    "scores",
    "losses",
    "agreement",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished report, made by the command line in float64."""
    out = tmp_path_factory.mktemp("report") / "new" / "folder"
    with pytest.MonkeyPatch.context() as patch, jax.enable_x64(True):
        patch.setattr(problem, "MAX_TEST", 100)
        options = "--n 24 --widths 64,16,32 --seeds 2 --steps 40 --certify"
        code = cli.main(["report", *options.split(), "--out", str(out)])
    assert code == 0
    return out


@pytest.fixture(scope="module")
def results(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def arrays(folder):
    return dict(np.load(folder / "kernels.npz"))


@pytest.fixture(scope="module")
def finished(folder):
    """The results as the library returns them."""
    with pytest.MonkeyPatch.context() as patch, jax.enable_x64(True):
        patch.setattr(problem, "MAX_TEST", 100)
        return report.run(
            Settings(n=24, widths=(16, 32), seeds=2, steps=40, out=str(folder.parent / "b"))
        )


@pytest.fixture(autouse=True, scope="module")
def restore_x64():
    """The command line switches the process to float64; the tests after it want it as it was."""
    before = jax.config.jax_enable_x64
    yield
    jax.config.update("jax_enable_x64", before)


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
    import rnntk

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


def test_each_network_has_the_rate_of_its_own_kernel(results, arrays):
    import rnntk

    made = problem.prepare(Settings(n=24))
    for seed, rate in enumerate(results["training"]["learning_rates"]):
        key = jax.random.fold_in(made.key(64, 2 + seed), 0)
        x = np.asarray(arrays["x"], np.float32)
        params = rnntk.ElmanRNN().init(key, input_dim=8, width=64)
        kernel = np.asarray(rnntk.empirical_kernel(rnntk.ElmanRNN(), params, x).ntk, float)
        # a sixteenth of 2 n / largest, in float32
        assert rate == pytest.approx(24 / 8 / np.linalg.eigvalsh(kernel)[-1], rel=1e-4)


def test_summary_fits_every_terminal(finished):
    text = commands.summary(finished)
    assert text.isascii()
    assert f"slope {finished.widths.kinds['ntk_unit_diagonal'].slope:.2f} +/- " in text
    assert f"NTK {finished.predictions.methods['NTK'].score:.3f}" in text


class Page(html.parser.HTMLParser):
    """Figures and their captions; everything that would be loaded from elsewhere."""

    def __init__(self, text):
        super().__init__()
        self.images, self.captions, self.links, self.open = {}, {}, [], []
        self.figure = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.links += [v for k, v in attributes if k in ("href", "src") and "data:" not in v]
        self.links += [tag] if tag in ("script", "link", "iframe") else []
        if tag == "figure":
            self.figure = values["id"]
        if tag == "img":
            self.images[self.figure] = values
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "figcaption":
            self.captions[self.figure] = data


def test_page_holds_every_figure_and_says_what_is_seen(folder, results):
    found = Page((folder / "report.html").read_text())
    assert set(found.images) == set(found.captions) == FIGURES
    assert found.open == []
    assert found.links == []
    for values in found.images.values():
        svg = base64.b64decode(values["src"].split("base64,")[1])
        assert b"<svg" in svg
        assert values["alt"]
    captions = found.captions
    assert (
        words.number(results["spectrum"]["min_eigenvalue"]["value"], 6)
        in (captions["min_eigenvalue"])
    )
    slope = results["widths"]["kinds"]["ntk_unit_diagonal"]["slope"]
    assert f"{abs(slope):.2f}" in captions["convergence"]
    assert f"{100 * results['predictions']['methods']['NTK']['score']:.1f}%" in captions["scores"]


def test_page_in_a_browser(folder, tmp_path):
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    if browser is None:
        pytest.skip("no Chromium on this machine")
    done = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            (folder / "report.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert set(Page(done.stdout).images) == FIGURES


def interrupted(problem, arrays, bar):
    raise KeyboardInterrupt


def test_interruption_leaves_what_is_finished(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(pipeline.STAGES, "spectrum", interrupted)
    out = tmp_path / "report"
    arguments = ["report", "--n", "12", "--widths", "8,16", "--seeds", "1", "--out", str(out)]
    assert cli.main(arguments) == cli.INTERRUPTED == 130
    last = capsys.readouterr().err.splitlines()[-1]
    done = "kernels, widths"
    assert last == f"rnntk: interrupted; the stages that were finished ({done}) are in {out}."
    results = json.loads((out / "results.json").read_text())
    assert [results[name] is None for name in pipeline.STAGES] == [False] * 2 + [True] * 3
    assert np.load(out / "kernels.npz")["ntk"].shape == (12, 12)
    text = (out / "report.html").read_text()
    assert set(Page(text).images) == {"convergence"}
    assert "Not finished: spectrum, predictions, training." in text
    assert text.count("This stage was not finished.") == 3


def test_interruption_before_the_first_stage_keeps_an_earlier_report(tmp_path, monkeypatch, capsys):
    (tmp_path / "report.html").write_text("earlier")
    monkeypatch.setitem(pipeline.STAGES, "kernels", interrupted)
    assert cli.main(["report", "--n", "12", "--out", str(tmp_path)]) == 130
    assert os.listdir(tmp_path) == ["report.html"]
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == "rnntk: interrupted; no stage was finished, and nothing written."


@pytest.mark.parametrize("failing", ["kernels", "widths", "spectrum", "predictions", "training"])
def test_a_stage_that_fails_leaves_the_others_standing(tmp_path, monkeypatch, capsys, failing):
    def fail(problem, arrays, bar):
        raise ValueError("the reason")

    monkeypatch.setitem(pipeline.STAGES, failing, fail)
    options = "report --n 12 --widths 8 --seeds 1 --steps 5 --out"
    assert cli.main([*options.split(), str(tmp_path)]) == cli.FAILED == 1
    last = capsys.readouterr().err.splitlines()[-1]
    text, results = (tmp_path / "report.html").read_text(), tmp_path / "results.json"
    found = json.loads(results.read_text())
    lost = set(pipeline.STAGES) if failing == "kernels" else {failing}
    assert set(found["failures"]) == lost
    assert {name for name in pipeline.STAGES if found[name] is None} == lost
    assert f"This stage failed: {found['failures'][failing]}" in text
    assert found["failures"][failing] == "the reason"
    if failing == "kernels":
        assert last.endswith("it needs the stage 'kernels', which failed")
    else:
        assert last == f"rnntk: the stage {failing} failed: the reason"


def run_small(tmp_path, data, **settings):
    path = tmp_path / "data.npz"
    np.savez(path, **data)
    out = tmp_path / "out"
    chosen = {"data": (str(path),), "widths": (8,), "seeds": 1, "out": str(out), "steps": 5}
    results = report.run(Settings(**chosen | {"dtype": "float32"} | settings))
    assert results.failures == {}
    return results, (out / "report.html").read_text()


def test_regression_of_one_width_and_one_seed(tmp_path):
    x = np.random.default_rng(0).normal(size=(20, 3, 2))
    y = 50 + 10 * x[:, -1, 0]
    results, text = run_small(tmp_path, {"x": x, "y": y})
    assert results.data["train_shape"] == [16, 3, 2]  # four fifths
    arrays = np.load(tmp_path / "out" / "kernels.npz")
    expected = np.sqrt(np.mean((arrays["y_test"] - arrays["y"].mean()) ** 2))
    assert results.predictions.methods["constant"].score == pytest.approx(expected)
    assert results.predictions.metric == "test RMSE"
    assert results.widths.kinds["ntk"].slope is None
    assert "One width defines no slope" in text
    assert "no slope is defined" in commands.summary(results)
    assert set(Page(text).images) == FIGURES


def test_errors_of_large_labels_are_printed_to_four_digits(finished):
    methods = {"NTK": Method(1234567.8), "constant": Method(0.00012345)}
    changed = dataclasses.replace(finished.predictions, metric="test RMSE", methods=methods)
    text = commands.summary(dataclasses.replace(finished, predictions=changed))
    assert "test RMSE: NTK 1.235e+06, constant 0.0001234" in text


@pytest.mark.parametrize("exponent", [-80, 70, 660])
def test_tokens_of_any_size_are_brought_near_one(tmp_path, exponent):
    """A power of two changes nothing but the kernels' scale."""
    x = np.random.default_rng(0).normal(size=(20, 3, 2))  # norms near the square root of two
    data = {"x": x, "y": np.arange(20) % 2}
    plain, plain_page = run_small(tmp_path, data)
    assert plain.data["token_exponent"] == 0
    assert "tokens were multiplied" not in plain_page
    scaled, text = run_small(tmp_path, {**data, "x": x * 2.0**exponent})
    found = scaled.data["token_exponent"]
    assert abs(found + exponent) <= 1
    assert f"multiplied by 2<sup>{found}</sup>" in text
    kept = np.load(tmp_path / "out" / "kernels.npz")["x"]
    assert np.isin(kept, x * 2.0 ** (found + exponent)).all()
    ratio = scaled.spectrum.trace / plain.spectrum.trace
    assert ratio == pytest.approx(4.0 ** (found + exponent), rel=1e-4)  # float32 kernels
    np.testing.assert_allclose(scaled.training.losses, plain.training.losses, rtol=1e-3)


def test_ragged_sequences_of_text_classes(tmp_path):
    rng = np.random.default_rng(0)
    data = {
        "x": rng.normal(size=(20, 4, 2)),
        "y": np.array(["one", "two"] * 10),
        "lengths": rng.integers(1, 5, size=20),
    }
    results, text = run_small(tmp_path, data, widths=(8, 16), seeds=2, readout="mean")
    assert not results.data["equal_lengths"]
    assert results.data["classes"] == ["one", "two"]
    assert "up to 4 steps" in text
    assert "readout mean" in text


def test_duplicate_and_zero_sequences(tmp_path):
    x = np.random.default_rng(0).normal(size=(20, 3, 2))
    x[10:] = x[:10]
    x[[0, 1, 10, 11]] = 0.0
    results, text = run_small(tmp_path, {"x": x, "y": np.arange(20) % 2}, widths=(8, 16))
    assert not results.spectrum.min_eigenvalue.resolved
    assert results.spectrum.over_limit is None
    assert "The smallest eigenvalue is not resolved" in text
    assert "as small as rounding in float32, and not resolved" in text
    assert set(Page(text).images) == FIGURES


def test_networks_that_diverge_are_results_like_others(tmp_path):
    """Long sequences, a narrow width, and a step that is far too large."""
    x = np.random.default_rng(0).normal(size=(20, 30, 2))
    data = {"x": x, "y": np.arange(20) % 2}
    results, text = run_small(tmp_path, data, seeds=3, learning_rate=1e6, steps=40)
    assert min(results.training.diverged) > 0
    assert results.training.scores == ()
    assert "None of the 3 networks of width 8 could be trained" in text
    assert "none, all 3 diverged or overflowed" in commands.summary(results)
    mixed = dataclasses.replace(results.training, diverged=(0, 7, -1))
    assert sections._some_lost([c for c in mixed.diverged if c >= 0]) == (
        " Left out: 1 network diverged after 7 steps, the kernel of 1 network overflows float32."
    )


def test_networks_beyond_the_range_are_counted(tmp_path):
    x = np.random.default_rng(0).normal(size=(16, 700, 1))
    data = {"x": x, "y": np.arange(16) % 2}
    results, text = run_small(tmp_path, data, widths=(2, 64), seeds=2, width_train=2, n=12)
    # 700 steps of two units die out or grow beyond float32
    assert results.widths.overflowed[0] + results.widths.unresolved[0] > 0
    for word in re.findall(r"[\d.]+", re.sub("<img[^>]*>", "", text)):
        assert len(word) < 25, word


def test_data_with_an_offset(tmp_path):
    rng = np.random.default_rng(0)
    x = 290 + 10 * rng.normal(size=(40, 1, 2)) + rng.normal(size=(40, 24, 2))
    results, _ = run_small(tmp_path, {"x": x, "y": np.arange(40) % 2}, dtype="float64")
    assert set(results.predictions.methods) == {"NTK", "NNGP", "RBF", "linear", "constant"}
    # the baselines see standardized features: an offset changes nothing
    moved, _ = run_small(tmp_path, {"x": x - 290, "y": np.arange(40) % 2}, dtype="float64")
    for name in ("RBF", "linear"):
        one, two = (r.predictions.methods[name] for r in (results, moved))
        assert one.leave_one_out == pytest.approx(two.leave_one_out, rel=1e-6)


def test_test_data_of_a_file_of_its_own(tmp_path):
    rng = np.random.default_rng(0)
    for name, n in (("train", 20), ("test", 6)):
        np.savez(tmp_path / name, x=rng.normal(size=(n, 3, 2)), y=np.arange(n) % 2)
    train, test = (str(tmp_path / f"{name}.npz") for name in ("train", "test"))
    made = problem.prepare(Settings(data=(train,), test=(test,)))
    assert (len(made.train), len(made.test)) == (20, 6)
    assert len(problem.prepare(Settings(data=(train,), test=(test,), n=10)).train) == 10
    assert len(problem.prepare(Settings(data=(train,), test_fraction=0.25)).test) == 5
    np.savez(tmp_path / "test", x=rng.normal(size=(6, 3, 1)), y=np.arange(6) % 2)
    with pytest.raises(ValueError, match="test tokens must have 2 entries like those of"):
        problem.prepare(Settings(data=(train,), test=(test,)))
    np.savez(tmp_path / "test", x=rng.normal(size=(6, 3, 2)), y=np.arange(6) / 2)
    with pytest.raises(ValueError, match=r"labels must be classes .* got values; --task"):
        problem.prepare(Settings(data=(train,), test=(test,)))


def test_ties_are_called_ties():
    def told(scores, metric="test accuracy"):
        methods = {name: Method(value) for name, value in scores.items()}
        return sections._best(Predictions(metric, 10, (1.0,), methods, {}))

    assert told({"NTK": 0.0, "RBF": 0.0}) == "All methods tie."
    assert told({"NTK": 0.9, "RBF": 0.9, "constant": 0.1}).startswith("NTK and RBF tie as the best")
    assert told({"NTK": 1.0, "RBF": 0.5}) == "The best is NTK, right on all of 10 test sequences."
    assert told({"NTK": 2.0, "RBF": 1.0}, "test RMSE").startswith("The best is RBF. Smaller")


def test_fit_slope_has_the_standard_error_of_a_straight_line():
    widths, deviations = [10, 100], np.exp([[1.0, 3.0], [0.0, 2.0]])
    fit = kernels.fit_slope(widths, deviations)
    # By hand: residuals +-1 about the means 2 and 1, two degrees of freedom.
    spread = np.log(10) / 2
    assert fit.value == pytest.approx(-1 / np.log(10))
    assert fit.standard_error == pytest.approx(np.sqrt(4 / 2 / (4 * spread**2)))
    assert kernels.fit_slope(widths, deviations[:, :1]).standard_error is None
    lost = np.array([[1.0, np.nan], [0.5, np.inf]])
    assert kernels.convergence(widths, lost).slope == pytest.approx(np.log10(0.5))
    assert kernels.convergence(widths, np.full((2, 2), np.nan)).slope is None


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_relative_differences_of_any_size(scale):
    a, b = np.array([3.0, 4.0]) * scale, np.array([0.0, 4.0]) * scale
    assert kernels.relative(a, b) == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"widths": ()}, "widths must hold at least one width, got none"),
        ({"widths": (0, 3)}, "widths must be a whole number of at least 1, got 0"),
        ({"seeds": 0}, "seeds must be a whole number of at least 1, got 0"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"readout": "sequence"}, r"readout must be one of \('last', 'mean'\), got 'sequence'"),
        ({"task": "ranking"}, r"task must be one of .* got 'ranking'"),
        ({"dtype": "float16"}, r"dtype must be one of .* got 'float16'"),
        ({"ridge": 0.0}, "ridge must be positive and finite, got 0.0"),
        ({"test_fraction": 1.0}, "test_fraction must be positive and below 1, got 1.0"),
        ({"activation": "swish2"}, "activation must be one of"),
        ({"test": ("a",), "test_fraction": 0.5}, "test and test_fraction exclude each other"),
    ],
)
def test_settings_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Settings(**settings)


def test_settings_survive_a_file(tmp_path):
    settings = Settings(
        data=('odd "name".csv', "b\\c.csv"),
        widths=(4, 8),
        b_std=0.1,
        bidirectional=True,
        trainable=("W",),
        title="tabs\tand ümlauts",
    )
    path = tmp_path / "config.toml"
    path.write_text(written(settings))
    assert Settings(**read(path)) == settings
    path.write_text("b-std = 0.5\n")
    assert Settings(**read(path)).b_std == 0.5
    for text, message in (("b_sdt = 1", "b_sdt is no option of the report"), ("=", "not a TOML")):
        path.write_text(text)
        with pytest.raises(ValueError, match=f"config.toml: {message}"):
            read(path)


def test_a_report_is_repeated_from_its_configuration(folder, tmp_path):
    again = Settings(**read(folder / "config.toml"))
    assert (again.n, again.widths, again.certify) == (24, WIDTHS, True)
    results, text = json.loads((folder / "results.json").read_text()), pipeline.command(again)
    assert results["settings"]["widths"] == list(again.widths)
    assert "--n 24 --widths 16,32,64 --seeds 2 --steps 40 --certify" in text


def with_shape(finished, name, **changes):
    kinds = dict(finished.widths.kinds)
    kinds[name] = dataclasses.replace(kinds[name], **changes)
    return dataclasses.replace(finished, widths=dataclasses.replace(finished.widths, kinds=kinds))


def shown(results):
    return page.html(results, dict.fromkeys(FIGURES, "data:,"), "rnntk report")


def test_page_escapes_names(finished):
    data = {**finished.data, "name": "<b>&.csv"}
    assert "<b>&" not in shown(dataclasses.replace(finished, data=data))


@pytest.mark.parametrize(
    ("slope", "error", "said"),
    [(-0.5, 0.1, True), (-0.5, 0.3, False), (0.2, 0.1, False), (-0.5, None, False)],
)
def test_page_says_approach_only_where_it_is_seen(finished, slope, error, said):
    changed = with_shape(finished, "ntk_unit_diagonal", slope=slope, slope_standard_error=error)
    text = shown(changed)
    assert ("approaches its limit" in text) == said
    assert ("the slope is not negative" in text) == (not said and error is not None)


@pytest.mark.parametrize(("slope", "said"), [(-0.45, False), (0.1, True)])
def test_page_explains_a_slope_far_from_theory(finished, slope, said):
    assert ("heavy-tailed" in shown(with_shape(finished, "nngp", slope=slope))) == said


def test_page_says_what_is_not_defined(finished):
    lost = np.full((2, 2), np.nan)
    none = Convergence(lost, lost[:, 0], None, None)
    widths = dataclasses.replace(
        finished.widths,
        kinds=dict.fromkeys(finished.widths.kinds, none),
        trace_over_limit=lost,
        overflowed=(2, 2),
    )
    text = shown(dataclasses.replace(finished, widths=widths))
    assert "the trace alone is not defined times" in text
    assert "2 of width 16, 2 of width 32" in text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.5, "50.0%"),
        (-21443306467369627409637.0, "−2.14×10²⁴%"),
        (1e-7, "1×10⁻⁵%"),
        (float("inf"), "not defined"),
        (0.0, "0.0%"),
    ],
)
def test_percentages_stay_short(value, expected):
    assert words.percent(value) == expected


def test_command_quotes_paths():
    settings = Settings(data=("my data.csv",), n=9, widths=(8,), seeds=1, out="an out")
    expected = "rnntk report --data 'my data.csv' --n 9 --widths 8 --seeds 1 --out 'an out'"
    assert pipeline.command(settings) == expected
