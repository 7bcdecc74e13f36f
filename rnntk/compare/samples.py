"""How many samples it takes to learn a concept, against the length of the sequences."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray
from tqdm import tqdm

from rnntk import checks, datasets, sgd_risk
from rnntk.compare.sample_table import SampleComplexity, load_rows, save_rows
from rnntk.concepts import Additive, NVariable
from rnntk.files import fingerprint
from rnntk.infinite.kernel import infinite_kernel
from rnntk.network.description import describe
from rnntk.network.elman import ElmanRNN
from rnntk.predict import KernelRegression
from rnntk.train import fit, linearize

Concept = Additive | NVariable
SMALLEST = 4
"""Samples from which on errors of kernel regression are looked at."""
SMALLEST_SGD = 16
"""Likewise of SGD."""
RIDGE = 1e-6
"""Of kernel regression, relative to the mean of the kernel's diagonal."""


def sample_complexity(
    rnn: ElmanRNN,
    concept: Callable[[PRNGKeyArray, int, int], Concept],
    lengths: Sequence[int],
    key: PRNGKeyArray,
    *,
    token_size: int = 4,
    tokens: Callable[[PRNGKeyArray, int, int, int], Float[np.ndarray, "n t d"]] | None = None,
    embed: Callable[[Float[np.ndarray, "n t d"]], Float[np.ndarray, "n t2 d2"]] | None = None,
    error: float = 0.5,
    draws: int = 4,
    most: int = 512,
    sgd_most: int = 4096,
    width: int | None = None,
    step_size: float = 0.3,
    n_test: int = 256,
    checkpoint: str | Path | None = None,
    progress: bool = False,
) -> SampleComplexity:
    r"""Samples to reach a test error on a concept, for several lengths of the sequences.

    Errors are root mean squares on fresh sequences in units of the targets' standard deviation;
    targets are brought to mean 0 and variance 1. Learners and predictions are

    - ``kernel``: kernel regression with the infinite-width NTK, ridge 1e-6 of its diagonal;
    - ``network``, ``linearized``: a network of some width, and its expansion at initialization, by
      one pass of SGD over single samples, the mean of the parameters after each step;
    - ``exact``, ``upper``, ``lower``: :mod:`rnntk.sgd_risk` for the same SGD on the infinite-width
      kernel, its spectrum from ``most`` samples: the risk as if features were Gaussian, and N from
      which Theorem 2.1 says that the error is reached, and up to which Theorem 2.2 says that it
      is not, NaN where that is below its 500; NaN for steps that a theorem does not cover;
    - ``rademacher``: n at which :math:`2 \sqrt{\kappa\, y^\top K^{-1} y / n}` is the error, with
      :math:`\kappa` the mean of K's diagonal and the quadratic form that of ``most`` samples.

    Numbers between those that were tried come from lines in logarithms; infinity means that the
    largest tried was not enough.

    Args:
        rnn: the network; last or mean readout.
        concept: draws one from a key, a length and a token size, as
            :meth:`rnntk.concepts.Additive.draw` does.
        lengths: of the sequences, ascending.
        key: JAX random key.
        token_size: d.
        tokens: draws sequences from a key, their number, length and token size;
            :func:`rnntk.datasets.unit_tokens` by default.
        embed: what the network sees of the tokens, such as
            :func:`rnntk.datasets.with_fixed_tokens`; the tokens themselves by default.
        error: to be reached, in (0, 1).
        draws: concepts, data and networks drawn anew, for each length.
        most: largest number of samples of kernel regression.
        sgd_most: likewise of SGD.
        width: of networks; without it none are trained.
        step_size: of SGD, times the trace of H. Theorem 2.1 asks for less than 1/3.
        n_test: fresh sequences for the error.
        checkpoint: a file to which each length and draw is written, and from which the same call
            goes on.
        progress: show a progress bar.

    Raises:
        TypeError, ValueError: for what is out of range, a per-step readout, or a checkpoint of
            another call.

    Example:
        >>> import jax, rnntk
        >>> found = rnntk.compare.sample_complexity(
        ...     rnntk.ElmanRNN(), rnntk.concepts.Additive.draw, [1, 2], jax.random.key(0),
        ...     draws=1, most=32, sgd_most=64)
        >>> found.column("kernel").shape
        (2, 1)
    """
    if rnn.r.per_step:
        raise ValueError(f"rnn must have one output a sequence, got readout={rnn.readout!r}.")
    checks.check_key(key)
    checks.check_positive("error", error, most=1.0)
    checks.check_positive("step_size", step_size)
    if width is not None:
        checks.check_size("width", width)
    chosen = _check_lengths(lengths)
    for name, size in (("draws", draws), ("n_test", n_test), ("token_size", token_size)):
        checks.check_size(name, size)
    checks.check_size("most", most, SMALLEST)
    checks.check_size("sgd_most", sgd_most, SMALLEST_SGD)
    trial = _Trial(
        rnn=rnn,
        concept=concept,
        tokens=datasets.unit_tokens if tokens is None else tokens,
        embed=(lambda x: x) if embed is None else embed,
        token_size=token_size,
        error=error,
        sizes=_sizes(SMALLEST, most),
        sgd_sizes=_sizes(SMALLEST_SGD, sgd_most),
        width=width,
        step_size=step_size,
        n_test=n_test,
    )
    settings: dict[str, Any] = {
        "rnn": repr(rnn),
        "token_size": token_size,
        "error": error,
        "most": most,
        "sgd_most": sgd_most,
        "width": width,
        "step_size": step_size,
        "n_test": n_test,
    }
    problem = settings | describe(rnn) | trial.example(key, chosen[0])
    rows = load_rows(checkpoint, problem)
    wanted = [(length, draw) for length in chosen for draw in range(draws)]
    for length, draw in tqdm(wanted, desc="lengths and draws", disable=not progress):
        if (length, draw) not in rows:
            rows[length, draw] = trial.row(
                jax.random.fold_in(jax.random.fold_in(key, length), draw), length
            )
            save_rows(checkpoint, problem, rows)
    names = ("kernel", "network", "linearized", "exact", "upper", "lower", "rademacher")
    table = {
        "length": np.array([length for length, _ in wanted]),
        "draw": np.array([draw for _, draw in wanted]),
    } | {name: np.array([rows[one].get(name, np.nan) for one in wanted]) for name in names}
    return SampleComplexity(table, settings)


@dataclass(frozen=True, eq=False)
class _Trial:
    """What is the same for all lengths and draws."""

    rnn: ElmanRNN
    concept: Callable[[PRNGKeyArray, int, int], Concept]
    tokens: Callable[[PRNGKeyArray, int, int, int], np.ndarray]
    embed: Callable[[np.ndarray], np.ndarray]
    token_size: int
    error: float
    sizes: list[int]
    sgd_sizes: list[int]
    width: int | None
    step_size: float
    n_test: int

    def example(self, key: PRNGKeyArray, length: int) -> dict[str, str]:
        """What tells functions of one name apart: a concept, and what is seen of its tokens."""
        if not callable(self.concept):
            raise TypeError(
                f"concept must draw concepts, as Additive.draw does, got {self.concept!r}."
            )
        concept = self.concept(key, length, self.token_size)
        if not isinstance(concept, Additive | NVariable):
            raise TypeError(f"concept must draw an Additive or an NVariable, got {concept}.")
        x, shape = self.tokens(key, 2, length, self.token_size), (2, length, self.token_size)
        if np.shape(x) != shape:
            raise ValueError(
                f"tokens must draw arrays of the shape they are asked for, got {np.shape(x)} for "
                f"{shape}."
            )
        seen = self.embed(x)
        if len(seen) != 2:
            raise ValueError(
                f"embed must return as many sequences as it gets, got {len(seen)} for 2."
            )
        return {
            "key": str(np.asarray(jax.random.key_data(key)).tolist()),
            "concept": str(concept),
            "tokens": fingerprint(np.asarray(seen)),
        }

    def row(self, key: PRNGKeyArray, length: int) -> dict[str, float]:
        """Numbers of samples by name."""
        keys = jax.random.split(key, 4)
        concept = self.concept(keys[0], length, self.token_size)
        n = self.sizes[-1]
        x = self.tokens(keys[1], n + self.n_test, length, self.token_size)
        y = concept(x)
        mean, std = float(y[n:].mean()), float(y[n:].std())
        if std == 0:
            raise ValueError(f"concept must vary between sequences, got {mean:.3g} for all.")
        y = (y - mean) / std
        seen = jnp.asarray(self.embed(x))
        K = np.asarray(infinite_kernel(self.rnn, seen, seen[:n]).ntk, np.float64)
        square = (K[:n] + K[:n].T) / 2
        found = {"kernel": _crossing(self.sizes, self._regression(K, y), self.error)}
        found |= self._predictions(square, y[:n])
        if self.width is not None:
            rate = self.step_size / float(square.diagonal().mean())
            stream = _Stream(self, keys[2], concept, mean, std)
            for name, function in (("network", self.rnn), ("linearized", linearize(self.rnn))):
                errors = [
                    self._trained(function, keys[3], stream, rate, size, seen[n:], y[n:])
                    for size in self.sgd_sizes
                ]
                found[name] = _crossing(self.sgd_sizes, errors, self.error)
        return found

    def _regression(self, K: np.ndarray, y: np.ndarray) -> list[float]:
        n = self.sizes[-1]
        ridge = RIDGE * float(np.mean(K[:n].diagonal()))
        errors = []
        for size in self.sizes:
            square = (K[:size, :size] + K[:size, :size].T) / 2
            model = KernelRegression(square, y[:size], ridge)
            errors.append(_rms(model.predict(K[n:, :size]) - y[n:]))
        return errors

    def _predictions(self, K: np.ndarray, y: np.ndarray) -> dict[str, float]:
        """What the spectrum says of SGD, and the quadratic form of the error."""
        problem = sgd_risk.population(K, y).problem
        step, goal = self.step_size / problem.trace, self.error**2 / 2
        risk = sgd_risk.exact_risk(problem, step, self.sgd_sizes)
        found = {"exact": _crossing(self.sgd_sizes, np.sqrt(2 * risk), self.error)}
        if step < sgd_risk.step_limit(problem):
            found["upper"] = _first(
                lambda n: sgd_risk.upper_bound(problem, step, n).value <= goal, SMALLEST
            )
        least = sgd_risk.LEAST
        if step < 1 / problem.eigenvalues[0]:
            low = _first(lambda n: sgd_risk.lower_bound(problem, step, n).value <= goal, least)
            if low > least:  # where the theorem begins it says nothing
                found["lower"] = low
        size = float(np.mean(K.diagonal()))
        shifted = K + RIDGE * size * np.eye(len(K))
        found["rademacher"] = 4 * size * float(y @ np.linalg.solve(shifted, y)) / self.error**2
        return found

    def _trained(
        self,
        function: Any,
        key: PRNGKeyArray,
        stream: "_Stream",
        rate: float,
        size: int,
        x_test: jax.Array,
        y_test: np.ndarray,
    ) -> float:
        assert self.width is not None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of networks that diverge: infinity
            trained = fit(
                function,
                key,
                stream.blocks(size),  # without steps: one compiled program for all sizes
                width=self.width,
                learning_rate=rate,
                batch_size=1,
                average=True,
            )
        if trained.steps < size:  # an interrupt ends a training, and here the call
            raise KeyboardInterrupt
        if trained.diverged[0] >= 0:
            return np.inf
        learnt = np.asarray(trained.predict(x_test, averaged=True), np.float64)[0, :, 0]
        return _rms(learnt - y_test)


@dataclass(frozen=True, eq=False)
class _Stream:
    """Fresh samples, the same ones each time it is begun."""

    trial: _Trial
    key: PRNGKeyArray
    concept: Concept
    mean: float
    std: float

    def blocks(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """So many samples, drawn 64 at a time, in blocks of one shape."""
        trial, part = self.trial, math.gcd(size, 64)
        for first in range(0, size, 64):
            key = jax.random.fold_in(self.key, first // 64)
            x = trial.tokens(key, 64, self.concept.length, trial.token_size)
            y = (self.concept(x) - self.mean) / self.std
            seen = np.asarray(jnp.asarray(trial.embed(x)))  # in JAX's own precision
            for i in range(0, min(64, size - first), part):
                yield seen[i : i + part], y[i : i + part].astype(seen.dtype)


def _check_lengths(lengths: Sequence[int]) -> list[int]:
    if not np.iterable(lengths):
        raise TypeError(f"lengths must be a sequence of whole numbers, got {lengths!r}.")
    chosen = [checks.check_size("lengths", length) for length in lengths]
    if not chosen or sorted(set(chosen)) != chosen:
        raise ValueError(f"lengths must be ascending, at least one, got {list(lengths)}.")
    return chosen


def _sizes(least: int, most: int) -> list[int]:
    """Doubled until the largest, which is among them."""
    sizes = [least * 2**k for k in range(40)]
    return [*(size for size in sizes if size < most), most]


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def _crossing(sizes: Sequence[int], errors: Sequence[float] | np.ndarray, goal: float) -> float:
    """Where the error first falls to the goal, on a line in logarithms between two sizes."""
    below = [i for i, error in enumerate(errors) if error <= goal]
    if not below:
        return np.inf
    i = below[0]
    if i == 0 or not np.isfinite(errors[i - 1]):
        return float(sizes[i])
    ends = np.log(errors[i - 1]), np.log(max(errors[i], 1e-300))
    share = (ends[0] - np.log(goal)) / (ends[0] - ends[1])
    return float(np.exp(np.log(sizes[i - 1]) + share * np.log(sizes[i] / sizes[i - 1])))


def _first(reached: Callable[[int], bool], least: int) -> float:
    """The smallest number for which something holds, if it holds from there on."""
    high = least
    while not reached(high):
        if high > 10**15:
            return np.inf
        high *= 2
    low = high // 2 if high > least else least - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return float(high)
