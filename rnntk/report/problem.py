"""The data of a report: read, divided, encoded as targets, brought into range."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from rnntk import datasets
from rnntk.datasets import MIN_TRAIN, Dataset, files
from rnntk.network.elman import ElmanRNN
from rnntk.report.settings import Settings

MAX_TEST = 2000
"""Most test sequences: more would only cost time."""
USUAL_NORM = (1e-3, 1e3)
"""Where the root mean square norm of tokens leaves them as they are: see :func:`prepare`."""
USUAL_SIZE = (1e-15, 1e15)
"""Where the norm of tokens has to lie that are not multiplied."""
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
    without biases are multiplied by the square. Others are left as they are.

    Raises:
        ValueError: as :func:`rnntk.datasets.load` and :func:`rnntk.datasets.split`; if all
            training tokens are zero; if test data does not fit; if values have a spread outside
            :data:`USUAL_SPREAD`; or tokens that are left as they are a norm outside
            :data:`USUAL_SIZE`.

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
    else:
        _check_size(learn)
    learn, test = (replace(part, x=np.ldexp(part.x, exponent)) for part in (learn, test))
    return Problem(rnn, learn, test, targets, settings, exponent)


def _divided(settings: Settings) -> tuple[Dataset, Dataset]:
    data = datasets.load(settings.data, task=settings.task)
    if settings.test:
        return _with_test(settings, data)
    n, n_test = settings.n, None
    if settings.test_fraction is not None:
        n_test = max(1, round(settings.test_fraction * len(data)))
        n = n or max(MIN_TRAIN, len(data) - n_test)
    elif n is None:
        n = min(200, max(MIN_TRAIN, len(data) * 4 // 5))
    n_test = max(1, len(data) - n) if n_test is None else n_test
    return datasets.split(data, n, n_test=min(n_test, MAX_TEST), seed=settings.seed)


def _with_test(settings: Settings, data: Dataset) -> tuple[Dataset, Dataset]:
    """Training data, of which ``n`` sequences are drawn, and test data of another file."""
    test = files.read(settings.test, settings.task)
    if test.x.shape[2] != data.x.shape[2]:
        raise ValueError(
            f"{test.name}: test tokens must have {data.x.shape[2]} entries like those of "
            f"{data.name}, got {test.x.shape[2]}."
        )
    if _kind(test) != _kind(data):
        raise ValueError(
            f"{test.name}: labels must be {_kind(data)} like those of {data.name}, got "
            f"{_kind(test)}; --task declares both."
        )
    n = len(data) if settings.n is None else settings.n
    if not MIN_TRAIN <= n <= len(data):
        raise ValueError(
            f"n must be at least {MIN_TRAIN} training sequences, and at most the {len(data)} of "
            f"{data.name}, got {n}."
        )
    if n < len(data):
        data = datasets.split(data, n, seed=settings.seed)[0]
    # files are often sorted by class
    order = np.random.default_rng(settings.seed).permutation(len(test))[:MAX_TEST]
    return data, test.take(np.sort(order))


def _kind(data: Dataset) -> str:
    kinds = {"f": "values", "U": "classes, as text"}
    return kinds.get(data.y.dtype.kind, "classes, as whole numbers")


def _check_size(data: Dataset) -> None:
    """Refuse tokens of which float32, in which networks are trained, has no squares."""
    magnitude, (low, high) = datasets.log2_norm(data), USUAL_SIZE
    if not np.log2(low) <= magnitude <= np.log2(high):
        raise ValueError(
            f"{data.name}: the root mean square norm of the tokens must be within {low:g} to "
            f"{high:g}, got 10^{magnitude * np.log10(2):.1f}; multiply x by a constant."
        )


def _check_spread(name: str, y: Float[np.ndarray, " n"]) -> None:
    low, high = USUAL_SPREAD
    with np.errstate(all="ignore"):
        spread = y.std()
    if not low <= spread <= high:
        raise ValueError(
            f"{name}: values y must have a standard deviation within {low:g} to {high:g}, "
            f"got {spread:g}; multiply y by a constant."
        )
