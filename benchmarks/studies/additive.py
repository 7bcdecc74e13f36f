"""(a) Sums over positions: samples to learn them against the length, norm 1 against small norms.

Kernel regression with the infinite-width NTK to 0.7 of the targets' standard deviation, half of
their variance; relu, w^2 = u^2 = 2, all groups trained, tokens of size 4, with and without fixed
first and last tokens. Networks of width 128 and the bounds for the plain setting. Without fixed
tokens a common norm only scales the kernel (2-homogeneity), and is not a setting of its own.
"""

from functools import partial
from typing import Any

import common
import jax
import numpy as np
from matplotlib.figure import Figure

import rnntk
from rnntk.plot.lengths import LABELS

KEY = jax.random.key(14)
SETTINGS: dict[str, dict[str, Any]] = {
    "unit tokens": {},
    "fixed tokens, eps = 1": {"eps": 1.0},
    "fixed tokens, eps = 0.1": {"eps": 0.1},
    "fixed tokens, eps = 0.01": {"eps": 0.01},
    "unit tokens, w^2 = 2.5": {"w2": 2.5},
}


def study(f: str, setting: dict[str, Any], full: bool, networks: bool) -> dict[str, Any]:
    lengths = [1, 2, 3, 4, 6, 8, 12, 16, 32, 64] if full or not networks else [1, 2, 4, 8]
    embed = None
    if "eps" in setting:
        embed = partial(rnntk.datasets.with_fixed_tokens, eps=setting["eps"])
    found = rnntk.compare.sample_complexity(
        rnntk.ElmanRNN(w_std=setting.get("w2", 2.0) ** 0.5),
        partial(rnntk.concepts.Additive.draw, f=f),
        lengths,
        KEY,
        embed=embed,
        error=0.7,
        draws=8 if full else 2,
        most=4096 if full else 512,
        sgd_most=65536 if full else 1024,
        width=(1024 if full else 128) if networks else None,
    )
    learners = ("kernel", "exact", "upper")
    if networks:
        learners += ("network", "linearized", "lower", "rademacher")
    table = {name: found.interval(name) for name in learners}
    laws = {}
    for name in learners:
        try:
            growth = found.growth(name)
        except ValueError:  # reached at too few lengths
            continue
        laws[name] = {
            "best": growth.best,
            "margin": growth.margin,
            "formula": growth.laws[growth.best].formula,
            "all": {law: one.formula for law, one in growth.laws.items()},
        }
    return {"lengths": lengths, "intervals": table, "laws": laws}


def parts(full: bool) -> common.Parts:
    found: dict[str, Any] = {}
    for f in ("identity", "sin", "square") if full else ("identity", "sin"):
        for name, setting in SETTINGS.items():
            if f == "identity" or full or (f == "sin" and name == "unit tokens"):
                found[f"{f}, {name}"] = partial(study, f, setting, full, networks=False)
    found["networks"] = partial(study, "identity", {}, full, networks=True)
    return found


def figures(found: dict[str, Any]) -> dict[str, Figure]:
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    ax = figure.subplots()
    shown = [name for name in found if name != "networks"]
    for i, name in enumerate(shown):
        one = found[name]
        law = one["laws"].get("kernel")
        label = name + (f": {law['best']}" if law else "")
        look = {"marker": "os^DvPX<>h"[i % 10], "ls": ("-", "--", ":")[i % 3], "mfc": "none"}
        common.error_bars(ax, one["lengths"], one["intervals"]["kernel"], label=label, **look)
    common.length_axis(ax, found[shown[0]]["lengths"])
    ax.set_yscale("log")
    ax.set_ylabel("samples, kernel regression")
    ax.legend(fontsize=7)
    one = found["networks"]
    learners = Figure(figsize=(5.6, 4), layout="constrained")
    ax = learners.subplots()
    for (name, rows), marker in zip(one["intervals"].items(), "os^DvPX", strict=True):
        if np.isfinite(common.numbers(rows)).any():
            look = {"marker": marker, "mfc": "none", "label": LABELS[name]}
            common.error_bars(ax, one["lengths"], rows, **look)
    common.length_axis(ax, one["lengths"])
    ax.set_yscale("log")
    ax.set_ylabel("samples, linear f, unit tokens")
    ax.set_ylim(top=1e6)
    ax.legend(fontsize=7, ncols=2, loc="upper left")
    return {"kernel": figure, "learners": learners}


def lines(found: dict[str, Any]) -> list[str]:
    rows = []
    for name, one in found.items():
        for learner in one["intervals"] if name == "networks" else ("kernel",):
            means = [f"{v:.3g}" for v in common.numbers(one["intervals"][learner])[:, 0]]
            law = one["laws"].get(learner)
            said = f"{law['best']} by {law['margin']:.1f}, {law['formula']}" if law else "no law"
            rows.append(f"{name}, {learner}: {' '.join(means)}; {said}")
    return rows


if __name__ == "__main__":
    common.main(parts, figures, lines)
