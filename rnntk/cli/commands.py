"""What each command does."""

import json
import sys
import time
from argparse import Namespace
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rnntk import datasets, verification
from rnntk import report as reports
from rnntk import spectrum as spectra
from rnntk.cli import stores
from rnntk.datasets import Dataset
from rnntk.infinite.kernel import infinite_kernel
from rnntk.kernel import Kernel
from rnntk.network.elman import ElmanRNN
from rnntk.report import Results, Settings
from rnntk.report.settings import read
from rnntk.storage import open_kernel


def report(options: Namespace) -> int:
    """Write a report; 1 if a stage failed."""
    given = _given(options, Settings)
    settings = Settings(**(read(options.config) if hasattr(options, "config") else {}) | given)
    results = reports.run(settings)
    if not settings.quiet:
        print(summary(results))
    for name, reason in results.failures.items():
        print(f"rnntk: the stage {name} failed: {reason}", file=sys.stderr)
    return 1 if results.failures else 0


def kernel(options: Namespace) -> int:
    """Write the infinite-width kernels, to a file or into a store."""
    stored = stores.is_store(options)
    data, rnn, dtype = _problem(options)
    if stored:
        kept = stores.store(options, rnn, data, dtype)
        _say(options, stores.facts(kept), stores.text(kept, stores.facts(kept)))
        return 0
    _check_out(options.out)
    start = time.perf_counter()
    found = jax.block_until_ready(_kernel(rnn, data, dtype))
    seconds = time.perf_counter() - start
    with Path(options.out).open("wb") as file:  # the very name that was given
        np.savez(file, ntk=np.asarray(found.ntk), nngp=np.asarray(found.nngp), y=data.y)
    facts = {
        "shape": list(found.ntk.shape),
        "dtype": str(found.ntk.dtype),
        "seconds": seconds,
        "out": options.out,
    }
    _say(options, facts, f"{facts['shape']} {facts['dtype']} in {seconds:.2f} s: {options.out}")
    return 0


def status(options: Namespace) -> int:
    """Tell how far a store has come."""
    kept = open_kernel(options.path)
    found = stores.facts(kept)
    _say(options, found, stores.text(kept, found))
    return 0


def spectrum(options: Namespace) -> int:
    """Print the spectrum of the NTK."""
    data, rnn, dtype = _problem(options)
    ntk = np.asarray(_kernel(rnn, data, dtype).ntk)
    size = len(ntk) * (ntk.shape[1] if ntk.ndim == 4 else 1)
    matrix = ntk.reshape(size, size)
    facts = {
        "summary": asdict(spectra.summary(matrix, getattr(options, "ridge", None))),
        "min_eigenvalue": asdict(spectra.min_eigenvalue(matrix)),
    }
    smallest = facts["min_eigenvalue"]
    lines = [f"{name}: {_brief(value)}" for name, value in facts["summary"].items()]
    lines.append(
        f"smallest eigenvalue: {smallest['value']:.12g} in [{smallest['lower']:.12g}, "
        f"{smallest['upper']:.12g}]" + ("" if smallest["resolved"] else ", not resolved")
    )
    _say(options, facts, "\n".join(lines))
    return 0


def certify(options: Namespace) -> int:
    """Write a certificate."""
    data, rnn, _ = _problem(options)
    _check_out(options.out)
    found = spectra.certify(rnn, data.x, lengths=data.lengths)
    found.save(options.out)
    facts = {
        "lower": found.lower,
        "upper": found.upper,
        "bits": found.bits,
        "method": found.method,
        "out": options.out,
    }
    text = f"smallest eigenvalue of the exact NTK in [{found.lower!r}, {found.upper!r}]"
    _say(options, facts, f"{text}: {options.out}")
    return 0


def verify(options: Namespace) -> int:
    """Prove a certificate anew; 1 if it does not hold."""
    found = spectra.Certificate.load(options.file)
    proved = verification.verify(found)
    ends = f"the smallest eigenvalue lies in [{found.lower!r}, {found.upper!r}]"
    text = f"verified: {ends}" if proved else f"not verified, which does not disprove it: {ends}"
    _say(options, {"verified": proved, "lower": found.lower, "upper": found.upper}, text)
    return 0 if proved else 1


def _given(options: Namespace, kind: Any) -> dict[str, Any]:
    """The fields of a dataclass that options set."""
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in vars(options).items() if name in names}


def _problem(options: Namespace) -> tuple[Dataset, ElmanRNN, str]:
    data = datasets.load(getattr(options, "data", ["digits"]), task=getattr(options, "task", None))
    if hasattr(options, "n"):
        if options.n > len(data):
            raise ValueError(f"n={options.n} sequences are asked for, but there are {len(data)}.")
        order = np.random.default_rng(getattr(options, "seed", 0)).permutation(len(data))
        data = data.take(np.sort(order[: options.n]))
    rnn = ElmanRNN(**_given(options, ElmanRNN))
    return data, rnn, getattr(options, "dtype", "float64")


def _check_out(out: str) -> None:
    """Refuse before computing what cannot be written after it."""
    path = Path(out)
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"--out must be a file in a folder that exists, got {out}.")


def _kernel(rnn: ElmanRNN, data: Dataset, dtype: str) -> Kernel:
    lengths = None if data.lengths is None else jnp.asarray(data.lengths)
    return infinite_kernel(rnn, jnp.asarray(data.x.astype(dtype)), lengths1=lengths)


def _say(options: Namespace, facts: dict[str, Any], text: str) -> None:
    if options.json:
        text = json.dumps({key: _json(value) for key, value in facts.items()}, indent=1)
    print(text)


def _json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _json(item) for key, item in value.items()}
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _brief(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def summary(results: Results) -> str:
    """The main numbers of a report, as far as it came, in ASCII, which every terminal shows."""
    lines = []
    if results.widths is not None:
        shape = results.widths.kinds["ntk_unit_diagonal"]
        slope = (
            "no slope is defined"
            if shape.slope is None
            else f"slope {_with_error(shape.slope, shape.slope_standard_error, '.2f')} "
            "(theory -0.5)"
        )
        lines.append(f"deviation of finite networks' NTK (unit diagonal) against width: {slope}")
    if results.spectrum is not None:
        smallest = results.spectrum.min_eigenvalue
        lines.append(
            f"smallest eigenvalue of the NTK: {smallest.value:.6g} in [{smallest.lower:.12g}, "
            f"{smallest.upper:.12g}]" + ("" if smallest.resolved else ", not resolved")
        )
    if results.predictions is not None:
        stage = results.predictions
        form = _form(stage.metric)
        scores = ", ".join(f"{name} {m.score:{form}}" for name, m in stage.methods.items())
        lines.append(f"{stage.metric}: {scores}")
    if results.training is not None:
        lines.append(_trained(results))
    out = Path(results.settings["out"]) / "report.html"
    lines.append(f"written: {out}, results.json, kernels.npz, config.toml")
    return "\n".join(lines)


def _form(metric: str) -> str:
    return ".3f" if "accuracy" in metric else ".4g"  # an error has the unit of the labels


def _trained(results: Results) -> str:
    stage = results.training
    assert stage is not None
    lost = sum(count >= 0 for count in stage.diverged)
    left = "" if not lost else f"; {lost} of {stage.seeds} diverged or overflowed"
    if not stage.scores:
        return f"trained networks of width {stage.width}: none, all {lost} diverged or overflowed"
    form, values = _form(stage.metric), np.array(stage.scores)
    spread = float(values.std(ddof=1)) if len(values) > 1 else None
    return (
        f"{stage.metric} of trained networks of width {stage.width}: "
        f"{_with_error(float(values.mean()), spread, form)}, of the kernel at the same training "
        f"time: {stage.flow_score:{form}}{left}"
    )


def _with_error(value: float, error: float | None, form: str) -> str:
    return f"{value:{form}}" + ("" if error is None else f" +/- {error:{form}}")
