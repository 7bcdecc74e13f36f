"""The result that every kernel function returns."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float


class Kernel(NamedTuple):
    """Tangent kernel and conjugate kernel of the same sequences.

    Shapes are (n1, n2), or (n1, t1, n2, t2) for the "sequence" readout.

    Attributes:
        ntk: inner products of the output's gradients over the trained groups.
        nngp: covariance of the outputs over random networks; at finite width the inner products
            of what the readout sees, times v^2/m, whose limit is that covariance.
    """

    ntk: Float[Array, "..."]
    nngp: Float[Array, "..."]


def symmetric(kernel: Float[Array, "..."]) -> Float[Array, "..."]:
    """The upper triangle, mirrored, so that rounding leaves no asymmetry.

    The first half of the axes are the rows, the second half the columns.
    """
    size = math.prod(kernel.shape[: kernel.ndim // 2])
    upper = jnp.triu(kernel.reshape(size, size))
    return (upper + jnp.triu(upper, 1).T).reshape(kernel.shape)
