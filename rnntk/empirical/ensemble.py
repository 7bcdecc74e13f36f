"""Empirical kernels over many random networks of one width: their mean and their spread."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, PRNGKeyArray
from tqdm import tqdm

from rnntk import checks
from rnntk.empirical.kernel import empirical_kernel
from rnntk.empirical.planning import plan
from rnntk.kernel import Kernel
from rnntk.network.elman import ElmanRNN
from rnntk.tiling.memory import default_limit


@dataclass(frozen=True)
class Ensemble:
    """Kernels of independent networks.

    Attributes:
        mean: over the networks, entry by entry.
        std: standard deviation of one network's entry (with count - 1); that of the mean is
            smaller by sqrt(count).
        count: number of networks.
    """

    mean: Kernel
    std: Kernel
    count: int


def empirical_ensemble(
    rnn: ElmanRNN,
    key: PRNGKeyArray,
    x1: Float[ArrayLike, "n1 t1 d"],
    x2: Float[ArrayLike, "n2 t2 d"] | None = None,
    *,
    width: int,
    count: int,
    output_dim: int = 1,
    lengths1: Int[ArrayLike, " n1"] | None = None,
    lengths2: Int[ArrayLike, " n2"] | None = None,
    outputs: str = "mean",
    method: str = "auto",
    memory_limit: int | None = None,
) -> Ensemble:
    """Mean and standard deviation of the empirical kernel over random networks.

    Network i draws its parameters, and independent initial states, from
    ``jax.random.split(key, count)[i]``. As many networks as fit in the memory run together.

    Args:
        rnn: the networks' architecture.
        key: JAX random key.
        x1: tokens of the first batch.
        x2: tokens of the second batch.
        width: number of hidden units m.
        count: number of networks, at least 2.
        output_dim: number of outputs.
        lengths1: steps of each sequence of ``x1``.
        lengths2: likewise for ``x2``.
        outputs: as for :func:`rnntk.empirical_kernel`.
        method: likewise.
        memory_limit: likewise, for all networks that run together.

    Raises:
        ValueError: for a count below 2, and as :func:`rnntk.empirical_kernel`.
        TypeError, MemoryError, FloatingPointError: as :func:`rnntk.empirical_kernel`.

    Example:
        >>> import jax, rnntk
        >>> x = jax.random.normal(jax.random.key(0), (5, 4, 3))
        >>> key = jax.random.key(1)
        >>> found = rnntk.empirical_ensemble(rnntk.ElmanRNN(), key, x, width=64, count=8)
        >>> found.mean.ntk.shape, bool((found.std.ntk > 0).all())
        ((5, 5), True)
    """
    count = checks.check_size("count", count, least=2)
    x1, lengths1 = checks.check_batch(x1, lengths1, "1")
    x2, lengths2 = checks.check_second(x1, x2, lengths2)
    init = partial(rnn.init, input_dim=x1.shape[-1], width=width, output_dim=output_dim)

    def one(key: Array) -> Kernel:
        return empirical_kernel(
            rnn,
            init(key),
            x1,
            x2,
            lengths1=lengths1,
            lengths2=lengths2,
            outputs=outputs,
            method=method,
            memory_limit=memory_limit,
            key=key,
        )

    shapes = jax.eval_shape(one, key)
    drawn = jax.eval_shape(init, key)
    chosen = plan(rnn, drawn, x1, x2, outputs=outputs, method=method, memory_limit=memory_limit)
    limit = default_limit(x1) if memory_limit is None else memory_limit
    sizes = [v.size * v.dtype.itemsize for v in jax.tree.leaves((shapes, drawn))]
    together = min(count, max(1, limit // (chosen.memory + sum(sizes))))
    several = jax.jit(jax.vmap(one))

    keys = jax.random.split(key, count)
    mean = jax.tree.map(lambda v: jnp.zeros(v.shape, v.dtype), shapes)
    squares = mean
    with tqdm(total=count, desc="empirical kernels", unit="network", delay=5) as progress:
        for start in range(0, count, together):
            part = keys[start : start + together]
            if together == 1:  # outside of vmap, where it runs on all cores
                kernels = jax.tree.map(lambda v: v[None], one(part[0]))
            else:
                kernels = several(part)
            mean, squares = _merge(mean, squares, kernels, start)
            progress.update(len(part))
    std = jax.tree.map(lambda v: jnp.sqrt(v / (count - 1)), squares)
    if not all(bool(jnp.isfinite(v).all()) for v in (*mean, *std)):
        raise FloatingPointError(checks.overflow("A kernel", x1.dtype))
    return Ensemble(mean, std, count)


@jax.jit
def _merge(
    mean: Kernel, squares: Kernel, kernels: Kernel, count: Int[ArrayLike, ""]
) -> tuple[Kernel, Kernel]:
    """Mean and sum of squared deviations with more networks (Chan, Golub & LeVeque 1983)."""

    def merge(mean: Array, squares: Array, new: Array) -> tuple[Array, Array]:
        own = new.mean(axis=0)
        before = jnp.asarray(count, mean.dtype)
        share = len(new) / (before + len(new))
        gap = own - mean
        within = jnp.square(new - own[None]).sum(axis=0)
        return mean + share * gap, squares + within + before * share * jnp.square(gap)

    merged = [merge(*arrays) for arrays in zip(mean, squares, kernels, strict=True)]
    return Kernel(*(m for m, _ in merged)), Kernel(*(s for _, s in merged))
