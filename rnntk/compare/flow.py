"""What gradient flow with a kernel has learnt at some times, for every readout."""

import numpy as np
from jaxtyping import Float

from rnntk.predict import gradient_flow


def flow(
    kernel: Float[np.ndarray, "..."],
    y: Float[np.ndarray, "n *s o"],
    times: Float[np.ndarray, " k"],
) -> Float[np.ndarray, "k m *s o"]:
    """Predictions for all sequences, of which the first n are those trained on.

    Args:
        kernel: of all sequences with those trained on, (m, n), or (m, t, n, t) for outputs at
            every step; with two more axes (o, o) where it is not the same for all outputs.
        y: labels, zero at padded steps.
        times: learning rate times steps, of the mean over sequences of the sum over steps.
    """
    points = y.reshape(-1, y.shape[-1])
    matrix = np.array(kernel)
    if kernel.ndim > 2 * (y.ndim - 1):  # outputs are points too
        half = y.ndim - 1
        matrix = np.moveaxis(matrix, -2, half)
        points = points.reshape(-1, 1)
    cross = matrix.reshape(-1, len(points))
    square = cross[: len(points)]
    # The two halves come from products that round differently.
    square[:] = (square + square.T) / 2
    # gradient_flow averages over points; here steps and outputs add up.
    found = gradient_flow(square, points, cross, times * (len(points) // len(y)))
    return found.reshape(len(times), kernel.shape[0], *y.shape[1:])
