"""Every activation beside relu in one run: time of the infinite-width kernel, and its error.

    python benchmarks/activations.py [--size 1000] [--steps 50] [--before F.json] [--out F.json]
                                     [--picture F.png] [--drawn F.json]

Kernels of the network that most people mean, default stds, of standard normal tokens of size 8,
symmetric, "last" readout; rounds alternate between the activations, and the least time of each
counts. The error is that of the moments, relative to sqrt(K_ii K_jj), at variances 1e-2 to 1e8 and
correlations from 1 - 1e-6 to -0.7: against quadrature in 80 bits (tests/oracles/moments.npz) where
it has the activation, against closed forms in 40 digits for erf, gelu, relu and sin. ``--picture``
draws error against time; with ``--drawn F.json`` from what a run wrote, without a new one.

Operations of a pair and step beside relu's, counted on the code: 5 for each order that is summed,
of which one raises the power, and 7 for elu. Orders are 9 (float32: 7) low ones, and 4 (2) in each
of 4, 5, 7 or 10 octaves. ``--before`` is what another run wrote, of an earlier commit, whose times
are put beside.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
from harness import environment, save, table

import rnntk

NAMES = ("relu", "tanh", "sigmoid", "silu", "softplus", "gelu", "erf", "elu", "sin")
ROUNDS = 6
ORACLE = Path(__file__).parent.parent / "tests" / "oracles" / "moments.npz"


def times(names: tuple[str, ...], n: int, t: int, dtype: type) -> dict[str, float]:
    """Least wall time of each kernel, in seconds."""
    x = np.random.default_rng(0).standard_normal((n, t, 8)).astype(dtype)
    networks = {name: rnntk.ElmanRNN(name, w_std=1.2, u_std=1.0) for name in names}
    best = dict.fromkeys(names, np.inf)
    for i in range(ROUNDS + 1):
        for name, rnn in networks.items():
            start = time.perf_counter()
            jax.block_until_ready(rnntk.infinite_kernel(rnn, x).ntk)
            if i:  # the first compiles
                best[name] = min(best[name], time.perf_counter() - start)
    return best


def erf_moment(a: float, b: float, rho: float) -> float:
    root = mpmath.sqrt((1 + 2 * mpmath.mpf(a)) * (1 + 2 * mpmath.mpf(b)))
    return float(2 / mpmath.pi * mpmath.asin(2 * mpmath.sqrt(mpmath.mpf(a) * b) * rho / root))


def relu_moment(a: float, b: float, rho: float) -> float:
    size, theta = mpmath.sqrt(mpmath.mpf(a) * b), mpmath.acos(rho)
    cov = mpmath.sin(theta) + (mpmath.pi - theta) * mpmath.cos(theta)
    return float(size * cov / (2 * mpmath.pi))


def gelu_moment(a: float, b: float, rho: float) -> float:
    a, b = mpmath.mpf(a), mpmath.mpf(b)
    c, p, q = mpmath.sqrt(a * b) * rho, 1 + a, 1 + b
    w = mpmath.sqrt(p * q - c**2)
    angle = mpmath.asin(c / mpmath.sqrt(p * q))
    tail = c * angle + a * b * w / (p * q) + c**2 / (p * q * w)
    return float(c / 4 + tail / (2 * mpmath.pi))


def sin_moment(a: float, b: float, rho: float) -> float:
    c = mpmath.sqrt(mpmath.mpf(a) * b) * rho
    shift = (mpmath.mpf(a) + b) / 2
    return float((mpmath.exp(c - shift) - mpmath.exp(-c - shift)) / 2)


@mpmath.workdps(40)
def error(name: str, dtype: type) -> float | None:
    """Largest relative error of E phi(u) phi(u') where there is something to compare it with."""
    oracle = np.load(ORACLE)
    known = oracle["names"].tolist()
    closed = {
        "erf": erf_moment,
        "gelu": gelu_moment,
        "relu": relu_moment,
        "sin": sin_moment,
    }
    if name not in known and name not in closed:
        return None
    phi, worst = rnntk.activations.resolve(name), 0.0

    @jax.jit
    def product(a: jax.Array, b: jax.Array, angle: jax.Array) -> jax.Array:
        one, two = phi.alone(a[None]), phi.alone(b[None])
        angles = phi.angles(one.marginal, two.marginal, angle[None, None])
        return jnp.sqrt(one.variance * two.variance)[0] - angles[0][0, 0] / 2

    for k, ((a, b), away) in enumerate(zip(oracle["variances"], oracle["away"], strict=True)):
        if min(a, b) < 1e-2 or max(a, b) > 1e8 or not 1e-6 <= away <= 1.7:
            continue
        got = float(product(*(jnp.asarray(v, dtype) for v in (a, b, 2 * away * np.sqrt(a * b)))))
        if name in closed:
            exact = closed[name](a, b, 1 - mpmath.mpf(away))
            size = np.sqrt(closed[name](a, a, 1) * closed[name](b, b, 1))
        else:
            i = known.index(name)
            exact = oracle["products"][k, i, 0]
            size = np.sqrt(np.prod(oracle["own"][k, :, i, 0]))
        worst = max(worst, abs(got - exact) / size)
    return worst


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Error against time, a panel for each precision."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2)
    for axes, dtype in zip(panels, ("float32", "float64"), strict=True):
        some = [row for row in rows if row["dtype"] == dtype and row["error"] is not None]
        points = [(row["ratio"], row["error"]) for row in some]
        axes.plot(*zip(*points, strict=True), "o", ms=6, color="black", mfc="0.75")
        axes.set_yscale("log")
        axes.set_xlim(0, 1.15 * max(x for x, _ in points))
        axes.set_ylim(min(y for _, y in points) / 2, max(y for _, y in points) * 2)
        axes.set_title(dtype, fontsize=10)
        axes.set_xlabel("time of the kernel, in units of relu's")
    panels[0].set_ylabel("largest relative error of a moment")
    canvas.draw()  # fixes the layout, which labels are placed in
    for axes, dtype in zip(panels, ("float32", "float64"), strict=True):
        some = [row for row in rows if row["dtype"] == dtype and row["error"] is not None]
        label(axes, {row["activation"]: (row["ratio"], row["error"]) for row in some})
    figure.savefig(path, dpi=150)


def label(axes: Any, points: dict[str, tuple[float, float]]) -> None:
    """Names beside their points, each in the first of eight places that meets nothing else."""
    from matplotlib.transforms import Bbox

    marks = axes.transData.transform(list(points.values()))
    taken = [Bbox.from_extents(x - 6, y - 6, x + 6, y + 6) for x, y in marks]
    places = [(8, 0), (0, 9), (0, -9), (-8, 0), (7, 7), (7, -7), (-7, 7), (-7, -7)]
    sides = {1: "left", 0: "center", -1: "right"}, {1: "bottom", 0: "center", -1: "top"}
    for name, point in points.items():
        for place in places:
            horizontal, vertical = (
                side[int(np.sign(offset))] for side, offset in zip(sides, place, strict=True)
            )
            text = axes.annotate(
                name,
                point,
                place,
                textcoords="offset points",
                ha=horizontal,
                va=vertical,
                fontsize=9,
            )
            box = text.get_window_extent()
            inside = axes.bbox.x0 < box.x0 and box.x1 < axes.bbox.x1
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            text.remove()
        else:
            raise ValueError(f"there is no place for the name of {name}; draw a larger figure.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--activations", type=lambda v: tuple(v.split(",")), default=NAMES)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--drawn", type=Path)
    options = parser.parse_args()
    if options.drawn:
        draw(json.loads(options.drawn.read_text())["rows"], options.picture)
        return
    rows: list[dict[str, Any]] = []
    before = json.loads(options.before.read_text())["rows"] if options.before else []
    earlier = {(row["activation"], row["dtype"]): row["seconds"] for row in before}
    for dtype in (np.float32, np.float64):
        with jax.enable_x64(dtype == np.float64):
            found = times(options.activations, options.size, options.steps, dtype)
            for name, seconds in found.items():
                pairs = options.size**2 * options.steps
                kind = name, np.dtype(dtype).name
                rows.append(
                    {
                        "activation": name,
                        "dtype": np.dtype(dtype).name,
                        "seconds": seconds,
                        **({"seconds_before": earlier[kind]} if kind in earlier else {}),
                        "ratio": seconds / found[options.activations[0]],
                        "million_pair_steps_per_second": pairs / seconds / 1e6,
                        "error": error(name, dtype),
                    }
                )
    print(table(rows))
    if options.out:
        save(
            options.out,
            {
                "environment": environment(),
                "size": options.size,
                "steps": options.steps,
                "rows": rows,
            },
        )
    if options.picture:
        draw(rows, options.picture)


if __name__ == "__main__":
    main()
