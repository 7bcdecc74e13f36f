"""Finite networks trained by gradient descent, several seeds at once."""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, pairwise
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, PRNGKeyArray, Real

from rnntk import checks
from rnntk.network.elman import ElmanRNN
from rnntk.tiling import tuning
from rnntk.tiling.memory import default_limit
from rnntk.train import descent, labels
from rnntk.train.descent import Batch, Recipe
from rnntk.train.functions import CENTRES, Centre, Function, Linearized, model_of, network
from rnntk.train.gradients import replaced
from rnntk.train.losses import Loss, resolve
from rnntk.train.runs import Metric, Progress, Task, run
from rnntk.train.stream import Stream
from rnntk.train.trained import Trained


def fit(
    rnn: Function,
    key: PRNGKeyArray,
    x: Float[ArrayLike, "n t d"] | Iterable[Any],
    y: Real[ArrayLike, " n"] | Real[ArrayLike, "n o"] | Real[ArrayLike, "n t o"] | None = None,
    *,
    width: int,
    learning_rate: float | None = None,
    steps: int | None = None,
    seeds: int = 1,
    batch_size: int | None = None,
    lengths: Int[ArrayLike, " n"] | None = None,
    output_dim: int | None = None,
    loss: str | Loss | Callable[[Array, Array], Array] = "squared",
    optimizer: optax.GradientTransformation | None = None,
    centre: Centre = "subtract",
    average: bool = False,
    metrics: Mapping[str, Metric] | None = None,
    record: Sequence[int] | None = None,
    checkpoint: str | Path | None = None,
    memory_limit: int | None = None,
    progress: bool = False,
) -> Trained:
    r"""Train networks by gradient descent, from several seeds at once.

    By default each network f with parameters :math:`\theta` is trained through its change since
    initialization, :math:`g(x) = f_\theta(x) - f_{\theta_0}(x)`, on the loss
    :math:`\frac{1}{2B} \sum_i |g(x_i) - y_i|^2` over a batch of B sequences, by SGD with a constant
    step. The change has the tangent kernel of f and starts at the zero function, as kernel
    gradient flow does; the output of f itself starts at a random function whose size does not
    shrink with the width. In the limit of large width and small learning rate, full batches follow
    :func:`rnntk.predict.gradient_flow` at time = learning_rate * steps, at every width: in the
    tangent parameterization a learning rate means the same whatever the width.
    :func:`stable_rate` gives the largest that is stable.

    The data are one of

    - arrays ``x`` and ``y``: full-batch gradient descent, or with a ``batch_size`` epochs, each of
      which goes through a new random order of the sequences and leaves out what does not fill a
      batch;
    - a generator, or any iterable, of blocks (x, y) or (x, y, lengths) of one shape, in NumPy
      arrays: one pass over fresh samples, the same for all seeds. A block is a batch unless
      ``batch_size`` cuts it into smaller ones, or puts several together. Memory does not grow with
      the number of samples.

    On a CPU each network runs in a thread of its own, and its numbers are the same, to the last
    bit, alone or in an ensemble. On accelerators those that fit the memory run as one program,
    whose rounding depends on their number.

    Args:
        rnn: architecture, or its :func:`linearize`; only the ``trainable`` groups of parameters
            move.
        key: JAX random key. Network i starts from ``rnn.init(jax.random.fold_in(key, i), ...)``,
            whatever ``seeds``.
        x: tokens, whose dtype is that of the computation and of the trained parameters; or blocks.
        y: labels: real numbers, shape (n,) for one output, or (n, o); for the ``"sequence"``
            readout (n, t, o), where padded ones are left out. -1 and 1 for the logistic loss;
            numbers of classes, (n,) or (n, t), for cross-entropy.
        width: number of hidden units.
        learning_rate: the same for every group, as the tangent kernel assumes.
        steps: number of updates; may be left out for a generator, which is then run to its end.
        seeds: number of networks.
        batch_size: sequences per step; all of them, or those of a block, if None.
        lengths: number of steps of each sequence; the rest is padding.
        output_dim: number of outputs; by default that of ``y``, or one more than the largest class.
        loss: ``"squared"``, ``"absolute"``, ``"huber"``, ``"logistic"``, ``"cross_entropy"``
            (:data:`rnntk.train.LOSSES`), a :class:`Loss`, or a function of outputs and labels such
            as those of optax, whose values are summed over outputs and steps and averaged over
            sequences.
        optimizer: an optax optimizer in place of SGD, without ``learning_rate``.
        centre: ``"subtract"`` the initial output; ``"double"``, train (f_1 - f_2) / sqrt(2) of two
            networks with the same initial parameters, which starts at exactly zero and has the
            kernel of one; or ``"none"``.
        average: keep the mean of the parameters after each step too.
        metrics: functions of (parameters, initial parameters) of one network, in JAX, recorded
            during training. Functions that are defined once are compiled once;
            ``jax.tree_util.Partial`` of one function with other data of the same shapes, too.
        record: steps at which to record them, from 0, before the first update, to ``steps``, which
            are the two by default.
        checkpoint: a file, to which the state is written every half a minute and at the end, and
            from which the same call goes on, to the same numbers. A generator is begun anew and
            run up to there.
        memory_limit: bytes of the networks that run together; by default a quarter of the memory of
            the device.
        progress: show a progress bar.

    Returns:
        The trained networks. After an interrupt from the keyboard, as far as they came, with a
        warning. Networks that diverge stop, with a warning that names the step and the stable
        learning rate; the others go on.

    Raises:
        TypeError: for tokens that are not floating point, labels of the wrong type, what is no
            key, no optax optimizer or no number.
        ValueError: for wrong shapes or labels, NaN or infinity, lengths or sizes out of range,
            independent initial states, which are drawn anew at each call, a generator that ends
            early or yields other shapes, or a checkpoint of another run.
        FloatingPointError: if the outputs at initialization overflow.

    Example:
        >>> import jax, jax.numpy as jnp, rnntk
        >>> x, y = jnp.ones((2, 3, 1)), jnp.array([1.0, 1.0])
        >>> trained = fit(rnntk.ElmanRNN(), jax.random.key(0), x, y, width=16,
        ...               learning_rate=0.1, steps=20, seeds=3)
        >>> trained.losses.shape, bool((trained.losses[:, -1] < 0.01).all())
        ((3, 20), True)
    """
    found = resolve(loss)
    if not isinstance(checkpoint, str | PathLike | None):
        raise TypeError(f"checkpoint must be a path or None, got {checkpoint!r}.")
    if memory_limit is not None:
        checks.check_size("memory_limit", memory_limit)
    if output_dim is not None:
        checks.check_size("output_dim", output_dim)
    checks.check_key(key)
    _check_settings(rnn, width, seeds, steps, learning_rate, optimizer, centre, batch_size)
    stored = y is not None or hasattr(x, "shape")
    if stored:
        data, outputs = _stored(network(rnn), found, x, y, lengths, output_dim, steps, batch_size)
        streams = None
    else:
        if lengths is not None:
            raise ValueError("lengths must come in the blocks of a generator, got lengths.")
        several = _streams(x, network(rnn), found, batch_size, output_dim)
        stream = next(several)
        streams = chain([stream], several)
        data, outputs = Batch(stream.x, stream.lengths, stream.x, None), stream.output_dim
        batch_size = stream.batch_size
    record = _check_record(metrics, record, steps)
    capacity = _capacity(network(rnn), data.x, width, batch_size, steps, record, stored)
    recipe = Recipe(found, optimizer, batch_size, capacity)
    rate = jnp.asarray(1.0 if learning_rate is None else learning_rate, data.x.dtype)
    task = Task(
        function=rnn,
        model=model_of(rnn, width, data.x, centre),
        recipe=recipe,
        key=key,
        rate=rate,
        data=data,
        streams=streams,
        sizes=(width, outputs),
        average=average,
        steps=steps,
        metrics={
            name: metric if isinstance(metric, Partial) else Partial(metric)
            for name, metric in (metrics or {}).items()
        },
        record=record,
    )
    return _in_groups(task, seeds, checkpoint, memory_limit, progress)


def _stored(
    rnn: ElmanRNN,
    loss: Loss,
    x: Any,
    y: ArrayLike | None,
    lengths: ArrayLike | None,
    output_dim: int | None,
    steps: int | None,
    batch_size: int | None,
) -> tuple[Batch, int]:
    """Data in arrays, checked, and the number of outputs."""
    tokens, lengths = checks.check_batch(x, lengths)
    if y is None:
        raise ValueError("y must hold the labels of x, got None.")
    if steps is None:
        raise ValueError("steps must say how many updates to make on stored data, got None.")
    if batch_size is not None and batch_size > len(tokens):
        raise ValueError(
            f"batch_size must be a whole number in 1..{len(tokens)} (the training sequences) or "
            f"None, got {batch_size!r}."
        )
    targets, outputs = labels.check(rnn, loss, y, tokens, lengths, output_dim)
    return Batch(tokens, lengths, targets, None), outputs


def _streams(
    blocks: Any,
    rnn: ElmanRNN,
    loss: Loss,
    batch_size: int | None,
    output_dim: int | None,
) -> Iterator[Stream]:
    """The stream, from its beginning, as often as it can be begun."""
    try:
        once = iter(blocks) is blocks
    except TypeError:
        raise TypeError(
            f"x must be an array of tokens or an iterable of blocks, got {type(blocks).__name__}."
        ) from None
    yield Stream(blocks, rnn, loss, batch_size, output_dim)
    while True:
        if once:
            raise ValueError(
                "x must be iterable more than once, as the networks do not fit the memory "
                "together; give a list, or an object whose __iter__ makes a generator."
            )
        yield Stream(blocks, rnn, loss, batch_size, output_dim)


def _check_settings(
    rnn: Function,
    width: int,
    seeds: int,
    steps: int | None,
    learning_rate: float | None,
    optimizer: optax.GradientTransformation | None,
    centre: str,
    batch_size: int | None,
) -> None:
    if not isinstance(rnn, ElmanRNN | Linearized):
        raise TypeError(f"rnn must be an ElmanRNN or its linearize, got {type(rnn).__name__}.")
    if network(rnn).initial_state == "independent":
        raise ValueError(
            "rnn must have initial_state 'zero' or 'shared' to be trained, got 'independent': its "
            "states are drawn anew at each call, and would be noise in the trained function."
        )
    for name, count in (
        ("width", width),
        ("seeds", seeds),
        ("steps", 1 if steps is None else steps),
        ("batch_size", 1 if batch_size is None else batch_size),
    ):
        checks.check_size(name, count)
    if (learning_rate is None) == (optimizer is None):
        raise ValueError(
            "learning_rate must be given, or an optimizer in its place, got "
            f"{'neither' if optimizer is None else 'both'}."
        )
    if learning_rate is not None:
        checks.check_positive("learning_rate", learning_rate)
    elif not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(
            "optimizer must be an optax.GradientTransformation, such as optax.adam(1e-3), got "
            f"{optimizer!r}."
        )
    if centre not in CENTRES:
        raise ValueError(f"centre must be one of {CENTRES}, got {centre!r}.")


def _check_record(
    metrics: Mapping[str, Metric] | None, record: Sequence[int] | None, steps: int | None
) -> tuple[int, ...]:
    """The steps at which to record, each once, in order."""
    if not metrics:
        if record is not None:
            raise ValueError("record must come with metrics, got record alone.")
        return ()
    if not isinstance(metrics, Mapping) or not all(map(callable, metrics.values())):
        raise TypeError(f"metrics must be a mapping from names to functions, got {metrics!r}.")
    if record is None:
        if steps is None:
            raise ValueError("record must say at which steps of a generator to record, got None.")
        return (0, steps)
    if np.ndim(record) != 1 or np.asarray(record).dtype.kind not in "fiu":
        raise TypeError(f"record must be a sequence of whole numbers, got {record!r}.")
    given = [int(step) for step in record]
    if given != list(record) or not given or min(given) < 0 or max(given) > (steps or math.inf):
        last = "its last" if steps is None else str(steps)
        raise ValueError(f"record must hold steps from 0 to {last}, got {record!r}.")
    return tuple(sorted(set(given)))


def _capacity(
    rnn: ElmanRNN,
    x: Float[Array, "n t d"],
    width: int,
    batch_size: int | None,
    steps: int | None,
    record: tuple[int, ...],
    stored: bool,
) -> int:
    """How many steps a call can make; more would be room that no call needs."""
    n, t, d = x.shape
    size = n if batch_size is None else batch_size
    networks = rnn.depth * (1 + rnn.bidirectional)
    most = tuning.CHUNK_OPERATIONS / (6 * size * t * width * (width + d) * networks)
    room = d if stored else max(d, width * networks)
    most = min(tuning.MOST_STEPS, most, tuning.CHUNK_BYTES / (size * t * room * x.dtype.itemsize))
    ends = [0, *record, *([] if steps is None else [steps])]
    if steps is not None or record:
        longest = max((b - a for a, b in pairwise(sorted(set(ends)))), default=1)
        most = min(most, 2 ** math.ceil(math.log2(longest)))  # few programs for many numbers
    if stored:
        return max(1, int(most))
    return tuning.STREAM_BLOCK * max(1, math.ceil(most / tuning.STREAM_BLOCK))


def _in_groups(
    task: Task,
    seeds: int,
    checkpoint: str | Path | None,
    memory_limit: int | None,
    progress: bool,
) -> Trained:
    """Train as many networks at a time as fit the memory, and put all together."""
    together = _together(task, memory_limit)
    finished: list[Progress] = []
    for first in range(0, seeds, together):
        path = None if checkpoint is None else Path(checkpoint)
        if path is not None and first:
            path = path.with_name(f"{path.name}-{first}")
        found, interrupted = run(task, range(first, min(first + together, seeds)), path, progress)
        if not interrupted or not finished:
            finished.append(found)
        if interrupted:
            count = sum(len(part.members) for part in finished)
            warnings.warn(
                f"training was interrupted; {count} networks are returned as they were after "
                f"{finished[-1].done} steps.",
                RuntimeWarning,
                stacklevel=3,
            )
            break
    return _trained(task, finished)


def _together(task: Task, memory_limit: int | None) -> int:
    """How many networks fit the memory: their states twice, and what a step keeps of each."""
    limit = default_limit(task.data.x) if memory_limit is None else memory_limit
    draw = partial(
        descent.draw,
        task.model,
        task.recipe.optimizer,
        task.sizes,
        task.average,
        task.streams is None,
    )
    member = jax.eval_shape(draw, task.key, task.data, jax.ShapeDtypeStruct((), jnp.int32))
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(member))
    n, t, _ = task.data.x.shape
    rnn = task.model.rnn
    states = 4 * (task.recipe.batch_size or n) * t * task.sizes[0] * task.data.x.dtype.itemsize
    need = 2 * held + states * rnn.depth * (1 + rnn.bidirectional)
    if memory_limit is not None and need > limit:
        raise ValueError(
            f"memory_limit must be at least {need} bytes, which one network needs, got {limit}."
        )
    return max(1, limit // need)


def _trained(task: Task, parts: list[Progress]) -> Trained:
    """The networks of all groups, stacked."""
    members = [member for part in parts for member in part.members]
    done = parts[0].done

    def stack(trees: list[Any]) -> Any:
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

    def params(kind: str) -> Any:
        return stack([replaced(member.initial, getattr(member.state, kind)) for member in members])

    return Trained(
        rnn=task.function,
        params=params("weights"),
        initial_params=stack([member.initial for member in members]),
        averaged_params=params("average") if task.average and done else None,
        losses=np.concatenate([part.losses for part in parts]),
        steps=done,
        diverged=np.concatenate([part.diverged for part in parts]),
        recorded=tuple(step for step in task.record if step <= done),
        metrics={
            name: np.concatenate([part.metrics[name] for part in parts]) for name in task.metrics
        },
        centre=task.model.centre,
    )
