"""Products with a symmetric matrix that comes tile by tile."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Int

MatrixTile = tuple[slice, slice, Float[np.ndarray, "rows columns"]]


def multiply(tiles: Iterable[MatrixTile], v: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
    """A symmetric matrix, given as its tiles on and above the diagonal, times columns.

    Products within a tile are in the tile's dtype, sums over tiles in float64. Columns of any
    magnitude that float64 has keep their digits.

    Example:
        >>> import numpy as np
        >>> A = np.array([[2.0, 1.0], [1.0, 3.0]])
        >>> tiles = [(slice(i, i + 1), slice(j, j + 1), A[[[i]], [[j]]]) for i, j in
        ...          ((0, 0), (0, 1), (1, 1))]
        >>> multiply(tiles, np.ones((2, 1)))[:, 0]
        array([3., 4.])
    """
    result, (v, exponents) = np.zeros(v.shape), scaled(v)
    narrow = v.astype(np.float32)
    for rows, columns, tile in tiles:
        vector = narrow if tile.dtype == np.float32 else v
        result[rows] += tile @ vector[columns]
        if rows != columns:
            result[columns] += tile.T @ vector[rows]
    return np.ldexp(result, exponents)


def scaled(v: Float[np.ndarray, "n k"]) -> tuple[Float[np.ndarray, "n k"], Int[np.ndarray, " k"]]:
    """Columns of magnitudes up to 1 and the exponents of 2 that make them the given ones.

    Example:
        >>> import numpy as np
        >>> bool(scaled(np.array([[3e-60], [1e-60]]))[0].max() > 0.5)
        True
    """
    exponents = np.frexp(np.abs(v).max(axis=0, initial=0))[1]
    return np.ldexp(v, -exponents), exponents
