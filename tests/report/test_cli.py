"""The command line: one line for every mistake, and its exit code."""

import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import rnntk
from rnntk import cli, datasets, report


@pytest.fixture(autouse=True)
def restore_x64():
    before = jax.config.jax_enable_x64
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=np.random.default_rng(0).normal(size=(20, 3, 2)), y=np.arange(20) % 2)
    return str(path)


def fails_with(capsys, arguments):
    assert cli.main(arguments) == cli.BAD_INPUT == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("rnntk: ")
    return line


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--widths", "64,x"], "--widths: expected whole numbers of at least 1 separated by comm"),
        (["--widths", "0"], "separated by commas, got '0'"),
        (["--widths", ""], "separated by commas, got ''"),
        (["--n", "0"], "--n: expected a whole number of at least 1, got '0'"),
        (["--n", "many"], "--n: expected a whole number of at least 1, got 'many'"),
        (["--seeds", "1.5"], "--seeds: expected a whole number of at least 1, got '1.5'"),
        (["--data"], "--data: expected at least one argument"),
        (["--unknown"], "unrecognized arguments: --unknown"),
        (["--n", "1797"], "n=1797 training and 1 or more test sequences are asked for"),
        (["--n", "2"], "n must be at least 8 training sequences, got 2"),
        (["--data", "missing.npz"], "missing.npz: no such file"),
        (["--data", "missing.csv"], "missing.csv: no such file"),
        (["--data", "data.txt"], "data must be digits, a .npz file or .csv files"),
    ],
)
def test_wrong_options(capsys, options, expected):
    assert expected in fails_with(capsys, ["report", *options])


def test_no_command(capsys):
    assert "the following arguments are required: command" in fails_with(capsys, [])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"nothing", "not a .npz archive"),
        ({"x": np.ones((20, 3, 2))}, "array 'y' is missing"),
        ({"x": np.array([None], object), "y": np.arange(1)}, "pickled Python objects"),
        ({"x": np.ones((20, 3)), "y": np.arange(20)}, "x must have shape"),
        ({"x": np.full((20, 3, 2), np.nan), "y": np.arange(20) % 2}, "x must be finite"),
        ({"x": np.ones((20, 3, 2)), "y": np.arange(19) % 2}, "y must hold one label for each"),
        ({"x": np.ones((20, 3, 2)), "y": np.ones(20, int)}, "y holds one label only"),
        ({"x": np.ones((4, 3, 2)), "y": np.arange(4) % 2}, "at least 8 training sequences"),
        ({"x": np.zeros((20, 3, 2)), "y": np.arange(20) % 2}, "x is zero in all 16 training"),
        (
            {"x": np.ones((20, 3, 2)), "y": np.arange(20) * 1e200},
            "standard deviation within 1e-140",
        ),
        ({"x": np.ones((20, 3, 2)), "y": np.arange(20) * 1e-320}, "multiply y by a constant"),
    ],
)
def test_wrong_npz(capsys, tmp_path, content, expected):
    path = tmp_path / "data.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.savez(path, **content)
    line = fails_with(capsys, ["report", "--data", str(path)])
    assert expected in line
    assert str(path) in line


def test_wrong_csv_names_the_line(capsys, tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("sequence,step,x1,y\na,0,1,1\na,1,one,1\n")
    line = fails_with(capsys, ["report", "--data", str(path)])
    assert line == f"rnntk: {path}, line 3: x1 must be a finite number, got 'one'."


def test_folder_that_cannot_be_made(capsys, data, tmp_path):
    (tmp_path / "taken").write_text("a file")
    out = str(tmp_path / "taken" / "report")
    for folder in (out, str(tmp_path / "taken")):
        line = fails_with(capsys, ["report", "--data", data, "--out", folder])
        assert line == f"rnntk: --out must be a folder; {folder} is a file, or lies in one."


def test_networks_that_do_not_fit_end_in_one_line(capsys, data, tmp_path):
    # 2e6 squared weights are 32 TB, which no machine of this kind allocates.
    options = ["--widths", "2000000", "--seeds", "1", "--out", str(tmp_path / "out")]
    assert cli.main(["report", "--data", data, *options]) == 2
    last = capsys.readouterr().err.splitlines()[-1]  # after the progress bar
    assert last == "rnntk: out of memory; use a smaller --n or --widths."


def test_help_shows_a_file_that_can_be_read(tmp_path):
    rows = [line.strip() for line in cli.CSV_EXAMPLE.splitlines()[1:]]
    path = tmp_path / "example.csv"
    path.write_text("\n".join([*rows, "second,1,0.5,1,8"]))
    np.testing.assert_array_equal(datasets.load(path).x[0], [[0.5, -1], [0.25, 3]])


def test_help_is_wrapped(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["report", "--help"])
    text = capsys.readouterr().out
    assert cli.CSV_EXAMPLE in text
    assert "step orders the rows" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 100


def test_options_reach_the_report_in_float64(monkeypatch, capsys):
    seen = []

    def run(settings):
        seen.extend([settings, jax.numpy.ones(1).dtype])
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "run", run)
    options = "--data a.csv b.csv --n 30 --widths 32,8,8 --seeds 3 --out there"
    assert cli.main(["report", *options.split()]) == 130
    settings = seen[0]
    assert settings.data == ("a.csv", "b.csv")
    assert settings.n == 30
    assert settings.widths == (8, 32)
    assert settings.seeds == 3
    assert settings.out == "there"
    assert seen[1] == np.float64
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "rnntk: interrupted; nothing was written."


def test_defaults(monkeypatch):
    seen = []

    def run(settings):
        seen.append(settings)
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "run", run)
    cli.main(["report"])
    assert seen[0].data == ("digits",)
    assert seen[0].widths == (64, 256, 1024)
    assert seen[0].seeds == 8
    assert seen[0].out == "report"


def test_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "rnntk", "--version"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )
    assert done.stdout.strip() == f"rnntk {rnntk.__version__}"


def test_ctrl_c_in_a_real_process(tmp_path):
    """A real signal while JAX compiles: the files and 130, no crash on the way out."""
    arguments = ["--n", "12", "--widths", "8", "--seeds", "1", "--out", str(tmp_path / "out")]
    # A process started in the background may ignore the signal, and hand that on: undo it.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from rnntk.cli import command; command()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, "report", *arguments], stderr=subprocess.PIPE, text=True
    ) as process:
        seen = ""
        while "step/s" not in seen:  # the bar of the networks' training
            character = process.stderr.read(1)
            assert character, seen
            seen += character
        time.sleep(0.5)  # past the bar's own printing, into the compilation
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert rest.splitlines()[-1].startswith("rnntk: interrupted; the stages that were finished")
    assert "Traceback" not in rest
    assert set(os.listdir(tmp_path / "out")) == {"kernels.npz", "report.html", "results.json"}
