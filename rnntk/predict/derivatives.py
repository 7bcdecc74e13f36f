"""The infinite-width kernel with its derivatives in the network's standard deviations."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from rnntk.infinite.kernel import infinite_kernel
from rnntk.network.elman import ElmanRNN
from rnntk.tiling import tuning
from rnntk.tiling.threads import in_threads
from rnntk.tiling.tiles import equal_cuts, even_size

STDS = ("w_std", "u_std", "b_std")
"""Those whose derivatives are computed; both kernels are proportional to the square of v_std."""
# Sequences on a side; 128, whose rows are a power of two of bytes, take half as long again.
_TILE = 168


def kernel_with_derivatives(
    rnn: ElmanRNN, x: Float[Array, "n t d"], lengths: Int[Array, " n"] | None, kind: str
) -> tuple[Float[np.ndarray, "n n"], dict[str, Float[np.ndarray, "n n"]]]:
    """One of the two kernels, and its derivatives in the four standard deviations, in float64.

    Forward mode through the recursion, tile by tile on all cores. Measured (relu, n 1000, t 20,
    float64, two cores) all together take the time of 8 kernels, and of tanh 12.

    Raises:
        FloatingPointError: where the kernel or a derivative leaves the range of its dtype.
    """
    kernel = np.asarray(getattr(infinite_kernel(rnn, x, lengths1=lengths), kind), np.float64)
    derivatives = {name: np.empty_like(kernel) for name in STDS}
    size = even_size(len(x), _TILE, tuning.LANES)
    cuts = [slice(start, start + size) for start, size in equal_cuts(len(x), size)]
    pairs = [(a, b) for i, a in enumerate(cuts) for b in cuts[i:]]
    stds = jnp.asarray([float(getattr(rnn, name)) for name in STDS], x.dtype)

    def part(rows: slice) -> tuple[Array, Array | None]:
        return x[rows], None if lengths is None else lengths[rows]

    device = next(iter(x.devices()))
    tangents_of = _compiled(device.platform)

    def compute(pair: tuple[slice, slice]) -> Array:
        rows, columns = pair
        # tiles on the diagonal share the program of the others, wherever that is possible
        own = rows == columns and rnn.initial_state == "independent"
        return tangents_of(rnn, stds, part(rows), None if own else part(columns), kind)

    for (a, b), tangents in zip(pairs, in_threads(compute, pairs, device), strict=True):
        tile = np.asarray(tangents, np.float64)
        for name, values in zip(STDS, tile, strict=True):
            if a == b:  # where passes are fused, both triangles are rounded by themselves
                values = np.triu(values) + np.triu(values, 1).T
            derivatives[name][a, b] = values
            derivatives[name][b, a] = values.T
    v_std = float(np.asarray(rnn.v_std))
    derivatives["v_std"] = kernel * (2 / v_std) if v_std else np.zeros_like(kernel)
    for name, values in derivatives.items():
        if not np.isfinite(values).all():
            raise FloatingPointError(
                f"The derivative of the kernel in {name} leaves the range of {x.dtype}: lower "
                "w_std, scale the tokens down, or use float64."
            )
    return kernel, derivatives


@cache
def _compiled(platform: str) -> Callable[..., Array]:
    options = tuning.one_core_options(platform)
    return jax.jit(_tangents, static_argnames="kind", compiler_options=options)


def _tangents(
    rnn: ElmanRNN, stds: Float[Array, " s"], one: Any, two: Any, kind: str
) -> Float[Array, "s n1 n2"]:
    """The derivatives of a tile of the kernel in the three standard deviations."""

    def tile(values: Float[Array, " s"]) -> Float[Array, "n1 n2"]:
        moved = replace(rnn, **dict(zip(STDS, values, strict=True)))
        x2, lengths2 = (None, None) if two is None else two
        kernel = infinite_kernel(moved, one[0], x2, lengths1=one[1], lengths2=lengths2)
        return getattr(kernel, kind)

    directions = jnp.eye(len(STDS), dtype=stds.dtype)
    return jax.vmap(lambda direction: jax.jvp(tile, (stds,), (direction,))[1])(directions)
