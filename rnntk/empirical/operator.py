"""The empirical NTK as a linear operator: products with vectors, without the matrix."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, PRNGKeyArray

from rnntk import checks
from rnntk.empirical.backprop import Batch, Network
from rnntk.network.elman import ElmanRNN, Params
from rnntk.network.forward import forward
from rnntk.network.multipliers import multipliers
from rnntk.network.parameters import check_params, hold_untrained, sequence_keys


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class EmpiricalOperator:
    """The matrix of all inner products of all gradients, N x N with N = n o, or n t o.

    Its rows and columns are those of ``rnn.apply(params, x).reshape(-1)``, so that it equals
    ``empirical_kernel(..., outputs="full")``, with the output axes moved behind their sequences.
    ``operator @ v`` and ``operator(v)`` take a vector (N,) or columns (N, k). It is a pytree, and
    solvers such as ``jax.scipy.sparse.linalg.cg`` accept it.

    Attributes:
        network: the network.
        batch: the sequences.
    """

    network: Network
    batch: Batch

    @property
    def shape(self) -> tuple[int, int]:
        """(N, N)."""
        n, t, _ = self.batch.x.shape
        size = n * self.network.rnn.r.outputs(t) * self.network.outputs
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

    def _outputs(self, params: Params) -> Float[Array, " size"]:
        rnn, _, scales = self.network
        held = hold_untrained(rnn, params)
        return forward(rnn, held, *self.batch, scales).output.reshape(-1)


@jax.jit
def _product(operator: EmpiricalOperator, vector: Float[Array, " size"]) -> Float[Array, " size"]:
    params = jax.tree.map(lambda v: v.astype(operator.dtype), operator.network.params)
    (gradient,) = jax.vjp(operator._outputs, params)[1](vector)
    return jax.jvp(operator._outputs, (params,), (gradient,))[1]


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
    x, lengths = checks.check_batch(x, lengths)
    width = check_params(rnn, params, x.shape[-1])
    network = Network(rnn, params, multipliers(rnn, width, x.shape[-1], x.dtype))
    return EmpiricalOperator(network, Batch(x, lengths, sequence_keys(rnn, key, len(x))))
