"""Largest eigenvalues of a symmetric matrix that is known by its products with several vectors."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Float

_BLOCK = 8  # columns, of which a product of a large matrix costs hardly more than one
Product = Callable[[Float[np.ndarray, "n k"]], Float[np.ndarray, "n k"]]


class RitzPairs(NamedTuple):
    """Approximate eigenvalues, the largest first.

    Attributes:
        values: Rayleigh quotients of the vectors.
        vectors: columns of norm 1, orthogonal.
        residuals: |A x - value x| of each: some eigenvalue lies within it, up to rounding.
        products: how often the matrix was multiplied by a block of vectors.
    """

    values: Float[np.ndarray, " k"]
    vectors: Float[np.ndarray, "n k"]
    residuals: Float[np.ndarray, " k"]
    products: int


def largest(
    product: Product, n: int, count: int, tolerance: float, steps: int = 60, seed: int = 0
) -> RitzPairs:
    """Block Lanczos with every vector kept orthogonal (Golub & Van Loan 2013, section 10.3.6).

    The residuals are computed anew at the end, by one more product, and do not rest on the
    recurrence.

    Args:
        product: the matrix times columns.
        n: rows of the matrix.
        count: eigenvalues wanted; blocks have two columns more, and eight at least.
        tolerance: of the residuals, relative to the largest magnitude of an eigenvalue.
        steps: blocks at the most.
        seed: of the first block.

    Example:
        >>> import numpy as np
        >>> A = np.diag([1.0, 5.0, 3.0])
        >>> largest(lambda v: A @ v, 3, 2, 1e-10).values.round(9)
        array([5., 3.])
    """
    count = min(count, n)
    block = min(max(count + 2, _BLOCK), n)
    start = np.random.default_rng(seed).standard_normal((n, block))
    basis, images = scipy.linalg.qr(start, mode="economic")[0], np.zeros((n, 0))
    latest, used = basis, 0
    while True:
        image = product(latest)
        used += 1
        images = np.hstack([images, image])
        small = basis.T @ images
        values, inner = scipy.linalg.eigh((small + small.T) / 2)
        top = inner[:, ::-1][:, :count]
        gap = images @ top - (basis @ top) * values[::-1][:count]
        size = np.abs(values).max()
        enough = np.linalg.norm(gap, axis=0).max() <= tolerance * size
        left = n - basis.shape[1]
        if enough or used == steps or left == 0:
            break
        for _ in range(2):  # once leaves what rounding has made of it
            image = image - basis @ (basis.T @ image)
        latest = scipy.linalg.qr(image, mode="economic")[0][:, :left]
        latest -= basis @ (basis.T @ latest)  # where the image had fewer dimensions than columns
        latest = scipy.linalg.qr(latest, mode="economic")[0]
        basis = np.hstack([basis, latest])
    vectors = scipy.linalg.qr(basis @ top, mode="economic")[0]
    image = product(vectors)
    found = np.einsum("nk,nk->k", vectors, image)
    order = np.argsort(found)[::-1]
    residuals = np.linalg.norm(image - vectors * found, axis=0)
    return RitzPairs(found[order], vectors[:, order], residuals[order], used + 1)
