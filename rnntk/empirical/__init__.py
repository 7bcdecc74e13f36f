"""Kernels of networks of finite width: how one is computed, decided from sizes alone."""

from rnntk.empirical.planning import Plan, plan

__all__ = ["Plan", "plan"]
