"""The report of one data set, stage by stage: its files are replaced after each.

An interrupted run leaves what it finished; a stage that fails leaves the others standing.
"""

import io
import os
import platform
import shlex
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

import rnntk
from rnntk.files import save_bytes
from rnntk.report import (
    comparison,
    kernels,
    page,
    predictions,
    problem,
    settings,
    spectra,
    training,
)
from rnntk.report.kernels import Arrays, Outcome
from rnntk.report.problem import Problem
from rnntk.report.results import Results
from rnntk.report.settings import Settings

STAGES: dict[str, Callable[[Problem, Arrays, tqdm], Outcome]] = {
    "kernels": kernels.kernels,
    "widths": kernels.widths,
    "spectrum": spectra.spectrum,
    "predictions": predictions.predictions,
    "training": training.training,
    "comparison": comparison.comparison,
}
NEEDED = "kernels"  # by all others


def run(options: Settings) -> Results:
    """Compute the report and write its files, stage by stage, with progress on stderr.

    Args:
        options: the data, the network, the sizes and where to write.

    Returns:
        What results.json holds; ``failures`` names stages that failed.

    Raises:
        ValueError: for data that cannot be used, see :func:`rnntk.datasets.load`; or if ``out`` is
            no folder.
        OSError: if the folder cannot be written.
        KeyboardInterrupt: on Ctrl-C, with a message that says what is in the folder.

    Example:
        >>> import tempfile, rnntk.report
        >>> settings = rnntk.report.Settings(n=12, widths=(16, 32), out=tempfile.mkdtemp())
        >>> results = rnntk.report.run(settings)  # doctest: +SKIP
        >>> results.widths.kinds["ntk_unit_diagonal"].slope  # doctest: +SKIP
        -0.5
    """
    made = problem.prepare(options)
    out = Path(options.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"--out must be a folder; {out} is a file, or lies in one.") from None
    results = _header(made)
    arrays = _data_arrays(made)
    figures: dict[str, str] = {}
    for number, (name, stage) in enumerate(STAGES.items(), 1):
        start, title = time.perf_counter(), f"{number}/{len(STAGES)} {name}"
        try:
            if NEEDED in results.failures:
                raise ArithmeticError(f"it needs the stage {NEEDED!r}, which failed")
            with tqdm(total=1, desc=title, disable=options.quiet) as bar:
                outcome = stage(made, arrays, bar)
            drawn = {key: page.image(figure) for key, figure in outcome.figures.items()}
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_interrupted(out, list(STAGES)[: number - 1])) from None
        except Exception as error:  # whatever it is, the other stages stand
            results.failures[name] = _reason(error)
        else:
            arrays |= outcome.arrays
            figures |= drawn
            setattr(results, name, outcome.result)
            results.seconds[name] = time.perf_counter() - start
        _write(out, results, arrays, figures, options)
    return results


def _interrupted(out: Path, done: list[str]) -> str:
    if not done:
        return "no stage was finished, and nothing written"
    return f"the stages that were finished ({', '.join(done)}) are in {out}"


def _reason(error: Exception) -> str:
    """One line; memory in words that say what helps."""
    said = any(words in str(error) for words in ("Out of memory", "RESOURCE_EXHAUSTED"))
    if isinstance(error, MemoryError) or said:
        return "out of memory; use a smaller --n or --widths."
    text = " ".join(str(error).split())
    plain = isinstance(error, ValueError | ArithmeticError | OSError | ImportError)
    return text if plain and text else f"{type(error).__name__}: {text}"


def command(options: Settings) -> str:
    """The command line that repeats a report."""
    parts = ["rnntk", "report"]
    for name, value in settings.changed(options).items():
        if name == "quiet":
            continue
        parts.append(f"--{name.replace('_', '-')}")
        if name in ("data", "test"):
            parts += value
        elif isinstance(value, tuple):
            parts.append(",".join(map(str, value)))
        elif value is not True:
            parts.append(str(value))
    return shlex.join(parts)


def _header(made: Problem) -> Results:
    learn, test = made.train, made.test
    packages = ("jax", "jaxlib", "numpy", "scipy", "scikit-learn", "matplotlib", "optax")
    return Results(
        settings=asdict(made.settings),
        data={
            "name": learn.name,
            "kind": "classes" if learn.is_classification else "values",
            "classes": learn.classes.tolist() if learn.is_classification else None,
            "unseen": int(np.sum(~np.isin(test.y, learn.y))) if learn.is_classification else 0,
            "train_shape": list(learn.x.shape),
            "test_shape": list(test.x.shape),
            "equal_lengths": learn.lengths is None,
            "token_exponent": made.token_exponent,
        },
        environment={
            "rnntk": rnntk.__version__,
            "python": platform.python_version(),
            **{package: version(package) for package in packages},
            "platform": platform.platform(),
            "cpus": os.cpu_count(),
            "device": jax.devices()[0].device_kind,
            "dtype": str(made.arrays(learn)[0].dtype),
        },
    )


def _data_arrays(made: Problem) -> Arrays:
    learn, test = made.train, made.test
    arrays = {"x": learn.x, "y": learn.y, "x_test": test.x, "y_test": test.y}
    if learn.lengths is not None:
        arrays["lengths"] = learn.lengths
    if test.lengths is not None:
        arrays["lengths_test"] = test.lengths
    return arrays


def _write(
    out: Path, results: Results, arrays: Arrays, figures: dict[str, str], options: Settings
) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    files = {
        "kernels.npz": buffer.getvalue(),
        "results.json": results.json().encode(),
        "report.html": page.html(results, figures, command(options)).encode(),
        "config.toml": settings.written(options).encode(),
    }
    for name, content in files.items():
        save_bytes(out / name, content)
