"""Many steps of SGD as one compiled loop, for one network or, on accelerators, for several.

On CPU every network has a thread and a program on one core: XLA multiplies batches of matrices
slowly there, and spreads what it does spread over the cores for too short a time each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, PRNGKeyArray

from rnntk import sequences
from rnntk.tiling import tuning
from rnntk.tiling.threads import in_threads
from rnntk.train import losses
from rnntk.train.functions import Model, evaluate, outputs
from rnntk.train.gradients import Tree, Weights, replaced, trained
from rnntk.train.losses import Loss

BATCHES = 2**31 - 1
"""Folded into the key for the batches; the parameters of network i have the key folded with i."""


class Batch(NamedTuple):
    """Sequences and labels; or, with one more axis in front, the batches of several steps.

    Attributes:
        x: tokens.
        lengths: steps of each sequence.
        labels: what the loss compares the outputs to.
        offsets: what is subtracted from the outputs.
    """

    x: Float[Array, "*s n t d"]
    lengths: Int[Array, "*s n"] | None
    labels: Array
    offsets: Array | None


class State(NamedTuple):
    """What a step changes.

    Attributes:
        weights: the trained leaves of the parameters.
        optimizer: the state of an optax optimizer.
        average: mean of the weights after each step; None if it is not wanted.
    """

    weights: Weights
    optimizer: Any
    average: Weights | None


class Member(NamedTuple):
    """One network of an ensemble.

    Attributes:
        number: which one; its draws depend on it and on nothing else of the ensemble.
        initial: parameters before training.
        offsets: what is subtracted from the outputs for each sequence of stored data.
        state: what is trained.
    """

    number: Int[Array, ""]
    initial: Tree
    offsets: Array | None
    state: State


@dataclass(frozen=True)
class Recipe:
    """What a compiled loop is made for.

    Attributes:
        loss: of outputs and labels.
        optimizer: None for SGD with a constant step.
        batch_size: sequences of stored data that make a step; None for all.
        steps: how many a call can make.
    """

    loss: Loss
    optimizer: optax.GradientTransformation | None
    batch_size: int | None
    steps: int


def updates(
    optimizer: optax.GradientTransformation | None, rate: ArrayLike
) -> optax.GradientTransformation:
    """The optimizer, by default SGD."""
    return optax.sgd(rate) if optimizer is None else optimizer


def draw(
    model: Model,
    optimizer: optax.GradientTransformation | None,
    sizes: tuple[int, int],
    average: bool,
    stored: bool,
    key: PRNGKeyArray,
    data: Batch,
    number: Int[Array, ""],
) -> Member:
    """A network at its start."""
    rnn, dtype = model.rnn, data.x.dtype
    width, output_dim = sizes
    params: Tree = rnn.init(
        jax.random.fold_in(key, number),
        input_dim=data.x.shape[-1],
        width=width,
        output_dim=output_dim,
    )
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    offsets = None
    if stored and model.centre == "subtract":
        offsets = outputs(model, params, params, data.x, data.lengths)
    if model.centre == "double":
        params = (params, params)
    weights = trained(rnn, params)
    state = State(weights, updates(optimizer, 1.0).init(weights), weights if average else None)
    return Member(number, params, offsets, state)


def advance_stored(
    model: Model,
    recipe: Recipe,
    key: PRNGKeyArray,
    rate: Float[Array, ""],
    data: Batch,
    first: Int[Array, ""],
    count: Int[Array, ""],
    member: Member,
) -> tuple[State, Float[Array, " steps"]]:
    """``count`` steps from step ``first`` on stored data, and the loss before each of them."""
    data = data._replace(offsets=member.offsets)
    if recipe.batch_size is None:
        batches = jax.tree.map(lambda v: v[None], data)
    else:
        key = jax.random.fold_in(jax.random.fold_in(key, BATCHES), member.number)
        chosen = rows(key, len(data.x), recipe.batch_size, first, recipe.steps)
        batches = jax.tree.map(lambda v: v[chosen], data)
    return _loop(model, recipe, rate, batches, first, count, member)


def advance_stream(
    model: Model,
    recipe: Recipe,
    key: PRNGKeyArray,
    rate: Float[Array, ""],
    data: Batch,
    first: Int[Array, ""],
    count: Int[Array, ""],
    member: Member,
) -> tuple[State, Float[Array, " steps"]]:
    """``count`` steps on batches that came in, one for each, and the loss before each of them."""
    if model.centre == "subtract":
        data = data._replace(offsets=_initial_outputs(model, member.initial, data))
    return _loop(model, recipe, rate, data, first, count, member)


def _initial_outputs(model: Model, initial: Tree, data: Batch) -> Array:
    """Outputs of many batches, some at once."""

    def some(block: tuple[Array, Array | None]) -> Array:
        x, lengths = jax.tree.map(lambda v: v.reshape(-1, *v.shape[2:]), block)
        found = outputs(model, initial, initial, x, lengths)
        return found.reshape(*block[0].shape[:2], *found.shape[1:])

    blocks = jax.tree.map(
        lambda v: v.reshape(-1, tuning.STREAM_BLOCK, *v.shape[1:]), (data.x, data.lengths)
    )
    found = jax.lax.map(some, blocks)
    return found.reshape(-1, *found.shape[2:])


def rows(
    key: Array, n: int, size: int, first: Int[Array, ""], steps: int
) -> Int[Array, "steps size"]:
    """Sequences of each step: an epoch is a new order, cut into batches, its rest left out."""
    per_epoch = n // size
    epochs = -(-(steps - 1) // per_epoch) + 1
    numbers = first // per_epoch + jnp.arange(epochs, dtype=first.dtype)
    keys = jax.vmap(partial(jax.random.fold_in, key))(numbers)
    orders = jax.vmap(partial(jax.random.permutation, x=n))(keys)[:, : per_epoch * size]
    return jax.lax.dynamic_slice_in_dim(orders.reshape(-1, size), first % per_epoch, steps)


def _loop(
    model: Model,
    recipe: Recipe,
    rate: Float[Array, ""],
    batches: Batch,
    first: Int[Array, ""],
    count: Int[Array, ""],
    member: Member,
) -> tuple[State, Float[Array, " steps"]]:
    optimizer = updates(recipe.optimizer, rate)
    per_step = model.rnn.r.per_step

    def body(i: Array, carry: tuple[State, Array]) -> tuple[State, Array]:
        state, values = carry
        # A full batch is stored once: JAX takes the last entry for any index beyond.
        x, lengths, labels, offsets = jax.tree.map(
            lambda v: jax.lax.dynamic_index_in_dim(v, i, keepdims=False), batches
        )
        params = replaced(member.initial, state.weights)
        found, pull = evaluate(model, params, member.initial, x, lengths)
        real = sequences.mask(lengths, x.shape[1]) if per_step and lengths is not None else None

        def loss(found: Array) -> Array:
            change = found if offsets is None else found - offsets
            return losses.mean(recipe.loss, change, labels, real)

        value, cotangent = jax.value_and_grad(loss)(found)
        changes, inner = optimizer.update(pull(cotangent), state.optimizer, state.weights)
        weights = optax.apply_updates(state.weights, changes)
        average = state.average
        if average is not None:
            share = 1 / (first + i + 1).astype(x.dtype)
            average = jax.tree.map(lambda a, w: a + share * (w - a), average, weights)
        return State(weights, inner, average), values.at[i].set(value)

    values = jnp.zeros(recipe.steps, batches.x.dtype)
    return jax.lax.fori_loop(0, count, body, (member.state, values))


def finite(model: Model, x: Array, lengths: Array | None, member: Member) -> Array:
    """Whether the outputs are, before training on all stored data."""
    params = replaced(member.initial, member.state.weights)
    good = jnp.isfinite(outputs(model, params, member.initial, x, lengths)).all()
    return good if member.offsets is None else good & jnp.isfinite(member.offsets).all()


def measure(metrics: dict[str, Partial], member: Member) -> dict[str, Array]:
    """The metrics of a network; what they hold are arguments of the program, not constants."""
    params = replaced(member.initial, member.state.weights)
    return {name: jnp.asarray(metric(params, member.initial)) for name, metric in metrics.items()}


def on_members(
    call: Any,
    static: tuple[int, ...],
    shared: tuple[Any, ...],
    members: Sequence[Any],
    small: bool = False,
) -> list[Any]:
    """``call(*shared, member)`` for every member: on CPU in threads, else as one program.

    Args:
        call: a function of this module; its programs are kept.
        static: which of ``shared`` the programs are made for.
        shared: arguments.
        members: the last argument of each call.
        small: whether the call is made of products up to ``tuning.SMALL_PRODUCTS``.
    """
    if not members:
        return []
    (device,) = {d for leaf in jax.tree.leaves(members) for d in leaf.devices()}
    if not together(device):
        program = _compiled(call, static, device.platform, False, small)
        return list(in_threads(lambda member: program(*shared, member), members, device))
    program = _compiled(call, static, device.platform, True, small)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    found = program(*shared, stacked)
    return [jax.tree.map(lambda leaf, i=i: leaf[i], found) for i in range(len(members))]


def together(device: jax.Device) -> bool:
    """Whether the networks of an ensemble are one program."""
    return device.platform != "cpu"


@cache
def _compiled(call: Any, static: tuple[int, ...], platform: str, several: bool, small: bool) -> Any:
    if several:
        single = call

        def call(*arguments: Any) -> Any:
            *shared, members = arguments
            return jax.vmap(partial(single, *shared))(members)

    return jax.jit(
        call, static_argnums=static, compiler_options=tuning.one_core_options(platform, small)
    )
