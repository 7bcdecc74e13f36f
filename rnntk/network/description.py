"""Networks in words and numbers, by which a stored result knows the one it is of."""

from dataclasses import fields
from typing import Any

import jax.numpy as jnp
import numpy as np

from rnntk.network.elman import STDS, ElmanRNN

_POINTS = (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0)


def describe(rnn: ElmanRNN) -> dict[str, Any]:
    """All fields of a network in types that JSON has, equal for equal networks.

    An activation is known by its name and by its values at a few points, to five digits: names of
    functions are not unique.

    Example:
        >>> describe(ElmanRNN())["activation"]
        'relu, 0 0 0 0.5 1 2'
    """
    found: dict[str, Any] = {}
    for field in fields(rnn):
        value = getattr(rnn, field.name)
        if field.name in STDS:
            value = float(value)
        found[field.name] = list(value) if isinstance(value, tuple) else value
    values = np.asarray(rnn.phi.fn(jnp.asarray(_POINTS, jnp.float32)))
    found["activation"] = f"{rnn.phi.name}, {' '.join(f'{v + 0.0:.5g}' for v in values)}"
    return found
