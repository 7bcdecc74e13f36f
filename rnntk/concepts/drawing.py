"""Random directions, and the checks that all concepts share."""

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, PRNGKeyArray

from rnntk import checks
from rnntk.keys import generator


def directions(
    key: PRNGKeyArray, shape: tuple[int, ...], norm: float
) -> Float[np.ndarray, "*shape"]:
    """Vectors along the last axis, uniform on the sphere of radius ``norm``, in float64."""
    if not 0 < norm < np.inf:
        raise ValueError(f"norm must be positive and finite, got {norm}.")
    drawn = generator(key).standard_normal(shape)
    return norm * drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)


def check_betas(betas: ArrayLike, axes: str) -> Float[np.ndarray, "..."]:
    """Return directions as float64, or say what is wrong with them; ``axes`` names their axes."""
    found = np.asarray(betas)
    wanted = axes.count(",") + 1
    if found.ndim != wanted or 0 in found.shape:
        raise ValueError(f"betas must have shape ({axes}), got {found.shape}.")
    return checks.check_values(found, "betas")


def check_data(
    x: ArrayLike, length: int, token_size: int, concept: str
) -> Float[np.ndarray, "n t d"]:
    """Return tokens as float64 on the host, if they are such as the concept is about."""
    checks.check_batch(x, None)
    tokens = np.asarray(x, np.float64)  # JAX would round them to float32 unless x64 is on
    if tokens.shape[1:] != (length, token_size):
        raise ValueError(
            f"x must hold sequences of {length} tokens of size {token_size}, as the {concept} "
            f"concept does, got {tokens.shape[1]} tokens of size {tokens.shape[2]}."
        )
    return tokens
