"""Kernel regression as a scikit-learn estimator."""

import math
from typing import Any

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.validation import check_is_fitted

from rnntk.checks import refuse_masked
from rnntk.estimators.base import KINDS, SequenceEstimator
from rnntk.network.elman import GROUPS
from rnntk.predict import KernelRegression, fit


class RNTKRegressor(RegressorMixin, SequenceEstimator):
    """Regression with the kernel of an infinitely wide recurrent network.

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
        ridge: a number, ``"leave_one_out"`` or ``"marginal_likelihood"``.
        method: how the system is solved, see :func:`rnntk.predict.fit`.
        tolerance: of iterative methods.
        rank: of preconditioners or Nystrom features.

    Attributes:
        model_: the :class:`rnntk.predict.SequenceRegression`, or for a precomputed kernel the
            :class:`rnntk.predict.KernelRegression`.
        ridge_: the ridge used.
        n_features_in_: the token size, or the number of columns of a 2-D X.

    Example:
        >>> import numpy as np
        >>> X = np.random.default_rng(0).standard_normal((30, 4, 2))
        >>> RNTKRegressor().fit(X, X.sum(axis=(1, 2))).predict(X[:3]).shape
        (3,)
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
        ridge: Any = "leave_one_out",
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
        self.ridge = ridge
        self.method = method
        self.tolerance = tolerance
        self.rank = rank

    def fit(self, X: Any, y: Any, lengths: Any = None) -> "RNTKRegressor":
        """Fit to sequences and their labels, (n,) or (n, outputs)."""
        self._check_kernel((*KINDS, "precomputed"))
        if y is None:
            raise ValueError("RNTKRegressor requires y to be passed, but the target y is None.")
        refuse_masked("y", y)
        y = check_targets(y)
        if self.kernel == "precomputed":
            matrix = self._square(X)
            check_consistent_length(matrix, y)
            self.model_: Any = KernelRegression(matrix, y, self.ridge)
        else:
            x, counts = self._read(X, lengths, reset=True)
            check_consistent_length(x, y)
            self.model_ = fit(
                self._network(),
                x,
                y,
                self.ridge,
                lengths=counts,
                kind=self.kernel,
                method=self.method,
                tolerance=self.tolerance,
                rank=self.rank,
            )
        self.ridge_ = self.model_.ridge
        return self

    def predict(self, X: Any, lengths: Any = None) -> np.ndarray:
        """Predictions, (n,) or (n, outputs)."""
        check_is_fitted(self)
        if self.kernel == "precomputed":
            return self.model_.predict(self._cross(X))
        return self.model_.predict(*self._read(X, lengths, reset=False))

    def score(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        lengths: Any = None,
    ) -> float:
        """Coefficient of determination."""
        return float(r2_score(y, self.predict(X, lengths), sample_weight=sample_weight))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def check_targets(y: Any) -> np.ndarray:
    """Labels as floating point, by scikit-learn's rules."""
    return check_array(y, ensure_2d=False, dtype=np.float64, input_name="y")
