"""(g) What is not learnt: parities over distant positions; and a target where the network wins.

Parities of the signs of the first entries of N tokens, over the span, unit tokens of size 3, L = 8:
kernel regression with the infinite-width NTK, and trained networks. Then a target of one direction
among 24, squared, where networks with small outputs, whose weights move far, beat their kernel.
"""

from functools import partial
from typing import Any

import common
import jax
import numpy as np
from matplotlib.figure import Figure

import rnntk

KEY = jax.random.key(19)
LENGTH = 8


def parity(at: list[int], full: bool) -> dict[str, Any]:
    """Test errors of kernel regression over numbers of samples; 1 is that of the mean."""
    counts = [2**k for k in range(5, 14 if full else 11)]
    rows, draws = [], 8 if full else 2
    for draw in range(draws):
        x = rnntk.datasets.unit_tokens(jax.random.fold_in(KEY, draw), counts[-1] + 512, LENGTH, 3)
        y = np.sign(x[:, np.array(at) - 1, 0]).prod(axis=1)
        n = counts[-1]
        K = np.asarray(rnntk.infinite_kernel(rnntk.ElmanRNN(), x, x[:n]).ntk)
        ridge = 1e-3 * K[0, 0]
        row = []
        for count in counts:
            square = (K[:count, :count] + K[:count, :count].T) / 2
            model = rnntk.predict.KernelRegression(square, y[:count], ridge)
            row.append(float(np.sqrt(np.mean((model.predict(K[n:, :count]) - y[n:]) ** 2))))
        rows.append(row)
    return {"counts": counts, "errors": np.mean(rows, axis=0), "positions": at}


def direction(v_std: float, full: bool) -> dict[str, Any]:
    """Networks of several output scales on (b' x_L)^2, tokens of size 24 and norm 1."""
    d, length, n = 24, 2, 400
    keys = jax.random.split(KEY, 2)
    x = rnntk.datasets.unit_tokens(keys[0], n + 400, length, d).astype(np.float32)
    y = np.square(x[:, -1, 0])
    y = (y - y.mean()) / y.std()
    found = rnntk.compare.with_kernel(
        rnntk.ElmanRNN(v_std=v_std),
        keys[1],
        x[:n],
        y[:n],
        x[n:],
        y[n:],
        widths=[256],
        steps=8000 if full else 1200,
        seeds=8 if full else 2,
        step_size=0.3,
        batch_size=None,
    )
    steps = list(found.steps)
    K = np.asarray(rnntk.infinite_kernel(rnntk.ElmanRNN(), x, x[:n]).ntk, np.float64)
    square = (K[:n] + K[:n].T) / 2
    ridges = K[0, 0] * np.geomspace(1e-4, 1e2, 25)  # the best for the test sequences: in its favour
    models = [rnntk.predict.KernelRegression(square, y[:n], float(ridge)) for ridge in ridges]
    unit = np.sqrt(np.mean(y[n:] ** 2))
    best = min(np.sqrt(np.mean((one.predict(K[n:]) - y[n:]) ** 2)) for one in models) / unit
    return {
        "kernel ridge": float(best),
        "steps": steps,
        "network": [float(found.column("error", step=s).mean()) for s in steps],
        "kernel": [float(found.column("error_infinite", step=s).mean()) for s in steps],
        "drift": [float(found.column("kernel_drift", step=s).mean()) for s in steps],
    }


SCALES = (1.0, 0.3, 0.1)
PARITIES = {
    "N = 1, the last": [8],
    "N = 1, the first": [1],
    "N = 2, span 1": [7, 8],
    "N = 2, span 7": [1, 8],
    "N = 3, span 2": [6, 7, 8],
    "N = 4, span 7": [1, 3, 6, 8],
}


def parts(full: bool) -> common.Parts:
    found: dict[str, Any] = {name: partial(parity, at, full) for name, at in PARITIES.items()}
    return found | {f"v_std = {v:g}": partial(direction, v, full) for v in SCALES}


def figures(found: dict[str, Any]) -> dict[str, Figure]:
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(ncols=2)
    for name, marker in zip(PARITIES, "os^DvP", strict=True):
        left.semilogx(found[name]["counts"], found[name]["errors"], marker + "-", ms=5, label=name)
    left.axhline(1, color="0.5", ls=":")
    left.set_xlabel("samples, kernel regression")
    left.set_ylabel("test error of a parity")
    for v, style in zip(SCALES, "o^s", strict=True):
        name = f"v_std = {v:g}"
        one = found[name]
        right.semilogx(
            one["steps"], common.finite(one["network"]), style + "-", ms=5, label=f"network, {name}"
        )
    right.semilogx(one["steps"], one["kernel"], "k--", label="kernel, gradient flow")
    right.axhline(one["kernel ridge"], color="k", ls=":", label="kernel, best ridge")
    right.set_xlabel("steps of gradient descent")
    right.set_ylabel("test error, one direction of 24, squared")
    left.set_ylim(0.45, 1.35)
    left.legend(fontsize=8, ncols=2, loc="upper center")
    right.legend(fontsize=8)
    return {"limits": figure}


def lines(found: dict[str, Any]) -> list[str]:
    rows = []
    for name in PARITIES:
        one = found[name]
        rows.append(f"{name}: " + " ".join(f"{v:.3f}" for v in one["errors"]))
    for name in (f"v_std = {v:g}" for v in SCALES):
        one = found[name]
        network = common.numbers(one["network"])
        rows.append(
            f"{name}: network {np.nanmin(network):.3f} at best, {network[-1]:.3f} at the end; "
            f"kernel {min(one['kernel']):.3f} at best, {one['kernel'][-1]:.3f} at the end, "
            f"moved by {common.numbers(one['drift'])[-1]:.2f}; best ridge {one['kernel ridge']:.3f}"
        )
    return rows


if __name__ == "__main__":
    common.main(parts, figures, lines)
