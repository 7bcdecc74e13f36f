"""What is measured of a network while it trains: functions of its parameters, then and at first."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rnntk import sequences
from rnntk.empirical.kernel import empirical_kernel
from rnntk.network.elman import ElmanRNN, Params
from rnntk.network.forward import forward
from rnntk.network.multipliers import multipliers
from rnntk.network.parameters import networks
from rnntk.train import functions
from rnntk.train.functions import Function


def learnt(
    function: Function,
    x: Float[Array, "n t d"],
    lengths: Int[Array, " n"] | None,
    params: Params,
    initial: Params,
) -> Float[Array, "n o"] | Float[Array, "n t o"]:
    """Outputs less those at initialization."""
    rnn = functions.network(function)
    width = networks(rnn, params)[0]["V"].shape[1]
    model = functions.model_of(function, width, x, "none")
    now, start = (functions.outputs(model, p, initial, x, lengths) for p in (params, initial))
    return now - start


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["rnn", "x", "lengths", "y"],
    meta_fields=["kernel_of"],
)
@dataclass(frozen=True, eq=False)
class Measures:
    """Data of metrics for :func:`rnntk.train.fit`, each a method.

    Attributes:
        rnn: the network.
        x: sequences, the training ones first.
        lengths: of these.
        y: labels of the training sequences.
        kernel_of: how many of the training sequences the kernel is measured on.
    """

    rnn: ElmanRNN
    x: Float[Array, "n t d"]
    lengths: Int[Array, " n"] | None
    y: Float[Array, "n_train o"] | Float[Array, "n_train t o"]
    kernel_of: int

    def kernel(self, params: Params, initial: Params) -> Float[Array, "2"]:
        """Relative change of the empirical kernel, and its alignment with the labels."""
        k = self.kernel_of
        lengths = None if self.lengths is None else self.lengths[:k]
        now, start = (
            empirical_kernel(self.rnn, p, self.x[:k], lengths1=lengths).ntk
            for p in (params, initial)
        )
        y = self.y[:k].reshape(-1, self.y.shape[-1])
        matrix = now.reshape(len(y), len(y))
        inner = (y * jnp.matmul(matrix, y, precision=jax.lax.Precision.HIGHEST)).sum()
        gram = jnp.matmul(y.T, y, precision=jax.lax.Precision.HIGHEST)
        alignment = inner / (jnp.linalg.norm(matrix) * jnp.linalg.norm(gram))
        return jnp.stack([jnp.linalg.norm(now - start) / jnp.linalg.norm(start), alignment])

    def movement(self, params: Params, initial: Params) -> Float[Array, " groups"]:
        """Relative distance of each trained group to its start, all layers and directions."""

        def size(group: str, tree: Any) -> Array:
            leaves = jax.tree_util.tree_leaves_with_path(tree)
            chosen = [v.ravel() for path, v in leaves if getattr(path[-1], "key", None) == group]
            return jnp.linalg.norm(jnp.concatenate(chosen))

        change = jax.tree.map(jnp.subtract, params, initial)
        return jnp.stack([size(g, change) / size(g, initial) for g in self.rnn.trainable])

    def flipped(self, params: Params, initial: Params) -> Float[Array, ""]:
        """Share of the pre-activations on the training sequences that changed sign."""
        n = len(self.y)
        x = self.x[:n]
        lengths = None if self.lengths is None else self.lengths[:n]
        width = networks(self.rnn, params)[0]["V"].shape[1]
        scales = multipliers(self.rnn, width, x.shape[-1], x.dtype)

        def signs(p: Params) -> Array:
            traces = forward(self.rnn, p, x, lengths, None, scales).traces
            return jnp.stack([layer.preactivations > 0 for one in traces for layer in one])

        changed = signs(params) != signs(initial)
        if lengths is None:
            return changed.mean(dtype=x.dtype)
        real = sequences.mask(lengths, x.shape[1]).T[None, :, :, None]
        count = real.sum(dtype=x.dtype) * changed.shape[0] * changed.shape[-1]
        return (changed & real).sum(dtype=x.dtype) / count
