"""Labelled sequences: digits, random tokens, files; and their division into training and test."""

from rnntk.datasets.dataset import Dataset, log2_norm
from rnntk.datasets.files import load
from rnntk.datasets.samples import (
    digits,
    fixed_first_token,
    gaussian_tokens,
    near_duplicates,
    unit_tokens,
    with_fixed_tokens,
)
from rnntk.datasets.splitting import MIN_TRAIN, split

__all__ = [
    "MIN_TRAIN",
    "Dataset",
    "digits",
    "fixed_first_token",
    "gaussian_tokens",
    "load",
    "log2_norm",
    "near_duplicates",
    "split",
    "unit_tokens",
    "with_fixed_tokens",
]
