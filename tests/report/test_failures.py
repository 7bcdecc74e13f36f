"""Reports that are interrupted, whose stages fail, or whose data is difficult."""

import dataclasses
import json
import os
import re

import numpy as np
import pytest
from pages import FIGURES, Page

from rnntk import cli, compare, datasets, report
from rnntk.cli import commands
from rnntk.report import learning, page, pipeline, predictions, problem, sections, training
from rnntk.report.results import Method
from rnntk.report.settings import Settings


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
    assert [results[name] is None for name in pipeline.STAGES] == [False] * 2 + [True] * 4
    assert np.load(out / "kernels.npz")["ntk"].shape == (12, 12)
    text = (out / "report.html").read_text()
    assert set(Page(text).images) == {"convergence"}
    assert "Not finished: spectrum, predictions, training, comparison." in text
    assert text.count("This stage was not finished.") == 4


def test_interruption_before_the_first_stage_keeps_an_earlier_report(tmp_path, monkeypatch, capsys):
    (tmp_path / "report.html").write_text("earlier")
    monkeypatch.setitem(pipeline.STAGES, "kernels", interrupted)
    assert cli.main(["report", "--n", "12", "--out", str(tmp_path)]) == 130
    assert os.listdir(tmp_path) == ["report.html"]
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == "rnntk: interrupted; no stage was finished, and nothing written."


@pytest.mark.parametrize(
    "failing", ["kernels", "widths", "spectrum", "predictions", "training", "comparison"]
)
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


@pytest.mark.parametrize(
    "exponent", [-80, *(pytest.param(v, marks=pytest.mark.slow) for v in (70, 660))]
)
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_duplicate_and_zero_sequences(tmp_path):
    x = np.random.default_rng(0).normal(size=(20, 3, 2))
    x[10:] = x[:10]
    x[[0, 1, 10, 11]] = 0.0
    results, text = run_small(tmp_path, {"x": x, "y": np.arange(20) % 2}, widths=(8, 16))
    assert not results.spectrum.min_eigenvalue.resolved
    assert results.spectrum.over_limit is None
    assert "The smallest eigenvalue is not resolved" in text
    assert "as small as rounding in float32, and not resolved" in text
    # nor are smallest eigenvalues of networks drawn that rounding may have made
    assert set(Page(text).images) == FIGURES - {"min_eigenvalue_by_width"}
    assert "networks cannot be set in proportion to it" in " ".join(text.split())


@pytest.mark.slow
def test_networks_that_diverge_are_results_like_others(tmp_path):
    """Long sequences, a narrow width, and a step that is far too large."""
    x = np.random.default_rng(0).normal(size=(20, 30, 2))
    data = {"x": x, "y": np.arange(20) % 2}
    results, text = run_small(tmp_path, data, seeds=3, learning_rate=1e6, steps=40)
    assert min(results.training.diverged) > 0
    assert results.training.scores == ()
    assert "No network of width 8 could be trained, of 3" in text
    assert "none, all 3 diverged or overflowed" in commands.summary(results)
    mixed = dataclasses.replace(results.training, diverged=(0, 7, -1))
    assert learning._some_lost([c for c in mixed.diverged if c >= 0]) == (
        " Left out: 1 network diverged after 7 steps, 1 network beyond the range of float32."
    )


@pytest.mark.slow
def test_networks_beyond_the_range_are_counted(tmp_path):
    x = np.random.default_rng(0).normal(size=(16, 700, 1))
    data = {"x": x, "y": np.arange(16) % 2}
    results, text = run_small(tmp_path, data, widths=(2, 64), seeds=2, width_train=2, n=12)
    # 700 steps of two units die out or grow beyond float32
    assert results.widths.overflowed[0] + results.widths.unresolved[0] > 0
    for word in re.findall(r"[\d.]+", re.sub("<img[^>]*>", "", text)):
        assert len(word) < 25, word


@pytest.mark.slow
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
    # what is learnt from must differ; what is tested on need not
    np.savez(tmp_path / "test", x=rng.normal(size=(1, 3, 2)), y=np.array([1]))
    assert problem.prepare(Settings(data=(train,), test=(test,))).test.y.tolist() == [1]
    for n in (7, 21):
        with pytest.raises(ValueError, match=f"at least 8 .* at most the 20 of .*, got {n}"):
            problem.prepare(Settings(data=(train,), test=(test,), n=n))
    np.savez(tmp_path / "test", x=rng.normal(size=(6, 3, 1)), y=np.arange(6) % 2)
    with pytest.raises(ValueError, match="test tokens must have 2 entries like those of"):
        problem.prepare(Settings(data=(train,), test=(test,)))
    np.savez(tmp_path / "test", x=rng.normal(size=(6, 3, 2)), y=np.arange(6) / 2)
    with pytest.raises(ValueError, match=r"labels must be classes, .* got values; --task"):
        problem.prepare(Settings(data=(train,), test=(test,)))
    np.savez(tmp_path / "test", x=rng.normal(size=(6, 3, 2)), y=np.array(["a", "b"] * 3))
    with pytest.raises(ValueError, match=r"classes, as whole numbers .* got classes, as text"):
        problem.prepare(Settings(data=(train,), test=(test,)))


def test_large_test_files_are_drawn_from_all_over(tmp_path, monkeypatch):
    """They are often sorted by class."""
    monkeypatch.setattr(problem, "MAX_TEST", 10)
    x = np.random.default_rng(0).normal(size=(40, 3, 2))
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(40) // 20)
    path = (str(tmp_path / "a.npz"),)
    test = problem.prepare(Settings(data=path, test=path)).test
    assert (len(test), test.classes.tolist()) == (10, [0, 1])
    fraction = Settings(data=path, n=12, test_fraction=0.2)
    assert [len(part) for part in problem._divided(fraction)] == [12, 8]


@pytest.mark.parametrize("size", [1e-40, 1e40])
def test_tokens_that_float32_cannot_square(tmp_path, size):
    """Of tanh, which no power of two scales."""
    x = np.random.default_rng(0).normal(size=(20, 3, 2))
    np.savez(tmp_path / "a.npz", x=x * size, y=np.arange(20) % 2)
    settings = Settings(data=(str(tmp_path / "a.npz"),), activation="tanh")
    with pytest.raises(ValueError, match=r"within 1e-15 to 1e\+15, got 10\^-?(40|39)\..*constant"):
        problem.prepare(settings)


def test_a_kernel_of_zero_says_why(tmp_path):
    x = np.random.default_rng(0).normal(size=(20, 3, 2))
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(20) % 2)
    out, data = str(tmp_path / "out"), (str(tmp_path / "a.npz"),)
    results = report.run(Settings(data=data, trainable=("b",), widths=(8,), seeds=1, out=out))
    assert results.failures["kernels"].startswith("the NTK is zero: with these stds no trained")


def test_widths_whose_outputs_overflow_are_named(tmp_path, monkeypatch):
    """What networks of long sequences do, here to one width of two."""
    original = compare.with_kernel

    def overflowing(*arguments, widths, **options):
        if widths == [8]:
            raise FloatingPointError("outputs at initialization overflow in float32")
        return original(*arguments, widths=widths, **options)

    monkeypatch.setattr(compare, "with_kernel", overflowing)
    x = np.random.default_rng(0).normal(size=(20, 3, 2))
    data = {"x": x, "y": np.arange(20) % 2}
    results, text = run_small(tmp_path, data, widths=(8, 16))
    assert (results.comparison.widths, results.comparison.overflowed) == ((16,), (8,))
    assert "Left out: width 8, of which outputs of a network leave the range" in text
    results, text = run_small(tmp_path, data, widths=(8,))
    assert results.comparison.widths == ()
    assert "Nothing was compared. Left out: width 8" in text


def test_outputs_that_overflow_with_a_given_rate(tmp_path, monkeypatch):
    def overflow(*arguments, **options):
        raise FloatingPointError("outputs at initialization overflow in float32")

    monkeypatch.setattr(training, "fit", overflow)
    x = np.random.default_rng(0).normal(size=(20, 3, 2))
    results, text = run_small(tmp_path, {"x": x, "y": np.arange(20) % 2}, learning_rate=0.1)
    assert results.training.diverged == (0,)
    assert "No network of width 8 could be trained, of 1: of 1 the kernel" in text


def test_constant_features_do_not_become_noise():
    """The mean of 0.1 is rounded, so that its standard deviation is not 0."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(37, 2, 2))
    x[..., 1] = 0.1
    assert x[:, 0, 1].std() > 0
    y = np.arange(37) % 2
    parts = [datasets.Dataset("made", tokens, y) for tokens in (x, x + np.array([0.0, 0.05]))]
    made = problem.Problem(Settings().network(), *parts, np.zeros((37, 1)), Settings(), 0)
    standardized, moved = (part.reshape(37, 2, 2) for part in predictions._standardized(made))
    np.testing.assert_allclose(standardized[..., 1], 0, atol=1e-15)
    np.testing.assert_allclose(moved[..., 1], 0.05, atol=1e-15)
    np.testing.assert_allclose(standardized[..., 0].std(axis=0), 1)


def test_classes_that_training_lacks_are_told(finished):
    data = {**finished.data, "unseen": 1}
    text = page.html(dataclasses.replace(finished, data=data), dict.fromkeys(FIGURES, ""), "")
    assert "The class of 1 test sequence is not among those of the training" in text


def test_no_smallest_eigenvalue_is_called_not_defined(finished):
    stage = finished.spectrum
    lost = dataclasses.replace(stage, over_limit=np.full_like(stage.over_limit, np.nan))
    text = sections._by_width(dataclasses.replace(finished, spectrum=lost))[0]
    assert text.startswith("No network's smallest eigenvalue compares with the limit's")
