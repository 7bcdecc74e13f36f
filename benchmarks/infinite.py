"""Speed of the infinite-width kernel, beside its peers, on one table.

    python benchmarks/infinite.py [--sizes 250,500,1000] [--steps 100] [--out FILE.json]

A pair-step is one step of the recursion for one pair of sequences; symmetric calls count all n^2
pairs, though they compute half. Peers:

- ``scan``: the recursion as one would write it, ``lax.scan`` with ``jnp.arccos``;
- ``numpy``: the same in NumPy, as the public scripts do it.

Operations of a relu pair-step with tokens of size d, counted by hand on the code: 6 d for the
tokens' and their directions' distances, 30 for joining token and state, 2 (8 + 7) in float32 and
2 (18 + 17) in float64 for the two polynomials, 30 for the rest: 6 d + 90 or 6 d + 130. The loop
carries two numbers a pair, read and written once a step: 4 itemsize bytes, which on a CPU stay in
the cache of a core, as a tile is small enough.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from harness import environment, save, seconds, table

import rnntk


@jax.jit
def scan_peer(x1: jax.Array, x2: jax.Array) -> jax.Array:
    """The NTK of a critical relu network, last step, straight from the formulas."""

    def step(carry: tuple, tokens: tuple) -> tuple:
        cov, tangent, slope, own1, own2 = carry
        s1, s2 = tokens
        pre = 2 * cov + 2 * jnp.matmul(s1, s2.T, precision=jax.lax.Precision.HIGHEST)
        own1, own2 = own1 + 2 * (s1 * s1).sum(1), own2 + 2 * (s2 * s2).sum(1)
        tangent = pre + 2 * slope * tangent
        scale = jnp.sqrt(own1[:, None] * own2[None, :])
        cosine = jnp.clip(pre / scale, -1, 1)
        theta = jnp.arccos(cosine)
        sine = jnp.sqrt(1 - cosine * cosine)
        cov = scale * (sine + (jnp.pi - theta) * cosine) / (2 * jnp.pi)
        slope = (jnp.pi - theta) / (2 * jnp.pi)
        return (cov, tangent, slope, own1, own2), None

    zero = jnp.zeros((len(x1), len(x2)), x1.dtype)
    start = (zero, zero, zero, zero[:, 0], zero[0])
    cov, tangent, slope, *_ = jax.lax.scan(step, start, (x1.swapaxes(0, 1), x2.swapaxes(0, 1)))[0]
    return cov + slope * tangent


def numpy_peer(x: np.ndarray) -> np.ndarray:
    """The same in NumPy."""
    n, t, _ = x.shape
    cov, tangent, slope = np.zeros((3, n, n), x.dtype)
    for s in range(t):
        pre = 2 * cov + 2 * x[:, s] @ x[:, s].T
        tangent = pre + 2 * slope * tangent
        std = np.sqrt(np.diagonal(pre))
        scale = np.outer(std, std)
        cosine = np.clip(pre / scale, -1, 1)
        theta = np.arccos(cosine)
        cov = scale * (np.sqrt(1 - cosine * cosine) + (np.pi - theta) * cosine) / (2 * np.pi)
        slope = (np.pi - theta) / (2 * np.pi)
    return cov + slope * tangent


def measure(n: int, t: int, d: int, dtype: Any, readout: str, peers: bool) -> dict[str, Any]:
    """One row: rnntk's symmetric and rectangular calls, and the peers where asked for."""
    rng = np.random.default_rng(0)
    x1, x2 = (jnp.asarray(rng.standard_normal((n, t, d)) / d**0.5, dtype) for _ in range(2))
    rnn = rnntk.ElmanRNN(readout=readout)
    steps = n * n * (t if readout == "last" else t * t)
    row: dict[str, Any] = {
        "n": n,
        "t": t,
        "d": d,
        "dtype": np.dtype(dtype).name,
        "readout": readout,
    }
    row["seconds"] = seconds(lambda: rnntk.infinite_kernel(rnn, x1).ntk)
    row["Mpair-steps/s"] = steps / row["seconds"] / 1e6
    row["x2 given"] = steps / seconds(lambda: rnntk.infinite_kernel(rnn, x1, x2).ntk) / 1e6
    row["scan"] = row["numpy"] = row["ratio to scan"] = float("nan")
    if peers:
        row["scan"] = steps / seconds(lambda: scan_peer(x1, x1)) / 1e6
        host = np.asarray(x1)
        row["numpy"] = steps / seconds(lambda: numpy_peer(host), repeats=1) / 1e6
        row["ratio to scan"] = row["Mpair-steps/s"] / row["scan"]
    flops = 6 * d + (90 if dtype == jnp.float32 else 130)
    row["GFLOP/s"] = flops * row["Mpair-steps/s"] / 2e3  # half the pairs are computed
    return row


def positive(text: str) -> int:
    """A number of sequences, steps or entries."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return number


def positives(text: str) -> list[int]:
    """Several of them, separated by commas."""
    return [positive(part) for part in text.split(",")]


def main() -> None:
    """Run all sizes, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--sizes", type=positives, default="250,500,1000", help="numbers of sequences"
    )
    parser.add_argument(
        "--steps", type=positive, default=100, help="steps of the longest sequences"
    )
    parser.add_argument("--dim", type=positive, default=8, help="token size")
    parser.add_argument("--out", type=Path, help="where to write JSON")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    sizes, t, d = options.sizes, options.steps, options.dim
    rows = []
    for dtype in (jnp.float32, jnp.float64):
        for n in sizes:
            rows.append(measure(n, t, d, dtype, "last", peers=True))
        for shorter in sorted({max(1, t // 4), max(1, t // 2)} - {t}):
            rows.append(measure(sizes[-1], shorter, d, dtype, "last", peers=False))
        for steps in (5, 10, 20):
            rows.append(measure(sizes[0], steps, d, dtype, "mean", peers=False))
    results = {"environment": environment(), "unit": "million pair-steps a second", "rows": rows}
    print(as_text(results))
    if options.out:
        save(options.out, results)


def as_text(results: dict[str, Any]) -> str:
    """The results as text: what ran where, and the table."""
    where = ", ".join(f"{name} {value}" for name, value in results["environment"].items())
    return f"{where}\n{results['unit']}\n{table(results['rows'])}"


if __name__ == "__main__":
    main()
