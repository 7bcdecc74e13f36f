"""Speed of training ensembles of networks, beside the loop that a user would write.

    python benchmarks/training.py [--rows 64,1;256,32] [--seeds 8,16] [--online] [--out FILE.json]

A row is m, b: width and batch (0: the full batch); relu network, last step, n = 200 sequences of
t = 10 tokens of size 8, float32, squared loss, plain SGD on W, U and V, from the drawing of the
parameters to the last step. Peers:

- ``hand``: ``jax.grad`` of a hand-written ``lax.scan``, in a compiled ``lax.fori_loop`` over steps
  whose batches were drawn before, one network after another;
- ``vmap``: the same under ``jax.vmap`` over the seeds, as one program;
- ``torch``: ``torch.nn.RNN`` trained in a loop, where PyTorch is installed; it cannot be vmapped
  (its issues 105982 and 134606).

All take turns in one process, and the least time counts. ``cpu`` is the least processor time over
that of ``hand``, which other load on the machine disturbs less: programs on one core, all cores
busy, take half of it by the clock on two. Operations, counted by hand: a step of a sequence and a
time multiplies by W forwards, backwards and for the gradient, 6 m^2; the first step of a sequence
has nothing to multiply, so that 0.9 of them are needed at t = 10. The ceiling is a matrix product
of size 2048 in the same process, on all cores.

``--online`` measures one pass over samples of a generator, batch 1, m = 256, beside a compiled loop
over the same samples in one array.
"""

import argparse
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from harness import environment, save, seconds, table

import rnntk

N, T, D = 200, 10, 8
RATE = 0.01
ROWS = ";".join(f"{m},{b}" for m in (64, 128, 256, 512, 1024) for b in (1, 32, 0))
OPERATIONS = 2e11  # of an ensemble, which decides on the number of steps
STEPS = 20, 4000  # at the least and at the most
SECONDS = 3.0  # for the rounds of a row
SAMPLES = 100_000


def data() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, T, D)) / D**0.5
    return jnp.asarray(x, jnp.float32), jnp.asarray(rng.standard_normal((N, 1)), jnp.float32)


def draw(key: Any, m: int) -> dict[str, Any]:
    keys = jax.random.split(key, 3)
    shapes = {"W": (m, m), "U": (m, D), "V": (1, m)}
    return {k: jax.random.normal(each, shapes[k]) for k, each in zip(shapes, keys, strict=True)}


def loss(params: dict[str, Any], x: Any, y: Any) -> Any:
    m = len(params["W"])

    def step(h: Any, token: Any) -> tuple[Any, None]:
        u = (2 / m) ** 0.5 * (h @ params["W"].T) + 2**0.5 * (token @ params["U"].T)
        return jax.nn.relu(u), None

    h = jax.lax.scan(step, jnp.zeros((len(x), m)), x.swapaxes(0, 1))[0]
    return jnp.square(h @ params["V"].T / m**0.5 - y).sum() / (2 * len(x))


def train(key: Any, m: int, x: Any, y: Any, rows: Any) -> Any:
    """All steps of one network; rows are the sequences of each, all where there are N."""
    full = rows.shape[1] == N

    def body(i: Any, params: Any) -> Any:
        batch = (x, y) if full else (x[rows[i]], y[rows[i]])
        gradient = jax.grad(loss)(params, *batch)
        return jax.tree.map(lambda p, g: p - RATE * g, params, gradient)

    return jax.lax.fori_loop(0, len(rows), body, draw(key, m))


one = jax.jit(train, static_argnums=1)
several = jax.jit(
    lambda keys, m, x, y, rows: jax.vmap(lambda key: train(key, m, x, y, rows))(keys),
    static_argnums=1,
)


def torch_loop(m: int, b: int, steps: int, seeds: int) -> Callable[[], Any]:
    """The same number of steps of PyTorch's RNN."""
    import torch

    x, y = (torch.from_numpy(np.array(v)) for v in data())
    torch.set_num_threads(environment()["cores"])

    def run() -> None:
        for seed in range(seeds):
            torch.manual_seed(seed)
            rnn = torch.nn.RNN(D, m, nonlinearity="relu", batch_first=True)
            read = torch.nn.Linear(m, 1, bias=False)
            optimizer = torch.optim.SGD([*rnn.parameters(), *read.parameters()], lr=RATE / m)
            for _ in range(steps):
                at = torch.randperm(N)[:b] if b < N else slice(None)
                optimizer.zero_grad()
                out = read(rnn(x[at])[0][:, -1])
                ((out - y[at]) ** 2).sum().div(2 * b).backward()
                optimizer.step()

    return run


def calls(m: int, b: int, steps: int, seeds: int) -> dict[str, Callable[[], Any]]:
    x, y = data()
    rng = np.random.default_rng(0)
    rows = jnp.asarray(np.stack([rng.permutation(N)[:b] for _ in range(steps)]))
    keys = jax.random.split(jax.random.key(0), seeds)
    rnn = rnntk.ElmanRNN(trainable=("W", "U", "V"))

    def ours() -> Any:
        size = None if b == N else b
        settings = {"width": m, "learning_rate": RATE, "steps": steps, "seeds": seeds}
        return rnntk.train.fit(rnn, keys[0], x, y, batch_size=size, **settings).losses

    found = {
        "ours": ours,
        "hand": lambda: [jax.block_until_ready(one(key, m, x, y, rows)) for key in keys],
        "vmap": lambda: several(keys, m, x, y, rows),
    }
    with contextlib.suppress(ImportError):
        found["torch"] = torch_loop(m, b, steps, seeds)
    return found


def turns(peers: dict[str, Callable[[], Any]], limit: float) -> dict[str, tuple[float, float]]:
    """Least time by the clock and of the processor, all taking turns."""
    best = dict.fromkeys(peers, (np.inf, np.inf))
    for call in peers.values():
        jax.block_until_ready(call())
    end, rounds = time.perf_counter() + limit, 0
    while rounds < 3 or time.perf_counter() < end:
        rounds += 1
        for name, call in peers.items():
            wall, cpu = time.perf_counter(), time.process_time()
            jax.block_until_ready(call())
            took = time.perf_counter() - wall, time.process_time() - cpu
            best[name] = tuple(map(min, best[name], took))
    return best


def row(m: int, b: int, seeds: int, ceiling: float) -> dict[str, Any]:
    each = 6 * b * T * m**2 * seeds
    steps = int(np.clip(OPERATIONS / each, *STEPS))
    best = turns(calls(m, b, steps, seeds), SECONDS)
    wall, cpu = best["ours"]
    speed = each * steps / wall / 1e9
    return {
        "m": m,
        "batch": b,
        "seeds": seeds,
        "steps": steps,
        "us/step/seed": wall / steps / seeds * 1e6,
        "GFLOP/s": speed,
        "of ceiling": 0.9 * speed / ceiling,
        **{f"x {name}": best[name][0] / wall for name in best if name != "ours"},
        "cpu hand": best["hand"][1] / cpu,
    }


def online() -> dict[str, Any]:
    """One pass over many samples."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((SAMPLES, 1, T, D)).astype(np.float32) / np.float32(D**0.5)
    y = x[:, 0, 0, :1]
    rnn, key = rnntk.ElmanRNN(trainable=("W", "U", "V")), jax.random.key(0)
    tokens, labels = jnp.asarray(x[:, 0]), jnp.asarray(y)
    rows = jnp.arange(SAMPLES)[:, None]
    settings = {"width": 256, "learning_rate": RATE}

    def generator() -> Any:
        return rnntk.train.fit(rnn, key, zip(x, y, strict=True), **settings).losses

    peers = {"generator": generator, "hand": lambda: one(key, 256, tokens, labels, rows)}
    best = turns(peers, 1.0)
    return {
        "samples": SAMPLES,
        "us/sample": best["generator"][0] / SAMPLES * 1e6,
        "speed over hand": best["hand"][0] / best["generator"][0],
        "cpu hand": best["hand"][1] / best["generator"][1],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", default=ROWS)
    parser.add_argument("--seeds", default="8,16")
    parser.add_argument("--online", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    a = jnp.ones((2048, 2048))
    product = jax.jit(jnp.matmul)
    ceiling = 2 * 2048**3 / seconds(lambda: product(a, a)) / 1e9
    rows = []
    for seeds in map(int, options.seeds.split(",")):
        for pair in options.rows.split(";"):
            m, b = map(int, pair.split(","))
            rows.append(row(m, b or N, seeds, ceiling))
            print(table(rows[-1:]), flush=True)
    results: dict[str, Any] = {"environment": environment(), "ceiling GFLOP/s": ceiling}
    results |= {"sizes": {"n": N, "t": T, "d": D, "dtype": "float32"}, "rows": rows}
    print(f"ceiling {ceiling:.0f} GFLOP/s")
    print(table(rows))
    if options.online:
        results["online"] = online()
        print(table([results["online"]]))
    if options.out:
        save(options.out, results)


if __name__ == "__main__":
    main()
