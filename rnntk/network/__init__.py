"""Elman networks: what they are, their parameters, and their forward pass."""
