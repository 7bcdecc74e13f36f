"""Finite networks trained by stochastic gradient descent, several seeds at once."""

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Real
from tqdm import tqdm

from rnntk import checks, sequences
from rnntk.network.elman import ElmanRNN, Params
from rnntk.network.parameters import hold_untrained

# One compiled call runs a chunk of steps; between chunks the progress shows, a diverged run stops
# and Ctrl-C is heard.
CHUNKS = 100
# Folded into the key for the batches; the initial parameters of network i have the key folded
# with i.
BATCHES = 2**31 - 1


@dataclass(frozen=True, eq=False)
class Trained:
    """Networks trained from several random initializations; made by :func:`fit`.

    Attributes:
        rnn: the architecture.
        params: trained parameters; every leaf has a leading axis of seeds, in the dtype of the
            training tokens.
        initial_params: the parameters before training, likewise.
        losses: the loss of each step before its update, on that step's batch, shape
            (seeds, steps).
    """

    rnn: ElmanRNN
    params: Params
    initial_params: Params
    losses: Float[np.ndarray, "seeds steps"]

    def predict(
        self, x: Float[ArrayLike, "n t d"], lengths: Int[ArrayLike, " n"] | None = None
    ) -> Float[Array, "seeds n o"] | Float[Array, "seeds n t o"]:
        """What each network has learnt: its output less its output at initialization.

        Args:
            x: tokens.
            lengths: number of steps of each sequence; the rest is padding.

        Returns:
            Shape (seeds, n, o), or (seeds, n, t, o) for the ``"sequence"`` readout, zero at
            padded steps; in the dtype of ``x``.

        Raises:
            TypeError: for tokens that are not floating point.
            ValueError: for wrong shapes, lengths out of range, NaN or infinity.
            FloatingPointError: if an output overflows.

        Example:
            >>> import jax, jax.numpy as jnp, rnntk
            >>> x, y = jnp.ones((2, 3, 1)), jnp.array([1.0, 1.0])
            >>> trained = fit(rnntk.ElmanRNN(), jax.random.key(0), x, y, width=16,
            ...               learning_rate=0.1, steps=20, seeds=3)
            >>> trained.predict(x).shape
            (3, 2, 1)
        """
        x, lengths = checks.check_batch(x, lengths)
        initial = _outputs(self.rnn, self.initial_params, x, lengths)
        learnt = _outputs(self.rnn, self.params, x, lengths) - initial
        if not bool(jnp.isfinite(learnt).all()):
            raise FloatingPointError(f"outputs of the trained networks overflow in {x.dtype}.")
        return learnt


def fit(
    rnn: ElmanRNN,
    key: PRNGKeyArray,
    x: Float[ArrayLike, "n t d"],
    y: Real[ArrayLike, " n"] | Real[ArrayLike, "n o"] | Real[ArrayLike, "n t o"],
    *,
    width: int,
    learning_rate: float,
    steps: int,
    seeds: int = 1,
    batch_size: int | None = None,
    lengths: Int[ArrayLike, " n"] | None = None,
    progress: bool = False,
) -> Trained:
    r"""Train networks by plain SGD on the squared loss, from several seeds at once.

    Each network f with parameters :math:`\theta` is trained through its change since
    initialization, :math:`g(x) = f_\theta(x) - f_{\theta_0}(x)`, on the loss
    :math:`\frac{1}{2B} \sum_i |g(x_i) - y_i|^2` over a batch of B sequences. The change has the
    tangent kernel of f and starts at the zero function, as kernel gradient flow does; the output
    of f itself starts at a random function whose size does not shrink with the width, and which
    training would carry into every prediction. In the limit of large width and small
    learning rate, full batches follow :func:`rnntk.predict.gradient_flow` at
    time = learning_rate * steps. The linearized steps are stable for learning rates below
    2 n / (largest eigenvalue of the train kernel).

    Args:
        rnn: architecture; only its ``trainable`` groups of parameters move.
        key: JAX random key. Network i starts from ``rnn.init(jax.random.fold_in(key, i), ...)``,
            whatever ``seeds``.
        x: tokens; their dtype is that of the computation and of the trained parameters.
        y: labels, shape (n,) for one output, or (n, o). For the ``"sequence"`` readout
            (n, t, o): the loss sums over the steps, and leaves padded ones out.
        width: number of hidden units.
        learning_rate: the same for every group, as the tangent kernel assumes.
        steps: number of updates.
        seeds: number of networks.
        batch_size: sequences per step, distinct, drawn uniformly and anew at each step and for
            each network; all of them if None.
        lengths: number of steps of each sequence; the rest is padding.
        progress: show a progress bar.

    Returns:
        The trained networks.

    Raises:
        TypeError: for tokens that are not floating point or labels that are not real numbers.
        ValueError: for wrong shapes, NaN or infinity, lengths or sizes out of range, or
            independent initial states, which are drawn anew at each call.
        FloatingPointError: if the outputs or the loss overflow.

    Example:
        >>> import jax, jax.numpy as jnp, rnntk
        >>> x, y = jnp.ones((2, 3, 1)), jnp.array([1.0, 1.0])
        >>> trained = fit(rnntk.ElmanRNN(), jax.random.key(0), x, y, width=16,
        ...               learning_rate=0.1, steps=20, seeds=3)
        >>> trained.losses.shape, bool((trained.losses[:, -1] < 0.01).all())
        ((3, 20), True)
    """
    x, lengths = checks.check_batch(x, lengths)
    targets = _targets(rnn, y, x, lengths)
    _check_settings(rnn, len(x), learning_rate, steps, seeds, batch_size)
    sizes = (x.shape[-1], width, targets.shape[-1])
    params = _draw(rnn, key, sizes, seeds, x.dtype)
    initial_params = params
    initial = _outputs(rnn, params, x, lengths)
    if not bool(jnp.isfinite(initial).all()):
        raise FloatingPointError(
            f"outputs at initialization overflow in {x.dtype}: use smaller tokens, a smaller "
            "w_std or u_std, or a wider dtype."
        )
    data = _Data(x, lengths, targets)
    rate = jnp.asarray(learning_rate, x.dtype)
    losses = jnp.zeros((seeds, steps), x.dtype)
    edges = np.linspace(0, steps, min(steps, CHUNKS) + 1).astype(int).tolist()
    with tqdm(total=steps, desc=f"width {width}", unit="step", disable=not progress) as bar:
        for start, stop in pairwise(edges):
            params, losses = _run(
                rnn, key, params, losses, data, initial, rate, start, stop, batch_size
            )
            _check_converging(np.isfinite(losses[:, start:stop]), start, learning_rate)
            bar.update(stop - start)
    # The last update is followed by no loss that would show its overflow.
    final = np.isfinite(_outputs(rnn, params, x, lengths)).reshape(seeds, -1)
    _check_converging(final.all(axis=1, keepdims=True), steps, learning_rate)
    return Trained(rnn, params, initial_params, np.asarray(losses))


class _Data(NamedTuple):
    """The training set; all that a batch takes its rows from."""

    x: Float[Array, "n t d"]
    lengths: Int[Array, " n"] | None
    targets: Float[Array, "n o"] | Float[Array, "n t o"]


@partial(jax.jit, static_argnames=("sizes", "seeds", "dtype"))
def _draw(
    rnn: ElmanRNN, key: PRNGKeyArray, sizes: tuple[int, int, int], seeds: int, dtype: jnp.dtype
) -> Params:
    """Initial parameters, a leading axis of seeds on every leaf."""
    input_dim, width, output_dim = sizes

    def one(network: Array) -> Params:
        subkey = jax.random.fold_in(key, network)
        params = rnn.init(subkey, input_dim=input_dim, width=width, output_dim=output_dim)
        return jax.tree.map(lambda leaf: leaf.astype(dtype), params)

    return jax.vmap(one)(jnp.arange(seeds))


@jax.jit
def _outputs(
    rnn: ElmanRNN, params: Params, x: Float[Array, "n t d"], lengths: Int[Array, " n"] | None
) -> Float[Array, "seeds n o"] | Float[Array, "seeds n t o"]:
    return jax.vmap(lambda one: rnn.apply(one, x, lengths))(params)


@partial(jax.jit, static_argnames="batch_size")
def _run(
    rnn: ElmanRNN,
    key: PRNGKeyArray,
    params: Params,
    losses: Float[Array, "seeds steps"],
    data: _Data,
    initial: Float[Array, "seeds n o"] | Float[Array, "seeds n t o"],
    rate: Float[Array, ""],
    start: Int[ArrayLike, ""],
    stop: Int[ArrayLike, ""],
    batch_size: int | None,
) -> tuple[Params, Float[Array, "seeds steps"]]:
    """Steps start to stop - 1; a loop with traced ends, so that all chunks share one program."""
    optimizer = optax.sgd(rate)
    networks = jnp.arange(len(initial))
    batches_key = jax.random.fold_in(key, BATCHES)

    def update(params: Params, initial: Array, network: Array, step: Array) -> tuple[Params, Array]:
        batch, offset = data, initial
        if batch_size is not None:
            subkey = jax.random.fold_in(jax.random.fold_in(batches_key, network), step)
            rows = jax.random.permutation(subkey, len(data.x))[:batch_size]
            batch, offset = jax.tree.map(lambda leaf: leaf[rows], (data, initial))
        loss, gradient = jax.value_and_grad(_loss, argnums=1)(rnn, params, batch, offset)
        # Plain SGD: the optimizer has no state to carry.
        changes, _ = optimizer.update(gradient, optimizer.init(params))
        return optax.apply_updates(params, changes), loss

    def body(step: Array, carry: tuple[Params, Array]) -> tuple[Params, Array]:
        params, losses = carry
        params, loss = jax.vmap(update, (0, 0, 0, None))(params, initial, networks, step)
        return params, losses.at[:, step].set(loss)

    return jax.lax.fori_loop(start, stop, body, (params, losses))


def _loss(
    rnn: ElmanRNN,
    params: Params,
    batch: _Data,
    initial: Float[Array, "b o"] | Float[Array, "b t o"],
) -> Float[Array, ""]:
    change = rnn.apply(hold_untrained(rnn, params), batch.x, batch.lengths) - initial
    return ((change - batch.targets) ** 2).sum() / (2 * len(batch.x))


def _targets(
    rnn: ElmanRNN, y: ArrayLike, x: Float[Array, "n t d"], lengths: Int[Array, " n"] | None
) -> Float[Array, "n o"] | Float[Array, "n t o"]:
    """Labels with an output axis, in the dtype of ``x``; zero at padded steps."""
    n, steps = x.shape[:2]
    labels = np.asarray(y)
    if rnn.readout == "sequence":
        if labels.ndim != 3 or labels.shape[:2] != (n, steps) or labels.size == 0:
            raise ValueError(
                f"y must hold a label for each sequence and step, shape ({n}, {steps}, outputs), "
                f"for readout='sequence', got {labels.shape}."
            )
        if lengths is not None:
            padded = ~np.asarray(sequences.mask(lengths, steps))
            labels = np.where(padded[..., None], np.zeros((), labels.dtype), labels)
        labels = checks.check_values(labels)
    else:
        labels = checks.check_labels(y, n).reshape(n, -1)
    targets = jnp.asarray(labels, x.dtype)
    if not bool(jnp.isfinite((targets**2).sum())):
        raise ValueError(
            f"y is too large for a squared loss in {x.dtype}: "
            f"its largest entry has size {np.abs(labels).max():.3g}."
        )
    return targets


def _check_settings(
    rnn: ElmanRNN,
    n: int,
    learning_rate: float,
    steps: int,
    seeds: int,
    batch_size: int | None,
) -> None:
    if rnn.initial_state == "independent":
        raise ValueError(
            "rnn must have initial_state 'zero' or 'shared' to be trained, got 'independent': its "
            "states are drawn anew at each call, and would be noise in the trained function."
        )
    if not np.isfinite(learning_rate) or learning_rate <= 0:
        raise ValueError(f"learning_rate must be finite and positive, got {learning_rate}.")
    for name, count in (("steps", steps), ("seeds", seeds)):
        if not isinstance(count, int | np.integer) or count < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {count!r}.")
    if batch_size is not None and (
        not isinstance(batch_size, int | np.integer) or not 1 <= batch_size <= n
    ):
        raise ValueError(
            f"batch_size must be a whole number in 1..{n} (the training sequences) or None, "
            f"got {batch_size!r}."
        )


def _check_converging(
    finite: Bool[np.ndarray, "seeds steps"], start: int, learning_rate: float
) -> None:
    """Name the first step, counted from ``start``, at which a network is not finite."""
    if not finite.all():
        step = int(np.argmin(finite.all(axis=0)))
        network = int(np.argmin(finite[:, step]))
        raise FloatingPointError(
            f"training diverged: network {network} is not finite after {start + step} steps; use "
            f"a learning_rate smaller than {learning_rate:.3g}."
        )
