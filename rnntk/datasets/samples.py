"""Digits that come with scikit-learn, and random tokens."""

import math

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from rnntk import checks
from rnntk.datasets.dataset import Dataset


def digits() -> Dataset:
    """Scikit-learn's handwritten digits, each image read as a sequence of 8 rows of 8 pixels.

    The pixels 0..16 are divided by 16. Many rows of an image are blank: those tokens are zero.

    Returns:
        1797 sequences of 8 tokens of size 8, and their ten classes.

    Example:
        >>> import rnntk
        >>> data = rnntk.datasets.digits()
        >>> data.x.shape, float(data.x.max()), data.classes.tolist()
        ((1797, 8, 8), 1.0, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    from sklearn.datasets import load_digits  # half a second, and only this data needs it

    images, labels = load_digits(return_X_y=True)
    return Dataset("digits", images.reshape(-1, 8, 8).astype(np.float64) / 16.0, labels)


def unit_tokens(
    key: PRNGKeyArray, n: int, t: int, d: int, *, correlation: float = 0.0
) -> Float[np.ndarray, "n t d"]:
    """Random sequences of tokens of norm 1.

    Args:
        key: JAX random key.
        n: number of sequences.
        t: steps.
        d: token size.
        correlation: square root of a token's share that all sequences have in common, in [0, 1):
            tokens are directions of c g_s + sqrt(1 - c^2) g_is with Gaussian g.

    Returns:
        float64 tokens.

    Raises:
        ValueError: for sizes below 1 or a correlation out of range.

    Example:
        >>> import jax, numpy as np, rnntk
        >>> x = rnntk.datasets.unit_tokens(jax.random.key(0), 5, 4, 3)
        >>> x.shape, bool(np.allclose(np.linalg.norm(x, axis=2), 1))
        ((5, 4, 3), True)
    """
    for name, size in (("n", n), ("t", t), ("d", d)):
        checks.check_size(name, size)
    if not 0 <= correlation < 1:
        raise ValueError(f"correlation must lie in [0, 1), got {correlation}.")
    bits = jax.random.bits(key, (4,), "uint32")
    rng = np.random.default_rng(np.asarray(bits).tolist())  # float64 whatever JAX is set to
    own = rng.standard_normal((n, t, d))
    common = rng.standard_normal((1, t, d))
    x = correlation * common + math.sqrt(1 - correlation**2) * own
    return x / np.linalg.norm(x, axis=2, keepdims=True)


def fixed_first_token(
    key: PRNGKeyArray, n: int, t: int, d: int, eps: float
) -> Float[np.ndarray, "n t d"]:
    """Small norms behind a fixed first token: the setting of papers that assume small norms.

    Every sequence begins with the same unit token (Allen-Zhu & Li 2019, as others restate it), and
    the smallest eigenvalue falls faster than the trace with eps: see docs/theory/bounds.md.

    Args:
        key: JAX random key.
        n: number of sequences.
        t: steps, the first one included.
        d: token size.
        eps: norm of the tokens after the first.

    Returns:
        float64 tokens.

    Raises:
        ValueError: for sizes below 1 or an eps that is negative or not finite.

    Example:
        >>> import jax, rnntk
        >>> x = rnntk.datasets.fixed_first_token(jax.random.key(0), 5, 4, 3, eps=0.1)
        >>> bool((x[:, 0] == x[0, 0]).all()), round(float((x[1, 2] ** 2).sum()), 9)
        (True, 0.01)
    """
    if not 0 <= eps < math.inf:
        raise ValueError(f"eps must be finite and not negative, got {eps}.")
    x = unit_tokens(key, n, t, d)
    return np.concatenate([np.broadcast_to(x[:1, :1], (n, 1, d)), eps * x[:, 1:]], axis=1)
