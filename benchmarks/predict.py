"""Predictors beside scikit-learn's and neural-tangents', and solves without the matrix.

    python benchmarks/predict.py [--out FILE.json] [--large N]

Everything on one machine, in one process, peers in turns with us, the best of several rounds.
Memory is the peak of what Python allocates, in units of one kernel matrix in float64.

1. Exact, on one precomputed kernel of 10 outputs, n rows: fits and predictions of ``KernelRidge``
   and ``GaussianProcessRegressor`` (``optimizer=None``, with its covariance). A fit factorizes
   in n^3 / 3 operations and estimates the smallest eigenvalue; ``GFLOP/s`` counts the former.
2. Leave-one-out over 20 ridges by one eigendecomposition, beside 20 fits of ``KernelRidge``, which
   leave nothing out; beside 20 closed forms from a Cholesky factorization each; and beside
   refitting each ridge without each point, whose time is that of one such fit times 20 n.
3. Gradient flow at 50 times beside neural-tangents' ``gradient_descent_mse``, compiled, its
   eigendecomposition included in both.
4. Marginal likelihood with four derivatives, in units of one kernel; the factorization apart.
5. Solves from sequences: the methods of ``predict.fit`` beside the exact one, with the largest
   deviation of their predictions relative to the largest prediction.

``--large N`` adds the solve of N sequences (t 20, d 8, 10 outputs, float64) by single precision
with refinement: its time, that of all cores together, passes and memory. At N 50000 this takes
several minutes and 6 GB.
"""

import argparse
import resource
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from harness import environment, save, table
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Kernel
from sklearn.kernel_ridge import KernelRidge

import rnntk
from rnntk import predict

OUTPUTS, STEPS, TOKEN = 10, 20, 8
PARTS = ("exact", "leave-one-out", "flow", "likelihood", "methods")
RNN = rnntk.ElmanRNN("relu", b_std=0.1)


def sequences(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random sequences, and smooth functions of them with a little noise."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, STEPS, TOKEN)) / TOKEN**0.5
    teacher = np.random.default_rng(1).standard_normal((TOKEN, OUTPUTS))
    return x, np.sin(x[:, -3:].sum(axis=1) @ teacher) + 0.1 * rng.standard_normal((n, OUTPUTS))


def in_turns(calls: dict[str, Callable[[], Any]], rounds: int = 7) -> dict[str, float]:
    """The best time of each call, all called in each round."""
    best = {name: float("inf") for name in calls}
    for i in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            if i:  # the first round compiles
                best[name] = min(best[name], time.perf_counter() - start)
    return best


def memory(call: Callable[[], Any], n: int) -> float:
    """Peak allocation of a call, in kernel matrices."""
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / (8 * n * n)


def deviation(ours: Any, truth: Any) -> float:
    """Largest difference, relative to the largest number."""
    return float(np.abs(np.asarray(ours) - truth).max() / np.abs(np.asarray(truth)).max())


class Precomputed(Kernel):
    """scikit-learn's interface to kernel matrices that are there already."""

    def __init__(self, train: np.ndarray, cross: np.ndarray, test: np.ndarray) -> None:
        self.train, self.cross, self.test = train, cross, test

    def __call__(self, X: np.ndarray, Y: Any = None, eval_gradient: bool = False) -> np.ndarray:
        if Y is None:
            return self.train.copy() if len(X) == len(self.train) else self.test.copy()
        return self.cross

    def diag(self, X: np.ndarray) -> np.ndarray:
        return np.diagonal(self.train if len(X) == len(self.train) else self.test).copy()

    def is_stationary(self) -> bool:
        return False


def exact(n: int) -> list[dict[str, Any]]:
    """Fits and predictions from one kernel."""
    x, y = sequences(n + n // 4)
    gram = np.asarray(rnntk.infinite_kernel(RNN, x).ntk)
    K, cross, test, y = gram[:n, :n].copy(), gram[n:, :n].copy(), gram[n:, n:].copy(), y[:n]
    ridge = 0.1
    points, new = np.arange(n)[:, None], np.arange(n // 4)[:, None]
    peer_kernel = Precomputed(K, cross, test)

    def process() -> Any:
        model = predict.GaussianProcess(K, y, ridge)
        return model.mean(cross), model.covariance(cross, test)

    def peer_process() -> Any:
        model = GaussianProcessRegressor(
            peer_kernel, alpha=ridge, optimizer=None, copy_X_train=False
        )
        return model.fit(points, y).predict(new, return_cov=True)

    calls: dict[str, dict[str, Callable[[], Any]]] = {
        "regression": {
            "rnntk": lambda: predict.KernelRegression(K, y, ridge).predict(cross),
            "scikit-learn": lambda: (
                KernelRidge(alpha=ridge, kernel="precomputed").fit(K, y).predict(cross)
            ),
        },
        "process": {"rnntk": process, "scikit-learn": peer_process},
    }
    rows = []
    for what, pair in calls.items():
        times = in_turns(pair)
        row: dict[str, Any] = {"n": n, "what": what, **times}
        row["ratio"] = times["scikit-learn"] / times["rnntk"]
        row["GFLOP/s"] = n**3 / 3 / times["rnntk"] / 1e9
        row |= {f"copies, {name}": memory(call, n) for name, call in pair.items()}
        ours, theirs = (call() for call in pair.values())
        if what == "process":
            theirs = theirs[0], theirs[1][..., 0]
        else:
            ours, theirs = (ours,), (theirs,)
        row["deviation"] = max(deviation(a, b) for a, b in zip(ours, theirs, strict=True))
        rows.append(row)
    return rows


def leave_one_out(n: int) -> dict[str, Any]:
    """A grid of 20 ridges."""
    x, y = sequences(n)
    K = np.asarray(rnntk.infinite_kernel(RNN, x).ntk)
    ridges = np.logspace(-3, 2, 20)

    def fits() -> None:
        for ridge in ridges:
            KernelRidge(alpha=ridge, kernel="precomputed").fit(K, y)

    def closed() -> list[np.ndarray]:
        errors = []
        for ridge in ridges:
            factor = scipy.linalg.cho_factor(K + ridge * np.eye(n), lower=True)
            inverse = scipy.linalg.cho_solve(factor, np.eye(n))
            errors.append(inverse @ y / np.diagonal(inverse)[:, None])
        return errors

    calls = {"one path": lambda: predict.ridge_path(K, y, ridges), "20 fits": fits}
    times = in_turns({**calls, "20 closed forms": closed}, rounds=3)
    path = predict.ridge_path(K, y, ridges)
    expected = [np.mean(e**2) for e in closed()]
    return {
        "n": n,
        **times,
        "20 n refits": times["20 fits"] * n,
        "fits / path": times["20 fits"] / times["one path"],
        "closed / path": times["20 closed forms"] / times["one path"],
        "refits / path": times["20 fits"] * n / times["one path"],
        "deviation": float(np.abs(path.leave_one_out / expected - 1).max()),
    }


def flow(n: int) -> dict[str, Any]:
    """Gradient flow at 50 times."""
    nt = rnntk.interop.neural_tangents()
    x, y = sequences(n + 100)
    gram = np.asarray(rnntk.infinite_kernel(RNN, x).ntk)
    K, cross, y = gram[:n, :n].copy(), gram[n:, :n].copy(), y[:n]
    times = np.linspace(0, 100, 50)
    zero, zero_test = jnp.zeros((n, OUTPUTS)), jnp.zeros((100, OUTPUTS))

    def peer() -> Any:
        run = nt.predict.gradient_descent_mse(jnp.asarray(K), jnp.asarray(y))
        return run(jnp.asarray(times * OUTPUTS), zero, zero_test, jnp.asarray(cross))[1]

    with jax.numpy_dtype_promotion("standard"):
        pair = {"rnntk": lambda: predict.gradient_flow(K, y, cross, times), "neural-tangents": peer}
        best = in_turns(pair, rounds=3)
        ours, theirs = (np.asarray(call()) for call in pair.values())
    return {
        "n": n,
        **best,
        "ratio": best["neural-tangents"] / best["rnntk"],
        "deviation": deviation(ours, theirs),
    }


def likelihood(n: int, kind: str) -> dict[str, Any]:
    """Value and gradient of the marginal likelihood in four stds and the noise."""
    x, y = sequences(n)
    y = y[:, :1]
    K = np.asarray(getattr(rnntk.infinite_kernel(RNN, x), kind))

    def factorization() -> None:
        factor = scipy.linalg.cholesky(K + 0.1 * np.eye(n), lower=True)
        scipy.linalg.lapack.dpotri(factor, lower=1)

    best = in_turns(
        {
            "gradient": lambda: predict.log_marginal_likelihood(RNN, x, y, 0.1, kind=kind).value,
            "kernel": lambda: rnntk.infinite_kernel(RNN, x),
            "factorization": factorization,
        }
    )
    kernels = (best["gradient"] - best["factorization"]) / best["kernel"]
    return {"n": n, "kind": kind, **best, "kernels": kernels}


def methods(n: int) -> list[dict[str, Any]]:
    """The four ways to solve, from sequences."""
    x, y = sequences(n + 200)
    new, x, y = x[n:], x[:n], y[:n]
    rows, truth = [], None
    for method in ("exact", "float32", "matrix-free", "nystrom"):
        start = time.perf_counter()
        model = predict.fit(RNN, x, y, 0.1, method=method, tolerance=1e-8)
        seconds = time.perf_counter() - start
        predictions = model.predict(new)
        truth = predictions if truth is None else truth
        peak = memory(lambda m=method: predict.fit(RNN, x, y, 0.1, method=m), n)
        rows.append(
            {
                "n": n,
                "method": method,
                "seconds": seconds,
                "copies": peak,
                "steps": model.steps,
                "passes": model.passes,
                "residual": model.residual,
                "deviation": deviation(predictions, truth),
            }
        )
    return rows


def large(n: int, method: str) -> dict[str, Any]:
    """One large solve."""
    x, y = sequences(n)
    start, cpu = time.perf_counter(), time.process_time()
    model = predict.fit(RNN, x, y, 0.1, method=method, rank=500, progress=True)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {
        "n": n,
        "method": model.method,
        "seconds": seconds,
        "core seconds": cpu,
        "steps": model.steps,
        "passes": model.passes,
        "residual": model.residual,
        "prediction bound": model.prediction_bound,
        "peak GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def main() -> None:
    """Run all parts, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="500,1000,2000", help="rows of exact problems")
    parser.add_argument("--sequences", type=int, default=4000, help="of the methods' comparison")
    parser.add_argument("--large", type=int, help="number of sequences of one large solve")
    parser.add_argument("--method", default="float32", help="of the large solve")
    parser.add_argument("--only", help="one part: " + ", ".join(PARTS))
    parser.add_argument("--out", type=Path, help="where to write JSON")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    results: dict[str, Any] = {"environment": environment()}
    print(", ".join(f"{name} {value}" for name, value in results["environment"].items()))
    sizes = [int(size) for size in options.sizes.split(",")]
    calls: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "exact": lambda: [row for n in sizes for row in exact(n)],
        "leave-one-out": lambda: [leave_one_out(n) for n in sizes],
        "flow": lambda: [flow(n) for n in sizes],
        "likelihood": lambda: [likelihood(options.sequences // 4, k) for k in ("nngp", "ntk")],
        "methods": lambda: methods(options.sequences),
    }
    if options.large:
        calls = {"large": lambda: [large(options.large, options.method)]}
    for name, call in calls.items():
        if options.only in (None, name):
            results[name] = call()
            print(f"\n{name}\n{table(results[name])}", flush=True)
    if options.out:
        save(options.out, results)


if __name__ == "__main__":
    main()
