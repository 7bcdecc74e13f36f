"""Regression by a Gaussian process whose covariance is a kernel."""

import math
from dataclasses import InitVar, dataclass, field

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, PRNGKeyArray, Real

from rnntk import checks
from rnntk.keys import generator
from rnntk.linalg import matrices
from rnntk.predict.arguments import check_cross, check_ridge
from rnntk.predict.dynamics import spectrum
from rnntk.predict.factorization import Factorization, factorize, resolution


@dataclass(frozen=True, eq=False)
class GaussianProcess:
    r"""The posterior of a Gaussian process, given noisy values at the training points.

    With the NNGP kernel it is that over infinitely wide networks of which only the last layer is
    trained, or whose parameters are drawn from their posterior (Lee et al. 2018). Formulas:
    Rasmussen & Williams 2006, equations 2.23-2.24 and 2.30. Several outputs share the kernel and
    are independent.

    Args:
        kernel: covariance K of the training points, shape (n, n), symmetric; not kept.
        y: values, shape (n,), or (n, o) for o outputs.
        noise: variance of the noise of the values, added to the diagonal.

    Attributes:
        coefficients: :math:`(K + \sigma^2 I)^{-1} y`, the shape of ``y``, float64.

    Raises:
        TypeError: if the kernel is not floating point or the values are not real numbers.
        ValueError: for wrong shapes, NaN or infinity, an asymmetric kernel, a negative noise, or
            a kernel with noise that is singular to rounding (docs/theory/spectrum.md).

    Example:
        >>> import numpy as np
        >>> process = GaussianProcess(np.array([[2.0]]), np.array([1.0]), noise=2.0)
        >>> cross, test = np.array([[2.0]]), np.array([[2.0]])
        >>> process.mean(cross), process.covariance(cross, test).round(12)
        (array([0.5]), array([[1.]]))
    """

    kernel: InitVar[Float[ArrayLike, "n n"]]
    y: Real[ArrayLike, " n"] | Real[ArrayLike, "n o"] = field(repr=False)
    noise: float = 0.0
    coefficients: Float[np.ndarray, " n"] | Float[np.ndarray, "n o"] = field(init=False, repr=False)
    _factorization: Factorization = field(init=False, repr=False)

    def __post_init__(self, kernel: Float[ArrayLike, "n n"]) -> None:
        matrix = matrices.check_symmetric(kernel, "kernel")
        y = checks.check_labels(self.y, len(matrix))
        noise = check_ridge(self.noise, "noise")
        factorization = factorize(matrix, noise, resolution(matrix, kernel))
        object.__setattr__(self, "y", y)
        object.__setattr__(self, "noise", noise)
        object.__setattr__(self, "coefficients", factorization.solve(y))
        object.__setattr__(self, "_factorization", factorization)

    def mean(
        self, kernel_test_train: Float[ArrayLike, "n_test n"]
    ) -> Float[np.ndarray, " n_test"] | Float[np.ndarray, "n_test o"]:
        """Posterior mean at new points.

        Args:
            kernel_test_train: covariance of the new points (rows) with the training points.

        Raises:
            TypeError, ValueError: for a kernel of the wrong type or shape, or that is not finite.

        Example:
            >>> import numpy as np
            >>> GaussianProcess(np.eye(2), np.array([1.0, 2.0])).mean(np.eye(2))
            array([1., 2.])
        """
        return check_cross(kernel_test_train, len(self.coefficients)) @ self.coefficients

    def variance(
        self,
        kernel_test_train: Float[ArrayLike, "n_test n"],
        prior: Float[ArrayLike, " n_test"],
    ) -> Float[np.ndarray, " n_test"]:
        """Posterior variance of the function, without noise, the same for each output.

        Args:
            kernel_test_train: covariance of the new points (rows) with the training points.
            prior: variance of each new point, the diagonal of its kernel.

        Raises:
            TypeError, ValueError: for a kernel of the wrong type or shape, or that is not finite;
                for a prior that is smaller than what the training points explain.

        Example:
            >>> import numpy as np
            >>> process = GaussianProcess(np.eye(2), np.array([1.0, 2.0]), noise=1.0)
            >>> process.variance(np.eye(2), np.ones(2)).round(12)
            array([0.5, 0.5])
        """
        cross = check_cross(kernel_test_train, len(self.coefficients))
        checks.refuse_masked("prior", prior)
        variances = checks.check_values(np.asarray(prior), "prior")
        if variances.shape != (len(cross),) or not np.isfinite(variances).all():
            raise ValueError(
                f"prior must hold a finite variance for each of the {len(cross)} new points, got "
                f"shape {variances.shape}."
            )
        explained = (self._factorization.half_solve(cross.T) ** 2).sum(axis=0)
        return self._semidefinite(variances - explained)

    def covariance(
        self,
        kernel_test_train: Float[ArrayLike, "n_test n"],
        kernel_test: Float[ArrayLike, "n_test n_test"],
    ) -> Float[np.ndarray, "n_test n_test"]:
        """Posterior covariance of the function, without noise, the same for each output.

        Args:
            kernel_test_train: covariance of the new points (rows) with the training points.
            kernel_test: prior covariance of the new points.

        Raises:
            TypeError, ValueError: for a kernel of the wrong type or shape, or that is not finite;
                for a prior that is smaller than what the training points explain.

        Example:
            >>> import numpy as np
            >>> process = GaussianProcess(np.eye(2), np.array([1.0, 2.0]), noise=1.0)
            >>> process.covariance(np.eye(2), np.eye(2)).round(12)
            array([[0.5, 0. ],
                   [0. , 0.5]])
        """
        cross = check_cross(kernel_test_train, len(self.coefficients))
        prior = check_prior(kernel_test, len(cross), "kernel_test")
        half = self._factorization.half_solve(cross.T)
        posterior = prior - half.T @ half
        self._semidefinite(np.diagonal(posterior))
        return posterior

    def sample(
        self,
        key: PRNGKeyArray,
        count: int,
        kernel_test_train: Float[ArrayLike, "n_test n"],
        kernel_test: Float[ArrayLike, "n_test n_test"],
    ) -> Float[np.ndarray, "count n_test"] | Float[np.ndarray, "count n_test o"]:
        """Draws of the function at new points from the posterior, without noise.

        Args:
            key: JAX random key.
            count: number of draws.
            kernel_test_train: covariance of the new points (rows) with the training points.
            kernel_test: prior covariance of the new points.

        Raises:
            TypeError, ValueError: as :meth:`covariance`; for a posterior covariance that is not
                positive semidefinite.

        Example:
            >>> import jax, numpy as np
            >>> process = GaussianProcess(np.eye(2), np.array([1.0, 2.0]))
            >>> process.sample(jax.random.key(0), 3, np.eye(2), np.eye(2)).round(6).tolist()
            [[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]]
        """
        checks.check_key(key)
        checks.check_size("count", count)
        mean = self.mean(kernel_test_train)
        return draw(key, count, mean, self.covariance(kernel_test_train, kernel_test), self._slack)

    @property
    def log_marginal_likelihood(self) -> float:
        """Logarithm of the density of the values, summed over outputs.

        Example:
            >>> import numpy as np
            >>> GaussianProcess(np.eye(1), np.zeros(1)).log_marginal_likelihood
            -0.9189385332046727
        """
        n, outputs = len(self.coefficients), np.size(self.y) // len(self.coefficients)
        logarithm = self._factorization.log_determinant + n * math.log(2 * math.pi)
        return -(float(np.vdot(self.y, self.coefficients)) + outputs * logarithm) / 2

    @property
    def _slack(self) -> float:
        """What rounding can make of a posterior variance of 0."""
        return 2 * self._factorization.resolution * (1 + self._factorization.uncertainty)

    def _semidefinite(
        self, variances: Float[np.ndarray, " n_test"]
    ) -> Float[np.ndarray, " n_test"]:
        """Variances with what rounding made negative set to 0."""
        smallest = float(variances.min(initial=0.0))
        # A prior is known to rounding of its own size, which new points may make larger than K's.
        if smallest < -max(self._slack, 1e-6 * float(np.abs(variances).max(initial=0.0))):
            raise ValueError(
                "the prior of the new points must exceed what the training points explain, got a "
                f"posterior variance of {smallest:.3g}: the kernels are not of one function."
            )
        return np.maximum(variances, 0.0)


def check_prior(kernel: ArrayLike, n_test: int, name: str) -> Float[np.ndarray, "n_test n_test"]:
    """Return the kernel of new points with themselves as float64."""
    prior = matrices.check_symmetric(kernel, name)
    if len(prior) != n_test:
        raise ValueError(
            f"{name} must have a row and a column for each of the {n_test} new points, got shape "
            f"{prior.shape}."
        )
    return prior


def draw(
    key: PRNGKeyArray,
    count: int,
    mean: Float[np.ndarray, "n_test *o"],
    covariance: Float[np.ndarray, "n_test n_test"],
    slack: float,
) -> Float[np.ndarray, "count n_test *o"]:
    """Draws from a normal distribution, one and the same covariance for each output."""
    values, vectors = spectrum((covariance + covariance.T) / 2, slack, "posterior covariance")
    columns = mean.reshape(len(mean), -1)
    normal = generator(key).standard_normal((count, *columns.shape))
    return (columns + (vectors * np.sqrt(values)) @ normal).reshape(count, *mean.shape)
