"""Checks of labels: their shape against the readout, their kind against the loss."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Int

from rnntk import checks, sequences
from rnntk.network.elman import ElmanRNN
from rnntk.train.losses import Loss

_CLASSES = 1000  # more outputs than this and than labels are asked for, never inferred


def check(
    rnn: ElmanRNN,
    loss: Loss,
    y: ArrayLike,
    x: Array,
    lengths: Int[Array, " n"] | None,
    output_dim: int | None,
) -> tuple[Array, int]:
    """Labels as the loss takes them, zero at padded steps, and the number of outputs.

    Real numbers and signs come back with an axis of outputs, in the dtype of ``x``; classes as
    whole numbers without one.
    """
    n, t = x.shape[:2]
    labels = _values(y)
    whole = np.issubdtype(labels.dtype, np.integer)
    axes = (n, t) if rnn.r.per_step else (n,)
    if loss.labels == "any" and whole and labels.shape == axes:
        expected = axes  # indices of classes, for a loss of the caller's
    elif loss.labels == "class":
        expected = axes
        if not whole:
            raise TypeError(
                f"y must hold the numbers of classes, integers, for loss={loss.name!r}, "
                f"got {labels.dtype}."
            )
    else:
        expected = (*axes, labels.shape[-1] if labels.ndim > len(axes) else 1)
        if len(axes) == 1 and labels.shape == axes:
            labels = labels[:, None]
    if labels.shape != expected or labels.size == 0:
        raise ValueError(_shape_message(rnn, loss, axes, labels.shape))
    if lengths is not None and rnn.r.per_step:
        padded = ~np.asarray(sequences.mask(lengths, t))
        labels[padded] = 1 if loss.labels == "sign" else 0
    return _of_kind(loss, labels, expected == axes, x.dtype, output_dim)


def _of_kind(
    loss: Loss, labels: np.ndarray, indices: bool, dtype: Any, output_dim: int | None
) -> tuple[Array, int]:
    if not np.isfinite(labels).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(labels))[0])
        raise ValueError(
            f"y must be finite, got {labels[index]} at {index}, "
            f"{int((~np.isfinite(labels)).sum())} such values in all."
        )
    if indices:
        if loss.labels == "any" and output_dim is None:
            raise ValueError(
                "output_dim must say how many outputs there are where y holds whole numbers "
                "without an axis of outputs, got None."
            )
        low, high = int(labels.min()), int(labels.max())
        if output_dim is None and high >= max(_CLASSES, labels.size):
            raise ValueError(
                f"y must hold numbers of classes, counted from 0, got {high}, for which the "
                f"network would need {high + 1} outputs; give output_dim if that is meant."
            )
        outputs = high + 1 if output_dim is None else output_dim
        if loss.labels == "class" and not 0 <= low <= high < outputs:
            raise ValueError(
                f"y must hold numbers of classes from 0 to {outputs - 1}, got {low} to {high}."
            )
        return jnp.asarray(labels.astype(np.int32)), outputs
    if output_dim not in (None, labels.shape[-1]):
        raise ValueError(
            f"output_dim must be the number of outputs in y, {labels.shape[-1]}, got {output_dim}."
        )
    if loss.labels == "sign" and not np.isin(labels, (-1, 1)).all():
        wrong = labels[~np.isin(labels, (-1, 1))].flat[0]
        raise ValueError(f"y must be -1 or 1 for loss={loss.name!r}, got {wrong}.")
    with np.errstate(over="ignore"):
        targets = labels.astype(dtype)
        total = np.square(targets).sum()
    if not np.isfinite(total):
        raise ValueError(
            f"y is too large for a loss in {dtype}: its largest entry has size "
            f"{np.abs(labels).max():.3g}."
        )
    return jnp.asarray(targets), labels.shape[-1]


def _values(y: ArrayLike) -> np.ndarray:
    checks.refuse_masked("y", y)
    labels = np.array(y)
    if not (np.issubdtype(labels.dtype, np.integer) or np.issubdtype(labels.dtype, np.floating)):
        raise TypeError(f"y must be real numbers, got {labels.dtype}.")
    return labels


def _shape_message(rnn: ElmanRNN, loss: Loss, axes: tuple[int, ...], got: tuple[int, ...]) -> str:
    what = "sequence and step" if len(axes) == 2 else "sequence"
    shapes = [f"({', '.join(map(str, axes))}, outputs)"]
    if len(axes) == 1:
        shapes.insert(0, f"({axes[0]},)")
    if loss.labels == "class":
        shapes = [str(axes)]
    return (
        f"y must hold a label for each {what}, shape {' or '.join(shapes)}, for "
        f"readout={rnn.readout!r} and loss={loss.name!r}, got {got}."
    )
