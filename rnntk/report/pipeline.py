"""The report of one data set: results.json, kernels.npz and report.html, stage by stage.

After each stage the three files are replaced, so that an interrupted run leaves what it finished.
"""

import io
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

import rnntk
from rnntk.report import page, stages
from rnntk.report.stages import Outcome, Problem, Settings

STAGES: dict[str, Callable[[Problem, dict[str, np.ndarray], str], Outcome]] = {
    "kernels": stages.kernels,
    "spectrum": stages.eigenvalues,
    "predictions": stages.predictions,
    "training": stages.training,
}


def run(settings: Settings) -> dict[str, Any]:
    """Compute the report and write its files, stage by stage, with progress on stderr.

    Args:
        settings: the data, the sizes and where to write.

    Returns:
        What results.json holds.

    Raises:
        ValueError: for data that cannot be used, see :func:`rnntk.datasets.load` and
            :func:`rnntk.report.stages.prepare`; or if ``out`` is no folder.
        OSError: if the folder cannot be written.
        KeyboardInterrupt: on Ctrl-C, with a message that says what is in the folder.

    Example:
        >>> import tempfile, rnntk.report
        >>> settings = rnntk.report.Settings(n=12, widths=(16, 32), out=tempfile.mkdtemp())
        >>> results = rnntk.report.run(settings)  # doctest: +SKIP
        >>> results["kernels"]["ntk_unit_diagonal"]["slope"]  # doctest: +SKIP
        -0.5
    """
    problem = stages.prepare(settings)
    out = Path(settings.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"--out must be a folder; {out} is a file, or lies in one.") from None
    results = _header(problem)
    arrays = _data_arrays(problem)
    figures: dict[str, str] = {}
    for number, (name, stage) in enumerate(STAGES.items(), 1):
        start = time.perf_counter()
        try:
            outcome = stage(problem, arrays, f"{number}/{len(STAGES)} {name}")
        except KeyboardInterrupt:
            done = list(STAGES)[: number - 1]
            raise KeyboardInterrupt(
                f"the stages that were finished ({', '.join(done)}) are in {out}"
                if done
                else "no stage was finished, and nothing written"
            ) from None
        arrays |= outcome.arrays
        figures |= {key: page.image(figure) for key, figure in outcome.figures.items()}
        results[name] = _plain(outcome.numbers)
        results["seconds"][name] = time.perf_counter() - start
        results["missing_stages"] = [name for name in STAGES if name not in results]
        _write(out, results, arrays, figures)
    return results


def _header(problem: Problem) -> dict[str, Any]:
    learn, test, rnn = problem.train, problem.test, problem.rnn
    packages = ("jax", "jaxlib", "numpy", "scipy", "scikit-learn", "matplotlib", "optax")
    accelerator = jax.devices()[0]
    return {
        "missing_stages": list(STAGES),
        "settings": asdict(problem.settings),
        "data": {
            "name": learn.name,
            "kind": "classes" if learn.is_classification else "values",
            "classes": learn.classes.tolist() if learn.is_classification else None,
            "train_shape": list(learn.x.shape),
            "test_shape": list(test.x.shape),
            "equal_lengths": learn.lengths is None,
            "token_exponent": problem.token_exponent,
        },
        "network": {
            name: getattr(rnn, name)
            for name in ("activation", "w_std", "u_std", "b_std", "v_std", "readout", "trainable")
        },
        "environment": {
            "rnntk": rnntk.__version__,
            "python": platform.python_version(),
            **{package: version(package) for package in packages},
            "platform": platform.platform(),
            "cpus": os.cpu_count(),
            "device": accelerator.device_kind,
            "dtype": str(stages.device(learn)[0].dtype),
        },
        "seconds": {},
    }


def _data_arrays(problem: Problem) -> dict[str, np.ndarray]:
    learn, test = problem.train, problem.test
    arrays = {"x": learn.x, "y": learn.y, "x_test": test.x, "y_test": test.y}
    if learn.lengths is not None and test.lengths is not None:
        arrays |= {"lengths": learn.lengths, "lengths_test": test.lengths}
    return arrays


def _plain(value: Any) -> Any:
    """The same numbers as JSON knows them; what is not finite becomes null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _write(
    out: Path, results: dict[str, Any], arrays: dict[str, np.ndarray], figures: dict[str, str]
) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    files = {
        "kernels.npz": buffer.getvalue(),
        "results.json": json.dumps(results, indent=1, allow_nan=False).encode(),
        "report.html": page.html(results, figures).encode(),
    }
    for name, content in files.items():
        partial = out / f".{name}.partial"
        partial.write_bytes(content)
        os.replace(partial, out / name)
