"""Kernel classification as a scikit-learn estimator."""

import math
from typing import Any

import numpy as np
import scipy.special
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from rnntk.checks import refuse_masked
from rnntk.estimators.base import KINDS, SequenceEstimator
from rnntk.network.elman import GROUPS
from rnntk.predict import KernelClassifier, fit
from rnntk.predict.classification import METHODS as CLASSIFIERS
from rnntk.predict.classification import one_hot
from rnntk.predict.fitting import choose_method
from rnntk.predict.sequence_kernel import SequenceKernel


class RNTKClassifier(ClassifierMixin, SequenceEstimator):
    """Classification with the kernel of an infinitely wide recurrent network.

    Input: arrays (n, t, d); (n, t), read as sequences of t steps of one channel; or lists of
    sequences of different lengths, (t_i, d) or (t_i,). ``lengths`` says how many steps of each
    row of an array exist; it is metadata that meta-estimators route to each method that asks for
    it (``set_fit_request(lengths=True)``, ``set_predict_request``,
    ``set_score_request``). The kernel has the dtype of X, float32 where JAX's
    x64 is off.

    Args:
        activation: of the network; this and the next eleven as in :class:`rnntk.ElmanRNN`, with a
            small bias by default.
        w_std: multiplier of the recurrent weights.
        u_std: multiplier of the input weights.
        b_std: multiplier of the bias.
        v_std: multiplier of the readout.
        readout: ``"last"`` or ``"mean"``.
        depth: number of layers.
        bidirectional: add a network that reads backwards.
        input_scaling: ``"none"`` or ``"fan_in"``.
        initial_state: ``"zero"``, ``"shared"`` or ``"independent"``.
        initial_state_std: standard deviation of random initial states.
        trainable: groups of parameters that enter the tangent kernel.
        kernel: ``"ntk"``, ``"nngp"``, or ``"precomputed"``: then X is a train kernel in fit, and a
            kernel of new sequences with the training ones in predict.
        classifier: ``"least_squares"`` or ``"svm"``, see
            :class:`rnntk.predict.KernelClassifier`.
        ridge: of least squares: a number, ``"leave_one_out"`` or ``"marginal_likelihood"``.
        C: of support vector machines.
        method: how least squares are solved, see :func:`rnntk.predict.fit`. Probabilities are for
            exact solving only.
        tolerance: of iterative methods.
        rank: of preconditioners or Nystrom features.

    Attributes:
        model_: the :class:`rnntk.predict.KernelClassifier`, or where that is too large a
            :class:`rnntk.predict.SequenceRegression` of one-hot labels.
        classes_: the distinct labels.
        n_features_in_: the token size, or the number of columns of a 2-D X.

    Example:
        >>> import numpy as np
        >>> X = np.random.default_rng(0).standard_normal((30, 4, 2))
        >>> y = np.where(X.sum(axis=(1, 2)) > 0, "up", "down")
        >>> RNTKClassifier().fit(X, y).predict_proba(X[:3]).shape
        (3, 2)
    """

    def __init__(
        self,
        activation: Any = "relu",
        w_std: float = math.sqrt(2),
        u_std: float = math.sqrt(2),
        b_std: float = 0.1,
        v_std: float = 1.0,
        readout: str = "last",
        depth: int = 1,
        bidirectional: bool = False,
        input_scaling: str = "none",
        initial_state: str = "zero",
        initial_state_std: float = 0.0,
        trainable: tuple[str, ...] = GROUPS,
        kernel: str = "ntk",
        classifier: Any = "least_squares",
        ridge: Any = "leave_one_out",
        C: float = 10.0,
        method: str = "auto",
        tolerance: float = 1e-8,
        rank: int | None = None,
    ) -> None:
        self.activation = activation
        self.w_std = w_std
        self.u_std = u_std
        self.b_std = b_std
        self.v_std = v_std
        self.readout = readout
        self.depth = depth
        self.bidirectional = bidirectional
        self.input_scaling = input_scaling
        self.initial_state = initial_state
        self.initial_state_std = initial_state_std
        self.trainable = trainable
        self.kernel = kernel
        self.classifier = classifier
        self.ridge = ridge
        self.C = C
        self.method = method
        self.tolerance = tolerance
        self.rank = rank

    def fit(self, X: Any, y: Any, lengths: Any = None) -> "RNTKClassifier":
        """Fit to sequences and their classes, (n,)."""
        self._check_kernel((*KINDS, "precomputed"))
        if self.classifier not in CLASSIFIERS:
            raise ValueError(f"classifier must be one of {CLASSIFIERS}, got {self.classifier!r}.")
        if y is None:
            raise ValueError("RNTKClassifier requires y to be passed, but the target y is None.")
        refuse_masked("y", y)
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        self.classes_, index = np.unique(y, return_inverse=True)
        if self.kernel == "precomputed":
            matrix = self._square(X)
            check_consistent_length(matrix, y)
            self._fit_matrix(matrix, index)
            return self
        x, counts = self._read(X, lengths, reset=True)
        check_consistent_length(x, y)
        method = choose_method(len(x), None)[0] if self.method == "auto" else self.method
        self.kernel_ = SequenceKernel.of(self._network(), x, counts, self.kernel)
        if method == "exact" or self.classifier == "svm":
            self._fit_matrix(self.kernel_.matrix(), index)
        else:
            _check_count(self.classes_)
            self.model_: Any = fit(
                self.kernel_.rnn,
                x,
                one_hot(index, len(self.classes_)),
                self.ridge,
                lengths=counts,
                kind=self.kernel,
                method=method,
                tolerance=self.tolerance,
                rank=self.rank,
            )
        return self

    def _fit_matrix(self, matrix: np.ndarray, index: np.ndarray) -> None:
        _check_count(self.classes_)
        self.model_ = KernelClassifier(matrix, index, self.classifier, self.ridge, self.C)

    def decision_function(self, X: Any, lengths: Any = None) -> np.ndarray:
        """Outputs of the classes, (n, classes); for two classes how far the second leads, (n,)."""
        values = self._outputs(X, lengths)
        return values if values.shape[1] > 2 else values[:, 1] - values[:, 0]

    def predict(self, X: Any, lengths: Any = None) -> np.ndarray:
        """The most likely class, (n,)."""
        outputs = self._outputs(X, lengths)
        return self.classes_[np.argmax(outputs, axis=1)]

    def predict_proba(self, X: Any, lengths: Any = None) -> np.ndarray:
        """Calibrated probabilities, (n, classes), of :class:`rnntk.predict.KernelClassifier`."""
        values = self._outputs(X, lengths)
        if not isinstance(self.model_, KernelClassifier):
            raise ValueError(
                f"predict_proba needs method='exact', got {self.model_.method!r}: the iterative "
                "methods hold nothing out."
            )
        if math.isnan(self.model_.temperature):
            raise ValueError("predict_proba needs two training sequences of each class.")
        return scipy.special.softmax(values / self.model_.temperature, axis=1)

    def _outputs(self, X: Any, lengths: Any) -> np.ndarray:
        check_is_fitted(self)
        if self.kernel == "precomputed":
            return self.model_.decision(self._cross(X))
        x, counts = self._read(X, lengths, reset=False)
        if isinstance(self.model_, KernelClassifier):
            return self.model_.decision(self.kernel_.cross(x, counts))
        return self.model_.predict(x, counts)

    def score(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        lengths: Any = None,
    ) -> float:
        """Accuracy."""
        return float(accuracy_score(y, self.predict(X, lengths), sample_weight=sample_weight))


def _check_count(classes: np.ndarray) -> None:
    if len(classes) < 2:
        raise ValueError(f"y must have at least two classes, got one class: {classes[0]!r}.")
