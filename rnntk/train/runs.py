"""Runs: ensembles of networks from their first step to their last, or as far as they come."""

import operator
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, PRNGKeyArray
from tqdm import tqdm

from rnntk import checkpoint
from rnntk.files import fingerprint
from rnntk.network.description import describe
from rnntk.network.elman import Params
from rnntk.tiling import tuning
from rnntk.train import descent
from rnntk.train.descent import Batch, Member, Recipe
from rnntk.train.functions import Function, Model
from rnntk.train.rates import stable_rate_of
from rnntk.train.stream import Stream

Metric = Callable[[Params, Params], ArrayLike]

SAVE_SECONDS = 30.0
"""Between checkpoints."""
LOOKED_AT = 32
"""Sequences whose outputs are looked at before the first and after the last step."""


@dataclass(frozen=True, eq=False)
class Task:
    """All that a run of some networks needs, checked.

    Attributes:
        function: what is trained.
        model: the same at the width.
        recipe: what the loop is compiled for.
        key: of all draws.
        rate: the learning rate.
        data: stored sequences, or a sample of a stream.
        streams: the stream, as often as it is begun; None for stored data.
        sizes: width, and number of outputs.
        average: whether the mean of the iterates is wanted.
        steps: number of updates; None for all that a stream gives.
        metrics: by name.
        record: at which steps to record them.
    """

    function: Function
    model: Model
    recipe: Recipe
    key: PRNGKeyArray
    rate: Float[Array, ""]
    data: Batch
    streams: Iterator[Stream] | None
    sizes: tuple[int, int]
    average: bool
    steps: int | None
    metrics: dict[str, Partial]
    record: tuple[int, ...]


class Progress(NamedTuple):
    """How far the networks of a task have come.

    Attributes:
        members: the networks.
        losses: of all steps made.
        metrics: of all steps recorded.
        diverged: after how many steps; -1 if not.
        done: number of steps made.
    """

    members: list[Member]
    losses: Float[np.ndarray, "k done"]
    metrics: dict[str, np.ndarray]
    diverged: Int[np.ndarray, " k"]
    done: int


def run(task: Task, numbers: range, path: Path | None, progress: bool) -> tuple[Progress, bool]:
    """Train some networks together; and whether an interrupt ended it."""
    stream = None if task.streams is None else next(task.streams)
    now = _begin(task, numbers)
    configuration = {} if path is None else _configuration(task, numbers)
    if path is not None:
        now = _resumed(path, configuration, now)
    if stream is not None:
        stream.skip(now.done)
    saved, interrupted = time.monotonic(), False
    with tqdm(
        total=task.steps,
        initial=now.done,
        desc=f"width {task.sizes[0]}",
        unit="step",
        disable=not progress,
    ) as bar:
        try:
            if not any(values.shape[1] for values in now.metrics.values()):
                now = _recorded(task, now)
            for batches, count in _chunks(task, stream, now.done):
                now = _recorded(task, _advanced(task, now, batches, count))
                bar.update(count)
                if path is not None and time.monotonic() - saved > SAVE_SECONDS:
                    checkpoint.save(path, configuration, _arrays(now))
                    saved = time.monotonic()
            now = _last_checked(task, now)
        except KeyboardInterrupt:
            interrupted = True
    if path is not None:
        checkpoint.save(path, configuration, _arrays(now))
    if stream is not None and not interrupted and now.done < (task.steps or 0):
        raise ValueError(
            f"x must yield a batch of {stream.batch_size} for each of the {task.steps} steps, got "
            f"{now.done} batches."
        )
    return now, interrupted


def _begin(task: Task, numbers: range) -> Progress:
    """The networks before training."""
    stored = task.streams is None
    made = (task.model, task.recipe.optimizer, task.sizes, task.average, stored)
    (device,) = task.data.x.devices()
    which = [jax.device_put(np.int32(number), device) for number in numbers]
    now = Progress(
        members=descent.on_members(descent.draw, (1, 2, 3, 4), (*made, task.key, task.data), which),
        losses=np.zeros((len(numbers), 0), task.data.x.dtype),
        metrics={name: np.zeros((len(numbers), 0)) for name in task.metrics},
        diverged=np.full(len(numbers), -1),
        done=0,
    )
    if not all(_finite(task, now.members)):
        raise FloatingPointError(
            f"outputs at initialization overflow in {task.data.x.dtype}: use smaller tokens, a "
            "smaller w_std or u_std, or a wider dtype."
        )
    return now


def _chunks(task: Task, stream: Stream | None, done: int) -> Iterator[tuple[Batch, int]]:
    """What each call of the compiled loop works on, and how many steps it makes."""
    counts = _counts(done, task.steps, task.record, task.recipe.steps)
    if stream is None:
        return ((task.data, count) for count in counts)
    return stream.chunks(counts, task.recipe.steps)


def _counts(done: int, steps: int | None, record: tuple[int, ...], most: int) -> Iterator[int]:
    """Steps of each call: at most so many, and none across a step to be recorded."""
    while steps is None or done < steps:
        following = [step - done for step in (*record, steps or 0) if step > done]
        count = min(most, *following) if following else most
        yield count
        done += count


def _advanced(task: Task, now: Progress, batches: Batch, count: int) -> Progress:
    """So many steps further; networks that diverge in them are not looked at again."""
    live = np.flatnonzero(now.diverged < 0)
    step = descent.advance_stored if task.streams is None else descent.advance_stream
    shared = (task.model, task.recipe, task.key, task.rate, batches)
    ends = (jnp.asarray(now.done, jnp.int32), jnp.asarray(count, jnp.int32))
    sizes = task.sizes[0], task.recipe.batch_size or batches.x.shape[-3]
    small = all(map(operator.le, sizes, tuning.SMALL_PRODUCTS))
    some = [now.members[i] for i in live]
    found = descent.on_members(step, (1,), (*shared, *ends), some, small)
    members, diverged = list(now.members), now.diverged.copy()
    losses = np.full((len(members), count), np.nan, now.losses.dtype)
    for i, (state, values) in zip(live, found, strict=True):
        members[i] = members[i]._replace(state=state)
        losses[i] = values[:count]
        bad = np.flatnonzero(~np.isfinite(losses[i]))
        if bad.size:
            losses[i, bad[0] :] = np.nan
            diverged[i] = now.done + bad[0]
            _warn_of_divergence(task, members[i], int(diverged[i]))
    return Progress(
        members=members,
        losses=np.concatenate([now.losses, losses], axis=1),
        metrics=now.metrics,
        diverged=diverged,
        done=now.done + count,
    )


def _recorded(task: Task, now: Progress) -> Progress:
    """With the metrics of this step, if it is one of those to be recorded."""
    if now.done not in task.record:
        return now
    live = np.flatnonzero(now.diverged < 0)
    members = [now.members[i] for i in live]
    found = descent.on_members(descent.measure, (), (task.metrics,), members)
    shapes = jax.eval_shape(descent.measure, task.metrics, now.members[0])
    metrics = {}
    for name, before in now.metrics.items():
        like, gone = shapes[name], len(live) < len(now.members)
        dtype = np.result_type(like.dtype, np.float16) if gone else like.dtype  # to hold NaN
        values = np.full((len(now.members), 1, *like.shape), np.nan if gone else 0, dtype)
        for i, one in zip(live, found, strict=True):
            values[i, 0] = one[name]
        metrics[name] = np.concatenate([before, values], axis=1) if before.shape[1] else values
    return now._replace(metrics=metrics)


def _last_checked(task: Task, now: Progress) -> Progress:
    """Outputs once more at the end, as no later loss shows whether the last update overflowed."""
    diverged = now.diverged.copy()
    live = np.flatnonzero(diverged < 0)
    good = _finite(task, [now.members[i] for i in live])
    for i, fine in zip(live, good, strict=True):
        if not fine:
            diverged[i] = now.done
            _warn_of_divergence(task, now.members[i], now.done)
    return now._replace(diverged=diverged)


def _finite(task: Task, members: list[Member]) -> list[bool]:
    x, lengths = jax.tree.map(lambda v: v[:LOOKED_AT], (task.data.x, task.data.lengths))
    shared = (task.model, x, lengths)
    return [bool(good) for good in descent.on_members(descent.finite, (), shared, members)]


def _warn_of_divergence(task: Task, member: Member, step: int) -> None:
    recipe, data = task.recipe, task.data
    stable = stable_rate_of(task.model, recipe.loss, member.initial, data.x, data.lengths)
    how = "" if recipe.optimizer else f" with learning_rate={float(task.rate):.3g}"
    limit = (
        f"full batches on its kernel at initialization are stable up to {stable:.3g}"
        if stable
        else f"loss={recipe.loss.name!r} has no largest stable rate"
    )
    warnings.warn(
        f"network {int(member.number)} of width {task.sizes[0]} diverged: it is not finite after "
        f"{step} steps{how}; {limit}.",
        RuntimeWarning,
        stacklevel=2,
    )


def _values(now: Progress) -> tuple[object, ...]:
    """What a checkpoint holds."""
    states = [member.state for member in now.members]
    return states, now.losses, now.metrics, now.diverged, np.asarray(now.done)


def _arrays(now: Progress) -> dict[str, np.ndarray]:
    """The same, its leaves by number."""
    return {f"leaf{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(_values(now)))}


def _resumed(path: Path, configuration: dict[str, str], now: Progress) -> Progress:
    """Where the run of a checkpoint stood; the start if there is none."""
    arrays = checkpoint.load(path, configuration)
    if arrays is None:
        return now
    leaves = [arrays[f"leaf{i}"] for i in range(len(arrays))]
    values = jax.tree.unflatten(jax.tree.structure(_values(now)), leaves)
    states, losses, metrics, diverged, done = values
    (device,) = now.members[0].number.devices()
    members = [
        member._replace(state=jax.device_put(state, device))
        for member, state in zip(now.members, states, strict=True)
    ]
    return Progress(members, losses, metrics, diverged, int(done))


def _configuration(task: Task, numbers: range) -> dict[str, Any]:
    """What must be the same for a run to go on."""
    rnn, recipe = task.model.rnn, task.recipe
    stored = task.streams is None
    state = jax.eval_shape(lambda: descent.updates(recipe.optimizer, 1.0).init({"W": jnp.zeros(1)}))
    return {
        "function": type(task.function).__name__,
        **describe(rnn),
        "key": str(np.asarray(jax.random.key_data(task.key)).tolist()),
        "networks": str(list(numbers)),
        "width and outputs": str(task.sizes),
        "data": fingerprint(*jax.tree.leaves(task.data)) if stored else "a generator",
        "dtype": str(task.data.x.dtype),
        "loss": recipe.loss.name,
        "learning_rate": "" if recipe.optimizer else repr(float(task.rate)),
        "optimizer": str(jax.tree.structure(state)),
        "steps": str(task.steps),
        "batch_size": str(recipe.batch_size),
        "centre": task.model.centre,
        "average": str(task.average),
        "metrics": str(list(task.metrics)),
        "record": str(task.record),
    }
