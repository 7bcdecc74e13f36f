"""The command line: one line for every mistake, and its exit code."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import rnntk
from rnntk import cli, datasets, report, spectrum
from rnntk.cli import options as cli_options


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
        (["--data", "data.txt"], "data must be digits, or files that end in .npz, .npy, .csv, .ts"),
        (["--activation", "swish2"], "activation must be one of"),
        (["--ridge", "-1"], "--ridge: expected a positive number, got '-1'"),
        (["--seed", "-1"], "--seed: expected a whole number of at least 0, got '-1'"),
        (["--config", "missing.toml"], "missing.toml: no such file"),
        (["--readout", "sequence"], "--readout: invalid choice: 'sequence'"),
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


@pytest.mark.slow
def test_networks_that_do_not_fit_leave_the_rest(capsys, data, tmp_path):
    # 2e6 squared weights are 32 TB, which no machine of this kind allocates.
    options = ["--widths", "2000000", "--width-train", "8", "--steps", "5", "--seeds", "1", "--out"]
    assert cli.main(["report", "--data", data, *options, str(tmp_path / "out")]) == 1
    last = capsys.readouterr().err.splitlines()[-1]  # after the progress bar
    reason = "out of memory; use a smaller --n or --widths."
    assert last == f"rnntk: the stage widths failed: {reason}"


def test_help_shows_a_file_that_can_be_read(tmp_path):
    rows = [line.strip() for line in cli_options.CSV_EXAMPLE.splitlines()[1:]]
    path = tmp_path / "example.csv"
    path.write_text("\n".join([*rows, "second,1,0.5,1,8"]))
    np.testing.assert_array_equal(datasets.load(path).x[0], [[0.5, -1], [0.25, 3]])


def test_help_is_wrapped(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["report", "--help"])
    text = capsys.readouterr().out
    assert cli_options.CSV_EXAMPLE in text
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
    """A real signal while JAX compiles or trains: the files and 130, no crash on the way out."""
    # steps for minutes, so that the report is not finished before the signal comes
    options = "--n 12 --widths 8 --seeds 1 --steps 3000000 --out"
    # A process started in the background may ignore the signal, and hand that on: undo it.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from rnntk.cli import command; command()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, "report", *options.split(), str(tmp_path / "out")],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        seen = ""
        while "4/6 predictions" not in seen:  # most stages are finished
            character = process.stderr.read(1)
            assert character, seen
            seen += character
        time.sleep(0.5)  # past the bar's own printing, into the compilation
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert rest.splitlines()[-1].startswith("rnntk: interrupted; the stages that were finished")
    assert "Traceback" not in rest
    files = {"kernels.npz", "report.html", "results.json", "config.toml"}
    assert set(os.listdir(tmp_path / "out")) == files


def test_options_of_a_file_and_of_the_line(monkeypatch, tmp_path):
    seen = []

    def run(settings):
        seen.append(settings)
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "run", run)
    path = tmp_path / "config.toml"
    path.write_text('widths = [8]\nw-std = 1.5\ntrainable = ["W", "U"]\n')
    line = "--seeds 3 --w-std 1.25 --b-std 0.5 --depth 2 --bidirectional --task regression"
    cli.main(["report", "--config", str(path), *line.split()])
    (found,) = seen
    assert (found.widths, found.w_std, found.trainable) == ((8,), 1.25, ("W", "U"))
    assert (found.seeds, found.b_std, found.depth, found.bidirectional) == (3, 0.5, 2, True)
    assert found.task == "regression"


def test_quiet_prints_nothing(capsys, data, tmp_path):
    line = "--widths 8 --seeds 1 --steps 2 --quiet --out"
    assert cli.main(["report", "--data", data, *line.split(), str(tmp_path / "out")]) == 0
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_small_commands(capsys, data, tmp_path):
    """Kernel, spectrum, certificate and its verification of one network, against the library."""
    network = ["--activation", "erf", "--b-std", "0.25", "--n", "6"]
    file = str(tmp_path / "kernels.npz")
    assert cli.main(["kernel", "--data", data, *network, "--out", file, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    ntk = np.load(file)["ntk"]
    assert said["shape"] == [6, 6]
    kept = np.sort(np.random.default_rng(0).permutation(20)[:6])
    x = np.load(data)["x"][kept]
    expected = rnntk.infinite_kernel(rnntk.ElmanRNN("erf", b_std=0.25), x).ntk
    np.testing.assert_allclose(ntk, expected, rtol=1e-12)
    assert cli.main(["spectrum", "--data", data, *network, "--ridge", "0.1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["summary"]["trace"] == pytest.approx(np.trace(ntk))
    assert found["summary"]["effective_dimension"] < 6
    certificate = str(tmp_path / "certificate.npz")
    assert cli.main(["certify", "--data", data, *network, "--out", certificate]) == 0
    assert "smallest eigenvalue of the exact NTK in [" in capsys.readouterr().out
    assert cli.main(["verify", certificate]) == 0
    assert capsys.readouterr().out.startswith("verified: the smallest eigenvalue lies in [")
    forged = dataclasses.replace(spectrum.Certificate.load(certificate), lower=1e3, upper=2e3)
    forged.save(certificate)
    assert cli.main(["verify", certificate, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["verified"] is False
    assert "there are 20" in fails_with(capsys, ["kernel", "--data", data, "--n", "21"])
    plain = str(tmp_path / "plain")  # written under the very name that is given
    assert cli.main(["kernel", "--data", data, *network, "--out", plain]) == 0
    assert capsys.readouterr().out.endswith(f"{plain}\n")
    np.testing.assert_array_equal(np.load(plain)["ntk"], ntk)
    for command in ("kernel", "certify"):
        for out in (str(tmp_path), str(tmp_path / "none" / "k.npz")):
            line = fails_with(capsys, [command, "--data", data, "--out", out])
            assert line == f"rnntk: --out must be a file in a folder that exists, got {out}."
    assert "arguments: --dtype" in fails_with(capsys, ["certify", "--dtype", "float32"])


def test_a_store_is_resumed_and_told_of(capsys, data, tmp_path):
    out = tmp_path / "k.zarr"
    line = ["kernel", "--data", data, "--activation", "erf", "--out", str(out), "--tile", "8"]
    assert cli.main(line) == 0
    assert f"{out} has 6 of 6 tiles: [20, 20] float64, nngp, ntk" in capsys.readouterr().out
    expected = rnntk.infinite_kernel(rnntk.ElmanRNN("erf"), np.load(data)["x"])
    np.testing.assert_allclose(rnntk.open_kernel(out).ntk, expected.ntk, rtol=1e-12)
    for kind in ("ntk", "nngp"):
        (out / kind / "c/0/1").unlink()
    assert "exists: --resume goes on with it" in fails_with(capsys, line)
    assert cli.main(["status", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["tiles"], told["complete"]) == (6, 5)
    assert told["seconds_left"] > 0
    assert cli.main(["status", str(out)]) == 0
    assert "at the rate of the latest" in capsys.readouterr().out
    assert cli.main([*line, "--resume"]) == 0
    assert "6 of 6 tiles" in capsys.readouterr().out
    other = [*line[:3], "--b-std", "0.5", *line[5:], "--resume"]
    assert "k.zarr holds another kernel: activation is erf" in fails_with(capsys, other)
    assert "--tile must come with --out FOLDER.zarr" in fails_with(
        capsys, ["kernel", "--tile", "8"]
    )
    assert "There is no kernel at" in fails_with(capsys, ["status", str(tmp_path / "none")])
