"""The entries of a kernel, computed again in intervals and rounded to whole numbers."""

from collections.abc import Iterator
from fractions import Fraction
from math import isqrt
from typing import Any

import numpy as np
from tqdm import tqdm

from rnntk.verification.logistic import as_fraction
from rnntk.verification.recursion import Recursion


def kernel(
    network: dict[str, Any], tokens: list[np.ndarray], unit: Fraction, bits: int
) -> tuple[np.ndarray, Fraction, Fraction]:
    """Whole numbers, their unit, and a bound on their distance from the kernel (Frobenius)."""
    try:
        from mpmath import iv
    except ImportError as error:
        raise ImportError("verify of a kernel needs mpmath: pip install mpmath.") from error
    precision = iv.prec
    try:
        iv.prec = bits + 64
        entries = list(_entries(Recursion(iv, network, unit, tokens[0].shape[1]), network, tokens))
    finally:
        iv.prec = precision
    size = 1 + max(p for p, _, _ in entries)
    ends = {(p, q): (as_fraction(v.a), as_fraction(v.b)) for p, q, v in entries}
    largest = max(max(abs(a), abs(b)) for a, b in ends.values())
    if not largest:
        return np.zeros((size, size), object), Fraction(1), Fraction(0)
    magnitude = largest.numerator.bit_length() - largest.denominator.bit_length()
    scale = Fraction(2) ** (bits + 64 - magnitude)
    middle, squares = np.zeros((size, size), object), 0
    for (p, q), (a, b) in ends.items():
        low, high = (a * scale).__floor__(), (b * scale).__ceil__()
        middle[p, q] = middle[q, p] = (low + high) // 2
        squares += 2 * (high - middle[p, q]) ** 2
    return middle, 1 / scale, (isqrt(squares) + 1) / scale


def _entries(
    recursion: Recursion, network: dict[str, Any], tokens: list[np.ndarray]
) -> Iterator[tuple[int, int, Any]]:
    """Lower triangle of the kernel as (row, column, interval)."""
    readout, both = network["readout"], network["bidirectional"]
    first = np.cumsum([0] + [len(x) for x in tokens]).tolist()
    for i in tqdm(range(len(tokens)), desc="kernel in interval arithmetic", delay=5):
        for j in range(i + 1):
            x, y = tokens[i], tokens[j]
            cells = recursion.cells(x, y, i == j)
            if both:
                for (s, r), value in recursion.cells(x[::-1], y[::-1], i == j).items():
                    last = readout == "last"
                    where = (s, r) if last else (len(x) - 1 - s, len(y) - 1 - r)
                    cells[where] = cells[where] + value
            if readout == "last":
                yield i, j, cells[len(x) - 1, len(y) - 1]
            elif readout == "mean":
                yield i, j, sum(cells.values()) / (len(x) * len(y))
            else:
                for (s, r), value in cells.items():
                    if first[i] + s >= first[j] + r:
                        yield first[i] + s, first[j] + r, value
