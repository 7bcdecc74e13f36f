"""Labelled sequences: digits, random tokens, files; and their division into training and test."""

from rnntk.datasets.dataset import (
    Dataset,
    digits,
    fixed_first_token,
    load,
    log2_norm,
    split,
    unit_tokens,
)

__all__ = ["Dataset", "digits", "fixed_first_token", "load", "log2_norm", "split", "unit_tokens"]
