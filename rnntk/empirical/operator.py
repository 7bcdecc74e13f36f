"""The empirical NTK as a linear operator: products with vectors, without the matrix."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, PRNGKeyArray

from rnntk import sequences
from rnntk.empirical.backprop import Batch
from rnntk.network.elman import ElmanRNN, Params, check_params, networks, sequence_keys
from rnntk.network.forward import forward


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class EmpiricalOperator:
    """The matrix of all inner products of all gradients, N x N with N = n o, or n t o.

    Its rows and columns are those of ``rnn.apply(params, x).reshape(-1)``, so that it equals
    ``empirical_kernel(..., outputs="full")``, with the output axes moved behind their sequences.
    ``operator @ v`` and ``operator(v)`` take a vector (N,) or columns (N, k). It is a pytree, and
    solvers such as ``jax.scipy.sparse.linalg.cg`` accept it.

    Attributes:
        rnn: the network's architecture.
        params: its parameters.
        batch: the sequences.
    """

    rnn: ElmanRNN
    params: Params
    batch: Batch

    @property
    def shape(self) -> tuple[int, int]:
        """(N, N)."""
        n, t, _ = self.batch.x.shape
        steps = t if self.rnn.readout == "sequence" else 1
        size = n * steps * networks(self.rnn, self.params)[0]["V"].shape[0]
        return size, size

    @property
    def dtype(self) -> np.dtype:
        """That of the tokens."""
        return self.batch.x.dtype

    def __call__(self, vector: Float[ArrayLike, "size *columns"]) -> Float[Array, "size *columns"]:
        """J (J' v), by one reverse-mode and one forward-mode pass for each column.

        Raises:
            ValueError: for a vector of another size.
            TypeError: for a vector of another dtype.
        """
        return self @ vector

    def __matmul__(
        self, vector: Float[ArrayLike, "size *columns"]
    ) -> Float[Array, "size *columns"]:
        """See :meth:`__call__`."""
        vector = jnp.asarray(vector)
        if vector.ndim not in (1, 2) or vector.shape[0] != self.shape[0]:
            raise ValueError(
                f"vector must have shape ({self.shape[0]},) or ({self.shape[0]}, k), "
                f"got {vector.shape}."
            )
        if vector.dtype != self.dtype:
            raise TypeError(f"vector must be {self.dtype} like the tokens, got {vector.dtype}.")
        columns = _product if vector.ndim == 1 else jax.vmap(_product, (None, 1), 1)
        return columns(self, vector)

    def _trained(self) -> tuple[list[Array], list[bool]]:
        """The parameters in the dtype of the tokens, with what is trained of them."""
        leaves = jax.tree_util.tree_leaves_with_path(self.params)
        trained = [getattr(path[-1], "key", None) in self.rnn.trainable for path, _ in leaves]
        values = [jnp.asarray(leaf).astype(self.dtype) for _, leaf in leaves]
        return [v for v, t in zip(values, trained, strict=True) if t], trained

    def _outputs(self, trained: list[Array]) -> Float[Array, " size"]:
        values = iter(trained)
        leaves, tree = jax.tree.flatten(self.params)
        flags = self._trained()[1]
        merged = [next(values) if t else v for v, t in zip(leaves, flags, strict=True)]
        params: Any = jax.tree.unflatten(tree, merged)
        x, lengths, keys = self.batch
        return forward(self.rnn, params, x, lengths, keys).output.reshape(-1)


@jax.jit
def _product(operator: EmpiricalOperator, vector: Float[Array, " size"]) -> Float[Array, " size"]:
    trained = operator._trained()[0]
    (gradient,) = jax.vjp(operator._outputs, trained)[1](vector)
    return jax.jvp(operator._outputs, (trained,), (gradient,))[1]


def empirical_operator(
    rnn: ElmanRNN,
    params: Params,
    x: Float[ArrayLike, "n t d"],
    *,
    lengths: Int[ArrayLike, " n"] | None = None,
    key: PRNGKeyArray | None = None,
) -> EmpiricalOperator:
    """The NTK of one network over one batch, as an operator that multiplies vectors.

    A product costs about three forward passes and the memory of one backward pass, where the matrix
    costs n times as much: for solves and extreme eigenvalues at sizes whose matrix does not fit.

    Args:
        rnn: the network's architecture; only the gradients of ``rnn.trainable`` count.
        params: its parameters.
        x: tokens.
        lengths: steps of each sequence; the rest is padding.
        key: draws the states of ``initial_state="independent"``, and may be that of ``rnn.init``.

    Raises:
        ValueError, TypeError: as :meth:`rnntk.ElmanRNN.apply`.

    Example:
        >>> import jax, jax.numpy as jnp, rnntk
        >>> rnn = rnntk.ElmanRNN()
        >>> x = jax.random.normal(jax.random.key(0), (5, 4, 3))
        >>> params = rnn.init(jax.random.key(1), input_dim=3, width=64)
        >>> ntk = rnntk.empirical_operator(rnn, params, x)
        >>> solution, _ = jax.scipy.sparse.linalg.cg(lambda v: ntk @ v + 0.1 * v, jnp.ones(5))
        >>> ntk.shape, solution.shape
        ((5, 5), (5,))
    """
    x, lengths = sequences.check_batch(x, lengths)
    check_params(rnn, params, x.shape[-1])
    return EmpiricalOperator(rnn, params, Batch(x, lengths, sequence_keys(rnn, key, len(x))))
