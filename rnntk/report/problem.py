"""The data of a report: read, divided, encoded as targets, brought into range."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from rnntk import datasets
from rnntk.datasets import MIN_TRAIN, Dataset
from rnntk.network.elman import ElmanRNN
from rnntk.report.settings import Settings

MAX_TEST = 2000
"""Most test sequences: more would only cost time."""
USUAL_NORM = (1e-3, 1e3)
"""Where the root mean square norm of tokens leaves them as they are: see :func:`prepare`."""
USUAL_SPREAD = (1e-140, 1e140)
"""Standard deviations of labels whose squares are far from overflow and underflow."""


@dataclass(frozen=True, eq=False)
class Problem:
    """Network, data and targets that the stages share.

    Attributes:
        rnn: the network.
        train: training sequences, tokens times 2**token_exponent.
        test: test sequences, likewise.
        targets: of the regressions: classes as one-hot rows less 1/c, values standardized.
        settings: what was asked for.
        token_exponent: see :func:`prepare`.
    """

    rnn: ElmanRNN
    train: Dataset
    test: Dataset
    targets: Float[np.ndarray, "n o"]
    settings: Settings
    token_exponent: int

    @property
    def metric(self) -> str:
        """What methods are judged by."""
        return "test accuracy" if self.train.is_classification else "test RMSE"

    def score(self, predictions: Float[np.ndarray, "n_test o"]) -> float:
        """Accuracy on the test sequences, or root mean square error in the labels' units."""
        learn, test = self.train, self.test
        if learn.is_classification:
            return float(np.mean(learn.classes[predictions.argmax(axis=1)] == test.y))
        values = learn.y.mean() + learn.y.std() * predictions[:, 0]
        return float(np.sqrt(np.mean((values - test.y) ** 2)))

    def arrays(
        self, data: Dataset, dtype: str | None = None
    ) -> tuple[Float[Array, "n t d"], Int[Array, " n"] | None]:
        """Tokens and lengths as JAX arrays, of the kernels' dtype unless another is asked for."""
        lengths = None if data.lengths is None else jnp.asarray(data.lengths)
        return jnp.asarray(data.x.astype(dtype or self.settings.dtype)), lengths

    def key(self, width: int, seed: int) -> Array:
        """The key of one network."""
        key = jax.random.key(self.settings.seed)
        return jax.random.fold_in(jax.random.fold_in(key, width), seed)


def prepare(settings: Settings) -> Problem:
    """Load and divide the data, and encode the training labels.

    Tokens whose norm is far from one (:data:`USUAL_NORM`) are multiplied by a power of two, for
    the networks are trained in float32. That is exact; the kernels of homogeneous activations
    without biases are multiplied by the square, and others are left as they are.

    Raises:
        ValueError: as :func:`rnntk.datasets.load` and :func:`rnntk.datasets.split`; if all
            training tokens are zero; if test data does not fit; or if values have a spread outside
            :data:`USUAL_SPREAD`.

    Example:
        >>> from rnntk.report import Settings
        >>> problem = prepare(Settings(n=50))
        >>> problem.targets.shape, float(abs(problem.targets.sum(axis=1)).max()) < 1e-12
        ((50, 10), True)
    """
    learn, test = _divided(settings)
    if not learn.x.any():
        raise ValueError(
            f"{learn.name}: x is zero in all {len(learn)} training sequences; every kernel would "
            "be zero."
        )
    if learn.is_classification:
        one_hot = learn.y[:, None] == learn.classes[None, :]
        targets = one_hot.astype(np.float64) - 1.0 / len(learn.classes)
    else:
        _check_spread(learn.name, np.concatenate([learn.y, test.y]))
        _check_spread(learn.name, learn.y)
        targets = ((learn.y - learn.y.mean()) / learn.y.std())[:, None]
    rnn = settings.network()
    exponent = 0
    if rnn.phi.homogeneous and not settings.b_std:
        magnitude, (low, high) = datasets.log2_norm(learn), np.log2(USUAL_NORM)
        exponent = 0 if low <= magnitude <= high else -round(magnitude)
    learn, test = (replace(part, x=np.ldexp(part.x, exponent)) for part in (learn, test))
    return Problem(rnn, learn, test, targets, settings, exponent)


def _divided(settings: Settings) -> tuple[Dataset, Dataset]:
    data = datasets.load(settings.data, task=settings.task)
    if settings.test:
        return _with_test(settings, data)
    n = settings.n
    if n is None and settings.test_fraction is not None:
        n = max(MIN_TRAIN, len(data) - max(1, round(settings.test_fraction * len(data))))
    elif n is None:
        n = min(200, max(MIN_TRAIN, len(data) * 4 // 5))
    left = len(data) - n
    return datasets.split(data, n, n_test=max(1, min(left, MAX_TEST)), seed=settings.seed)


def _with_test(settings: Settings, data: Dataset) -> tuple[Dataset, Dataset]:
    """Training data, of which ``n`` sequences are drawn, and test data of another file."""
    test = datasets.load(settings.test, task=settings.task)
    if test.x.shape[2] != data.x.shape[2]:
        raise ValueError(
            f"{test.name}: test tokens must have {data.x.shape[2]} entries like those of "
            f"{data.name}, got {test.x.shape[2]}."
        )
    if test.is_classification != data.is_classification:
        kinds = {True: "classes", False: "values"}
        raise ValueError(
            f"{test.name}: labels must be {kinds[data.is_classification]} like those of "
            f"{data.name}, got {kinds[test.is_classification]}; --task declares both."
        )
    if settings.n is not None and settings.n < len(data):
        data = datasets.split(data, settings.n, seed=settings.seed)[0]
    return data, test.take(np.arange(min(len(test), MAX_TEST)))


def _check_spread(name: str, y: Float[np.ndarray, " n"]) -> None:
    low, high = USUAL_SPREAD
    with np.errstate(all="ignore"):
        spread = y.std()
    if not low <= spread <= high:
        raise ValueError(
            f"{name}: values y must have a standard deviation within {low:g} to {high:g}, "
            f"got {spread:g}; multiply y by a constant."
        )
