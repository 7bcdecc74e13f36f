"""The comparison of trained networks with their kernels."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Float, Int, PRNGKeyArray, Real
from tqdm import tqdm

from rnntk import checks
from rnntk.compare.comparison import Comparison
from rnntk.compare.flow import flow
from rnntk.compare.measures import Measures, learnt
from rnntk.compare.problem import Problem, check
from rnntk.empirical.kernel import empirical_kernel
from rnntk.infinite.kernel import infinite_kernel
from rnntk.network.elman import ElmanRNN
from rnntk.train import Trained, fit, linearize, stable_rate

KERNEL_OF = 64
"""Sequences on which the drift of the kernel is measured."""
RECORDS = 12
"""Steps that are recorded by default, even in the logarithm."""


def with_kernel(
    rnn: ElmanRNN,
    key: PRNGKeyArray,
    x: Float[ArrayLike, "n t d"],
    y: Real[ArrayLike, " n"] | Real[ArrayLike, "n o"] | Real[ArrayLike, "n t o"],
    x_test: Float[ArrayLike, "n_test t d"] | None = None,
    y_test: Real[ArrayLike, "..."] | None = None,
    *,
    widths: Sequence[int],
    steps: int,
    seeds: int = 8,
    step_size: float = 0.1,
    batch_size: int | None = None,
    record: Sequence[int] | None = None,
    lengths: Int[ArrayLike, " n"] | None = None,
    lengths_test: Int[ArrayLike, " n_test"] | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = False,
) -> Comparison:
    r"""Train networks of several widths on the squared loss, and compare them with their kernels.

    Each network is trained through its change since initialization, as in :func:`rnntk.train.fit`,
    and so is its linearization, by the same steps on the same batches. Beside them stand gradient
    flow with the infinite-width kernel and with the network's own kernel at initialization, at the
    same times. The theory of the lazy regime (Jacot, Gabriel & Hongler 2018; Lee et al. 2019) has
    all gaps fall with the width, like its power -1/2 for the infinite-width kernel, as the
    empirical kernel is that far from it. The output scale ``rnn.v_std`` decides how far weights
    move to fit the labels (Chizat, Oyallon & Bach 2019): the larger, the lazier, at any width.

    Args:
        rnn: the architecture.
        key: JAX random key; the networks of a width start from ``jax.random.fold_in(key, width)``.
        x: tokens of the training sequences.
        y: their labels; for the ``"sequence"`` readout one for every step.
        x_test: tokens of test sequences, with as many steps.
        y_test: their labels.
        widths: numbers of hidden units.
        steps: number of updates.
        seeds: networks of each width.
        step_size: learning rate, as a part of the largest that is stable on the infinite-width
            kernel (:func:`rnntk.train.stable_rate`): the same at every width.
        batch_size: sequences per step; all if None.
        record: steps at which to measure; by default a dozen, even in the logarithm.
        lengths: number of steps of each training sequence.
        lengths_test: likewise of each test sequence.
        checkpoint: a folder, to which the training of each width is written, and from which the
            same call goes on.
        progress: show progress bars.

    Returns:
        The comparison. After an interrupt from the keyboard, of the widths that were finished.

    Raises:
        TypeError, ValueError, FloatingPointError: as :func:`rnntk.train.fit` and
            :func:`rnntk.infinite_kernel`.

    Example:
        >>> import jax, rnntk
        >>> x = jax.random.normal(jax.random.key(0), (6, 4, 3))
        >>> found = rnntk.compare.with_kernel(rnntk.ElmanRNN(), jax.random.key(1), x, x[:, 0, 0],
        ...                                   widths=[16, 32], steps=10, seeds=2)
        >>> found.column("gap_linearized").shape
        (2, 2)
    """
    checks.check_key(key)
    problem = check(rnn, x, y, x_test, y_test, lengths, lengths_test)
    if np.ndim(widths) != 1:
        raise TypeError(f"widths must be a sequence of whole numbers, got {widths!r}.")
    chosen = sorted({checks.check_size("widths", width) for width in widths})
    if not chosen:
        raise ValueError("widths must hold at least one width, got none.")
    checks.check_size("steps", steps)
    checks.check_size("seeds", seeds)
    checks.check_positive("step_size", step_size)
    if record is not None and (np.ndim(record) != 1 or np.asarray(record).dtype.kind not in "iu"):
        raise TypeError(f"record must be a sequence of whole numbers, got {record!r}.")
    n = len(problem.y)
    one, two = problem.lengths, problem.train_lengths
    kernel = infinite_kernel(rnn, problem.x, problem.x[:n], lengths1=one, lengths2=two)
    limit = np.asarray(kernel.ntk)
    points = limit[:n].reshape(problem.y[..., 0].size, -1)
    rate = step_size * stable_rate(((points + points.T) / 2).reshape(limit[:n].shape))
    if record is None:
        record = [0, *np.unique(np.geomspace(1, steps, RECORDS).astype(int)).tolist()]
    run = _Run(
        rnn=rnn,
        key=key,
        problem=problem,
        rate=rate,
        steps=steps,
        seeds=seeds,
        batch_size=batch_size,
        record=tuple(record),
        checkpoint=checkpoint,
    )
    times = rate * np.array(sorted(set(record)), float)
    infinite = flow(limit, problem.y, times)
    columns: list[dict[str, np.ndarray]] = []
    for width in tqdm(chosen, desc="widths", disable=not progress):
        found = run.width(width, infinite, times, progress)
        if found is None:
            if not columns:
                raise KeyboardInterrupt
            warnings.warn(
                f"the comparison was interrupted at width {width}; smaller ones are returned.",
                RuntimeWarning,
                stacklevel=2,
            )
            break
        columns.append(found)
    table = {name: np.concatenate([part[name] for part in columns]) for name in columns[0]}
    settings = {
        "learning_rate": rate,
        "step_size": step_size,
        "steps": steps,
        "seeds": seeds,
        "batch_size": batch_size,
        "train_sequences": n,
        "test_sequences": len(problem.x) - n,
        "dtype": str(problem.x.dtype),
    }
    return Comparison(table, settings)


@dataclass(frozen=True, eq=False)
class _Run:
    """What is the same at all widths."""

    rnn: ElmanRNN
    key: PRNGKeyArray
    problem: Problem
    rate: float
    steps: int
    seeds: int
    batch_size: int | None
    record: tuple[int, ...]
    checkpoint: str | Path | None

    def width(
        self,
        width: int,
        infinite: Float[np.ndarray, "k n *s o"],
        times: Float[np.ndarray, " k"],
        progress: bool,
    ) -> dict[str, np.ndarray] | None:
        """The columns of one width; None after an interrupt."""
        p = self.problem
        y = jnp.asarray(p.y, p.x.dtype)
        measures = Measures(self.rnn, p.x, p.lengths, y, min(KERNEL_OF, len(p.y)))
        metrics = {
            "outputs": Partial(learnt, self.rnn, p.x, p.lengths),
            "kernel": Partial(Measures.kernel, measures),
            "movement": Partial(Measures.movement, measures),
            "flipped": Partial(Measures.flipped, measures),
        }
        trained = self._fit(self.rnn, width, metrics, "network", progress)
        line = linearize(self.rnn)
        outputs = {"outputs": Partial(learnt, line, p.x, p.lengths)}
        linear = self._fit(line, width, outputs, "linearized", progress)
        if min(trained.steps, linear.steps) < self.steps:
            return None
        networks = range(self.seeds)
        empirical = np.stack([self._empirical_flow(trained, i, times) for i in networks])
        predicted = {
            "infinite": np.broadcast_to(infinite, empirical.shape),
            "empirical": empirical,
            "linearized": np.asarray(linear.metrics["outputs"], float),
        }
        return self._columns(width, trained, predicted)

    def _fit(self, function: Any, width: int, metrics: Any, name: str, progress: bool) -> Trained:
        p = self.problem
        n = len(p.y)
        path = None if self.checkpoint is None else Path(self.checkpoint) / f"{name}-{width}.npz"
        return fit(
            function,
            jax.random.fold_in(self.key, width),
            p.x[:n],
            p.y,
            width=width,
            learning_rate=self.rate,
            steps=self.steps,
            seeds=self.seeds,
            batch_size=self.batch_size,
            lengths=p.train_lengths,
            metrics=metrics,
            record=self.record,
            checkpoint=path,
            progress=progress,
        )

    def _empirical_flow(
        self, trained: Trained, network: int, times: Float[np.ndarray, " k"]
    ) -> Float[np.ndarray, "k n *s o"]:
        p = self.problem
        params = jax.tree.map(lambda leaf: leaf[network], trained.initial_params)
        try:
            kernel = empirical_kernel(
                self.rnn,
                params,
                p.x,
                p.x[: len(p.y)],
                lengths1=p.lengths,
                lengths2=p.train_lengths,
                outputs="full",  # which outputs share at infinite width only
            )
        except FloatingPointError:  # it overflows, of one network among others
            return np.full((len(times), len(p.x), *p.y.shape[1:]), np.nan)
        return flow(np.asarray(kernel.ntk), p.y, times)

    def _columns(
        self, width: int, trained: Trained, predicted: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """A row for each network and recorded step."""
        p, n, (seeds, k) = self.problem, len(self.problem.y), (self.seeds, len(trained.recorded))
        steps = np.array(trained.recorded)
        shape = np.ones((seeds, k))
        late = trained.diverged[:, None] <= steps[None, :]
        found: dict[str, np.ndarray] = {
            "width": (width * shape).astype(int),
            "seed": (np.arange(seeds)[:, None] * shape).astype(int),
            "step": (steps[None, :] * shape).astype(int),
            "time": self.rate * steps[None, :] * shape,
            "diverged": ((trained.diverged[:, None] >= 0) & late).astype(int),
        }
        outputs = np.asarray(trained.metrics["outputs"], float)
        functions = {"": outputs} | {f"_{kind}": values for kind, values in predicted.items()}
        tested = slice(n, None) if p.y_test is not None else slice(None, n)
        unit = _rms(p.y, 0)
        for kind, values in predicted.items():
            found[f"gap_{kind}"] = _rms((outputs - values)[:, :, tested], 2) / unit
        for suffix, values in functions.items():
            squares = np.square(values[:, :, :n] - p.y)
            found[f"loss{suffix}"] = squares.reshape(seeds, k, -1).sum(axis=-1) / (2 * n)
            if p.y_test is not None:
                error = values[:, :, n:] - p.y_test
                found[f"error{suffix}"] = _rms(error, 2) / _rms(p.y_test, 0)
                if p.y.shape[-1] > 1:
                    wrong = values[:, :, n:].argmax(axis=-1) != p.y_test.argmax(axis=-1)
                    share = wrong.reshape(seeds, k, -1).mean(axis=-1)
                    gone = np.isnan(found[f"error{suffix}"])
                    found[f"misclassified{suffix}"] = np.where(gone, np.nan, share)
        found["kernel_drift"], found["alignment"] = np.moveaxis(trained.metrics["kernel"], -1, 0)
        for i, group in enumerate(self.rnn.trainable):
            found[f"movement_{group}"] = trained.metrics["movement"][..., i]
        found["flipped"] = trained.metrics["flipped"]
        return {name: np.asarray(values).reshape(-1) for name, values in found.items()}


def _rms(values: Float[np.ndarray, "..."], kept: int) -> Float[np.ndarray, "..."]:
    """Root mean square over all but the first axes."""
    return np.asarray(np.sqrt(np.square(values).mean(axis=tuple(range(kept, values.ndim)))))
