"""Losses of a function's outputs: their gradients, and the curvature that step sizes meet."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.special
from jaxtyping import Float


@dataclass(frozen=True)
class Loss:
    """A convex loss whose gradient in the outputs is link(f) - y.

    Attributes:
        link: from outputs (n, o) to what the labels are compared with.
        curvature: largest eigenvalue of the loss's Hessian in the outputs of one point.
    """

    link: Callable[[Float[np.ndarray, "n o"]], Float[np.ndarray, "n o"]]
    curvature: float


def _identity(outputs: Float[np.ndarray, "n o"]) -> Float[np.ndarray, "n o"]:
    return outputs


def _softmax(outputs: Float[np.ndarray, "n o"]) -> Float[np.ndarray, "n o"]:
    return scipy.special.softmax(outputs, axis=1)


# The Hessian of cross-entropy, diag(p) - p p', has the norm 1/2 at most, that of logistic p (1-p).
LOSSES = {
    "squared": Loss(_identity, 1.0),
    "cross_entropy": Loss(_softmax, 0.5),
    "logistic": Loss(scipy.special.expit, 0.25),
}


def check_loss(loss: str) -> Loss:
    """Return a loss by its name, or say which names there are."""
    if loss not in LOSSES:
        raise ValueError(f"loss must be one of {tuple(LOSSES)}, got {loss!r}.")
    return LOSSES[loss]


def check_probabilities(labels: np.ndarray, loss: str) -> None:
    """Refuse labels that are no probabilities where the loss takes them for such."""
    if loss == "squared":
        return
    if (labels < 0).any() or (labels > 1).any():
        raise ValueError(
            f"y must lie between 0 and 1 for loss={loss!r}, got values from {labels.min():.3g} to "
            f"{labels.max():.3g}."
        )
    if loss == "cross_entropy" and (
        labels.ndim != 2 or np.abs(labels.sum(axis=1) - 1).max() > 1e-9
    ):
        raise ValueError(
            "y must hold a row of class probabilities with the sum 1 for loss='cross_entropy', "
            f"such as one-hot rows, shape (n, classes), got shape {labels.shape}."
        )
