"""Partial Cholesky factors and preconditioned conjugate gradients against dense algebra."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnntk.linalg.conjugate_gradients import LowRankPreconditioner, begin, iterate
from rnntk.linalg.pivoted_cholesky import pivoted_cholesky


def kernel(n=60, decay=1.5, seed=0):
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    K = (Q * np.arange(1.0, n + 1) ** -decay) @ Q.T
    return (K + K.T) / 2


def factor(K, rank, **options):
    return pivoted_cholesky(lambda k: K[:, k], np.diagonal(K), rank, **options)


@given(seed=st.integers(0, 1000), rank=st.integers(1, 60))
def test_a_partial_factor_is_the_nystrom_approximation_of_its_pivots(seed, rank):
    K = kernel()
    part = factor(K, rank, seed=seed)
    S = part.pivots
    assert len(set(S.tolist())) == len(S) == rank
    expected = K[:, S] @ np.linalg.solve(K[np.ix_(S, S)], K[S])
    np.testing.assert_allclose(part.factor @ part.factor.T, expected, atol=1e-11)
    np.testing.assert_allclose(part.remainder, np.trace(K - expected), atol=1e-11)
    triangle = part.factor[S]
    np.testing.assert_allclose(np.triu(triangle, 1), 0, atol=1e-13)


def test_random_pivots_come_near_the_best_approximation():
    K = kernel(200, 2.0)
    best = np.arange(21.0, 201) ** -2
    left = np.mean([factor(K, 20, seed=s).remainder for s in range(20)])
    # the theorem allows rank r plus a logarithm for twice the best error of rank r
    assert best.sum() < left < 3 * best.sum()
    rng = np.random.default_rng(0)
    uniform = []
    lumps = np.diag(np.r_[np.full(190, 1e-3), np.full(10, 10.0)])
    for _ in range(20):
        S = rng.choice(200, 20, replace=False)
        uniform.append(np.trace(lumps) - lumps[S, S].sum())
    assert factor(lumps, 20).remainder < 0.01 * np.mean(uniform)


def test_a_rank_that_the_matrix_does_not_have_is_not_made_up():
    features = np.random.default_rng(0).standard_normal((50, 7))
    part = factor(features @ features.T, 30)
    assert part.factor.shape == (50, 7)
    np.testing.assert_allclose(part.factor @ part.factor.T, features @ features.T, atol=1e-12)
    assert factor(np.zeros((4, 4)), 2).factor.shape == (4, 0)


def test_conjugate_gradients_solve_columns_with_residuals_that_are_true():
    K = kernel() + 1e-3 * np.eye(60)
    right = np.random.default_rng(1).standard_normal((60, 3))
    right[:, 2] = 0
    precondition = LowRankPreconditioner.of(factor(K, 20), 0.0)
    for state in iterate(lambda v: K @ v, precondition, begin(right, precondition)):
        np.testing.assert_allclose(state.residual, right - K @ state.solution, atol=1e-10)
        if np.abs(state.residual).max() < 1e-12:
            break
    np.testing.assert_allclose(state.solution, np.linalg.solve(K, right), atol=1e-9)
    assert (state.solution[:, 2] == 0).all()


@pytest.mark.parametrize("ridge", [0.0, 1e-2])
def test_the_preconditioner_is_the_inverse_of_what_it_says(ridge):
    K = kernel()
    part = factor(K, 15)
    shift = ridge + part.remainder / 60
    inverse = np.linalg.inv(part.factor @ part.factor.T + shift * np.eye(60))
    v = np.random.default_rng(2).standard_normal((60, 2))
    np.testing.assert_allclose(LowRankPreconditioner.of(part, ridge)(v), shift * inverse @ v)


def test_the_preconditioner_saves_steps():
    K = kernel(300, 2.0) + 1e-6 * np.eye(300)
    right = np.ones((300, 1))

    def steps(precondition):
        for state in iterate(lambda v: K @ v, precondition, begin(right, precondition)):
            if np.linalg.norm(right - K @ state.solution) < 1e-8 * 300**0.5:
                return state.steps

    assert steps(LowRankPreconditioner.of(factor(K, 60), 1e-6)) < steps(lambda v: v) / 3


def test_a_matrix_that_is_not_positive_definite_is_found_out():
    K = np.diag([1.0, -1.0])
    with pytest.raises(FloatingPointError, match=r"positive definite matrix, got .* v' A v = -"):
        next(iterate(lambda v: K @ v, lambda v: v, begin(np.array([[0.0], [1.0]]), lambda v: v)))
