"""Step sizes: the largest with which gradient descent on a kernel is stable."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from rnntk import checks
from rnntk.linalg import matrices
from rnntk.network.elman import Params
from rnntk.network.forward import forward
from rnntk.train.functions import Model
from rnntk.train.gradients import Tree, Weights, outputs_and_pullback, replaced, trained
from rnntk.train.losses import Loss, resolve

POWER_ITERATIONS = 30
MOST = 256
"""Sequences at which the stable step of a diverged network is looked for."""


def stable_rate(
    kernel: Float[ArrayLike, "n n"] | Float[ArrayLike, "n t n t"],
    *,
    loss: str | Loss | Callable[[Array, Array], Array] = "squared",
) -> float:
    r"""Largest learning rate with which full-batch gradient descent is stable on a kernel.

    Linearized gradient descent with learning rate :math:`\eta` multiplies the error along an
    eigenvector of the kernel by :math:`1 - \eta c \lambda / n`, with c the curvature of the loss
    (1 for squared and Huber, 1/4 for logistic, 1/2 for cross-entropy), and does not grow while
    :math:`\eta \le 2 n / (c \lambda_{\max})`. As the kernel has a limit at infinite width, so has
    this rate: a fraction of it means the same at every width. Half of it, where the fastest
    direction is learnt in one step, is a usual choice; where batches are small, the kernel of a
    narrow network is larger than the limit, or rates are large enough to change the kernel, less.

    Args:
        kernel: train kernel; with several outputs, the mean over them.
        loss: one that has a curvature.

    Returns:
        The rate; infinity for a kernel that is zero.

    Raises:
        TypeError, ValueError: for a matrix that is not a kernel, or a loss without bounded second
            derivatives.

    Example:
        >>> import numpy as np, rnntk
        >>> rnntk.train.stable_rate(np.diag([4.0, 1.0]))
        1.0
    """
    found = resolve(loss)
    if found.curvature is None:
        raise ValueError(
            f"loss must have bounded second derivatives to have a stable rate, got {found.name!r}."
        )
    checks.refuse_masked("kernel", kernel)
    array = np.asarray(kernel)
    n = len(array) if array.ndim else 0
    if array.ndim == 4:
        array = array.reshape(n * array.shape[1], -1)
    matrix = matrices.check_symmetric(array, "kernel")
    last = len(matrix) - 1
    largest = float(scipy.linalg.eigvalsh(matrix, subset_by_index=[last, last])[0])
    if largest < 0:
        raise ValueError(
            f"kernel must be positive semidefinite, got eigenvalues up to {largest:.3g}."
        )
    return 2 * n / (found.curvature * largest) if largest > 0 else float("inf")


def stable_rate_of(
    model: Model,
    loss: Loss,
    initial: Tree,
    x: Float[Array, "n t d"],
    lengths: Int[Array, " n"] | None,
) -> float | None:
    """The stable rate of one network's empirical kernel, by power iteration; None if it has none.

    Products with the Jacobian and its transpose; the kernel is not formed. The doubled network has
    the kernel of the single one. The estimate approaches the stable rate from above.
    """
    if loss.curvature is None:
        return None
    x, lengths = jax.tree.map(lambda v: v[:MOST], (x, lengths))
    params = initial[0] if model.centre == "double" else initial
    largest = float(_largest(model, params, x, lengths)) / len(x)
    return 2 / (loss.curvature * largest) if 0 < largest < np.inf else None


@jax.jit
def _largest(
    model: Model, params: Params, x: Float[Array, "n t d"], lengths: Int[Array, " n"] | None
) -> Float[Array, ""]:
    """Largest eigenvalue of the empirical kernel."""
    rnn, scales = model.rnn, model.scales
    start = trained(rnn, params)
    found, pull = outputs_and_pullback(rnn, scales, params, x, lengths)

    def run(weights: Weights) -> Array:
        return forward(rnn, replaced(params, weights), x, lengths, None, scales).output

    def product(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        image = jax.jvp(run, (start,), (pull(carry[0]),))[1]
        size = jnp.sqrt(jnp.square(image).sum())
        return image / jnp.where(size > 0, size, 1), size

    vector = jnp.ones_like(found) / jnp.sqrt(jnp.asarray(found.size, found.dtype))
    return jax.lax.fori_loop(0, POWER_ITERATIONS, product, (vector, jnp.zeros((), x.dtype)))[1]
