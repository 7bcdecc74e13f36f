"""The comparison's stage: how closely networks of several widths follow their kernels."""

import warnings
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from rnntk import compare, plot
from rnntk.datasets import Dataset
from rnntk.report.kernels import Arrays, Outcome
from rnntk.report.problem import Problem
from rnntk.report.results import Comparison, Gap
from rnntk.report.training import BATCH_SIZE, STABLE_FRACTION, trained_width
from rnntk.train import stable_rate

COLUMNS = ("gap_infinite", "gap_empirical", "gap_linearized", "kernel_drift", "flipped")
SEQUENCES = 64
"""Of the training, at the most: networks of ten outputs have kernels of 640 rows then."""


def comparison(problem: Problem, arrays: Arrays, bar: tqdm) -> Outcome:
    """Networks, linearized networks and gradient flows for the same time, at several widths.

    In float32, like the training, at a part of the rate that is stable at infinite width: the
    same for all, so that times agree. Networks that diverge are counted and left out; so are
    widths of which a network's outputs overflow before the first step.
    """
    settings, largest = problem.settings, trained_width(problem)
    widths = [w for w in settings.widths if w <= largest] or [largest]
    learn = problem.train.take(np.arange(min(SEQUENCES, len(problem.train))))
    n = len(learn)
    bar.reset(len(widths))
    empty = Comparison((), settings.seeds, settings.steps, min(BATCH_SIZE, n), n)
    kernel, limits = arrays["ntk"][:n, :n], np.finfo(np.float32)
    fits = float(np.abs(kernel).max()) < float(limits.max) / n
    if not fits or not stable_rate(kernel) < float(limits.max) / settings.steps:
        return Outcome(empty, {}, {})
    parts: list[compare.Comparison] = []
    overflowed: list[int] = []
    for width in widths:
        try:
            parts.append(_one_width(problem, learn, width))
        except FloatingPointError:  # one of its networks, before the first step
            overflowed.append(width)
        bar.update()
    if not parts:
        return Outcome(replace(empty, overflowed=tuple(overflowed)), {}, {})
    names = parts[0].table
    table = {name: np.concatenate([part.table[name] for part in parts]) for name in names}
    found = compare.Comparison(table, parts[0].settings)
    result = replace(
        empty,
        widths=found.widths,
        learning_rate=found.settings["learning_rate"],
        overflowed=tuple(overflowed),
        diverged=tuple(found.column("diverged").sum(axis=1).astype(int).tolist()),
        gaps={name: _gap(found, name) for name in COLUMNS},
    )
    kept = {f"comparison_{name}": values for name, values in table.items()}
    drawn = any(np.isfinite(gap.median).any() for gap in result.gaps.values())
    return Outcome(result, kept, {"by_width": plot.widths(found)} if drawn else {})


def _one_width(problem: Problem, learn: Dataset, width: int) -> compare.Comparison:
    settings, n = problem.settings, len(learn)
    x, lengths = problem.arrays(learn, "float32")
    with warnings.catch_warnings():  # divergence is a result here
        warnings.simplefilter("ignore", RuntimeWarning)
        return compare.with_kernel(
            problem.rnn,
            problem.key(0, 3 * settings.seeds),
            x,
            jnp.asarray(problem.targets[:n], jnp.float32),
            widths=[width],
            steps=settings.steps,
            seeds=settings.seeds,
            step_size=STABLE_FRACTION,
            batch_size=min(BATCH_SIZE, n),
            lengths=lengths,
        )


def _gap(found: compare.Comparison, name: str) -> Gap:
    values = found.column(name)
    with warnings.catch_warnings():  # a width of which no network is left has no median
        warnings.simplefilter("ignore", RuntimeWarning)
        median = np.nanmedian(values, axis=1)
    finite = np.isfinite(values)
    if len(values) < 2 or not finite.any(axis=1).all() or (values[finite] <= 0).any():
        return Gap(median)
    slope = found.slope(name)
    return Gap(median, slope.value, (slope.lower, slope.upper))
