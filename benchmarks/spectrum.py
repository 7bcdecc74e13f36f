"""Cost, memory and error of the smallest eigenvalue, beside its peers; and that of certificates.

    python benchmarks/spectrum.py [--sizes 250,500,1000,2000] [--out FILE.json]

Matrices are ReLU kernels in float64 of sequences of 10 tokens of size 8: independent ones
("generic"), or pairs at relative distance 1e-5 ("near"). Peers compute all eigenvalues (NumPy,
SciPy, ``jnp.linalg.eigvalsh`` on JAX's default device) or the smallest alone (SciPy's
``subset_by_index``, and its ARPACK in shift-invert mode about 0); none has an interval. ``dense``
and ``cholesky`` of rnntk include theirs.

- ``ratio``: time relative to NumPy's.
- ``copies``: peak of what Python allocates on top of the matrix, in units of the matrix; unknown
  for NumPy and JAX, which allocate elsewhere.
- ``error``: relative, against the inverse of the same matrix in 128 bits, up to n = 500.
- ``width``: of the interval, relative.

Operations: 4/3 n^3 for all eigenvalues, half of them bound by memory; 2 (n^3 / 3) for two Cholesky
factorizations, none so bound. The second table is that of ``certify(rnn, x)``, with tokens of the
same size.
"""

import argparse
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flint
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.sparse.linalg
from harness import environment, save, seconds, table

import rnntk


def tokens(n: int, t: int, kind: str) -> np.ndarray:
    """Sequences of one kind, tokens of norm near 1."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, t, 8)) / 8**0.5
    if kind == "near":
        x[n // 2 :] = x[: n - n // 2] * (1 + 1e-5 * rng.standard_normal((n - n // 2, t, 8)))
    return x


def inverse_peer(K: np.ndarray) -> float:
    """ARPACK on the inverse, by one Cholesky factorization."""
    factor = scipy.linalg.cho_factor(K, check_finite=False)
    inverse = scipy.sparse.linalg.LinearOperator(
        K.shape, lambda v: scipy.linalg.cho_solve(factor, v, check_finite=False), dtype=K.dtype
    )
    found = scipy.sparse.linalg.eigsh(inverse, 1, which="LA", return_eigenvectors=False)
    return 1 / float(found[0])


def methods(K: np.ndarray) -> dict[str, Callable[[], Any]]:
    """What is compared, each as a call that returns the smallest eigenvalue or a result."""
    on_device = jnp.asarray(K)
    calls: dict[str, Callable[[], Any]] = {
        "numpy": lambda: np.linalg.eigvalsh(K)[0],
        "scipy": lambda: scipy.linalg.eigvalsh(K)[0],
        "scipy, one": lambda: scipy.linalg.eigvalsh(K, subset_by_index=[0, 0])[0],
        "arpack": lambda: inverse_peer(K),
        "jax": lambda: jnp.linalg.eigvalsh(on_device)[0],
    }
    for method in ("dense", "cholesky", "lanczos"):
        calls[f"rnntk {method}"] = lambda m=method: rnntk.spectrum.min_eigenvalue(K, m)
    return calls


def reference(K: np.ndarray) -> float:
    """The smallest eigenvalue through an inverse in 128 bits."""
    with flint.ctx.workprec(128):
        inverse = flint.arb_mat(K.tolist()).inv()
    rounded = np.array([[float(v) for v in row] for row in inverse.tolist()])
    return 1 / float(np.linalg.eigvalsh((rounded + rounded.T) / 2)[-1])


def copies(call: Callable[[], Any], K: np.ndarray) -> float:
    """Peak allocation of a call, in units of the matrix."""
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / K.nbytes


def measure(n: int, kind: str) -> list[dict[str, Any]]:
    """One row for each method."""
    K = np.asarray(rnntk.infinite_kernel(rnntk.ElmanRNN(), tokens(n, 10, kind)).ntk)
    truth = reference(K) if n <= 500 else float("nan")
    rows = []
    for name, call in methods(K).items():
        result = call()
        value = float(getattr(result, "value", result))
        certified = getattr(result, "certified", False)
        rows.append(
            {
                "n": n,
                "data": kind,
                "method": name,
                "seconds": seconds(call),
                "ratio": float("nan"),
                "copies": float("nan") if name in ("numpy", "jax") else copies(call, K),
                "value": value,
                "error": abs(value / truth - 1),
                "width": (result.upper - result.lower) / value if certified else float("nan"),
            }
        )
        rows[-1]["ratio"] = rows[-1]["seconds"] / rows[0]["seconds"]
    return rows


def certify(n: int, t: int, kind: str, activation: str, verified: bool) -> dict[str, Any]:
    """One certificate of an exact kernel, and its verification where asked for."""
    x, rnn = tokens(n, t, kind), rnntk.ElmanRNN(activation)
    start = time.perf_counter()
    certificate = rnntk.spectrum.certify(rnn, x)
    row: dict[str, Any] = {"n": n, "t": t, "data": kind, "activation": activation}
    row["seconds"] = time.perf_counter() - start
    row |= {"method": certificate.method, "bits": certificate.bits, "lower": certificate.lower}
    row["width"] = (certificate.upper - certificate.lower) / certificate.lower
    row["entry radius"], row["verify"] = certificate.radius, float("nan")
    if verified:
        start = time.perf_counter()
        if not rnntk.verification.verify(certificate):
            raise AssertionError(f"certificate not verified: {row}")
        row["verify"] = time.perf_counter() - start
    return row


def main() -> None:
    """Run all sizes, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="250,500,1000,2000", help="numbers of sequences")
    parser.add_argument("--certify", default="25,50,100,200", help="likewise, of certificates")
    parser.add_argument("--out", type=Path, help="where to write JSON")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    rows, certificates = [], []
    for size in options.sizes.split(","):
        for kind in ("generic", "near"):
            rows += measure(int(size), kind)
    sizes = [int(size) for size in options.certify.split(",")]
    for n in sizes:
        for activation in ("relu", "erf", "linear"):
            for kind in ("generic", "near"):
                certificates.append(certify(n, 20, kind, activation, verified=n == sizes[0]))
    results = {"environment": environment(), "matrices": rows, "certificates": certificates}
    where = ", ".join(f"{name} {value}" for name, value in results["environment"].items())
    print(f"{where}\n{table(rows)}\n\n{table(certificates)}")
    if options.out:
        save(options.out, results)


if __name__ == "__main__":
    main()
