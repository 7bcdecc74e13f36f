"""Digits that come with scikit-learn, and random tokens."""

import math

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, PRNGKeyArray

from rnntk import checks
from rnntk.datasets.dataset import Dataset
from rnntk.keys import generator


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
    rng = generator(key)
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


def gaussian_tokens(
    key: PRNGKeyArray, n: int, t: int, d: int, *, time_correlation: float = 0.0
) -> Float[np.ndarray, "n t d"]:
    """Random sequences of Gaussian tokens of mean square norm 1, correlated from step to step.

    Each entry is a stationary first-order autoregression of variance 1/d.

    Args:
        key: JAX random key.
        n: number of sequences.
        t: steps.
        d: token size.
        time_correlation: of successive tokens, in (-1, 1).

    Returns:
        float64 tokens.

    Raises:
        ValueError: for sizes below 1 or a correlation out of range.

    Example:
        >>> import jax, rnntk
        >>> x = rnntk.datasets.gaussian_tokens(jax.random.key(0), 2000, 2, 3, time_correlation=0.9)
        >>> round(float((x[:, 0] * x[:, 1]).sum(axis=1).mean()), 1)
        0.9
    """
    for name, size in (("n", n), ("t", t), ("d", d)):
        checks.check_size(name, size)
    if not -1 < time_correlation < 1:
        raise ValueError(f"time_correlation must lie in (-1, 1), got {time_correlation}.")
    x = generator(key).standard_normal((n, t, d)) / math.sqrt(d)
    fresh = math.sqrt(1 - time_correlation**2)
    for s in range(1, t):
        x[:, s] = time_correlation * x[:, s - 1] + fresh * x[:, s]
    return x


def near_duplicates(
    key: PRNGKeyArray, n: int, t: int, d: int, distance: float
) -> Float[np.ndarray, "n t d"]:
    """Random sequences of unit tokens in pairs that nearly agree.

    Sequences 2i and 2i + 1 differ, token by token, by about ``distance``; a last one without a
    partner stands alone.

    Args:
        key: JAX random key.
        n: number of sequences.
        t: steps.
        d: token size.
        distance: of the tokens of a pair before they are brought back to norm 1.

    Returns:
        float64 tokens.

    Raises:
        ValueError: for sizes below 1 or a distance that is negative or not finite.

    Example:
        >>> import jax, numpy as np, rnntk
        >>> x = rnntk.datasets.near_duplicates(jax.random.key(0), 4, 3, 2, distance=1e-3)
        >>> bool((np.linalg.norm(x[0::2] - x[1::2], axis=2) < 1.1e-3).all())
        True
    """
    if not 0 <= distance < math.inf:
        raise ValueError(f"distance must be finite and not negative, got {distance}.")
    keys = jax.random.split(key)
    first = unit_tokens(keys[0], (checks.check_size("n", n) + 1) // 2, t, d)
    second = first + distance * unit_tokens(keys[1], len(first), t, d)
    second /= np.linalg.norm(second, axis=2, keepdims=True)
    return np.stack([first, second], axis=1).reshape(-1, t, d)[:n]


def with_fixed_tokens(x: Float[ArrayLike, "n t d"], eps: float) -> Float[np.ndarray, "n t2 d1"]:
    r"""Tokens as Allen-Zhu & Li (2019) normalize them: small ones between two fixed ones.

    As restated in Panigrahi & Goyal (2021): the first token and the last are (0, ..., 0, 1), and
    the others :math:`(\varepsilon x_l, 0)`.

    Args:
        x: tokens, for them of norm 1.
        eps: their factor.

    Returns:
        float64 tokens, shape (n, t + 2, d + 1).

    Raises:
        TypeError, ValueError: for tokens that are none, or an eps that is negative or not finite.

    Example:
        >>> import numpy as np, rnntk
        >>> rnntk.datasets.with_fixed_tokens(np.ones((1, 1, 2)), 0.1)[0].tolist()
        [[0.0, 0.0, 1.0], [0.1, 0.1, 0.0], [0.0, 0.0, 1.0]]
    """
    if not 0 <= eps < math.inf:
        raise ValueError(f"eps must be finite and not negative, got {eps}.")
    checks.check_batch(x, None)
    tokens = np.asarray(x, np.float64)
    n, t, d = tokens.shape
    found = np.zeros((n, t + 2, d + 1))
    found[:, [0, -1], -1] = 1
    found[:, 1:-1, :-1] = eps * tokens
    return found
