"""Batches that the tests of stores share."""

import numpy as np

KINDS = ("ntk", "nngp")


def draw(n, t=5, d=3, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal((n, t, d)).astype(dtype)
