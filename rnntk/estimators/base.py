"""What the estimators share: the network's arguments as parameters, and the forms of sequences."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data

from rnntk import sequences
from rnntk.checks import refuse_masked
from rnntk.network.elman import ElmanRNN
from rnntk.predict.sequence_kernel import KINDS

_DTYPES = [np.float64, np.float32]
NETWORK = (
    *("activation", "w_std", "u_std", "b_std", "v_std", "readout", "depth", "bidirectional"),
    *("input_scaling", "initial_state", "initial_state_std", "trainable"),
)


class SequenceEstimator(BaseEstimator):
    """Reads sequences in any of the usual layouts, and builds the network from its parameters."""

    _flat: bool
    _token_size: int

    def _network(self) -> ElmanRNN:
        return ElmanRNN(**{name: getattr(self, name) for name in NETWORK})

    def _check_kernel(self, kinds: Sequence[str]) -> None:
        if self.kernel not in kinds:
            raise ValueError(f"kernel must be one of {tuple(kinds)}, got {self.kernel!r}.")

    def _read(self, X: Any, lengths: Any, *, reset: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """Tokens (n, t, d) and lengths; ``reset`` in fit, which also learns the token size."""
        refuse_masked("X", X)
        if getattr(X, "dtype", None) is np.dtype(object) and X.ndim == 1:
            X = list(X)
        if is_ragged(X):
            if lengths is not None:
                raise ValueError("lengths must be None for a list of sequences, which have theirs.")
            padded, counts = sequences.pad([np.atleast_2d(np.asarray(s).T).T for s in X])
            X, lengths = np.asarray(padded), np.asarray(counts)
        elif not hasattr(X, "shape"):
            X = np.asarray(X)
        flat = len(X.shape) != 3
        if not flat:
            X = check_array(X, dtype=_DTYPES, allow_nd=True)
        elif reset or self._flat:  # columns are features to scikit-learn
            X = validate_data(self, X, reset=reset, dtype=_DTYPES)[:, :, None]
        else:
            X = check_array(X, dtype=_DTYPES)[:, :, None]
        if reset:
            self._flat, self._token_size = flat, X.shape[2]
            self._dtype = jax.dtypes.canonicalize_dtype(X.dtype)  # float32 where x64 is off
            if not flat:
                self.n_features_in_ = X.shape[2]
        elif X.shape[2] != self._token_size:
            shape = X.shape[:2] if flat else X.shape
            raise ValueError(
                f"X must have shape (sequences, steps, {self._token_size}), the token size of "
                f"fit, got {shape}."
            )
        return X.astype(self._dtype), lengths

    def _square(self, X: Any) -> np.ndarray:
        """A precomputed train kernel."""
        X = validate_data(self, X, reset=True, dtype=_DTYPES)
        if X.shape[0] != X.shape[1]:
            raise ValueError(
                f"X must be a square kernel matrix for kernel='precomputed', got {X.shape}."
            )
        return X

    def _cross(self, X: Any) -> np.ndarray:
        """A precomputed kernel of new sequences with the training ones."""
        return validate_data(self, X, reset=False, dtype=_DTYPES)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.pairwise = self.kernel == "precomputed"
        return tags


def is_ragged(X: Any) -> bool:
    """Whether X is a list of sequences of different lengths."""
    if not isinstance(X, list | tuple) or len(X) == 0:
        return False
    return len({np.shape(s)[:1] for s in X}) > 1 and all(np.ndim(s) in (1, 2) for s in X)


__all__ = ["KINDS", "NETWORK", "SequenceEstimator", "is_ragged"]
