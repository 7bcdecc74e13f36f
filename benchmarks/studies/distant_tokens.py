"""(e) How the kernel weighs a distant token, and which law of growth holds where.

The weight of a linear function of the first of L tokens in the infinite-width NTK, relative to its
diagonal, from the kernel's power series in the tokens' inner products: exact, no data. Over
multipliers, norms behind a fixed token, readouts and trained groups. Beside it the angles between
sequences of orthogonal tokens, and the exponent that docs/theory/complexity.md derives from them.
"""

from typing import Any

import common
import numpy as np
from matplotlib.figure import Figure

import rnntk
from rnntk.bounds.feature_weights import Steps, weights


def weight(rnn: rnntk.ElmanRNN, norms: np.ndarray, fixed: np.ndarray, at: int) -> float:
    """Of a linear function of one token, relative to the kernel's diagonal."""
    found = weights(rnn, Steps(norms, fixed), (at,), 1, 2)[1]
    x = np.zeros((1, len(norms), 2))
    x[0, :, 0] = np.sqrt(norms)
    return float(found * norms[at] / np.asarray(rnntk.infinite_kernel(rnn, x).ntk)[0, 0])


def mean_weights(length: int) -> np.ndarray:
    """Coefficients of <x_l, x'_k> in the NTK of the mean readout, at orthogonal unit tokens.

    Relu, w^2 = u^2 = 2, all groups. The outputs of steps s and s' see <x_l, x'_k> where
    s - l = s' - k, so that one run of the recursion serves all k - l = lag; derivatives by all of
    its inner products go along.
    """
    found = np.zeros((length, length))
    for lag in range(length):
        steps = length - lag
        state = slope = back = 0.0
        d_state, d_slope, d_back, total = np.zeros((4, steps))
        for i in range(1, steps + 1):
            pre, d_pre = 2 * state, 2 * d_state
            d_pre[i - 1] += 2
            back, d_back = (
                pre + 2 * slope * back,
                d_pre + 2 * (d_slope * back + slope * d_back),
            )
            size = 2 * np.sqrt(i * (i + lag))
            theta = np.arccos(pre / size)
            height = size * np.sin(theta)
            slope, d_slope = (np.pi - theta) / (2 * np.pi), d_pre / (2 * np.pi * height)
            state, d_state = height / (2 * np.pi) + slope * pre, slope * d_pre
            total += d_state + d_slope * back + slope * d_back
        np.fill_diagonal(found[:, lag:], total)
        np.fill_diagonal(found[lag:], total)
    return found / length**2


def mean_weight(length: int) -> float:
    """Of a linear function of the first token, for the mean readout, relative to the diagonal.

    Features of one output are sums over positions, and a function of the first token alone is what
    is left of the sums when those of later ones are subtracted: the inverse's entry, which no entry
    of the matrix shows.
    """
    tokens = np.eye(length)  # of one sequence too, unlike the last readout, which never pairs them
    own = np.asarray(rnntk.infinite_kernel(rnntk.ElmanRNN(readout="mean"), tokens[None]).ntk)[0, 0]
    norm = np.linalg.solve(mean_weights(length), tokens[0])[0]
    return 1 / float(norm * own)


def curve(lengths: list[int], setting: dict[str, Any]) -> dict[str, Any]:
    """Weights over lengths, and the law of growth of what they cost."""
    rnn = rnntk.ElmanRNN(
        setting.get("activation", "relu"),
        w_std=setting.get("w2", 2.0) ** 0.5,
        trainable=setting.get("trainable", ("W", "U", "b", "V")),
    )
    found = []
    for length in lengths:
        eps = setting.get("eps", 1.0)
        eps = length**-1.5 if eps == "L^-1.5" else eps
        fixed = np.zeros(length + bool(setting.get("fixed")), bool)
        norms = np.full(len(fixed), float(eps) ** 2)
        if setting.get("fixed"):
            fixed[0], norms[0] = True, 1.0
        at = int(fixed[0])
        mean = setting.get("readout") == "mean"
        found.append(mean_weight(length) if mean else weight(rnn, norms, fixed, at))
    with np.errstate(divide="ignore"):  # weights below float64's range cost infinity
        costs = 1 / np.array(found)
    reached = np.isfinite(costs)
    growth = rnntk.compare.growth(np.array(lengths)[reached], costs[reached])
    return {
        "lengths": lengths,
        "cost": costs,
        "best": growth.best,
        "margin": growth.margin,
        "laws": {name: law.formula for name, law in growth.laws.items()},
        "exponent": growth.laws["stretched exponential"].exponent,
    }


SETTINGS: dict[str, dict[str, Any]] = {
    "unit tokens": {},
    "w^2 = 1.8": {"w2": 1.8},
    "w^2 = 2.1": {"w2": 2.1},
    "w^2 = 2.5": {"w2": 2.5},
    "fixed token, eps = 1": {"fixed": True},
    "fixed token, eps = 0.1": {"fixed": True, "eps": 0.1},
    "fixed token, eps = 0.01": {"fixed": True, "eps": 0.01},
    "fixed token, eps = L^-1.5": {"fixed": True, "eps": "L^-1.5"},
    "mean readout": {"readout": "mean"},
    "only W": {"trainable": ("W",)},
    "only U": {"trainable": ("U",)},
    "only V": {"trainable": ("V",)},
    "W and U": {"trainable": ("W", "U")},
    "erf, w^2 = 1": {"activation": "erf", "w2": 1.0},
}


def angles(most: int) -> dict[str, Any]:
    """Angles between sequences of orthogonal unit tokens, w^2 = u^2 = 2, by the relu recursion."""
    theta, path = np.pi / 2, 0.0
    steps, found, logs = [], [], []
    for s in range(1, most + 1):
        if s > 1:
            state = (np.sin(theta) + (np.pi - theta) * np.cos(theta)) / np.pi
            theta = float(np.arccos((1 - 1 / s) * state))
        path -= np.log1p(-theta / np.pi)
        if s & (s - 1) == 0:
            steps.append(s)
            found.append(theta)
            logs.append(path)
    s = np.array(steps, float)
    return {
        "steps": steps,
        "theta s^(1/3)": np.array(found) * s ** (1 / 3),
        "path / L^(2/3)": np.array(logs) / s ** (2 / 3),
        "limit of theta s^(1/3)": (3 * np.pi) ** (1 / 3),
        "limit of path / L^(2/3)": 1.5 * (3 * np.pi) ** (1 / 3) / np.pi,
    }


def parts(full: bool) -> common.Parts:
    lengths = [2**k for k in range(2, 11 if full else 9)]
    found: dict[str, Any] = {
        name: lambda setting=setting: curve(lengths, setting) for name, setting in SETTINGS.items()
    }
    return {"angles": lambda: angles(2**20)} | found


GROUPS = {
    "multipliers": ["unit tokens", "w^2 = 1.8", "w^2 = 2.1", "w^2 = 2.5", "erf, w^2 = 1"],
    "norms": [
        "unit tokens",
        "fixed token, eps = 1",
        "fixed token, eps = 0.1",
        "fixed token, eps = 0.01",
        "fixed token, eps = L^-1.5",
    ],
    "groups": ["unit tokens", "mean readout", "only W", "only U", "only V"],
}


def figures(found: dict[str, Any]) -> dict[str, Figure]:
    figure = Figure(figsize=(13, 5.4), layout="constrained")
    for ax, (title, names) in zip(figure.subplots(ncols=3), GROUPS.items(), strict=True):
        for i, name in enumerate(names):
            one = found[name]
            label = f"{name}: {one['best']}"
            look = {"marker": "os^Dv"[i], "ls": ("-", "--", "-.", "-", ":")[i], "mfc": "none"}
            ax.semilogy(one["lengths"], common.finite(one["cost"]), label=label, **look)
        common.length_axis(ax, found["unit tokens"]["lengths"])
        ax.set_ylabel("diagonal / weight of the first token")
        ax.set_title(title, fontsize=10)
        ax.set_ylim(1, 1e25)
        ax.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    return {"weights": figure}


def lines(found: dict[str, Any]) -> list[str]:
    one = found["angles"]
    rows = [
        f"theta_s s^(1/3) at s = 2^20: {one['theta s^(1/3)'][-1]:.4f}, derived "
        f"{one['limit of theta s^(1/3)']:.4f}",
        f"path / L^(2/3) at L = 256 and 2^20: {one['path / L^(2/3)'][8]:.4f}, "
        f"{one['path / L^(2/3)'][-1]:.4f}, derived limit {one['limit of path / L^(2/3)']:.4f}",
    ]
    for name in SETTINGS:
        law = found[name]
        rows.append(
            f"{name}: {law['best']} by {law['margin']:.1f}, {law['laws'][law['best']]}; cost at "
            f"L = {law['lengths'][-1]}: {float(law['cost'][-1]):.3g}"
        )
    return rows


if __name__ == "__main__":
    common.main(parts, figures, lines)
