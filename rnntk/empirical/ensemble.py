"""Empirical kernels over many random networks of one width: their mean and their spread."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, PRNGKeyArray
from tqdm import tqdm

from rnntk import checks
from rnntk.empirical.backprop import Batch, Network
from rnntk.empirical.costs import Plan
from rnntk.empirical.kernel import evaluate
from rnntk.empirical.planning import plan
from rnntk.kernel import Kernel
from rnntk.network.elman import ElmanRNN
from rnntk.network.multipliers import Multipliers, multipliers
from rnntk.network.parameters import SECOND, sequence_keys
from rnntk.tiling.memory import default_limit


@dataclass(frozen=True)
class Ensemble:
    """Kernels of independent networks.

    Attributes:
        mean: over the networks, entry by entry.
        std: standard deviation of one network's entry (with seeds - 1); that of the mean is
            smaller by sqrt(seeds).
        seeds: number of networks.
    """

    mean: Kernel
    std: Kernel
    seeds: int


def empirical_ensemble(
    rnn: ElmanRNN,
    key: PRNGKeyArray,
    x1: Float[ArrayLike, "n1 t1 d"],
    x2: Float[ArrayLike, "n2 t2 d"] | None = None,
    *,
    width: int,
    seeds: int,
    output_dim: int = 1,
    lengths1: Int[ArrayLike, " n1"] | None = None,
    lengths2: Int[ArrayLike, " n2"] | None = None,
    outputs: str = "mean",
    method: str = "auto",
    memory_limit: int | None = None,
) -> Ensemble:
    """Mean and standard deviation of the empirical kernel over random networks.

    Network i draws its parameters, and independent initial states, from
    ``jax.random.split(key, seeds)[i]``. As many networks as fit in the memory run together.

    Args:
        rnn: the networks' architecture.
        key: JAX random key.
        x1: tokens of the first batch.
        x2: tokens of the second batch.
        width: number of hidden units m.
        seeds: number of networks, at least 2.
        output_dim: number of outputs.
        lengths1: steps of each sequence of ``x1``.
        lengths2: likewise for ``x2``.
        outputs: as for :func:`rnntk.empirical_kernel`.
        method: likewise.
        memory_limit: likewise, for all networks that run together.

    Raises:
        ValueError: for fewer than two seeds, and as :func:`rnntk.empirical_kernel`.
        TypeError, MemoryError, FloatingPointError: as :func:`rnntk.empirical_kernel`.

    Example:
        >>> import jax, rnntk
        >>> x = jax.random.normal(jax.random.key(0), (5, 4, 3))
        >>> key = jax.random.key(1)
        >>> found = rnntk.empirical_ensemble(rnntk.ElmanRNN(), key, x, width=64, seeds=8)
        >>> found.mean.ntk.shape, bool((found.std.ntk > 0).all())
        ((5, 5), True)
    """
    seeds = checks.check_size("seeds", seeds, least=2)
    x1, lengths1 = checks.check_batch(x1, lengths1, "1")
    x2, lengths2 = checks.check_second(x1, x2, lengths2)
    (n1, t1, d), (n2, t2, _) = x1.shape, (x1 if x2 is None else x2).shape
    draw = partial(rnn.init, input_dim=d, width=width, output_dim=output_dim)
    drawn = jax.eval_shape(draw, key)
    chosen = plan(rnn, drawn, x1, x2, outputs=outputs, method=method, memory_limit=memory_limit)
    shape = rnn.r.kernel_shape(n1, t1, n2, t2)
    pairs = (output_dim, output_dim) if outputs == "full" else ()
    mean = Kernel(jnp.zeros(shape + pairs, x1.dtype), jnp.zeros(shape, x1.dtype))
    squares = mean
    sizes = [v.size * v.dtype.itemsize for v in jax.tree.leaves((mean, drawn))]
    limit = default_limit(x1) if memory_limit is None else memory_limit
    together = min(seeds, max(1, limit // (chosen.memory + sum(sizes))))

    scales = multipliers(rnn, width, d, x1.dtype)
    data = (x1, lengths1), None if x2 is None else (x2, lengths2)
    request = _Request(width, output_dim, outputs == "mean", chosen)
    keys = jax.random.split(key, seeds)
    with tqdm(total=seeds, desc="empirical kernels", unit="network", delay=5) as progress:
        for start in range(0, seeds, together):
            part = keys[start : start + together]
            if together == 1:  # outside of vmap, where it runs on all cores
                one = _kernel(rnn, scales, data, request, part[0])
                kernels = jax.tree.map(lambda v: v[None], one)
            else:
                kernels = _kernels(rnn, scales, data, request, part)
            mean, squares = _merge(mean, squares, kernels, start)
            progress.update(len(part))
    std = jax.tree.map(lambda v: jnp.sqrt(v / (seeds - 1)), squares)
    if not all(bool(jnp.isfinite(v).all()) for v in (*mean, *std)):
        raise FloatingPointError(checks.overflow("A kernel", x1.dtype))
    return Ensemble(mean, std, seeds)


class _Request(NamedTuple):
    """What the program of a kernel depends on, beside shapes."""

    width: int
    output_dim: int
    average: bool
    plan: Plan


def _kernel(rnn: ElmanRNN, scales: Multipliers, data: Any, request: _Request, key: Array) -> Kernel:
    """The kernel of the network that a key draws, with its initial states."""
    (x1, lengths1), second = data
    params = rnn.init(
        key, input_dim=x1.shape[-1], width=request.width, output_dim=request.output_dim
    )
    one, two = Batch(x1, lengths1, sequence_keys(rnn, key, len(x1))), None
    if second is not None:
        x2, lengths2 = second
        two = Batch(x2, lengths2, sequence_keys(rnn, jax.random.fold_in(key, SECOND), len(x2)))
    network = Network(rnn, params, scales)
    return evaluate(network, one, two, request.average, request.plan)[0]


@partial(jax.jit, static_argnames="request")
def _kernels(
    rnn: ElmanRNN, scales: Multipliers, data: Any, request: _Request, keys: Array
) -> Kernel:
    """Those of several networks in one program, which is the same for calls alike."""
    return jax.vmap(partial(_kernel, rnn, scales, data, request))(keys)


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
