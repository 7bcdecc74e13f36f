"""Readouts: which states the output weights V read, and in what shares.

What V reads is a sum over steps of states, each times its share. A readout is these shares, and
whether the sum is kept apart by steps; forward and backward passes, kernels at finite and infinite
width, and bounds follow from them. ``docs/extending.md`` says how to add one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int


@dataclass(frozen=True)
class Readout:
    """What V reads of the states.

    Attributes:
        share: maps (steps that stand before a state, steps of its sequence) to its share; a state
            beyond the end of its sequence has none, whatever this says.
        per_step: an output at every step, instead of one that sums over them.
        ends_only: only the last state has a share, so that kernels need one pair of steps alone.
    """

    share: Callable[[Float[Array, "t 1"], Float[Array, "1 n"]], ArrayLike]
    per_step: bool = False
    ends_only: bool = False

    def shares(
        self, t: int, lengths: Int[Array, " n"] | None, dtype: jnp.dtype
    ) -> Float[Array, "t n"]:
        """The share of every state of sequences of ``t`` steps; n is 1 without ``lengths``."""
        count = (jnp.full(1, t) if lengths is None else lengths).astype(dtype)[None, :]
        step = jnp.arange(t, dtype=dtype)[:, None]
        share = jnp.asarray(self.share(step, count)).astype(dtype)
        return jnp.where(step < count, jnp.broadcast_to(share, (t, count.shape[1])), 0)

    def outputs(self, t: int) -> int:
        """Number of steps at which sequences of ``t`` steps have an output."""
        return t if self.per_step else 1

    def output_shape(self, n: int, t: int, o: int) -> tuple[int, ...]:
        """Shape of the outputs."""
        return (n, t, o) if self.per_step else (n, o)

    def kernel_shape(self, n1: int, t1: int, n2: int, t2: int) -> tuple[int, ...]:
        """Shape of a kernel of n1 and n2 sequences of t1 and t2 steps."""
        return (n1, t1, n2, t2) if self.per_step else (n1, n2)

    def features(
        self, states: Float[Array, "t n m"], lengths: Int[Array, " n"] | None
    ) -> Float[Array, "s n m"]:
        """What V reads, r(h): one row of states for each step of the output."""
        share = self.shares(len(states), lengths, states.dtype)[..., None]
        # padding may overflow, and zero times infinity is no zero
        kept = jnp.where(share == 0, 0, states * share)
        return kept if self.per_step else kept.sum(axis=0, keepdims=True)

    def features_transposed(
        self, t: int, n: int, lengths: Int[Array, " n"] | None, dtype: jnp.dtype
    ) -> Float[Array, "t n s"]:
        """The transpose of :meth:`features`: what each row of it holds of every state."""
        share = jnp.broadcast_to(self.shares(t, lengths, dtype), (t, n))[..., None]
        return share * jnp.eye(t, dtype=dtype)[:, None, :] if self.per_step else share


READOUTS = {
    "last": Readout(lambda step, count: step == count - 1, ends_only=True),
    "mean": Readout(lambda step, count: 1.0 / count),
    "sequence": Readout(lambda step, count: 1.0, per_step=True),
}
"""Readouts that a name selects."""
