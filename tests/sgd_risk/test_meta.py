"""MAML as regression: its covariance, its gradient, the constants of its bounds, its runs."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnntk import sgd_risk
from rnntk.sgd_risk import MetaRegression

VALUES = np.array([1.0, 0.5, 0.1])


def example(**changed):
    given = {"noise": 0.3, "rate": 0.7, "inner": 4} | changed
    return MetaRegression(VALUES, np.array([1.0, -2.0, 0.5]), np.array([0.2, 0.0, 0.4]), **given)


def features(meta, count, seed=0):
    """Draws of the design (I - a X'X / n_1) x, with X and x."""
    rng = np.random.default_rng(seed)
    first = np.sqrt(VALUES) * rng.standard_normal((count, meta.inner, 3))
    x = np.sqrt(VALUES) * rng.standard_normal((count, 3))
    seen = np.einsum("mnd,md->mn", first, x)
    return x - meta.rate / meta.inner * np.einsum("mnd,mn->md", first, seen), seen


@pytest.mark.parametrize(("rate", "inner"), [(0.7, 4), (-0.5, 1), (2.0, 30), (0.0, 2)])
def test_covariance_of_the_design(rate, inner):
    meta = example(rate=rate, inner=inner)
    squares = features(meta, 100_000)[0] ** 2
    error = squares.std(axis=0) / math.sqrt(len(squares))
    assert (np.abs(squares.mean(axis=0) - meta.adapted) < 4 * error).all()


def test_the_gradient_is_that_of_adapted_weights():
    class Recorded(np.random.Generator):
        """Remembers what it drew."""

        def standard_normal(self, size=None):
            self.drawn = [*getattr(self, "drawn", []), super().standard_normal(size)]
            return self.drawn[-1]

    meta, rng = example(), Recorded(np.random.PCG64(0))
    error = np.random.default_rng(1).standard_normal((5, 3))
    found = meta._gradient(rng, error)
    task, first, last, noise1, noise2 = rng.drawn
    roots = jnp.sqrt(VALUES.astype(np.float32))

    def loss(w, r):
        theta = jnp.asarray(np.sqrt(meta.diversity) * task[r], jnp.float32)
        X, x = jnp.asarray(first[r], jnp.float32) * roots[None], jnp.asarray(last[r]) * roots
        y = X @ theta + jnp.asarray(math.sqrt(meta.noise) * noise1[r], jnp.float32)

        def inner(v):
            return jnp.mean((X @ v - y) ** 2) / 2

        adapted = w - meta.rate * jax.grad(inner)(w)
        label = x @ theta + jnp.float32(math.sqrt(meta.noise) * noise2[r])
        return (x @ adapted - label) ** 2 / 2

    for r in range(5):
        wanted = jax.grad(loss)(jnp.asarray(error[r], jnp.float32), r)
        np.testing.assert_allclose(found[r], wanted, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(("rate", "inner"), [(0.7, 4), (1.5, 1)])
def test_the_proved_constants_hold(rate, inner):
    meta = example(rate=rate, inner=inner)
    b, seen = features(meta, 200_000, seed=3)
    noise = (b**2 @ meta.diversity) + meta.noise * (
        1 + (meta.rate / meta.inner) ** 2 * np.square(seen).sum(axis=1)
    )
    scaled = b / np.sqrt(meta.adapted)
    measured = np.linalg.eigvalsh(np.einsum("m,mi,mj->ij", noise, scaled, scaled) / len(b))[-1]
    assert measured < meta.problem.noise
    for A in (np.eye(3), np.diag([1.0, 0, 0]), np.ones((3, 3))):
        form = np.einsum("mi,ij,mj->m", b, A, b)
        fourth = np.einsum("m,mi,mj->ij", form, scaled, scaled) / len(b)
        size = np.trace(np.diag(meta.adapted) @ A)
        assert np.linalg.eigvalsh(fourth)[-1] < meta.alpha * size


def test_without_adaptation_it_is_plain_regression():
    meta = MetaRegression(VALUES, np.ones(3), np.zeros(3), noise=0.3, rate=0.0)
    np.testing.assert_allclose(meta.adapted, VALUES, rtol=1e-14)
    assert meta.alpha == 3
    assert meta.problem.noise == 0.3
    found = meta.simulate(jax.random.key(0), 0.2, [5, 50], runs=4000)
    error = found.std(axis=0, ddof=1) / math.sqrt(4000)
    exact = sgd_risk.exact_risk(meta.problem, 0.2, [5, 50])
    assert (np.abs(found.mean(axis=0) - exact) < 4 * error).all()


def test_bound_holds_for_runs():
    rng = np.random.default_rng(0)
    for k in range(30):
        d = int(rng.integers(1, 12))
        values = (np.arange(d) + 1.0) ** -rng.uniform(0.5, 3)
        meta = MetaRegression(
            values,
            rng.standard_normal(d),
            rng.uniform(0, 1, d) * (k % 2),
            noise=rng.uniform(0, 1),
            rate=rng.uniform(-1, 1),
            inner=int(rng.integers(1, 20)),
        )
        step = 0.9 * sgd_risk.step_limit(meta.problem, meta.alpha)
        found = meta.simulate(jax.random.key(k), step, 300, runs=16)[:, 0]
        bound = sgd_risk.upper_bound(meta.problem, step, 300, alpha=meta.alpha).value
        assert found.mean() - 4 * found.std(ddof=1) / 4 < bound


def test_refuses():
    with pytest.raises(ValueError, match="diversity must hold one variance for each of the 3"):
        MetaRegression(VALUES, np.ones(3), np.ones(2))
    with pytest.raises(ValueError, match="rate must be finite, got nan"):
        example(rate=math.nan)
    with pytest.raises(ValueError, match="inner must be a whole number of at least 1, got 0"):
        example(inner=0)
    with pytest.raises(FloatingPointError, match="of 32 runs diverge at step size 50"):
        example().simulate(jax.random.key(0), 50.0, 400)
