"""Symmetric matrices: checks, estimates of extreme eigenvalues, and proved enclosures."""
