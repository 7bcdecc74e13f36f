"""Speed and memory of the empirical NTK, beside its peers, on one table.

    python benchmarks/empirical.py [--rows 64,16,256;128,16,512] [--peers all] [--out FILE.json]

A row is n, t, m: sequences, steps and width of a relu network, last step, tokens of size 8,
float32; a fourth number is that of the outputs (1). Peers, each in a process of its own:

- ``jit``: the same call under ``jax.jit``, as the next three peers are. Values are not checked, and
  it is one program, without threads: the faster way below a few milliseconds;
- ``jacrev``: a vmapped ``jax.jacrev`` of one sequence, contracted by one matrix product;
- ``nt1``, ``nt2``: neural-tangents by Jacobian contraction (1) and NTK-vector products (2);
- ``torch``: ``torch.func.jacrev`` under ``vmap``, contracted likewise, where PyTorch is installed.

Operations of ours, counted by hand for the method that is chosen: n^2 t^2 (o m + m + 9) for
``gram`` and (2 n t + n^2) o m (m + 9) for ``jacobian``, with symmetry, to which 2 n t m^2 (2 + o)
of the two passes add. A peer that is missing or fails has no figures, and says why on stderr; the
column "off" is how far its first entry and its sum are from ours, relative, at most.
Times are the best of two rounds, in which all take turns. The ceiling is a matrix product of size
2048 in the main process. Peak memory is that of the process, less what it was before the first
call.
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from harness import environment, save, seconds, table

ROWS = (
    "64,16,256;128,16,512;128,64,512;256,10,1024;256,100,512;512,20,2048;128,16,512,2;"
    "64,200,128;1,20,256;64,10,16"
)
OURS = ("rnntk", "jit", "gram", "jacobian")
PEERS = ("jit", "jacrev", "nt1", "nt2", "torch")
D = 8
# Relative: kernels further apart are not the same. Rounding in float32 decides on which side of 0
# the input of some relu units is, and a unit that changes sides early moves an entry by 1e-3.
ROUNDING = 1e-4
ROUNDS = 2
SLOW = 5.0  # seconds: such a peer, like one that fails, is measured in the first round only
LONG = 2e10  # operations of a peer beyond which it is called once only


def problem(n: int, t: int, m: int, o: int) -> tuple[Any, Any, Any]:
    """The network, its parameters, and tokens."""
    import jax

    import rnntk

    rnn = rnntk.ElmanRNN()
    params = rnn.init(jax.random.key(0), input_dim=D, width=m, output_dim=o)
    x = np.random.default_rng(0).standard_normal((n, t, D)) / D**0.5
    return rnn, params, jax.numpy.asarray(x, jax.numpy.float32)


def ours(n: int, t: int, m: int, o: int, method: str = "auto") -> Any:
    """A call of rnntk."""
    import rnntk

    rnn, params, x = problem(n, t, m, o)
    return lambda: rnntk.empirical_kernel(rnn, params, x, method=method).ntk


def under_jit(n: int, t: int, m: int, o: int) -> Any:
    """rnntk in a program of the caller's."""
    import jax

    import rnntk

    rnn, params, x = problem(n, t, m, o)
    compiled = jax.jit(lambda params, x: rnntk.empirical_kernel(rnn, params, x).ntk)
    return lambda: compiled(params, x)


def jacrev(n: int, t: int, m: int, o: int) -> Any:
    """Jacobians of one sequence at a time, vmapped, and one product."""
    import jax
    import jax.numpy as jnp

    rnn, params, x = problem(n, t, m, o)

    @jax.jit
    def kernel(params: Any, x: Any) -> Any:
        one = jax.jacrev(lambda p, row: rnn.apply(p, row[None])[0])
        jacobian = jax.vmap(one, (None, 0))(params, x)
        total = jnp.zeros((len(x), len(x)))
        for leaf in jax.tree.leaves(jacobian):
            flat = leaf.reshape(len(x), -1)
            total += jnp.matmul(flat, flat.T, precision=jax.lax.Precision.HIGHEST)
        return total / o

    return lambda: kernel(params, x)


def neural_tangents(n: int, t: int, m: int, o: int, implementation: int) -> Any:
    """neural-tangents on the same network."""
    import jax

    import rnntk

    nt = rnntk.interop.neural_tangents()
    rnn, params, x = problem(n, t, m, o)
    kernel = nt.empirical_ntk_fn(
        rnn.apply, trace_axes=(-1,), vmap_axes=0, implementation=implementation
    )
    compiled = jax.jit(lambda params, x: kernel(x, None, params))
    return lambda: compiled(params, x)


def torch_func(n: int, t: int, m: int, o: int) -> Any:
    """torch.func on the same network."""
    import torch

    _, params, x = problem(n, t, m, o)
    weights = {name: torch.tensor(np.asarray(value)) for name, value in params.items()}
    tokens = torch.tensor(np.asarray(x))
    w, v = (2 / m) ** 0.5, m**-0.5

    def apply(p: Any, row: Any) -> Any:
        h = torch.zeros(m)
        for token in row:
            h = torch.relu(w * (p["W"] @ h) + 2**0.5 * (p["U"] @ token) + 0 * p["b"])
        return v * (p["V"] @ h)

    def call() -> Any:
        jacobian = torch.func.vmap(torch.func.jacrev(apply), (None, 0))(weights, tokens)
        total = torch.zeros(n, n)
        for leaf in jacobian.values():
            flat = leaf.reshape(n, -1)
            total += flat @ flat.T
        return np.asarray(total / o)

    return call


MAKERS = {
    "rnntk": ours,
    "jit": under_jit,
    "gram": lambda *sizes: ours(*sizes, method="gram"),
    "jacobian": lambda *sizes: ours(*sizes, method="jacobian"),
    "jacrev": jacrev,
    "nt1": lambda *sizes: neural_tangents(*sizes, implementation=1),
    "nt2": lambda *sizes: neural_tangents(*sizes, implementation=2),
    "torch": torch_func,
}


def measure(name: str, sizes: tuple[int, ...]) -> dict[str, Any]:
    """Time and peak memory of one call, in this process; the kernel's entries as a check."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    call = MAKERS[name](*sizes)
    kernel = np.asarray(call())
    if not np.isfinite(kernel).all():
        raise FloatingPointError("the kernel has NaN or infinity")
    n, t, m, _ = sizes
    long = name not in OURS and (n * n + n * t) * m * m > LONG
    took = seconds(call, repeats=1 if long else 5)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    check = [float(kernel[0, 0]), float(kernel.sum(dtype=float))]
    return {"seconds": took, "MB": peak / 1024, "check": check}


def ceiling() -> float:
    """GFLOP/s of a large matrix product."""
    import jax
    import jax.numpy as jnp

    a = jnp.ones((2048, 2048), jnp.float32)
    product = jax.jit(lambda a: jnp.matmul(a, a.T, precision=jax.lax.Precision.HIGHEST))
    return 2 * 2048**3 / seconds(lambda: product(a), repeats=10) / 1e9


def apart(name: str, sizes: tuple[int, ...]) -> dict[str, Any]:
    """:func:`measure` in a process of its own; what went wrong, if it did."""
    command = [sys.executable, __file__, "--one", name, "--rows", ",".join(map(str, sizes))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return {"error": lines[-1] if lines else f"exit status {done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1])


def in_turn(names: list[str], sizes: tuple[int, ...]) -> dict[str, dict[str, Any]]:
    """The fastest of some rounds of each, as other work on the machine comes and goes."""
    found = {name: apart(name, sizes) for name in names}
    for name in names * (ROUNDS - 1):
        if found[name].get("seconds", SLOW) < SLOW:
            again = apart(name, sizes)
            found[name] = min(found[name], again, key=lambda one: one.get("seconds", SLOW))
    return found


def row(sizes: tuple[int, ...], peers: list[str], top: float) -> dict[str, Any]:
    """Ours and the peers at one size."""
    from rnntk.empirical.planning import plan

    n, t, m, o = sizes
    rnn, params, x = problem(*sizes)
    method = plan(rnn, params, x).method
    found = in_turn(["rnntk", *peers], sizes)
    mine = found["rnntk"]
    if "error" in mine:
        raise RuntimeError(f"rnntk at {sizes}: {mine['error']}")
    passes = 2 * n * t * m * m * (2 + o)
    if method == "gram":
        operations = n * n * t * t * (m * o + m + D + 1) + passes
    else:
        operations = (2 * n * t + n * n) * o * m * (m + D + 1) + passes
    result = {"n": n, "t": t, "m": m, "o": o, "method": method}
    result["seconds"], result["MB"] = mine["seconds"], mine["MB"]
    result["GFLOP/s"] = operations / mine["seconds"] / 1e9
    result["of ceiling"] = result["GFLOP/s"] / top
    for name in peers:
        other = found[name]
        took = other.get("seconds")
        result[f"{name} s"], result[f"{name} MB"] = took, other.get("MB")
        result[f"{name} ratio"] = result[f"{name} off"] = None
        if took is None:
            print(f"{name} at {sizes}: {other['error']}", file=sys.stderr)
            continue
        off = max(abs(a / b - 1) for a, b in zip(other["check"], mine["check"], strict=True))
        result[f"{name} ratio"], result[f"{name} off"] = took / mine["seconds"], off
        if off > ROUNDING:
            print(f"{name} at {sizes}: differs from rnntk by {off:.2g}", file=sys.stderr)
    return result


def read_rows(text: str) -> list[tuple[int, ...]]:
    """Sizes n, t, m, o of each row."""
    rows = []
    for part in text.split(";"):
        sizes = [int(v) for v in part.split(",") if v.strip().isdecimal()]
        if len(sizes) != len(part.split(",")) or len(sizes) not in (3, 4) or 0 in sizes:
            raise argparse.ArgumentTypeError(f"rows are n,t,m or n,t,m,outputs, got {part!r}")
        rows.append((*sizes, 1)[:4])
    return rows


def main() -> None:
    """Run all rows, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rows", type=read_rows, default=ROWS, help="sizes n,t,m[,outputs], separated by ;"
    )
    parser.add_argument("--peers", default=",".join(PEERS), help="comma-separated, may be empty")
    parser.add_argument("--one", choices=MAKERS, help="measure one of them in this process")
    parser.add_argument("--out", type=Path, help="where to write JSON")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.rows[0])))
        return
    peers = [name for name in options.peers.split(",") if name]
    top = ceiling()
    results = {"environment": environment(), "ceiling GFLOP/s": top, "rows": []}
    for sizes in options.rows:
        results["rows"].append(row(sizes, peers, top))
        if options.out:  # what is measured stays, whatever comes
            save(options.out, results)
    print(as_text(results))


def as_text(results: dict[str, Any]) -> str:
    """The results as text: what ran where, and the table."""
    where = ", ".join(f"{name} {value}" for name, value in results["environment"].items())
    return f"{where}\nceiling {results['ceiling GFLOP/s']:.0f} GFLOP/s\n{table(results['rows'])}"


if __name__ == "__main__":
    main()
