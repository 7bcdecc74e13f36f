"""Random numbers of JAX keys on the host, in float64 whatever JAX is set to."""

import jax
import numpy as np
from jaxtyping import PRNGKeyArray


def generator(key: PRNGKeyArray) -> np.random.Generator:
    """A NumPy generator; the same key gives the same numbers.

    Example:
        >>> one, two = (generator(jax.random.key(0)).standard_normal() for _ in range(2))
        >>> one == two
        True
    """
    bits = jax.random.bits(key, (4,), "uint32")
    return np.random.default_rng(np.asarray(bits).tolist())
