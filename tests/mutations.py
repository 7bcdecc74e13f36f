"""Breaks the code in known ways and says which breaks the tests notice.

``python tests/mutations.py [name ...]``: each mutation is made in a copy of the project, where the
tests of its subject must fail. It takes some minutes, and is no part of the suite.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
# name: file, what stands there, what is put in its place, tests
MUTATIONS = {
    "bounds: sign in the product": (
        "rnntk/bounds/lower.py",
        "return a * B + b * (A - a)",
        "return a * B + b * (A + a)",
        "tests/bounds/test_bounds.py",
    ),
    "bounds: half of a pair's gap": (
        "rnntk/bounds/upper.py",
        "gap = real.hypot((diagonal[i] - diagonal[j]) / 2, matrix[i, j])",
        "gap = 2 * real.hypot((diagonal[i] - diagonal[j]) / 2, matrix[i, j])",
        "tests/bounds/test_bounds.py",
    ),
    "bounds: Weyl of half the deviation": (
        "rnntk/bounds/concentration.py",
        "weyl = limit + np.outer(deviations[-1], (-1, 1))",
        "weyl = limit + np.outer(deviations[-1] / 8, (-1, 1))",
        "tests/bounds/test_learning.py",
    ),
    "bounds: a step off in time": (
        "rnntk/bounds/lower.py",
        "tau = tau + (w2 * products[-1] if s else 0)",
        "tau = tau + (w2 * products[0] if s else 0)",
        "tests/bounds/test_bounds.py",
    ),
    "spectrum: no error of the factorization": (
        "rnntk/linalg/enclosure.py",
        "return Fraction(shift) - completion_error(diagonal), factor, gap == smallest",
        "return Fraction(shift) + completion_error(diagonal), factor, gap == smallest",
        "tests/spectrum/test_intervals.py",
    ),
    "spectrum: the quotient's slack with a sign": (
        "rnntk/linalg/enclosure.py",
        "top, norm2 = Fraction(product) + slack, float(x @ x)",
        "top, norm2 = Fraction(product) - slack, float(x @ x)",
        "tests/spectrum/test_intervals.py",
    ),
    "predict: leave-one-out with a sign": (
        "rnntk/predict/regression.py",
        "np.asarray(self.y) - (self.coefficients.T",
        "np.asarray(self.y) + (self.coefficients.T",
        "tests/predict/test_regression.py",
    ),
    "predict: time without the number of points": (
        "rnntk/predict/flow.py",
        "return ((problem.labels - loss.link(f)) / n).ravel()",
        "return ((problem.labels - loss.link(f)) / (2 * n)).ravel()",
        "tests/predict/test_flow.py",
    ),
    "infinite: twice the tangent kernel": (
        "rnntk/infinite/recursion.py",
        "ang_B = ang_of_product(ang_Kd, roots_Kd,",
        "ang_B = 2 * ang_of_product(ang_Kd, roots_Kd,",
        "tests/infinite/test_infinite.py",
    ),
    "infinite: sequences aligned at their starts": (
        "rnntk/infinite/marginals.py",
        "start = t - lengths",
        "start = t - lengths + 1",
        "tests/infinite/test_infinite.py",
    ),
    "infinite: no part of unequal proportions": (
        "rnntk/infinite/angles.py",
        "2 * sum(uneven[1:], uneven[0])",
        "sum(uneven[1:], uneven[0])",
        "tests/infinite/test_infinite.py",
    ),
    "empirical: scale of the averaged outputs": (
        "rnntk/empirical/backprop.py",
        "/ math.sqrt(averaged)",
        "/ averaged",
        "tests/empirical/test_empirical.py",
    ),
}


def caught(name: str) -> bool:
    """Whether the tests of a mutation's subject fail."""
    file, old, new, tests = MUTATIONS[name]
    with tempfile.TemporaryDirectory() as folder:
        for part in ("rnntk", "tests", "benchmarks", "docs"):
            shutil.copytree(
                ROOT / part, Path(folder, part), ignore=shutil.ignore_patterns("_build")
            )
        shutil.copy(ROOT / "pyproject.toml", folder)
        path = Path(folder, file)
        text = path.read_text()
        if text.count(old) != 1:
            raise ValueError(f"{name}: {file} must hold {old!r} once, holds it {text.count(old)}.")
        path.write_text(text.replace(old, new))
        cache = ROOT / ".cache" / "jax"
        done = subprocess.run(
            [sys.executable, "-m", "pytest", tests, "-x", "-q", "-p", "no:cacheprovider"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": folder, "JAX_COMPILATION_CACHE_DIR": str(cache)},
            capture_output=True,
            text=True,
            check=False,
        )
    return done.returncode == 1


def main() -> int:
    """Run the mutations that are named, or all."""
    missed = []
    for name in sys.argv[1:] or MUTATIONS:
        found = caught(name)
        print(f"{'caught' if found else 'MISSED'}  {name}", flush=True)
        missed += [] if found else [name]
    return len(missed)


if __name__ == "__main__":
    sys.exit(main())
