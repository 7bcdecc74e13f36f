"""The training's stage: networks trained by SGD, beside the kernel's gradient flow."""

import warnings
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from rnntk import plot
from rnntk.datasets import Dataset
from rnntk.empirical.kernel import empirical_kernel
from rnntk.predict import gradient_flow
from rnntk.report.kernels import Arrays, Outcome, relative
from rnntk.report.problem import Problem
from rnntk.report.results import Training
from rnntk.train import Trained, fit, stable_rate

BATCH_SIZE = 32
STABLE_FRACTION = 1 / 16
"""Learning rate over the largest that is stable on a network's own kernel."""
TRAINED_WIDTH = 256
"""The networks trained have the largest of the widths up to this one."""


class _Network(NamedTuple):
    """A trained network, and what it predicts."""

    rate: float
    losses: np.ndarray
    train: np.ndarray
    test: np.ndarray


def training(problem: Problem, arrays: Arrays, bar: tqdm) -> Outcome:
    """Networks trained by SGD, beside the kernel's gradient flow for the same time.

    They are trained in float32: it is three times as fast, and rounding is far below the noise
    of the batches. A network that diverges, or whose kernel overflows, is counted and left out.
    """
    settings, width = problem.settings, trained_width(problem)
    rates = np.full(settings.seeds, np.nan)
    diverged = np.zeros(settings.seeds, int)
    networks: list[_Network] = []
    bar.reset(settings.seeds)
    with warnings.catch_warnings():  # divergence is a result here
        warnings.simplefilter("ignore", RuntimeWarning)
        for seed in range(settings.seeds):
            rates[seed] = _rate(problem, width, seed)
            trained = _fit(problem, width, seed, rates[seed])
            if trained is not None:
                diverged[seed] = int(trained.diverged[0])
                if diverged[seed] < 0:
                    networks.append(
                        _Network(
                            rates[seed],
                            np.asarray(trained.losses[0], np.float64),
                            predict(trained, problem.train, problem),
                            predict(trained, problem.test, problem),
                        )
                    )
            bar.update()
    result = Training(
        width=width,
        seeds=settings.seeds,
        steps=settings.steps,
        batch_size=min(BATCH_SIZE, len(problem.train)),
        dtype="float32",
        learning_rates=rates,
        diverged=tuple(diverged.tolist()),
        metric=problem.metric,
    )
    return _compared(problem, arrays, result, networks) if networks else Outcome(result, {}, {})


def trained_width(problem: Problem) -> int:
    """The width that was asked for, or the largest of the usual ones."""
    settings = problem.settings
    usual = (w for w in settings.widths if w <= TRAINED_WIDTH)
    return settings.width_train or max(usual, default=settings.widths[0])


def _rate(problem: Problem, width: int, seed: int) -> float:
    """A part of what is stable on a network's own kernel; NaN if that overflows."""
    if problem.settings.learning_rate is not None:
        return problem.settings.learning_rate
    x, lengths = problem.arrays(problem.train, "float32")
    key = jax.random.fold_in(problem.key(width, problem.settings.seeds + seed), 0)
    params = problem.rnn.init(key, input_dim=x.shape[-1], width=width)
    try:
        kernel = empirical_kernel(problem.rnn, params, x, lengths1=lengths).ntk
    except FloatingPointError:
        return float("nan")
    rate, limits = STABLE_FRACTION * stable_rate(kernel), np.finfo(np.float32)
    return rate if float(limits.tiny) <= rate <= float(limits.max) else float("nan")


def _fit(problem: Problem, width: int, seed: int, rate: float) -> Trained | None:
    """A network that is trained; None if its kernel or its outputs overflow at initialization."""
    if not np.isfinite(rate):
        return None
    x, lengths = problem.arrays(problem.train, "float32")
    try:
        trained = fit(
            problem.rnn,
            problem.key(width, problem.settings.seeds + seed),
            x,
            jnp.asarray(problem.targets, jnp.float32),
            width=width,
            learning_rate=rate,
            steps=problem.settings.steps,
            batch_size=min(BATCH_SIZE, len(x)),
            lengths=lengths,
        )
    except FloatingPointError:
        return None
    # an interrupt ends the training of a network, which keeps what it has come to; here it ends all
    if trained.steps < problem.settings.steps and trained.diverged[0] < 0:
        raise KeyboardInterrupt
    return trained


def _compared(
    problem: Problem, arrays: Arrays, result: Training, networks: list[_Network]
) -> Outcome:
    """The networks that are finite, beside the flow."""
    steps, n = result.steps, len(problem.train)
    times = np.array([network.rate * steps for network in networks])

    def flow(kernel: np.ndarray, at: np.ndarray) -> np.ndarray:
        order = np.argsort(at)
        found = gradient_flow(arrays["ntk"], problem.targets, kernel, at[order])
        return found[np.argsort(order)]

    flows = flow(arrays["ntk_test_train"], times)
    middle = np.array([np.median(times)])
    typical = flow(arrays["ntk_test_train"], middle)[0]
    ensemble, mean_flow = np.mean([net.test for net in networks], axis=0), flows.mean(axis=0)
    # losses of single batches scatter: average them between steps that are even in the logarithm
    edges = np.unique(np.logspace(0, np.log10(steps), 40).astype(int)) - 1
    counts = np.diff(edges, append=steps)
    losses = np.stack([np.add.reduceat(net.losses, edges) / counts for net in networks])
    # the loss of a step is that before its update
    middles = (edges + np.append(edges[1:], steps) - 1) / 2
    loss_times = np.outer([net.rate for net in networks], middles)
    positive = loss_times[loss_times > 0]
    flow_times = np.geomspace(positive.min(), positive.max(), 60) if positive.size else times[:1]
    fitted = flow(arrays["ntk"], flow_times)
    flow_end = flow(arrays["ntk"], middle)[0]
    size = float(np.sum(mean_flow**2))
    result = replace(
        result,
        scores=tuple(problem.score(net.test) for net in networks),
        ensemble_score=problem.score(ensemble),
        flow_score=problem.score(typical),
        difference_to_flow=tuple(
            relative(net.test, one) for net, one in zip(networks, flows, strict=True)
        ),
        ensemble_difference_to_flow=relative(ensemble, mean_flow),
        ensemble_projection_on_flow=float(np.sum(ensemble * mean_flow)) / size if size else None,
        loss_times=loss_times,
        losses=losses,
        flow_times=flow_times,
        flow_losses=((fitted - problem.targets) ** 2).sum(axis=(1, 2)) / (2 * n),
        final_losses=tuple(
            float(((net.train - problem.targets) ** 2).sum()) / (2 * n) for net in networks
        ),
        flow_final_loss=float(((flow_end - problem.targets) ** 2).sum()) / (2 * n),
    )
    figures = {
        "losses": plot.losses(
            loss_times[:, 1:], losses[:, 1:], flow_times, np.asarray(result.flow_losses)
        ),
        "agreement": plot.predictions(mean_flow.ravel(), ensemble.ravel()),
    }
    return Outcome(result, {}, figures)


def predict(trained: Trained, data: Dataset, problem: Problem) -> Float[np.ndarray, "n o"]:
    """Predictions in pieces: the states of all sequences and steps need not fit at once."""
    pieces = []
    for index in np.array_split(np.arange(len(data)), -(-len(data) // 256)):
        x, lengths = problem.arrays(data.take(index), "float32")
        pieces.append(np.asarray(trained.predict(x, lengths)[0], np.float64))
    return np.concatenate(pieces)
