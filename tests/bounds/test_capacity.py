"""Capacities against their definition, by suprema over signs, and their order."""

import itertools
import math

import numpy as np
import pytest

from rnntk import bounds


def kernel(rng, n, decay=1.0):
    Q, _ = np.linalg.qr(rng.standard_normal((n, n)))
    K = (Q * (np.arange(n) + 1.0) ** -decay) @ Q.T
    return (K + K.T) / 2


def test_the_rademacher_term_bounds_the_supremum_over_the_ball():
    rng = np.random.default_rng(0)
    for decay in (0.0, 1.0, 3.0):
        n = 10
        K, y = kernel(rng, n, decay), rng.uniform(-1, 1, n)
        found = bounds.capacity(K, y, delta=0.1)
        norm = math.sqrt(y @ np.linalg.solve(K, y))
        # sup over |f| <= B of sum s_i f(x_i) is B sqrt(s' K s), here averaged over all signs
        signs = np.array(list(itertools.product([-1.0, 1.0], repeat=n)))
        exact = norm * np.mean(np.sqrt(np.einsum("si,ij,sj->s", signs, K, signs))) / n
        term = (found.rademacher - math.sqrt(math.log(10) / (2 * n))) / 2
        assert exact <= term * (1 + 1e-12)
        assert term < 1.5 * exact  # Jensen's inequality loses little
        assert found.complexity == pytest.approx(norm**2, rel=1e-9)
        ordered = np.sort(np.linalg.eigvalsh(K))[::-1]
        sums = [h / n + norm * math.sqrt(max(ordered[h:].sum(), 0.0)) / n for h in range(n + 1)]
        assert found.local == pytest.approx(min(sums) + math.log(10) / n, rel=1e-9)
        assert found.local_rank == int(np.argmin(sums))


def test_ranks_of_known_spectra():
    found = bounds.capacity(np.diag([4.0, 2.0, 2.0]), np.ones(3))
    assert found.intrinsic_dimension == pytest.approx(2, rel=1e-12)
    assert found.participation == pytest.approx(64 / 24, rel=1e-12)
    assert found.entropy_rank == pytest.approx(math.exp(1.5 * math.log(2)), rel=1e-12)


def test_the_local_bound_sees_decay():
    rng = np.random.default_rng(1)
    n = 200
    slow, fast = (
        bounds.capacity(K, K @ rng.standard_normal(n) / 10)
        for K in (kernel(rng, n), kernel(rng, n, 2))
    )
    for found in (slow, fast):
        assert found.local - math.log(20) / n <= (found.rademacher - 0.0) / 2
    assert fast.local_rank < n
    assert fast.local < 0.5 * fast.rademacher


def test_refuses():
    with pytest.raises(ValueError, match="one number for each row of K, got 2 columns"):
        bounds.capacity(np.eye(3), np.ones((3, 2)))
    with pytest.raises(ValueError, match="delta must lie between 0 and 1"):
        bounds.capacity(np.eye(3), np.ones(3), delta=0.0)
