"""Random division of a data set into training and test sequences."""

import numpy as np
from jaxtyping import Int, Shaped

from rnntk.datasets.dataset import Dataset

MIN_TRAIN = 8
"""Fewest training sequences that :func:`split` accepts: below it nothing can be tuned."""


def split(
    data: Dataset, n: int, *, n_test: int | None = None, seed: int = 0
) -> tuple[Dataset, Dataset]:
    """Draw disjoint training and test sequences at random, classes in proportion.

    Each class has its share of the training and of the test sequences, rounded, but a training
    sequence at the least, as far as ``n`` allows: what was never seen cannot be predicted.

    Args:
        data: the sequences.
        n: number of training sequences.
        n_test: number of test sequences; all the rest by default.
        seed: the same seed gives the same split.

    Raises:
        ValueError: if ``n`` is below :data:`MIN_TRAIN`, the data has too few sequences, or
            the training labels come out all equal.

    Example:
        >>> import rnntk
        >>> train, test = rnntk.datasets.split(rnntk.datasets.digits(), 200)
        >>> len(train), len(test)
        (200, 1597)
    """
    wanted = n + (1 if n_test is None else n_test)
    if len(data) < MIN_TRAIN + 1:
        raise ValueError(
            f"{data.name}: at least {MIN_TRAIN} training sequences and a test sequence are "
            f"needed, got {len(data)} in all."
        )
    if n < MIN_TRAIN:
        raise ValueError(f"n must be at least {MIN_TRAIN} training sequences, got {n}.")
    if wanted > len(data):
        raise ValueError(
            f"n={n} training and {wanted - n} or more test sequences are asked for, but "
            f"{data.name} holds {len(data)} in all."
        )
    order = np.random.default_rng(seed).permutation(len(data))
    if data.is_classification:
        order = order[_interleaved(data.y[order])]
        order = _with_all_classes(order, data.y, n)
    stop = len(data) if n_test is None else wanted
    train, test = data.take(order[:n]), data.take(order[n:stop])
    if len(np.unique(train.y)) < 2:
        raise ValueError(
            f"{data.name}: all {n} training labels drawn are {train.y[0]}; "
            "two or more different labels are needed."
        )
    return train, test


def _interleaved(y: Shaped[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """An order in which every beginning, and so every part, holds classes in proportion.

    The k-th of the c sequences of a class stands where (k + 1/2) / c of the whole has passed.
    """
    place = np.empty(len(y))
    for label in np.unique(y):
        members = np.flatnonzero(y == label)
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.argsort(place, kind="stable")


def _with_all_classes(
    order: Int[np.ndarray, " n"], y: Shaped[np.ndarray, " n"], n: int
) -> Int[np.ndarray, " n"]:
    """If the first ``n`` lack a class, the first sequences of all classes come first."""
    labels, firsts = np.unique(y[order], return_index=True)
    if np.isin(labels, y[order[:n]]).all():
        return order
    firsts = np.sort(firsts)
    return np.concatenate([order[firsts], np.delete(order, firsts)])
