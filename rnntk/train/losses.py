"""Losses of outputs against labels, and what each of them takes for a label."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


@dataclass(frozen=True)
class Loss:
    """A loss by its value for each output.

    Attributes:
        name: how messages call it.
        values: maps outputs (b, o), or (b, t, o), and labels to losses, one for each output or
            each row of outputs; they are summed over all but the sequences, and averaged over
            those.
        labels: ``"real"`` numbers, ``"sign"`` (-1 and 1), ``"class"`` (whole numbers from 0), or
            ``"any"``, whatever ``values`` takes.
        curvature: the largest eigenvalue of the second derivatives with respect to the outputs
            of a sequence; None if they are not bounded, or not known.
    """

    name: str
    values: Callable[[Array, Array], Array]
    labels: Literal["real", "sign", "class", "any"]
    curvature: float | None


def _squared(outputs: Array, labels: Array) -> Array:
    return (outputs - labels) ** 2 / 2


def _absolute(outputs: Array, labels: Array) -> Array:
    return jnp.abs(outputs - labels)


def _huber(outputs: Array, labels: Array) -> Array:
    size = jnp.abs(outputs - labels)
    return jnp.where(size <= 1, size**2 / 2, size - 0.5)


def _logistic(outputs: Array, labels: Array) -> Array:
    return jax.nn.softplus(-labels * outputs)


def _cross_entropy(outputs: Array, labels: Array) -> Array:
    chosen = jax.nn.one_hot(labels, outputs.shape[-1], dtype=outputs.dtype)
    return -(chosen * jax.nn.log_softmax(outputs)).sum(axis=-1)


LOSSES = {
    loss.name: loss
    for loss in (
        Loss("squared", _squared, "real", 1.0),
        Loss("absolute", _absolute, "real", None),
        Loss("huber", _huber, "real", 1.0),
        Loss("logistic", _logistic, "sign", 0.25),
        Loss("cross_entropy", _cross_entropy, "class", 0.5),
    )
}
r"""With f an output and y its label: :math:`(f - y)^2 / 2`; :math:`|f - y|`; :math:`(f - y)^2 / 2`
up to a distance of 1 and :math:`|f - y| - 1/2` beyond; :math:`\log(1 + \exp(-y f))`; and
:math:`\log \sum_k \exp(f_k) - f_y`."""


def resolve(loss: "str | Loss | Callable[[Array, Array], Array]") -> Loss:
    """The loss of a name, or of a function that gives its values."""
    if isinstance(loss, Loss):
        return loss
    if callable(loss):
        return Loss(getattr(loss, "__name__", type(loss).__name__), loss, "any", None)
    if loss not in LOSSES:
        raise ValueError(f"loss must be one of {tuple(LOSSES)} or a function, got {loss!r}.")
    return LOSSES[loss]


def mean(
    loss: Loss,
    outputs: Float[Array, "b o"] | Float[Array, "b t o"],
    labels: Array,
    real: Bool[Array, "b t"] | None,
) -> Float[Array, ""]:
    """The loss of a batch; ``real`` is False at padded steps, whose losses do not count.

    Raises:
        ValueError: for values of another shape, as labels that broadcast would make.
    """
    values = loss.values(outputs, labels)
    if values.shape not in (outputs.shape, outputs.shape[:-1]):
        raise ValueError(
            f"loss must give a value for each output, shape {outputs.shape}, or for each row of "
            f"outputs, shape {outputs.shape[:-1]}, of outputs {outputs.shape} and labels "
            f"{labels.shape}; {loss.name!r} gives shape {values.shape}."
        )
    if real is not None:
        values = jnp.where(real.reshape(real.shape + (1,) * (values.ndim - 2)), values, 0)
    return values.sum() / len(outputs)
