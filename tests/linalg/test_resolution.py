"""One meaning of singular to rounding, wherever eigenvalues are judged."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnntk.bounds import generalization
from rnntk.linalg import matrices
from rnntk.predict import GaussianProcess, KernelRegression, ridge_path
from rnntk.spectrum import min_eigenvalue, summary

NEAR = np.diag([1.0] * 50 + [2e-14])


def accepted(call):
    try:
        call()
    except ValueError as error:
        if "singular" in str(error) or "beyond rounding" in str(error):
            return False
        raise
    return True


def answers(K):
    """Whether the smallest eigenvalue is resolved, in the words of each that judges it."""
    y = np.ones(len(K))
    return {
        "cholesky": min_eigenvalue(K, "cholesky").resolved,
        "dense": min_eigenvalue(K, "dense").resolved,
        "summary": summary(K).unresolved == 0,
        "bounds": accepted(lambda: generalization(K, y)),
        "regression": accepted(lambda: KernelRegression(K, y)),
        "process": accepted(lambda: GaussianProcess(K, y)),
        "path": bool(accepted(lambda: ridge_path(K, y, np.zeros(1)))),
    }


@pytest.mark.parametrize(
    ("K", "resolved"),
    [
        (NEAR, False),  # its interval contains 0
        (np.diag([1.0] * 50 + [5e-13]), False),  # its interval does not; the entries may hide it
        (np.diag([1.0] * 50 + [2e-12]), True),
        (np.diag([1.0] * 50 + [2e-6]).astype(np.float32), False),
        (np.diag([1.0] * 50 + [2e-4]).astype(np.float32), True),
        (np.ones((5, 5)), False),
    ],
    ids=str,
)
def test_everyone_gives_one_answer(K, resolved):
    assert set(answers(K).values()) == {resolved}, answers(K)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(2, 40),
    decades=st.floats(9, 15),
    single=st.booleans(),
)
def test_what_is_resolved_has_an_interval_without_zero_and_a_right_sign(seed, n, decades, single):
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    values = 10.0 ** -rng.uniform(0, decades / (2 if single else 1), n)
    K = (Q * values) @ Q.T
    K = ((K + K.T) / 2).astype(np.float32 if single else np.float64)
    found = min_eigenvalue(K)
    threshold = matrices.resolution(n, matrices.size_of(K.astype(np.float64)), K.dtype)
    if abs(found.value) > threshold:
        assert found.resolved
        assert found.lower > 0 or found.upper < 0
        # every eigenvalue was made positive, and rounding is all that happened since
        assert found.value > 0
    else:
        assert not found.resolved


def test_the_threshold_covers_roundings_of_the_entries():
    # 16 roundings of one sign relative to the diagonal move eigenvalues by 16 u tr K: rank one
    n, u = 30, 2.0**-24
    size = matrices.size_of(np.ones((n, n)))
    assert size == n
    moved = np.linalg.eigvalsh(-16 * u * np.ones((n, n)))[0]
    assert -moved < matrices.resolution(n, size, np.float32) < -1.1 * moved


def test_sizes_of_matrices_and_spectra():
    indefinite = np.array([[0.0, 2.0], [2.0, 0.0]])
    assert matrices.size_of(indefinite) == pytest.approx(8**0.5)  # the trace is 0
    assert matrices.size_of_spectrum(np.array([-2.0, 2.0])) == pytest.approx(8**0.5)
    assert matrices.size_of(np.zeros((2, 2))) == matrices.size_of_spectrum(np.zeros(2)) == 0
    A = np.random.default_rng(0).standard_normal((6, 9))
    K = A @ A.T
    assert matrices.size_of(K) == pytest.approx(np.trace(K))
    assert matrices.size_of_spectrum(np.linalg.eigvalsh(K)) == pytest.approx(np.trace(K))
