"""Eigenvalue intervals against exact and high-precision eigenvalues, with negative controls."""

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnntk.spectrum import eigenvalues, min_eigenvalue


def exact_smallest(A):
    """Smallest eigenvalue of a float64 matrix to 40 digits."""
    with mpmath.workdps(40):
        return min(mpmath.eigsy(mpmath.matrix(A.tolist()), eigvals_only=True))


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 9),
    decay=st.floats(0, 18),
    scale=st.sampled_from([1e-150, 1e-6, 1.0, 1e6, 1e100]),
    shift=st.sampled_from([0.0, -1e-12, -0.5]),
)
def test_the_interval_contains_the_truth(seed, n, decay, scale, shift):
    rng = np.random.default_rng(seed)
    Q, _ = np.linalg.qr(rng.standard_normal((n, n)))
    A = (Q * 10 ** (-decay * np.arange(n) / n)) @ Q.T + shift * np.eye(n)
    A = scale * (A + A.T) / 2
    result = min_eigenvalue(A)
    assert result.certified
    with mpmath.workdps(40):
        assert mpmath.mpf(result.lower) <= exact_smallest(A) <= mpmath.mpf(result.upper)
    # as narrow as n^2 roundoffs of the norm, the first shift tried and a few widenings
    assert result.upper - result.lower <= 1e4 * n * n * 2.0**-53 * np.linalg.norm(A)


def test_single_precision_counts_its_own_rounding():
    rng = np.random.default_rng(0)
    A = rng.standard_normal((40, 60))
    A = A @ A.T
    result = min_eigenvalue(A.astype(np.float32))
    assert result.lower <= np.linalg.eigvalsh(A)[0] <= result.upper
    assert result.resolved


@pytest.mark.parametrize(
    "A",
    [
        np.diag([1.0, 1.0, -1e-12]),
        np.ones((3, 3)),
        np.array([[1.0, 2.0], [2.0, 1.0]]),
        np.zeros((2, 2)),
    ],
    ids=["slightly negative", "singular", "indefinite", "zero"],
)
def test_never_certified_positive(A):
    assert min_eigenvalue(A).lower <= 0


def test_what_rounding_could_have_made_is_not_resolved():
    assert not min_eigenvalue(np.ones((5, 5))).resolved
    assert not min_eigenvalue(np.diag([1.0, 1e-8]).astype(np.float32)).resolved
    assert min_eigenvalue(np.diag([1.0, 1e-8])).resolved
    assert min_eigenvalue(np.diag([1.0, -0.5])).resolved


def test_eigenvalues_ascend():
    np.testing.assert_allclose(eigenvalues(np.diag([3.0, 1.0, 2.0])), [1.0, 2.0, 3.0], rtol=1e-15)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.ones((2, 3)), r"K must be a square matrix, got shape \(2, 3\)"),
        (np.ones((0, 0)), r"K must be a square matrix, got shape \(0, 0\)"),
        (np.ones((2, 3, 2, 3)), r"flattened by K\.reshape\(n \* t, n \* t\)"),
        (np.array([[1.0, 2.0], [2.5, 1.0]]), r"K must be symmetric, .* differ by 0\.5"),
        (np.diag([1.0, np.nan]), r"K must be finite, got nan at \(1, 1\)"),
        (np.eye(2, dtype=int), "K must be floating point, got int64"),
    ],
)
def test_bad_matrices(matrix, message):
    for function in (eigenvalues, min_eigenvalue):
        with pytest.raises((ValueError, TypeError), match=message):
            function(matrix)


def test_unknown_method():
    with pytest.raises(ValueError, match=r"method must be one of .* got 'qr'"):
        min_eigenvalue(np.eye(2), method="qr")
