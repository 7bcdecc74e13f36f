"""(f) The risk of one pass of SGD against N, beside both bounds; and MAML over adaptation rates.

The infinite-width NTK of relu networks on unit tokens of size 4. The population is a sample of
sequences, drawn from with replacement: its spectrum is then exact, and what separates SGD on the
kernel from the Gaussian recursion is that gradients are not Gaussian. Beside them networks of
finite width, and their linearizations, on fresh sequences.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import common
import jax
import numpy as np
from matplotlib.figure import Figure

import rnntk
from rnntk import sgd_risk
from rnntk.concepts import Additive

KEY = jax.random.key(18)
NOISE = 0.1
MAML = ("MAML, power law", "MAML, features of the kernel")


def problem(length: int, n: int) -> tuple[Any, np.ndarray, np.ndarray, Any]:
    """Population, kernel, targets of variance 1, and the concept with its mean and deviation."""
    keys = jax.random.split(KEY, 2)
    x = rnntk.datasets.unit_tokens(keys[0], n, length, 4)
    concept = Additive.draw(keys[1], length, 4, "sin")
    y = concept(x)
    mean, std = float(y.mean()), float(y.std())
    y = (y - mean) / std
    K = np.asarray(rnntk.infinite_kernel(rnntk.ElmanRNN(), x).ntk)
    return sgd_risk.population(K, y, noise=NOISE), K, y, (concept, mean, std)


def on_kernel(
    K: np.ndarray, y: np.ndarray, step: float, counts: list[int], runs: int
) -> np.ndarray:
    """Risks of averaged SGD on a kernel's features, samples drawn with replacement."""
    rng = np.random.default_rng(0)
    f = np.zeros((runs, len(y)))
    total, found = np.zeros_like(f), []
    for count in range(1, counts[-1] + 1):
        total += f
        if count in counts:
            found.append(np.square(total / count - y).mean(axis=1) / 2)
        i = rng.integers(len(y), size=runs)
        labels = y[i] + NOISE**0.5 * rng.standard_normal(runs)
        f -= step * (f[np.arange(runs), i] - labels)[:, None] * K[i]
    return np.stack(found, axis=1)


def curve(length: int, full: bool) -> dict[str, Any]:
    counts = [2**k for k in range(4, 17 if full else 13)]
    found, K, y, _ = problem(length, 4096 if full else 600)
    step = 0.3 / found.problem.trace
    risks = on_kernel(K, y, step, counts, 32 if full else 8)
    bounds = sgd_risk.learning_curve(found.problem, step, counts)
    best = [sgd_risk.optimal_step(found.problem, n) for n in counts if n <= 1024]
    return {
        "counts": counts,
        "kernel": risks.mean(axis=0),
        "kernel error": risks.std(axis=0, ddof=1) / len(risks) ** 0.5,
        "exact": bounds.exact,
        "upper": bounds.upper,
        "lower": bounds.lower,
        "optimal step times trace": [step * found.problem.trace for step, _ in best],
        "optimal risk": [risk for _, risk in best],
        "eigenvalue error / trace": found.error / found.problem.trace,
        "resolved eigenvalues": found.resolved,
        "largest / trace": found.problem.eigenvalues[0] / found.problem.trace,
    }


def networks(length: int, full: bool) -> dict[str, Any]:
    """Excess risk of networks and of their linearizations, from fresh sequences."""
    counts = [2**k for k in range(4, 15 if full else 11, 2)]
    found, _, _, (concept, mean, std) = problem(length, 600)
    width, draws = (1024, 8) if full else (256, 2)
    rnn, rate = rnntk.ElmanRNN(), 0.3 / found.problem.trace
    x = rnntk.datasets.unit_tokens(jax.random.fold_in(KEY, 5), 512, length, 4).astype(np.float32)
    y = (concept(x) - mean) / std
    result: dict[str, Any] = {"counts": counts}

    def blocks(draw: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        rng, number = np.random.default_rng(draw), 0
        while True:
            key = jax.random.fold_in(jax.random.fold_in(KEY, 100 + draw), number)
            fresh = rnntk.datasets.unit_tokens(key, 64, length, 4)
            labels = (concept(fresh) - mean) / std + NOISE**0.5 * rng.standard_normal(64)
            yield fresh.astype(np.float32), labels.astype(np.float32)
            number += 1

    for name, function in (("network", rnn), ("linearized", rnntk.train.linearize(rnn))):
        rows = []
        for draw in range(draws):
            row = []
            for count in counts:
                trained = rnntk.train.fit(
                    function,
                    jax.random.fold_in(KEY, draw),
                    blocks(draw),
                    width=width,
                    learning_rate=rate,
                    steps=count,
                    batch_size=1,
                    average=True,
                )
                learnt = np.asarray(trained.predict(x, averaged=True))[0, :, 0]
                row.append(float(np.mean((learnt - y) ** 2) / 2))
            rows.append(row)
        result[name] = np.mean(rows, axis=0)
    result["exact"] = sgd_risk.exact_risk(found.problem, rate, counts)
    return result


def maml(features: str, full: bool) -> dict[str, Any]:
    """Risks over adaptation rates, with both bounds at a step that they allow, and the spectrum.

    Features are Gaussian with a power law, or those of the infinite-width kernel themselves.
    """
    K = None
    if features == "power law":
        values, errors = 1 / np.arange(1.0, 31) ** 1.5, np.ones(30)
    else:
        found, K, y, _ = problem(4, 600)
        scale = found.problem.eigenvalues[0]
        values, errors = found.problem.eigenvalues / scale, found.problem.errors
        K = K / scale
        errors = errors * scale**0.5
    diversity = np.where(np.arange(len(values)) < 30, 0.05, 0.0)
    rates = np.linspace(-0.5, 1.5, 17 if full else 9)
    counts = [2**k for k in range(4, 13 if full else 11)]
    rows: dict[str, Any] = {"rates": rates, "counts": counts}
    names = ("risk", "error", "exact", "upper", "lower", "exact at their step", "alpha")
    rows |= {name: [] for name in (*names, "beta", "shape")}
    for rate in rates:
        meta = sgd_risk.MetaRegression(
            values, errors, diversity, noise=NOISE, rate=float(rate), inner=10
        )
        step, runs = 0.1 / float(meta.adapted.sum()), 64 if full else 16
        if K is None:
            risks = meta.simulate(KEY, step, counts, runs=runs)
        else:
            risks = adapted_on_kernel(K, y, meta, step, counts, runs)
        small = 0.5 * meta.step_limit
        found = {
            "risk": risks.mean(axis=0),
            "error": risks.std(axis=0, ddof=1) / runs**0.5,
            "exact": meta.exact_risk(step, counts),
            "upper": meta.upper_bound(small, counts[-1]).value,
            "lower": meta.lower_bound(small, counts[-1]).value,
            "exact at their step": meta.exact_risk(small, counts[-1])[0],
            "alpha": meta.alpha,
            "beta": meta.beta,
            "shape": float(meta.adapted.sum() / meta.adapted.max()),
        }
        for name, value in found.items():
            rows[name].append(value)
    return rows


def adapted_on_kernel(
    K: np.ndarray,
    y: np.ndarray,
    meta: sgd_risk.MetaRegression,
    step: float,
    counts: list[int],
    runs: int,
) -> np.ndarray:
    """Risks of MAML by averaged SGD on a kernel's features, samples drawn with replacement.

    All in values at the population's points: f of the weights, ``task`` of a task's parameters. The
    risk is half the expected square of <w - theta*, b>, over the population.
    """
    rng, n, inner = np.random.default_rng(0), len(y), meta.inner
    values, vectors = np.linalg.eigh(K / n)
    spread = meta.diversity[meta.diversity > 0]  # of the first eigenvectors
    order = np.argsort(-values)[: len(spread)]
    axes = vectors[:, order] * np.sqrt(n * values[order] * spread)
    share = meta.rate / inner
    second = np.square(K).mean(axis=0)  # E k(s, .)^2
    f, total, found = np.zeros((runs, n)), np.zeros((runs, n)), []
    each = np.arange(runs)
    for count in range(1, counts[-1] + 1):
        total += f
        if count in counts:
            e = total / count - y
            smooth = e @ K / n
            square = np.square(e - meta.rate * smooth).mean(axis=1)
            square += share * meta.rate * (e**2 @ second / n - np.square(smooth).mean(axis=1))
            found.append(square / 2)
        first, last = rng.integers(n, size=(runs, inner)), rng.integers(n, size=runs)
        task = y + rng.standard_normal((runs, axes.shape[1])) @ axes.T
        labels = np.take_along_axis(task, first, 1)
        labels = labels + NOISE**0.5 * rng.standard_normal((runs, inner))
        gaps = np.take_along_axis(f, first, 1) - labels
        seen = K[first, last[:, None]]
        after = f[each, last] - share * np.sum(seen * gaps, axis=1)
        gap = after - task[each, last] - NOISE**0.5 * rng.standard_normal(runs)
        feature = K[last] - share * np.einsum("rm,rmn->rn", seen, K[first])
        f -= step * gap[:, None] * feature
    return np.stack(found, axis=1)


def parts(full: bool) -> common.Parts:
    return {
        "L = 2": partial(curve, 2, full),
        "L = 8": partial(curve, 8, full),
        "networks, L = 4": partial(networks, 4, full),
        MAML[0]: partial(maml, "power law", full),
        MAML[1]: partial(maml, "kernel", full),
    }


def figures(found: dict[str, Any]) -> dict[str, Figure]:
    figure = Figure(figsize=(13, 4), layout="constrained")
    axes = figure.subplots(ncols=3)
    for ax, name in zip(axes, ("L = 2", "L = 8"), strict=False):
        one = found[name]
        counts = one["counts"]
        ax.loglog(counts, common.finite(one["upper"]), "--", label="Theorem 2.1")
        ax.errorbar(
            counts,
            one["kernel"],
            one["kernel error"],
            fmt="o",
            mfc="none",
            label="SGD on the kernel",
        )
        ax.loglog(counts, one["exact"], "-", label="Gaussian features, exact")
        ax.loglog(counts, common.finite(one["lower"]), ":", label="Theorem 2.2")
        ax.set_title(name, fontsize=10)
        ax.set_ylabel("excess risk")
    one = found["networks, L = 4"]
    for name, style in (("network", "o-"), ("linearized", "s--"), ("exact", "k:")):
        label = "Gaussian features, exact" if name == "exact" else name
        axes[2].loglog(one["counts"], one[name], style, label=label)
    axes[2].set_title("networks, L = 4", fontsize=10)
    for ax in axes:
        ax.set_xlabel("samples $N$")
        ax.legend(fontsize=8)
    meta = Figure(figsize=(10, 4.6), layout="constrained")
    both = meta.subplots(ncols=2)
    for ax, name in zip(both, MAML, strict=True):
        one = found[name]
        risk, exact = np.array(one["risk"]), np.array(one["exact"])
        for k, color in ((0, "C0"), (len(one["counts"]) // 2, "C1"), (-1, "C2")):
            label = f"{one['counts'][k]} tasks, runs"
            ax.semilogy(one["rates"], risk[:, k], "o", mfc="none", color=color, label=label)
            ax.semilogy(one["rates"], exact[:, k], "-", lw=1, color=color)
        ax.plot([], [], "k-", lw=1, label="Gaussian features, exact")
        tasks = one["counts"][-1]
        for key, style in (("upper", "--"), ("exact at their step", "-"), ("lower", ":")):
            label = f"{key}, {tasks} tasks" if "step" in key else f"{key} bound, {tasks} tasks"
            ax.semilogy(one["rates"], one[key], style, color="0.5", label=label)
        ax.set_xlabel("adaptation rate $a$")
        ax.set_ylabel("excess risk")
        ax.set_title(name, fontsize=10)
    handles, labels = both[0].get_legend_handles_labels()
    meta.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)
    return {"curves": figure, "maml": meta}


def lines(found: dict[str, Any]) -> list[str]:
    rows = []
    for name in ("L = 2", "L = 8"):
        one = found[name]
        shown = ("counts", "kernel", "exact", "upper", "lower", "optimal step times trace")
        for key in shown:
            rows.append(f"{name}, {key}: " + " ".join(f"{v:.3g}" for v in common.numbers(one[key])))
        rows.append(
            f"{name}: {one['resolved eigenvalues']} eigenvalues resolved; error / trace "
            f"{one['eigenvalue error / trace']:.3g}"
        )
    for key, values in found["networks, L = 4"].items():
        rows.append(f"networks, {key}: " + " ".join(f"{v:.3g}" for v in values))
    for name in MAML:
        one = found[name]
        for i, rate in enumerate(one["rates"]):
            risk = " ".join(f"{v:.3g}" for v in one["risk"][i][::3])
            exact = " ".join(f"{v:.3g}" for v in one["exact"][i][::3])
            rows.append(
                f"{name}, a = {rate:.2f}: risk {risk}; exact {exact}; at the bounds' step "
                f"{one['lower'][i]:.3g} < {one['exact at their step'][i]:.3g} < "
                f"{one['upper'][i]:.3g}; alpha {one['alpha'][i]:.3g}, beta {one['beta'][i]:.4f}; "
                f"tr/max {one['shape'][i]:.2f}"
            )
    return rows


if __name__ == "__main__":
    common.main(parts, figures, lines)
