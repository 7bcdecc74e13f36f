"""(d) y' K^-1 y and the smallest eigenvalue against the length, for every class; and capacities.

Infinite-width NTK, relu, w^2 = u^2 = 2, unit tokens of size 4, all groups trained; kernels divided
by their diagonal, targets by their root mean square. Beside the quadratic form of n samples stands
the analytic bound, which no number of samples exceeds; beside the smallest eigenvalue, the bound
``separation_time``. Then what capacities say of the measured test error of kernel regression, over
n, L, d and widths.
"""

from functools import partial
from typing import Any

import common
import jax
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import spearmanr

import rnntk
from rnntk.concepts import Additive, NVariable, PerToken, polynomial

KEY = jax.random.key(17)
# squares less their means over unit tokens of size 4, for |beta| = 1 and sqrt(2)
SQUARE, SQUARES = polynomial([-0.25, 0.0, 1.0]), polynomial([-0.5, 0.0, 1.0])
CLASSES: dict[str, Any] = {
    "additive, linear": partial(Additive.draw, f="identity"),
    "additive, sin": partial(Additive.draw, f="sin"),
    "additive, square": partial(Additive.draw, f=SQUARE),
    "last two tokens, square": lambda key, L, d: NVariable.draw(key, L, d, (L - 1, L), SQUARES),
    "first and last token, square": lambda key, L, d: NVariable.draw(key, L, d, (1, L), SQUARES),
    "first token, linear": lambda key, L, d: NVariable.draw(key, L, d, (1,), "identity"),
}


def by_length(name: str, lengths: list[int], n: int, draws: int) -> dict[str, Any]:
    rnn, forms, bounds = rnntk.ElmanRNN(), [], []
    for length in lengths:
        row, row_bound = [], []
        for draw in range(draws):
            keys = jax.random.split(jax.random.fold_in(KEY, draw), 2)
            x = rnntk.datasets.unit_tokens(keys[0], n, length, 4)
            concept = CLASSES[name](keys[1], length, 4)
            y = concept(x)
            K = np.asarray(rnntk.infinite_kernel(rnn, x).ntk)
            scale = K[0, 0] / np.mean(y**2)
            row.append(float(rnntk.bounds.generalization(K, y).complexity) * scale)
            row_bound.append(rnntk.bounds.complexity_bound(rnn, x, concept, degree=7).value * scale)
        forms.append(np.exp(np.mean(np.log(row))))
        bounds.append(np.exp(np.mean(np.log(row_bound))))
    laws = {}
    for kind, values in (("form", forms), ("bound", bounds)):
        growth = rnntk.compare.growth(lengths, np.array(values))
        laws[kind] = f"{growth.best} by {growth.margin:.1f}, {growth.laws[growth.best].formula}"
    return {"lengths": lengths, "forms": forms, "bounds": bounds, "laws": laws, "n": n}


def per_token(lengths: list[int], n: int, draws: int) -> dict[str, Any]:
    """The same for targets at every position, W alone trained; no analytic bound."""
    rnn, forms = rnntk.ElmanRNN.allen_zhu_li(), []
    for length in lengths:
        row = []
        for draw in range(draws):
            keys = jax.random.split(jax.random.fold_in(KEY, draw), 2)
            x = rnntk.datasets.unit_tokens(keys[0], n, length, 4)
            y = PerToken.draw(keys[1], length, 4)(x)[:, 1:].reshape(-1)
            K = np.asarray(rnntk.infinite_kernel(rnn, x).ntk)[:, 1:, :, 1:]
            K = K.reshape(len(y), -1)
            scale = K.diagonal().mean() / np.mean(y**2)
            row.append(float(rnntk.bounds.generalization((K + K.T) / 2, y).complexity) * scale)
        forms.append(np.exp(np.mean(np.log(row))))
    growth = rnntk.compare.growth(lengths, np.array(forms))
    law = f"{growth.best} by {growth.margin:.1f}, {growth.laws[growth.best].formula}"
    return {"lengths": lengths, "forms": forms, "laws": {"form": law}, "n": n}


def smallest(lengths: list[int], n: int) -> dict[str, Any]:
    values, lower = [], []
    for length in lengths:
        x = rnntk.datasets.unit_tokens(KEY, n, length, 4)
        K = np.asarray(rnntk.infinite_kernel(rnntk.ElmanRNN(), x).ntk)
        values.append(rnntk.spectrum.min_eigenvalue(K).value / K[0, 0])
        bound = rnntk.bounds.min_eigenvalue(rnntk.ElmanRNN(), x)
        lower.append(bound.lower["separation_time"] / K[0, 0])
    return {"lengths": lengths, "values": values, "separation_time": lower, "n": n}


def capacities(full: bool) -> list[dict[str, Any]]:
    """Capacities, and the test loss min(1, |f - y|) of the interpolant, 0 on the samples."""
    rows = []
    top = 2048 if full else 512
    grid = [(n, 4, 4, None) for n in (64, 256, top)]
    grid += [(256, L, 4, None) for L in (2, 8, 32)] + [(256, 4, d, None) for d in (2, 16)]
    grid += [(256, 4, 4, m) for m in ((64, 256, 1024, 4096) if full else (64, 256))]
    for n, length, d, width in grid:
        keys = jax.random.split(KEY, 3)
        x = rnntk.datasets.unit_tokens(keys[0], n + 512, length, d)
        y = Additive.draw(keys[1], length, d, "sin")(x)
        y = y / np.abs(y).max()
        rnn = rnntk.ElmanRNN()
        if width is None:
            K = np.asarray(rnntk.infinite_kernel(rnn, x, x[:n]).ntk)
        else:
            params = rnn.init(keys[2], input_dim=d, width=width)
            K = np.asarray(rnntk.empirical_kernel(rnn, params, x, x[:n]).ntk)
        K = K / (2 * K[:n].diagonal().mean())  # diagonal 1/2, as the bounds' authors have it
        square = (K[:n] + K[:n].T) / 2
        found = rnntk.bounds.capacity(square, y[:n])
        test = K[n:] @ np.linalg.solve(square, y[:n]) - y[n:]
        rows.append(
            {
                "n": n,
                "L": length,
                "d": d,
                "width": width,
                "test loss": float(np.minimum(1, np.abs(test)).mean()),
                "loss of zero": float(np.abs(y[n:]).mean()),
                "generalization": float(found.generalization.bound),
                "rademacher": found.rademacher,
                "local": found.local,
                "entropy rank": found.entropy_rank,
                "participation": found.participation,
                "intrinsic dimension": found.intrinsic_dimension,
                "local rank": found.local_rank,
            }
        )
    return rows


def parts(full: bool) -> common.Parts:
    lengths = [2, 4, 8, 16, 32, 64]
    n, draws = (2048, 8) if full else (256, 2)
    found: dict[str, Any] = {name: partial(by_length, name, lengths, n, draws) for name in CLASSES}
    found["per token, sin, only W"] = partial(per_token, [2, 3, 4, 6, 8, 12], n // 4, draws)
    found["smallest eigenvalue"] = partial(smallest, lengths, 2048 if full else 100)
    found["capacities"] = partial(capacities, full)
    return found


def figures(found: dict[str, Any]) -> dict[str, Figure]:
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(ncols=2)
    for i, (name, marker) in enumerate(zip(CLASSES, "os^DvP", strict=True)):
        one, color = found[name], f"C{i}"
        left.loglog(one["lengths"], one["forms"], marker + "-", ms=5, color=color, label=name)
        left.loglog(
            one["lengths"], common.finite(one["bounds"]), marker + ":", mfc="none", color=color
        )
    left.loglog([], [], "k:", label="bound for any number of samples")
    left.set_ylim(1, 1e12)
    left.set_ylabel(r"$y^T K^{-1} y$, scale-free")
    one = found["smallest eigenvalue"]
    right.semilogx(one["lengths"], one["values"], "o-", label="smallest eigenvalue")
    right.semilogx(one["lengths"], one["separation_time"], "s--", label="separation_time")
    right.set_ylabel("smallest eigenvalue / diagonal")
    for ax in (left, right):
        common.length_axis(ax, one["lengths"])
        ax.legend(fontsize=7)
    rows = found["capacities"]
    gaps = Figure(figsize=(5.6, 4.4), layout="constrained")
    ax = gaps.subplots()
    measured = [row["test loss"] for row in rows]
    for name, marker in zip(("generalization", "rademacher", "local"), "os^", strict=True):
        ax.loglog(measured, [row[name] for row in rows], marker, mfc="none", label=name)
    ends = [0.5 * min(measured), 2 * max(measured)]
    ax.loglog(ends, ends, "k-", lw=1, label="equal")
    ax.axhline(1, color="0.5", ls=":", label="vacuous above")
    ax.set_xlabel("measured test loss, mean of min(1, |f - y|)")
    ax.set_ylabel("bound")
    ax.legend(fontsize=8)
    return {"length": figure, "capacity": gaps}


def lines(found: dict[str, Any]) -> list[str]:
    rows = []
    for name, one in found.items():
        if name == "capacities":
            keys = ("n", "L", "d", "width", "test loss", "generalization", "rademacher", "local")
            keys += ("loss of zero",)
            for row in one:
                rows.append(", ".join(f"{k} {row[k]:.3g}" for k in keys if row[k] is not None))
            test = [row["test loss"] for row in one]
            ranks = ("entropy rank", "participation", "intrinsic dimension", "local rank")
            for key in (*keys[5:8], *ranks):
                share = 1 if key in keys else np.array([row["n"] for row in one])
                order = spearmanr(test, np.array([row[key] for row in one]) / share).statistic
                name = key if key in keys else f"{key} / n"
                rows.append(f"rank correlation of {name} with the test loss: {order:.2f}")
        elif name == "smallest eigenvalue":
            rows.append(f"{name}: " + " ".join(f"{v:.3g}" for v in one["values"]))
        else:
            values = " ".join(f"{v:.3g}" for v in one["forms"])
            rows.append(
                f"{name}: {values}; " + "; ".join(f"{k} {v}" for k, v in one["laws"].items())
            )
    return rows


if __name__ == "__main__":
    common.main(parts, figures, lines)
