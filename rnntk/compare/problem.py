"""The data of a comparison."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from rnntk import checks
from rnntk.network.elman import ElmanRNN
from rnntk.train import LOSSES, labels


@dataclass(frozen=True, eq=False)
class Problem:
    """Sequences, the training ones first.

    Attributes:
        x: tokens of all sequences.
        lengths: their steps.
        y: labels of the training sequences, zero at padded steps.
        y_test: labels of the others; None without any.
    """

    x: Float[Array, "n t d"]
    lengths: Int[Array, " n"] | None
    y: Float[np.ndarray, "n_train *s o"]
    y_test: Float[np.ndarray, "n_test *s o"] | None

    @property
    def train_lengths(self) -> Int[Array, " n_train"] | None:
        """Steps of the training sequences."""
        return None if self.lengths is None else self.lengths[: len(self.y)]


def check(
    rnn: ElmanRNN,
    x: ArrayLike,
    y: ArrayLike,
    x_test: ArrayLike | None,
    y_test: ArrayLike | None,
    lengths: ArrayLike | None,
    lengths_test: ArrayLike | None,
) -> Problem:
    """The arguments as a problem, or what is wrong with them."""
    x, lengths = checks.check_batch(x, lengths)
    targets = _labels(rnn, y, x, lengths, None)
    if x_test is None:
        for name, value in (("y_test", y_test), ("lengths_test", lengths_test)):
            if value is not None:
                raise ValueError(f"{name} must come with x_test, got {name} alone.")
        return Problem(x, lengths, targets, None)
    if y_test is None:
        raise ValueError("y_test must come with x_test, got x_test alone.")
    x_test, lengths_test = checks.check_batch(x_test, lengths_test, "_test")
    if x_test.shape[1:] != x.shape[1:] or x_test.dtype != x.dtype:
        raise ValueError(
            f"x_test must have sequences like those of x, {x.shape[1:]} {x.dtype}, got "
            f"{x_test.shape[1:]} {x_test.dtype}; rnntk.pad makes them of one length."
        )
    try:
        targets_test = _labels(rnn, y_test, x_test, lengths_test, targets.shape[-1])
    except (TypeError, ValueError) as error:
        raise type(error)(f"y_test: {error}") from error
    both = None
    if lengths is not None or lengths_test is not None:
        full = (jnp.full(len(v), v.shape[1]) for v in (x, x_test))
        given = (lengths, lengths_test)
        both = jnp.concatenate([f if v is None else v for f, v in zip(full, given, strict=True)])
    return Problem(jnp.concatenate([x, x_test]), both, targets, targets_test)


def _labels(
    rnn: ElmanRNN,
    y: ArrayLike,
    x: Float[Array, "n t d"],
    lengths: Int[Array, " n"] | None,
    outputs: int | None,
) -> Float[np.ndarray, "n *s o"]:
    found, _ = labels.check(rnn, LOSSES["squared"], y, x, lengths, outputs)
    if not np.asarray(found).any():
        raise ValueError("y must not be zero throughout: distances are measured in units of it.")
    return np.asarray(found, np.float64)
