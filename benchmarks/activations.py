"""Moments of activations without closed forms: Hermite series against Gauss-Hermite on pairs.

For each activation, variance and correlation: the error of E phi(u) phi(u') and of the
derivatives' product, relative to E phi(u)^2 and E phi'(u)^2, and the time a pair takes. The
reference is a quadrature in polar coordinates, split where kinks at 0 lie.

    python benchmarks/activations.py
"""

import time
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np

import rnntk

NODES = (32, 128)
VARIANCES = (0.1, 1.0, 10.0)
AWAY = (1.0, 0.1, 1e-3, 1e-6)  # 1 - correlation
SIDE = 64  # pairs are timed in squares of this side


def reference(fn, a, away):
    """E fn(u) fn(u'), both of variance a."""
    x, w = np.polynomial.legendre.leggauss(240)
    angle = 2 * np.arcsin(np.sqrt(away / 2))
    edges = np.array([-0.5, 0.5, 1.5]) * np.pi
    edges = np.unique(np.concatenate([edges, edges[:2] + angle]))
    r, weights = 6.5 * (x + 1), 6.5 * w
    weights = weights * r * np.exp(-r * r / 2) / (2 * np.pi)
    total = 0.0
    for low, high in pairwise(edges):
        t = low + (high - low) * (x + 1) / 2
        one, two = (fn(np.sqrt(a) * r[:, None] * np.cos(v)) for v in (t, t - angle))
        total += (high - low) / 2 * (weights @ np.asarray(one * two) @ w)
    return total


@partial(jax.jit, static_argnums=(0, 1))
def on_pairs(phi, nodes, a1, a2, covariance):
    """Gauss-Hermite in two dimensions, u' = sqrt(a') (rho z + sqrt(1 - rho^2) z')."""
    z, w = np.polynomial.hermite_e.hermegauss(nodes)
    z, w = jnp.asarray(z), jnp.asarray(w / w.sum())
    rho = jnp.clip(covariance / jnp.sqrt(a1 * a2), -1, 1)
    rest = jnp.sqrt(1 - rho * rho)

    def row(total, inputs):
        z1, w1 = inputs
        u = jnp.sqrt(a1) * z1
        v = jnp.sqrt(a2) * (rho * z1 + rest * z[:, None, None])
        inner = [
            jnp.tensordot(w, fn(v), 1) * fn(u)
            for fn in (phi.fn, partial(rnntk.activations.hermite.derivative, phi.fn))
        ]
        return [t + w1 * i for t, i in zip(total, inner, strict=True)], None

    return jax.lax.scan(row, [jnp.zeros_like(covariance)] * 2, (z, w))[0]


@partial(jax.jit, static_argnums=0)
def by_series(phi, a1, a2, covariance):
    one = jax.tree.map(lambda v: v[..., :, None], phi.marginal(a1[:, 0]))
    two = jax.tree.map(lambda v: v[..., None, :], phi.marginal(a2[0]))
    norms = [jnp.sqrt(f(a1[:, 0])[:, None] * f(a2[0])[None, :]) for f in (phi.variance, phi.slope)]
    angles = phi.pair(one, two, 2 * (jnp.sqrt(a1 * a2) - covariance))
    return [norm - angle / 2 for norm, angle in zip(norms, angles, strict=True)]


def timed(fn, *args):
    jax.block_until_ready(fn(*args))
    start = time.perf_counter()
    result = jax.block_until_ready(fn(*args))
    return result, (time.perf_counter() - start) / SIDE**2


def main():
    methods = {"series": by_series}
    methods |= {f"pairs {n}^2": lambda phi, *rest, n=n: on_pairs(phi, n, *rest) for n in NODES}
    head = "".join(f"{name:>28}" for name in methods)
    print(f"{'':24}{head}\n{'':24}" + f"{'phi':>10}{'phi_deriv':>10}{'us':>8}" * len(methods))
    for name in ("tanh", "sigmoid", "softplus", "silu", "elu"):
        phi = rnntk.activations.resolve(name)
        slope = partial(rnntk.activations.hermite.derivative, phi.fn)
        for a in VARIANCES:
            sizes = [reference(fn, a, 0.0) for fn in (phi.fn, slope)]
            for away in AWAY:
                expected = [reference(fn, a, away) for fn in (phi.fn, slope)]
                line = f"{name:10}{a:5g} 1-{away:<7g}"
                a1, a2 = jnp.full((SIDE, 1), a), jnp.full((1, SIDE), a)
                covariance = jnp.full((SIDE, SIDE), a * (1 - away))
                for method in methods.values():
                    got, seconds = timed(method, phi, a1, a2, covariance)
                    for value, wanted, size in zip(got, expected, sizes, strict=True):
                        line += f"{abs(float(value[0, 0]) - wanted) / size:10.0e}"
                    line += f"{1e6 * seconds:8.2f}"
                print(line, flush=True)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    main()
