"""Gaussian moments of activations without closed forms, for moments.npz: see README.md.

    python tests/oracles/make_moments.py

From the definition: E f(u) f(u') and E (f(u) - f(u'))^2 as double integrals, over u and over what u
does not tell of u', by Gauss-Legendre panels that shrink geometrically towards where f bends; in 80
bits. The package is not used.
"""

import itertools
from pathlib import Path

import mpmath
import numpy as np

Real = np.longdouble
VARIANCES = (1e-12, 1e-6, 1e-2, 1.0, 30.0, 1e4, 1e8, 1e12)
UNEQUAL = ((1e-12, 1.0), (1e-2, 30.0), (1.0, 1.001), (1.0, 1e4), (30.0, 1e12), (1e8, 1e4))
AWAY = (1e-14, 1e-6, 1e-2, 0.5, 1.0, 1.7, 2.0)  # 1 - correlation
POINTS = 20  # a panel


def logistic(u):
    return 1 / (1 + np.exp(-np.clip(u, -11000, 11000)))


def silu_slope(u):
    return logistic(u) * (1 + u * logistic(-u))


FUNCTIONS = {
    "tanh": (np.tanh, lambda u: 4 * logistic(2 * u) * logistic(-2 * u)),
    "sigmoid": (logistic, lambda u: logistic(u) * logistic(-u)),
    "softplus": (lambda u: np.maximum(u, 0) + np.log1p(np.exp(-np.abs(u))), logistic),
    "silu": (lambda u: u * logistic(u), silu_slope),
    "elu": (
        lambda u: np.where(u > 0, u, np.expm1(np.minimum(u, 0))),
        lambda u: np.where(u > 0, 1, np.exp(np.minimum(u, 0))),
    ),
}


def legendre(count):
    """Gauss-Legendre nodes and weights on [0, 1], in 80 bits."""
    mpmath.mp.dps = 30
    nodes, weights = [], []
    for start in np.polynomial.legendre.leggauss(count)[0]:
        x = mpmath.findroot(lambda v: mpmath.legendre(count, v), mpmath.mpf(start))
        slope = count * mpmath.legendre(count - 1, x) / (1 - x * x)
        nodes.append(Real(mpmath.nstr((1 + x) / 2, 25)))
        weights.append(Real(mpmath.nstr(1 / ((1 - x * x) * slope**2), 25)))
    return np.array(nodes), np.array(weights)


X, W = legendre(POINTS)


def normal(center, width):
    """Nodes and weights for N(0, 1), on panels that begin with ``width`` at ``center``."""
    reach, edges = Real(14), [Real(0)]
    while edges[-1] < 2 * reach:
        edges.append(edges[-1] + min(max(edges[-1], width), Real(1)))
    edges = np.array(edges)
    edges = np.unique(np.concatenate([center - edges, center + edges]))
    left, length = edges[:-1], np.diff(edges)
    near = (left < reach) & (edges[1:] > -reach)
    z = (left[near, None] + length[near, None] * X).ravel()
    w = (length[near, None] * W).ravel() * np.exp(-z * z / 2) / np.sqrt(2 * Real(np.pi))
    return z, w


def pair(functions, a, b, away):
    """Products and squared differences, a row each, of all functions and their derivatives."""
    # u has the larger variance, so that the panels of its steps resolve those of u' as well
    root, other, away = np.sqrt(Real(max(a, b))), np.sqrt(Real(min(a, b))), Real(away)
    own = other * np.sqrt(away * (2 - away))
    # where the average over u' blurs a kink
    blur = own / other if own > 0 else Real(1)
    z, w = normal(Real(0), min(Real(1), 1 / root, blur) / 2)
    products, squares = np.zeros((2, len(functions), 2), Real)
    for zi, wi in zip(z, w, strict=True):
        u, mean = root * zi, other * (1 - away) * zi
        rest, weights = np.zeros(1, Real), np.ones(1, Real)
        if own > 0:
            where = -mean / own
            center = where if abs(where) < 14 else Real(0)
            rest, weights = normal(center, min(Real(1), 1 / own) / 2)
        v = mean + own * rest
        for i, both in enumerate(functions.values()):
            for k, f in enumerate(both):
                fu, fv = f(u), f(v)
                products[i, k] += wi * fu * (weights @ fv)
                squares[i, k] += wi * (weights @ (fu - fv) ** 2)
    return products, squares


def main():
    pairs = [(a, a) for a in VARIANCES] + list(UNEQUAL)
    cases = list(itertools.product(pairs, AWAY))
    found = [pair(FUNCTIONS, *variances, away) for variances, away in cases]
    alone = {a: pair(FUNCTIONS, a, a, 0.0)[0] for a in {a for both in pairs for a in both}}
    own = [[alone[a] for a in variances] for variances, _ in cases]
    np.savez_compressed(
        Path(__file__).parent / "moments.npz",
        names=list(FUNCTIONS),
        variances=[variances for variances, _ in cases],
        away=[away for _, away in cases],
        own=np.array(own, float),
        products=np.array([products for products, _ in found], float),
        squares=np.array([squares for _, squares in found], float),
    )


if __name__ == "__main__":
    main()
