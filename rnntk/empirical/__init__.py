"""Kernels of networks of finite width: how one is computed, decided from sizes alone."""

from rnntk.empirical.costs import Plan
from rnntk.empirical.planning import plan

__all__ = ["Plan", "plan"]
