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
MAML = ("MAML, power law", "MAML, features of a linearized RNN")


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
    """Risk and shape of the spectrum over adaptation rates; a power law, or a kernel's."""
    if features == "power law":
        values = 1 / np.arange(1.0, 31) ** 1.5
        errors = np.ones(30)
    else:
        found = problem(4, 600)[0].problem
        values, errors = found.eigenvalues[:30] / found.eigenvalues[0], found.errors[:30]
        errors = errors / np.sqrt(errors**2 @ values)
    rates = np.linspace(-0.5, 1.5, 17 if full else 9)
    counts = [2**k for k in range(4, 13 if full else 11)]
    rows: dict[str, Any] = {"rates": rates, "counts": counts, "risk": [], "shape": [], "head": []}
    rows |= {"bound": [], "gaussian": []}
    for rate in rates:
        meta = sgd_risk.MetaRegression(
            values, errors, np.full(len(values), 0.05), noise=0.1, rate=float(rate), inner=10
        )
        step = 0.1 / float(meta.adapted.sum())
        risks = meta.simulate(KEY, step, counts, runs=64 if full else 16)
        rows["risk"].append(risks.mean(axis=0))
        small = 0.9 * sgd_risk.step_limit(meta.problem, meta.alpha)
        bound = sgd_risk.upper_bound(meta.problem, small, counts[-1], alpha=meta.alpha)
        rows["bound"].append(bound.value)
        # what Gaussian features of the same covariance, and independent noise, would give
        noise = float(meta.adapted @ meta.diversity) + 0.1
        plain = sgd_risk.LeastSquares(meta.adapted, errors, noise)
        rows["gaussian"].append(sgd_risk.exact_risk(plain, step, counts))
        rows["shape"].append(float(meta.adapted.sum() / meta.adapted.max()))
        rows["head"].append(sgd_risk.upper_bound(plain, step, counts[-1]).head)
    return rows


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
        axes[2].loglog(one["counts"], one[name], style, label=name)
    axes[2].set_title("networks, L = 4", fontsize=10)
    for ax in axes:
        ax.set_xlabel("samples $N$")
        ax.legend(fontsize=8)
    meta = Figure(figsize=(10, 4), layout="constrained")
    for ax, name in zip(
        meta.subplots(ncols=2),
        ("MAML, power law", "MAML, features of a linearized RNN"),
        strict=True,
    ):
        one = found[name]
        risk = np.array(one["risk"])
        for k, style in ((0, "o:"), (len(one["counts"]) // 2, "s--"), (-1, "^-")):
            ax.semilogy(one["rates"], risk[:, k], style, label=f"{one['counts'][k]} tasks")
        ax.semilogy(one["rates"], one["bound"], "k-.", label=f"bound, {one['counts'][-1]} tasks")
        ax.set_xlabel("adaptation rate $a$")
        ax.set_ylabel("excess risk")
        ax.set_title(name, fontsize=10)
        ax.legend(fontsize=8)
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
            rows.append(
                f"{name}, a = {rate:.2f}: risk {risk}; Gaussian {one['gaussian'][i][-1]:.3g}; "
                f"bound {one['bound'][i]:.3g}; tr/max {one['shape'][i]:.2f}; head {one['head'][i]}"
            )
    return rows


if __name__ == "__main__":
    common.main(parts, figures, lines)
