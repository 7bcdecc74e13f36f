"""Nystrom features as a scikit-learn transformer."""

import math
from typing import Any

import numpy as np
import scipy.linalg
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from rnntk.checks import check_size
from rnntk.estimators.base import KINDS, SequenceEstimator
from rnntk.linalg.pivoted_cholesky import pivoted_cholesky
from rnntk.network.elman import GROUPS
from rnntk.predict.sequence_kernel import SequenceKernel


class RNTKTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, SequenceEstimator):
    r"""Features whose inner products approximate the kernel of an infinitely wide network.

    With landmarks Z among the training sequences, :math:`K(Z, Z) = L L^\top`, the features of x
    are :math:`L^{-1} K(Z, x)` (Nystrom): their inner products are those of the kernel's
    projection onto the landmarks. The landmarks are the pivots of randomly pivoted Cholesky.

    Input: arrays (n, t, d); (n, t), read as sequences of t steps of one channel; or lists of
    sequences of different lengths, (t_i, d) or (t_i,). ``lengths`` says how many steps of each
    row of an array exist; it is metadata that meta-estimators route to each method that asks for
    it (``set_fit_request(lengths=True)``, and
    ``set_transform_request``). The kernel has the dtype of X, float32 where JAX's
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
        kernel: ``"ntk"`` or ``"nngp"``.
        n_components: number of landmarks; fewer where they span the kernel to rounding.
        random_state: seed of the choice.

    Attributes:
        landmarks_: indices of the landmarks among the training sequences.
        remainder_: share of the train kernel's trace that the features do not have.
        n_features_in_: the token size, or the number of columns of a 2-D X.

    Example:
        >>> import numpy as np
        >>> X = np.random.default_rng(0).standard_normal((30, 4, 2))
        >>> RNTKTransformer(n_components=5).fit_transform(X).shape
        (30, 5)
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
        n_components: int = 100,
        random_state: int = 0,
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
        self.n_components = n_components
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, lengths: Any = None) -> "RNTKTransformer":
        """Choose landmarks among sequences; ``y`` is ignored."""
        self._check_kernel(KINDS)
        check_size("n_components", self.n_components)
        check_size("random_state", self.random_state, 0)
        x, counts = self._read(X, lengths, reset=True)
        kernel = SequenceKernel.of(self._network(), x, counts, self.kernel)
        if not kernel.diagonal.any():
            raise ValueError("X must not be zero throughout, as the kernel is: it has no features.")
        # pivots below the rounding of the kernel's own dtype would be noise
        part = pivoted_cholesky(
            kernel.columns,
            kernel.diagonal,
            self.n_components,
            self.random_state,
            tolerance=16 * float(np.finfo(x.dtype).eps),
        )
        self.landmarks_ = part.pivots
        self.remainder_ = part.remainder / float(kernel.diagonal.sum())
        self.triangle_ = part.factor[part.pivots]
        self.kernel_ = kernel.at(part.pivots)
        self._n_features_out = len(part.pivots)
        return self

    def fit_transform(self, X: Any, y: Any = None, lengths: Any = None) -> np.ndarray:
        """Features of the sequences that the landmarks are chosen among, (n, components)."""
        return self.fit(X, y, lengths).transform(X, lengths)

    def transform(self, X: Any, lengths: Any = None) -> np.ndarray:
        """Features, (n, components), in the dtype of X."""
        check_is_fitted(self)
        x, counts = self._read(X, lengths, reset=False)
        cross = self.kernel_.cross(x, counts).astype(np.float64)
        features = scipy.linalg.solve_triangular(self.triangle_, cross.T, lower=True).T
        return features.astype(
            np.float32 if getattr(X, "dtype", None) == np.float32 else np.float64
        )
