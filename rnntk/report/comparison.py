"""The comparison's stage: how closely networks of several widths follow their kernels."""

import warnings

import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from rnntk import compare, plot
from rnntk.report.kernels import Arrays, Outcome
from rnntk.report.problem import Problem
from rnntk.report.results import Comparison, Gap
from rnntk.report.training import BATCH_SIZE, STABLE_FRACTION, trained_width

COLUMNS = ("gap_infinite", "gap_empirical", "gap_linearized", "kernel_drift", "flipped")
SEQUENCES = 64
"""Of the training, at the most: networks of ten outputs have kernels of 640 rows then."""


def comparison(problem: Problem, arrays: Arrays, bar: tqdm) -> Outcome:
    """Networks, linearized networks and gradient flows for the same time, at several widths.

    In float32, like the training, at a part of the rate that is stable at infinite width: the
    same for all, so that times agree. Networks that diverge are counted and left out.
    """
    settings, largest = problem.settings, trained_width(problem)
    widths = [w for w in settings.widths if w <= largest] or [largest]
    learn = problem.train.take(np.arange(min(SEQUENCES, len(problem.train))))
    x, lengths = problem.arrays(learn, "float32")
    n = len(x)
    bar.reset(len(widths))
    empty = Comparison(tuple(widths), settings.seeds, settings.steps, min(BATCH_SIZE, n), n)
    if not float(np.abs(arrays["ntk"]).max()) < float(np.finfo(np.float32).max) / len(
        arrays["ntk"]
    ):
        return Outcome(empty, {}, {})
    with warnings.catch_warnings():  # divergence is a result here
        warnings.simplefilter("ignore", RuntimeWarning)
        found = compare.with_kernel(
            problem.rnn,
            problem.key(0, 3 * settings.seeds),
            x,
            jnp.asarray(problem.targets[:n], jnp.float32),
            widths=widths,
            steps=settings.steps,
            seeds=settings.seeds,
            step_size=STABLE_FRACTION,
            batch_size=min(BATCH_SIZE, n),
            lengths=lengths,
        )
    if len(found.widths) < len(widths):  # an interrupt, which ends all here
        raise KeyboardInterrupt
    bar.update(len(widths))
    result = Comparison(
        widths=found.widths,
        seeds=settings.seeds,
        steps=settings.steps,
        batch_size=min(BATCH_SIZE, n),
        sequences=n,
        learning_rate=found.settings["learning_rate"],
        diverged=tuple(found.column("diverged").sum(axis=1).astype(int).tolist()),
        gaps={name: _gap(found, name) for name in COLUMNS},
    )
    table = {f"comparison_{name}": values for name, values in found.table.items()}
    drawn = any(np.isfinite(gap.median).any() for gap in result.gaps.values())
    return Outcome(result, table, {"by_width": plot.widths(found)} if drawn else {})


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
