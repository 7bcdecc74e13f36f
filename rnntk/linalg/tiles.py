"""Products with a symmetric matrix that comes tile by tile."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float

MatrixTile = tuple[slice, slice, Float[np.ndarray, "rows columns"]]


def multiply(tiles: Iterable[MatrixTile], v: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
    """A symmetric matrix, given as its tiles on and above the diagonal, times columns.

    Products within a tile are in the tile's dtype, sums over tiles in float64.

    Example:
        >>> import numpy as np
        >>> A = np.array([[2.0, 1.0], [1.0, 3.0]])
        >>> tiles = [(slice(i, i + 1), slice(j, j + 1), A[[[i]], [[j]]]) for i, j in
        ...          ((0, 0), (0, 1), (1, 1))]
        >>> multiply(tiles, np.ones((2, 1)))[:, 0]
        array([3., 4.])
    """
    result = np.zeros(v.shape)
    narrow = v.astype(np.float32)
    for rows, columns, tile in tiles:
        vector = narrow if tile.dtype == np.float32 else v
        result[rows] += tile @ vector[columns]
        if rows != columns:
            result[columns] += tile.T @ vector[rows]
    return result
