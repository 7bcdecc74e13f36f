"""A kernel of 190 tiles that processes of the tests compute: ``python runs.py FOLDER``."""

import sys
from pathlib import Path

import numpy as np

import rnntk

TILE, N = 16, 304
RNN = rnntk.ElmanRNN("sin", b_std=0.3)


def tokens():
    return np.random.default_rng(3).standard_normal((N, 5, 3)).astype(np.float32)


def compute(out, **options):
    return rnntk.infinite_kernel(RNN, tokens(), out=out, tile=TILE, **options)


if __name__ == "__main__":
    compute(Path(sys.argv[1]))
