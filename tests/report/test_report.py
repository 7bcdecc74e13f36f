"""The report from end to end at a small size, its numbers against independent recomputation."""

import base64
import html.parser
import json
import os
import shutil
import subprocess

import jax
import numpy as np
import pytest
import scipy.stats
import sklearn.kernel_ridge

from rnntk import cli, datasets, report
from rnntk.report import page, pipeline, stages

WIDTHS = (16, 32, 64)
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
        patch.setattr(stages, "STEPS", 40)
        patch.setattr(stages, "MAX_TEST", 100)
        code = cli.main(
            ["report", "--n", "24", "--widths", "64,16,32", "--seeds", "2", "--out", str(out)]
        )
    assert code == 0
    return out


@pytest.fixture(scope="module")
def results(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def arrays(folder):
    return dict(np.load(folder / "kernels.npz"))


@pytest.fixture(autouse=True, scope="module")
def restore_x64():
    """The command line switches the process to float64; the tests after it want it as it was."""
    before = jax.config.jax_enable_x64
    yield
    jax.config.update("jax_enable_x64", before)


def test_only_the_three_files_are_left(folder, results):
    assert set(os.listdir(folder)) == {"kernels.npz", "report.html", "results.json"}
    assert results["missing_stages"] == []
    assert set(results["seconds"]) == set(pipeline.STAGES)


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
    stage = results["kernels"][kind]
    deviations = np.array(stage["relative_frobenius_deviation"])
    assert deviations.shape == (3, 2)
    slope, _ = np.polyfit(np.log(np.repeat(WIDTHS, 2)), np.log(deviations).ravel(), 1)
    assert stage["slope"] == pytest.approx(slope, rel=1e-10)
    assert stage["geometric_mean"] == pytest.approx(scipy.stats.gmean(deviations, axis=1))


def test_deviation_by_the_jacobian(results, arrays):
    """One empirical kernel again, from the definition."""
    import rnntk

    rnn = rnntk.ElmanRNN()
    problem = stages.prepare(stages.Settings(n=24))
    with jax.enable_x64(True):
        params = rnn.init(stages._key(problem, 32, 1), input_dim=8, width=32)
        jacobian = jax.jacobian(lambda p: rnn.apply(p, arrays["x"])[:, 0])(params)
        flat = np.concatenate([np.reshape(j, (24, -1)) for j in jax.tree.leaves(jacobian)], axis=1)
    finite, limit = flat @ flat.T, arrays["ntk"]
    deviation = np.linalg.norm(finite - limit) / np.linalg.norm(limit)
    kernels = results["kernels"]
    got = kernels["ntk"]["relative_frobenius_deviation"][1][1]
    assert got == pytest.approx(deviation, rel=1e-10)
    roots = [np.sqrt(np.diag(matrix)) for matrix in (finite, limit)]
    corr, corr_limit = finite / np.outer(roots[0], roots[0]), limit / np.outer(roots[1], roots[1])
    deviation = np.linalg.norm(corr - corr_limit) / np.linalg.norm(corr_limit)
    got = kernels["ntk_unit_diagonal"]["relative_frobenius_deviation"][1][1]
    assert got == pytest.approx(deviation, rel=1e-10)
    smallest = results["spectrum"]["empirical_min_eigenvalue"][1][1]
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
    ratio = np.array(stage["empirical_min_eigenvalue"]) / smallest["value"]
    assert stage["empirical_over_limit_mean"] == pytest.approx(ratio.mean(axis=1))
    assert stage["empirical_over_limit_sd"] == pytest.approx(np.std(ratio, axis=1, ddof=1))
    assert stage["empirical_over_limit_worst"] == pytest.approx(abs(ratio - 1).max(axis=1))


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
    assert row["loo_mean_squared_error"] == pytest.approx(np.mean(errors), rel=1e-6)


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
    assert len(stage["network_scores"]) == 2
    assert stage["time"] == pytest.approx(stage["learning_rate"] * 40)
    classes = np.unique(arrays["y"])
    targets = (arrays["y"][:, None] == classes) - 1 / len(classes)
    # The flow's equation, integrated by the matrix exponential.
    decay = scipy.linalg.expm(-arrays["ntk"] * stage["time"] / 24)
    weights = np.linalg.solve(arrays["ntk"], targets - decay @ targets)
    guess = classes[(arrays["ntk_test_train"] @ weights).argmax(axis=1)]
    assert stage["gradient_flow_score"] == np.mean(guess == arrays["y_test"])
    loss = ((decay @ targets) ** 2).sum() / (2 * 24)
    assert stage["gradient_flow_final_loss"] == pytest.approx(loss, rel=1e-8)
    assert np.shape(stage["network_losses"]) == (2, len(stage["loss_times"]))
    assert max(stage["final_losses"]) < stage["network_losses"][0][0]


def test_summary_fits_every_terminal(results):
    text = cli.summary(results)
    assert text.isascii()
    assert f"slope {results['kernels']['ntk_unit_diagonal']['slope']:.2f} +/- " in text
    assert f"NTK {results['predictions']['methods']['NTK']['score']:.3f}" in text


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
        page.number(results["spectrum"]["min_eigenvalue"]["value"], 6)
        in (captions["min_eigenvalue"])
    )
    slope = results["kernels"]["ntk_unit_diagonal"]["slope"]
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


def interrupted(problem, arrays, title):
    raise KeyboardInterrupt


def test_interruption_leaves_what_is_finished(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(pipeline.STAGES, "spectrum", interrupted)
    out = tmp_path / "report"
    arguments = ["report", "--n", "12", "--widths", "8,16", "--seeds", "1", "--out", str(out)]
    assert cli.main(arguments) == cli.INTERRUPTED == 130
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"rnntk: interrupted; the stages that were finished (kernels) are in {out}."
    results = json.loads((out / "results.json").read_text())
    assert results["missing_stages"] == ["spectrum", "predictions", "training"]
    assert "kernels" in results
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


def run_small(tmp_path, monkeypatch, data, **settings):
    monkeypatch.setattr(stages, "STEPS", 5)
    path = tmp_path / "data.npz"
    np.savez(path, **data)
    out = tmp_path / "out"
    results = report.run(
        stages.Settings(
            **{"data": (str(path),), "widths": (8,), "seeds": 1, "out": str(out)} | settings
        )
    )
    return results, (out / "report.html").read_text()


def test_regression_of_one_width_and_one_seed(tmp_path, monkeypatch):
    x = np.random.default_rng(0).normal(size=(20, 3, 2))
    y = 50 + 10 * x[:, -1, 0]
    results, text = run_small(tmp_path, monkeypatch, {"x": x, "y": y})
    assert results["data"]["train_shape"] == [16, 3, 2]  # four fifths
    arrays = np.load(tmp_path / "out" / "kernels.npz")
    constant = results["predictions"]["methods"]["constant"]["score"]
    expected = np.sqrt(np.mean((arrays["y_test"] - arrays["y"].mean()) ** 2))
    assert constant == pytest.approx(expected)
    assert results["predictions"]["metric"] == "test RMSE"
    assert results["kernels"]["ntk"]["slope"] is None
    assert "One width defines no slope" in text
    assert "one width defines no slope" in cli.summary(results)
    assert set(Page(text).images) == FIGURES


def test_errors_of_large_labels_are_printed_to_four_digits(results):
    predictions = {**results["predictions"], "metric": "test RMSE"}
    predictions["methods"] = {"NTK": {"score": 1234567.8}, "constant": {"score": 0.00012345}}
    text = cli.summary({**results, "predictions": predictions})
    assert "test RMSE: NTK 1.235e+06, constant 0.0001234" in text


@pytest.mark.parametrize("exponent", [-80, 70, 660])
def test_tokens_of_any_size_are_brought_near_one(tmp_path, monkeypatch, exponent):
    """A power of two changes nothing but the kernels' scale."""
    x = np.random.default_rng(0).normal(size=(20, 3, 2))  # norms near the square root of two
    data = {"x": x, "y": np.arange(20) % 2}
    plain, plain_page = run_small(tmp_path, monkeypatch, data)
    assert plain["data"]["token_exponent"] == 0
    assert "tokens were multiplied" not in plain_page
    scaled, text = run_small(tmp_path, monkeypatch, {**data, "x": x * 2.0**exponent})
    found = scaled["data"]["token_exponent"]
    assert abs(found + exponent) <= 1
    assert f"multiplied by 2<sup>{found}</sup>" in text
    kept = np.load(tmp_path / "out" / "kernels.npz")["x"]
    learn = stages.prepare(stages.Settings(data=(str(tmp_path / "data.npz"),))).train
    np.testing.assert_array_equal(kept, learn.x)
    assert np.isin(kept, x * 2.0 ** (found + exponent)).all()
    ratio = np.divide(scaled["spectrum"]["trace"], plain["spectrum"]["trace"])
    assert ratio == pytest.approx(4.0 ** (found + exponent), rel=1e-4)  # float32 kernels
    moved = np.array(scaled["training"]["network_losses"])
    np.testing.assert_allclose(moved, plain["training"]["network_losses"], rtol=1e-3)


def test_learning_rate_that_float32_cannot_hold_is_refused(tmp_path, monkeypatch):
    data = {"x": np.random.default_rng(0).normal(size=(20, 3, 2)), "y": np.arange(20) % 2}
    monkeypatch.setattr(stages, "USUAL_NORM", (1e-300, 1e300))
    with (
        jax.enable_x64(True),
        pytest.raises(ValueError, match=r"learning rate .* cannot be held in float32"),
    ):
        run_small(tmp_path, monkeypatch, {**data, "x": data["x"] * 1e-25})


def test_ragged_sequences(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    data = {
        "x": rng.normal(size=(20, 4, 2)),
        "y": np.array(["one", "two"] * 10),
        "lengths": rng.integers(1, 5, size=20),
    }
    results, text = run_small(tmp_path, monkeypatch, data, widths=(8, 16), seeds=2)
    assert not results["data"]["equal_lengths"]
    assert results["data"]["classes"] == ["one", "two"]
    assert "up to 4 steps" in text


def test_duplicate_and_zero_sequences(tmp_path, monkeypatch):
    x = np.random.default_rng(0).normal(size=(20, 3, 2))
    x[10:] = x[:10]
    x[[0, 1, 10, 11]] = 0.0
    data = {"x": x, "y": np.arange(20) % 2}
    results, text = run_small(tmp_path, monkeypatch, data, widths=(8, 16))
    assert not results["spectrum"]["min_eigenvalue"]["resolved"]
    assert results["spectrum"]["empirical_over_limit_mean"] is None
    assert "The smallest eigenvalue is not resolved" in text
    assert set(Page(text).images) == FIGURES


def test_fit_slope_has_the_standard_error_of_a_straight_line():
    widths, deviations = [10, 100], np.exp([[1.0, 3.0], [0.0, 2.0]])
    fit = stages.fit_slope(widths, deviations)
    # By hand: residuals +-1 about the means 2 and 1, two degrees of freedom.
    spread = np.log(10) / 2
    assert fit.value == pytest.approx(-1 / np.log(10))
    assert fit.standard_error == pytest.approx(np.sqrt(4 / 2 / (4 * spread**2)))
    assert stages.fit_slope(widths, deviations[:, :1]).standard_error is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"widths": ()}, r"widths must be whole numbers of at least 1, got \(\)"),
        ({"widths": (0, 3)}, r"widths must be .* got \(0, 3\)"),
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
    ],
)
def test_settings_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        stages.Settings(**settings)


def test_page_escapes_names(results):
    figures = dict.fromkeys(FIGURES, "data:,")
    data = {**results["data"], "name": "<b>&.csv"}
    assert "<b>&" not in page.html({**results, "data": data}, figures)


@pytest.mark.parametrize(
    ("slope", "error", "said"),
    [(-0.5, 0.1, True), (-0.5, 0.3, False), (0.2, 0.1, False), (-0.5, None, False)],
)
def test_page_says_approach_only_where_it_is_seen(results, slope, error, said):
    shape = {**results["kernels"]["ntk_unit_diagonal"]}
    shape |= {"slope": slope, "slope_standard_error": error}
    stage = {**results["kernels"], "ntk_unit_diagonal": shape}
    text = page.html({**results, "kernels": stage}, dict.fromkeys(FIGURES, "data:,"))
    assert ("approaches its limit" in text) == said
    assert ("the slope is not negative" in text) == (not said and error is not None)


@pytest.mark.parametrize(("slope", "said"), [(-0.45, False), (0.1, True)])
def test_page_explains_a_slope_far_from_theory(results, slope, said):
    nngp = {**results["kernels"]["nngp"], "slope": slope}
    stage = {**results["kernels"], "nngp": nngp}
    text = page.html({**results, "kernels": stage}, dict.fromkeys(FIGURES, "data:,"))
    assert ("heavy-tailed" in text) == said


def test_page_says_what_is_not_defined(results):
    kernels, training = ({**results[name]} for name in ("kernels", "training"))
    for kind in ("ntk", "nngp"):
        kernels[kind] = {**kernels[kind], "slope": None, "slope_standard_error": None}
        kernels[kind]["geometric_mean"] = [None] * 3
    kernels["ntk_trace_over_limit"] = [[None, None]] * 3
    training["relative_difference_to_gradient_flow"] = [None, None]
    training["ensemble_difference_to_gradient_flow"] = None
    training["network_score_mean"] = None
    figures = dict.fromkeys(FIGURES, "data:,")
    text = page.html({**results, "kernels": kernels, "training": training}, figures)
    assert "the trace alone is not defined times" in text
    assert "by not defined (root mean square" in text


def test_command_quotes_paths():
    settings = {"data": ["my data.csv"], "n": 9, "widths": [8], "seeds": 1, "out": "an out"}
    expected = "rnntk report --data 'my data.csv' --n 9 --widths 8 --seeds 1 --out 'an out'"
    assert page.command(settings) == expected
