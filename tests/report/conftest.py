"""One finished report, which several files of tests look at."""

import contextlib
import json

import jax
import numpy as np
import pytest

from rnntk import cli, report
from rnntk.report import problem


@contextlib.contextmanager
def precision_kept():
    """The command line switches the process to float64; the tests after it want it as it was."""
    before = jax.config.jax_enable_x64
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.fixture(autouse=True)
def restore_x64():
    with precision_kept():
        yield


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A finished report, made by the command line in float64: its folder, and its results."""
    results = []

    def run(settings, *, original=report.run):
        results.append(original(settings))
        return results[-1]

    out = tmp_path_factory.mktemp("report") / "new" / "folder"
    with precision_kept(), pytest.MonkeyPatch.context() as patch, jax.enable_x64(True):
        patch.setattr(problem, "MAX_TEST", 100)
        patch.setattr(report, "run", run)
        options = "--n 24 --widths 64,16,32 --seeds 2 --steps 40 --certify"
        code = cli.main(["report", *options.split(), "--out", str(out)])
    assert code == 0
    return out, results[0]


@pytest.fixture(scope="session")
def folder(made):
    return made[0]


@pytest.fixture(scope="session")
def results(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="session")
def arrays(folder):
    return dict(np.load(folder / "kernels.npz"))


@pytest.fixture(scope="session")
def finished(made):
    """The results as the library returns them."""
    return made[1]
