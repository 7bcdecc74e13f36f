"""(c) Targets at every position, only the recurrent weights trained: samples against the width.

The network of Allen-Zhu & Li (relu, outputs at every step, W alone trained), sums over earlier
tokens of one sine for each pair of positions, L = 4, tokens of size 3 between fixed ones and
without them. One pass of SGD over single sequences, the mean of the weights. Errors are in units of
the root mean square of the targets, over all positions.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import common
import jax
import numpy as np
from matplotlib.figure import Figure

import rnntk

KEY = jax.random.key(16)
LENGTH, SIZE = 4, 3


def tokens(key: jax.Array, n: int, eps: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Unit tokens, and what the network sees of them."""
    x = rnntk.datasets.unit_tokens(key, n, LENGTH, SIZE)
    return x, x if eps is None else rnntk.datasets.with_fixed_tokens(x, eps)


def targets(concept: rnntk.concepts.PerToken, x: np.ndarray, eps: float | None) -> np.ndarray:
    """At the positions of the network; 0 at fixed tokens."""
    y = concept(x)
    return y if eps is None else np.pad(y, ((0, 0), (1, 1), (0, 0)))


def study(width: int, eps: float | None, counts: list[int], draws: int) -> dict[str, Any]:
    """Test errors over numbers of samples, one row for each draw."""
    rnn, errors = rnntk.ElmanRNN.allen_zhu_li(), []
    for draw in range(draws):
        keys = jax.random.split(jax.random.fold_in(KEY, draw), 4)
        concept = rnntk.concepts.PerToken.draw(keys[0], LENGTH, SIZE, "sin")
        x, seen = tokens(keys[1], 256, eps)
        y = targets(concept, x, eps)
        unit = float(np.sqrt(np.mean(y**2)))
        K = np.asarray(rnntk.infinite_kernel(rnn, seen[:32]).ntk)
        rate = 0.3 / float(np.einsum("itit->i", K).mean())

        def blocks(
            count: int, key: jax.Array = keys[2], concept: Any = concept, unit: float = unit
        ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for number in range(count // 64):
                x, seen = tokens(jax.random.fold_in(key, number), 64, eps)
                y = targets(concept, x, eps) / unit
                yield seen.astype(np.float32), y.astype(np.float32)

        row = []
        for count in counts:
            trained = rnntk.train.fit(
                rnn,
                keys[3],
                blocks(count),  # without steps: one compiled program for all counts
                width=width,
                learning_rate=rate,
                batch_size=1,
                average=True,
            )
            learnt = trained.predict(seen.astype(np.float32), averaged=True)[0]
            row.append(float(np.sqrt(np.mean((np.asarray(learnt) - y / unit) ** 2))))
        errors.append(row)
    return {"counts": counts, "errors": errors}


def parts(full: bool) -> common.Parts:
    widths = [64, 128, 256, 512, 1024, 2048, 4096] if full else [64, 128, 256]
    counts = [2**k for k in range(6, 17 if full else 11)]
    return {
        f"{name}, width {width}": partial(study, width, eps, counts, 8 if full else 2)
        for name, eps in (("unit tokens", None), ("fixed tokens, eps = 0.3", 0.3))
        for width in widths
    }


def figures(found: dict[str, Any]) -> dict[str, Figure]:
    figure = Figure(figsize=(10, 4), layout="constrained")
    for ax, kind in zip(figure.subplots(ncols=2), ("unit tokens", "fixed"), strict=True):
        chosen = [name for name in found if name.startswith(kind)]
        for name, marker in zip(chosen, "os^DvPX", strict=False):
            one = found[name]
            mean = np.exp(np.log(common.numbers(one["errors"])).mean(axis=0))
            label = name.rsplit(", ", 1)[1]
            ax.semilogx(one["counts"], mean, marker=marker, ms=5, mfc="none", label=label)
        common.plain_log(ax)
        ax.set_title(chosen[0].rsplit(", ", 1)[0], fontsize=10)
        ax.set_xlabel("samples, one pass")
        ax.set_ylabel("test error / rms of the targets")
        ax.legend(fontsize=8)
    return {"widths": figure}


def lines(found: dict[str, Any]) -> list[str]:
    rows = []
    for name, one in found.items():
        mean = common.numbers(one["errors"]).mean(axis=0)
        pairs = zip(one["counts"], mean, strict=True)
        rows.append(f"{name}: " + ", ".join(f"{error:.2f} at {count}" for count, error in pairs))
    return rows


if __name__ == "__main__":
    common.main(parts, figures, lines)
