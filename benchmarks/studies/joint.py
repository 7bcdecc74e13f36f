"""(b) Functions of N positions jointly, over N and their span l_0.

Kernel regression with the infinite-width NTK on y = sin(beta' [x_l1, ..., x_lN]), unit tokens of
size 3, L = 16, the last position at the end, the others spread over the span. Beside the samples to
0.7 of the standard deviation, the analytic bound on y' K^-1 y over the target's mean square.
"""

from functools import partial
from typing import Any

import common
import jax
import numpy as np
from matplotlib.figure import Figure

import rnntk

KEY = jax.random.key(15)
LENGTH = 16


def positions(number: int, span: int) -> tuple[int, ...]:
    """The last at the end, the first ``span`` before it, even between."""
    return tuple(
        np.unique(np.round(np.linspace(LENGTH - span, LENGTH, number)).astype(int)).tolist()
    )


def draw(
    key: jax.Array, length: int, token_size: int, *, positions: tuple[int, ...]
) -> rnntk.concepts.NVariable:
    """|beta| = 2 for every N: the same function of one variable."""
    norm = 2 / len(positions) ** 0.5
    return rnntk.concepts.NVariable.draw(key, length, token_size, positions, "sin", norm=norm)


def samples(concept: Any, full: bool) -> Any:
    """Samples that kernel regression needs, with their interval."""
    found = rnntk.compare.sample_complexity(
        rnntk.ElmanRNN(),
        concept,
        [LENGTH],
        KEY,
        token_size=3,
        draws=8 if full else 2,
        most=8192 if full else 512,
        error=0.7,
        sgd_most=16,
    )
    return found.interval("kernel")[0]


def study(number: int, span: int, full: bool) -> dict[str, Any]:
    at = positions(number, span)

    concept = partial(draw, positions=at)
    rnn = rnntk.ElmanRNN()
    x = rnntk.datasets.unit_tokens(jax.random.fold_in(KEY, 1), 200, LENGTH, 3)
    target = concept(jax.random.fold_in(KEY, 2), LENGTH, 3)
    bound = rnntk.bounds.complexity_bound(rnn, x, target, degree=9 if number < 3 else 7)
    K = np.asarray(rnntk.infinite_kernel(rnn, x).ntk)
    y = target(x)
    truth = rnntk.bounds.generalization(K, y).complexity
    return {
        "positions": at,
        "samples": samples(concept, full),
        "bound": bound.value / np.mean(y**2) * K[0, 0],
        "complexity of 200 samples": float(truth) / np.mean(y**2) * K[0, 0],
    }


def parts(full: bool) -> common.Parts:
    found: dict[str, Any] = {}
    for number in (1, 2, 3):
        for span in (0, 1, 2, 4, 8, 12):
            if len(positions(number, span)) == number and (number > 1 or span == 0):
                found[f"N = {number}, span {span}"] = partial(study, number, span, full)
    for lag in (1, 2, 4, 8, 12):  # one token at a distance from the end
        found[f"one token, {lag} before the end"] = partial(_distant, lag, full)
    return found


def _distant(lag: int, full: bool) -> dict[str, Any]:
    at = (LENGTH - lag,)
    return {"positions": at, "samples": samples(partial(draw, positions=at), full)}


def figures(found: dict[str, Any]) -> dict[str, Figure]:
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(ncols=2)
    for number, marker in zip((1, 2, 3), "os^", strict=True):
        spans, samples, bounds = [], [], []
        look = {"marker": marker, "label": f"$N = {number}$"}
        for span in (0, 1, 2, 4, 8, 12):
            one = found.get(f"N = {number}, span {span}")
            if one:
                spans.append(span)
                samples.append(one["samples"])
                bounds.append(float(one["bound"]))
        common.error_bars(left, spans, samples, **look)
        right.semilogy(spans, common.finite(bounds), **look)
    lags = (1, 2, 4, 8, 12)
    far = [found[f"one token, {lag} before the end"]["samples"] for lag in lags]
    label = "one token, so far from the end"
    common.error_bars(left, lags, far, marker="D", ls="--", color="0.4", label=label)
    common.plain_log(left)
    left.set_ylabel("samples, kernel regression")
    right.set_ylabel(r"bound on $y^T K^{-1} y$, scale-free")
    for ax in (left, right):
        ax.set_xlabel("span $l_0$ (distance from the end)")
        ax.legend(fontsize=8)
    return {"span": figure}


def lines(found: dict[str, Any]) -> list[str]:
    rows = []
    for name, one in found.items():
        mean, low, high = common.numbers(one["samples"])
        rows.append(f"{name}: {mean:.3g} samples ({low:.3g} to {high:.3g})")
        if "bound" in one:
            rows[-1] += (
                f"; complexity {float(one['complexity of 200 samples']):.3g} on 200 samples, bound "
                f"{float(one['bound']):.3g}"
            )
    return rows


if __name__ == "__main__":
    common.main(parts, figures, lines)
