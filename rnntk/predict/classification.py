"""Classes from a kernel: least squares on one-hot labels, or support vector machines."""

import math
from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from typing import Any, Literal

import numpy as np
import scipy.optimize
import scipy.special
from jax.typing import ArrayLike
from jaxtyping import Float, Shaped

from rnntk import checks
from rnntk.linalg import matrices
from rnntk.predict.arguments import check_cross
from rnntk.predict.regression import KernelRegression

METHODS = ("least_squares", "svm")
_FOLDS = 5
Decide = Callable[[ArrayLike], Float[np.ndarray, "n_test c"]]


@dataclass(frozen=True, eq=False)
class KernelClassifier:
    r"""Classification with a kernel of the training points.

    ``"least_squares"`` fits :class:`KernelRegression` to one-hot rows less their mean 1/c: the
    largest output wins. ``"svm"`` is scikit-learn's support vector machine on the precomputed
    kernel, one machine for each two classes, votes and margins summed up by class.

    Probabilities are softmax(outputs / T). The temperature T minimizes the log loss of predictions
    for training points that were held out (Guo et al. 2017, section 4.2): left out one by one in
    closed form for least squares, in five stratified folds for support vector machines.

    Args:
        kernel: train kernel, shape (n, n), symmetric; not kept.
        labels: class of each training point, shape (n,), integers or text.
        method: ``"least_squares"`` or ``"svm"``.
        ridge: of least squares, see :class:`KernelRegression`; by default chosen by leave-one-out.
        C: of support vector machines, the price of a violated margin, with the kernel divided by
            the mean of its diagonal.

    Attributes:
        classes: the distinct labels, ascending, shape (c,).
        temperature: T.

    Raises:
        TypeError: if the kernel is not floating point.
        ValueError: for wrong shapes, NaN or infinity, an asymmetric kernel, labels that are not
            classes, or fewer than two of them, a bad ridge or C, or a kernel with ridge that is
            singular to rounding.

    Example:
        >>> import numpy as np
        >>> x = np.array([-2.0, -1.0, 1.0, 2.0])
        >>> model = KernelClassifier(np.outer(x, x) + np.eye(4), np.array(["a", "a", "b", "b"]))
        >>> model.predict(np.outer([-3.0, 3.0], x)).tolist()
        ['a', 'b']
    """

    kernel: InitVar[Float[ArrayLike, "n n"]]
    labels: Shaped[ArrayLike, " n"] = field(repr=False)
    method: Literal["least_squares", "svm"] = "least_squares"
    ridge: float | Literal["leave_one_out", "marginal_likelihood"] = "leave_one_out"
    C: float = 10.0
    classes: Shaped[np.ndarray, " c"] = field(init=False)
    temperature: float = field(init=False)
    _decide: Decide = field(init=False, repr=False)

    def __post_init__(self, kernel: Float[ArrayLike, "n n"]) -> None:
        matrix = matrices.check_symmetric(kernel, "kernel")
        classes, index = check_classes(self.labels, len(matrix))
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {METHODS}, got {self.method!r}.")
        checks.check_positive("C", self.C)
        decide: Decide
        if self.method == "least_squares":
            regression = KernelRegression(kernel, one_hot(index, len(classes)), self.ridge)
            object.__setattr__(self, "ridge", regression.ridge)
            decide, held_out = regression.predict, regression.leave_one_out()
        else:
            scale = max(float(np.mean(np.diagonal(matrix))), np.finfo(np.float64).tiny)
            decide = _machine(matrix / scale, index, len(classes), self.C, scale)
            held_out = _in_folds(matrix / scale, index, len(classes), self.C)
        for name, value in (
            ("classes", classes),
            ("temperature", fit_temperature(held_out, index)),
            ("_decide", decide),
        ):
            object.__setattr__(self, name, value)

    def decision(
        self, kernel_test_train: Float[ArrayLike, "n_test n"]
    ) -> Float[np.ndarray, "n_test c"]:
        """What is compared between the classes, an output for each.

        Example:
            >>> import numpy as np
            >>> model = KernelClassifier(np.eye(2), np.array([0, 1]), ridge=1.0)
            >>> model.decision(np.eye(2))
            array([[ 0.25, -0.25],
                   [-0.25,  0.25]])
        """
        # as it is given: an array of it alone would have lost its mask
        return self._decide(kernel_test_train)

    def predict(
        self, kernel_test_train: Float[ArrayLike, "n_test n"]
    ) -> Shaped[np.ndarray, " n_test"]:
        """The most likely class of new points.

        Args:
            kernel_test_train: kernel of the new points (rows) with the training points.

        Raises:
            TypeError, ValueError: for a kernel of the wrong type or shape, or that is not finite.

        Example:
            >>> import numpy as np
            >>> KernelClassifier(np.eye(2), np.array([0, 1]), ridge=1.0).predict(np.eye(2))
            array([0, 1])
        """
        return self.classes[np.argmax(self.decision(kernel_test_train), axis=1)]

    def probabilities(
        self, kernel_test_train: Float[ArrayLike, "n_test n"]
    ) -> Float[np.ndarray, "n_test c"]:
        """Probability of each class for new points.

        Args:
            kernel_test_train: kernel of the new points (rows) with the training points.

        Raises:
            TypeError, ValueError: for a kernel of the wrong type or shape, or that is not finite;
                for support vector machines with a class that has one training point only.

        Example:
            >>> import numpy as np
            >>> x = np.array([-2.0, -1.0, 1.0, 2.0])
            >>> model = KernelClassifier(np.outer(x, x) + np.eye(4), np.array([0, 0, 1, 1]))
            >>> bool((model.probabilities(np.outer([-3.0, 3.0], x)).argmax(1) == [0, 1]).all())
            True
        """
        if math.isnan(self.temperature):
            raise ValueError(
                "probabilities of support vector machines need two training points of each class, "
                "to hold one out."
            )
        return scipy.special.softmax(self.decision(kernel_test_train) / self.temperature, axis=1)


def check_classes(labels: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct labels, and which of them each point has."""
    checks.refuse_masked("labels", labels)
    given = np.asarray(labels)
    if given.dtype.kind == "U" and not all(isinstance(label, str) for label in labels):
        raise TypeError(
            "labels must be all numbers or all text: an array makes 1 and '1' one class."
        )
    if given.shape != (n,):
        raise ValueError(
            f"labels must hold one class for each of the {n} training points, got {given.shape}."
        )
    if given.dtype.kind == "f" and not (np.isfinite(given) & (given == np.round(given))).all():
        raise ValueError("labels must be classes, got numbers that are not whole or not finite.")
    if given.dtype.kind not in "iufbUSO":
        raise TypeError(f"labels must be integers or text, got {given.dtype}.")
    try:
        classes, index = np.unique(given, return_inverse=True)
    except TypeError as error:  # objects without an order, None among them
        raise TypeError(f"labels must be integers or text, all of one kind: {error}.") from error
    if len(classes) < 2:
        raise ValueError(f"labels must have at least two classes, got one class: {classes[0]}.")
    return classes, index


def one_hot(index: np.ndarray, count: int) -> Float[np.ndarray, "n c"]:
    """One-hot rows less their mean."""
    return np.eye(count)[index] - 1 / count


def fit_temperature(held_out: Float[np.ndarray, "n c"], index: np.ndarray) -> float:
    """The T for which softmax(outputs / T) has the least log loss; NaN of NaN."""
    if np.isnan(held_out).any():
        return math.nan
    size = float(np.abs(held_out).max()) or 1.0

    def loss(logarithm: float) -> float:
        logits = held_out / size * math.exp(-logarithm)
        log_p = scipy.special.log_softmax(logits, axis=1)
        return -float(log_p[np.arange(len(index)), index].mean())

    # between nearly uniform and nearly certain probabilities
    found = scipy.optimize.minimize_scalar(loss, bounds=(-7.0, 3.0), method="bounded")
    return size * math.exp(float(found.x))


def _machine(
    matrix: Float[np.ndarray, "n n"], index: np.ndarray, count: int, C: float, scale: float
) -> Decide:
    """A fitted machine as a function of cross kernels."""
    from sklearn.svm import SVC  # half a second, and only these need it

    machine = SVC(kernel="precomputed", C=C, decision_function_shape="ovr").fit(matrix, index)

    def decide(kernel_test_train: Float[ArrayLike, "n_test n"]) -> Float[np.ndarray, "n_test c"]:
        cross = check_cross(kernel_test_train, len(matrix))
        if len(cross) == 0:  # which scikit-learn refuses
            return np.zeros((0, count))
        values = machine.decision_function(cross / scale)
        return values if count > 2 else np.stack([-values, values], axis=1)

    return decide


def _in_folds(
    matrix: Float[np.ndarray, "n n"], index: np.ndarray, count: int, C: float
) -> Float[np.ndarray, "n c"]:
    """Outputs for each training point of machines that have not seen it; NaN if none can be."""
    from sklearn.model_selection import StratifiedKFold

    held_out = np.full((len(index), count), np.nan)
    folds = min(_FOLDS, int(np.bincount(index).min()))
    if folds < 2:
        return held_out
    split = StratifiedKFold(folds, shuffle=True, random_state=0)
    for learn, rest in split.split(matrix, index):
        decide = _machine(matrix[np.ix_(learn, learn)], index[learn], count, C, 1.0)
        held_out[rest] = decide(matrix[np.ix_(rest, learn)])
    return held_out
