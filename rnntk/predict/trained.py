"""Mean and covariance of infinitely wide networks that have been trained for some time."""

from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Real

from rnntk import checks
from rnntk.linalg import matrices
from rnntk.predict.arguments import check_cross, check_times
from rnntk.predict.dynamics import refuse_unresolved, spectrum
from rnntk.predict.factorization import resolution
from rnntk.predict.flow import flow_filter
from rnntk.predict.gaussian_process import check_prior


class Posterior(NamedTuple):
    """A normal distribution of outputs at new points.

    Attributes:
        mean: shape (n_test,) or (n_test, o) as the labels; with a leading axis for a vector of
            times.
        covariance: shape (n_test, n_test), the same for each output; likewise.
    """

    mean: Float[np.ndarray, "..."]
    covariance: Float[np.ndarray, "..."]


def trained_ensemble(
    ntk: Float[ArrayLike, "n n"],
    nngp: Float[ArrayLike, "n n"],
    y: Real[ArrayLike, " n"] | Real[ArrayLike, "n o"],
    ntk_test_train: Float[ArrayLike, "n_test n"],
    nngp_test_train: Float[ArrayLike, "n_test n"],
    nngp_test: Float[ArrayLike, "n_test n_test"],
    time: Real[ArrayLike, "*k"],
) -> Posterior:
    r"""Infinitely wide networks from random starts, each trained by gradient flow for some time.

    Their outputs begin as the Gaussian process of the NNGP kernel :math:`\mathcal K` and move by
    the NTK :math:`\Theta`. With :math:`\Phi = \Theta(x, X)\, \Theta^{-1} (1 - e^{-\Theta \tau /
    n})` they stay Gaussian (Lee et al. 2019, equations 14-15), with the mean :math:`\Phi y` and the
    covariance

    .. math::

        \mathcal K(x, x') - \Phi\, \mathcal K(X, x') - \mathcal K(x, X)\, \Phi^\top
        + \Phi\, \mathcal K(X, X)\, \Phi^\top .

    It is no posterior of the labels: its variance at the training points falls to 0.

    Args:
        ntk: :math:`\Theta` of the training points, shape (n, n).
        nngp: :math:`\mathcal K` of the training points.
        y: labels, shape (n,), or (n, o) for o outputs.
        ntk_test_train: NTK of the new points (rows) with the training points.
        nngp_test_train: NNGP kernel of the new points (rows) with the training points.
        nngp_test: NNGP kernel of the new points.
        time: one time, or an ascending vector; the unit is that of :func:`gradient_flow`.

    Returns:
        Mean and covariance in float64.

    Raises:
        TypeError: if a kernel is not floating point or the labels are not real numbers.
        ValueError: for wrong shapes, NaN or infinity, an asymmetric kernel, a negative, infinite
            or unsorted time, or an NTK that is not positive semidefinite.

    Example:
        >>> import numpy as np
        >>> one, y = np.eye(1), np.ones(1)
        >>> trained_ensemble(one, one, y, one, one, one, np.log(2)).mean.round(12)
        array([0.5])
    """
    matrix = matrices.check_symmetric(ntk, "ntk")
    n = len(matrix)
    initial = matrices.check_symmetric(nngp, "nngp")
    if len(initial) != n:
        raise ValueError(f"nngp must have the shape of ntk, ({n}, {n}), got {initial.shape}.")
    labels = checks.check_labels(y, n)
    cross = check_cross(ntk_test_train, n, "ntk_test_train")
    initial_cross = check_cross(nngp_test_train, n, "nngp_test_train")
    if len(initial_cross) != len(cross):
        raise ValueError(
            f"nngp_test_train must have the shape of ntk_test_train, {cross.shape}, got "
            f"{initial_cross.shape}."
        )
    prior = check_prior(nngp_test, len(cross), "nngp_test")
    remedy = "; a time of many n / (smallest eigenvalue) is as good as infinite"
    times = check_times(time, "time", remedy)
    rounding = resolution(matrix, ntk)
    values, vectors = spectrum(matrix, rounding, "ntk")
    filters = flow_filter(values, times.ravel() / n)
    weights, start = vectors.T @ labels.reshape(n, -1), vectors.T @ initial
    # outputs start as draws with the covariance of initial
    refuse_unresolved(filters, np.hstack([weights, start]), values, rounding, "time")
    half = cross @ vectors
    within = start @ vectors
    between = vectors.T @ initial_cross.T
    means, covariances = [], []
    for row in filters:
        phi = half * row
        mixed = phi @ between
        means.append(phi @ weights)
        covariances.append(prior - mixed - mixed.T + phi @ within @ phi.T)
    leading = times.shape
    return Posterior(
        np.array(means).reshape(*leading, len(cross), *labels.shape[1:]),
        np.array(covariances).reshape(*leading, *prior.shape),
    )
