"""Eigenvalue intervals against exact and high-precision eigenvalues, with negative controls."""

import math
from fractions import Fraction

import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import scipy.sparse.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

import rnntk.linalg.matrices
from rnntk.kernel import Kernel
from rnntk.linalg import enclosure
from rnntk.spectrum import METHODS, eigenvalues, min_eigenvalue, summary


def exact_smallest(A):
    """Smallest eigenvalue of a float64 matrix, computed with 300 bits."""
    with mpmath.workprec(300):
        return min(mpmath.eigsy(mpmath.matrix(A.tolist()), eigvals_only=True))


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 9),
    decay=st.floats(0, 18),
    scale=st.sampled_from([1e-300, 1e-150, 1e-6, 1.0, 1e6, 1e100, 1e300]),
    shift=st.sampled_from([0.0, -1e-12, -0.5]),
    method=st.sampled_from(["dense", "cholesky"]),
)
def test_the_interval_contains_the_truth(seed, n, decay, scale, shift, method):
    rng = np.random.default_rng(seed)
    Q, _ = np.linalg.qr(rng.standard_normal((n, n)))
    A = (Q * 10 ** (-decay * np.arange(n) / n)) @ Q.T + shift * np.eye(n)
    A = scale * (A + A.T) / 2
    result = min_eigenvalue(A, method)
    assert result.certified
    with mpmath.workprec(300):
        assert mpmath.mpf(result.lower) <= exact_smallest(A) <= mpmath.mpf(result.upper)
    # the first shift lies n roundoffs of the norm below, the bound as many of the trace below it,
    # and a few widenings may be needed
    norm = np.linalg.norm(A / scale) * scale
    assert result.upper - result.lower <= 1e3 * (n + 1) ** 2 * 2.0**-53 * norm


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(2, 7),
    spread=st.sampled_from([10, 100, 280]),
    top=st.sampled_from([-300, 0, 300]),
    rank=st.integers(1, 7),
)
def test_graded_matrices_with_underflow(seed, n, spread, top, rank):
    # rows over up to 280 decades; where the top is 1e-300, most entries are subnormal or zero
    rng = np.random.default_rng(seed)
    half = rng.standard_normal((n, rank))
    decades = -spread * rng.random(n) / 2
    A = half @ half.T * 10.0 ** (decades[:, None] + decades[None, :])
    A = np.triu(A) * 10.0**top if top <= 0 else np.triu(A) * 1e300
    A = A + np.triu(A, 1).T
    result = min_eigenvalue(A)
    with mpmath.workprec(3000):
        truth = min(mpmath.eigsy(mpmath.matrix(A.tolist()), eigvals_only=True))
        assert mpmath.mpf(result.lower) <= truth <= mpmath.mpf(result.upper)


@settings(max_examples=200)
@given(p=st.integers(-(10**40), 10**40), q=st.integers(1, 10**40), power=st.integers(-1200, 1200))
def test_directed_rounding(p, q, power):
    number = Fraction(p, q) * Fraction(2) ** power
    low, high = enclosure.round_down(number), enclosure.round_up(number)
    assert low == -math.inf or Fraction(low) <= number
    assert high == math.inf or Fraction(high) >= number
    assert low == high or math.nextafter(low, math.inf) == high


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
@pytest.mark.parametrize("method", [name for name in METHODS if name != "tiles"])
def test_never_certified_positive(A, method):
    assert min_eigenvalue(A, method).lower <= 0


def kernel_like(n, decay, seed=0):
    rng = np.random.default_rng(seed)
    Q, _ = np.linalg.qr(rng.standard_normal((n, n)))
    A = (Q * np.arange(1, n + 1) ** -decay) @ Q.T
    return (A + A.T) / 2


CASES = {
    "power law": kernel_like(310, 1.5),
    "indefinite": kernel_like(310, 1.0) - 0.3 * np.eye(310),
    "clustered": kernel_like(310, 0.0) + np.diag(np.repeat([0.0, 1e-9], 155)),
    "identity": np.eye(310),
    "one negative": np.diag(np.r_[np.ones(309), -1e-12]),
    "tiny": 1e-290 * kernel_like(310, 1.0),
    "huge": 1e290 * kernel_like(310, 1.0),
}


@pytest.mark.parametrize("name", CASES)
def test_factorization_and_all_eigenvalues_agree(name):
    A = CASES[name]
    dense, fast = min_eigenvalue(A, "dense"), min_eigenvalue(A, "cholesky")
    assert min_eigenvalue(A).method == "cholesky"
    assert fast.certified
    assert max(dense.lower, fast.lower) <= min(dense.upper, fast.upper)
    assert fast.lower <= fast.value <= fast.upper
    assert fast.resolved == dense.resolved
    width = 2e3 * 310 * 2.0**-53 * np.abs(A).max() * 310
    assert fast.upper - fast.lower <= width


def test_a_poor_estimate_is_improved_by_the_factor():
    A = kernel_like(50, 1.0)
    good = enclosure.enclose(A, 0.02)
    near = enclosure.enclose(A, 0.02 + 1e-5)
    assert good.upper - good.lower < 1e-12
    assert near.upper - near.lower < 1e-12
    for estimate in (1.0, -1.0, 1e9):
        far = enclosure.enclose(A, estimate)
        assert far.lower <= good.lower <= good.upper <= far.upper + 1e-12


def test_uncertainty_widens_the_interval():
    A = kernel_like(9, 1.0)
    plain, wide = (
        enclosure.enclose(A, 1 / 9),
        enclosure.enclose(A, 1 / 9, relative=1e-6, absolute=1e-3),
    )
    radius = 1e-6 * np.linalg.norm(A) + 1e-3
    assert abs(plain.lower - wide.lower - radius) < 1e-12
    assert abs(wide.upper - plain.upper - radius) < 1e-12


def test_rounding_of_the_symmetric_part_is_counted():
    A = kernel_like(8, 1.0)
    B = A.copy()
    B[2, 5] *= 1 + 2.0**-52
    result = min_eigenvalue(B)
    middle = [
        [(Fraction(p) + Fraction(q)) / 2 for p, q in zip(*rows, strict=True)]
        for rows in zip(B.tolist(), B.T.tolist(), strict=True)
    ]
    with mpmath.workprec(300):
        exact = mpmath.matrix(
            [[mpmath.mpf(v.numerator) / v.denominator for v in r] for r in middle]
        )
        truth = min(mpmath.eigsy(exact, eigvals_only=True))
        assert mpmath.mpf(result.lower) <= truth <= mpmath.mpf(result.upper)
    assert result.lower < min_eigenvalue(A).lower


class Operator:
    """What a matrix-free kernel offers, one way of multiplication at a time."""

    def __init__(self, A, dtype, way):
        self.A, self.dtype = A.astype(dtype), np.dtype(dtype)
        if way == "mv":
            self.in_size = self.out_size = lambda: len(A)
            self.mv = self._multiply
        else:
            self.shape = A.shape
            setattr(self, way, self._multiply)

    def _multiply(self, v):
        assert v.dtype == self.dtype
        return jnp.asarray(self.A) @ jnp.asarray(v)


class Callable(Operator):
    def __call__(self, v):
        return self._multiply(v)


class Multiplied(Operator):
    def __matmul__(self, v):
        return self._multiply(v)


@pytest.mark.parametrize("way", ["mv", "matvec", "@", "call", "scipy"])
def test_operators_are_bounded_from_above_alone(way):
    A = kernel_like(120, 0.5)
    truth = np.linalg.eigvalsh(A)[0]
    K = {
        "mv": lambda: Operator(A, np.float32, "mv"),
        "matvec": lambda: Operator(A, np.float32, "matvec"),
        "@": lambda: Multiplied(A, np.float32, "_"),
        "call": lambda: Callable(A, np.float32, "_"),
        "scipy": lambda: scipy.sparse.linalg.aslinearoperator(A),
    }[way]()
    result = min_eigenvalue(K)
    assert result.method == "lanczos"
    assert not result.certified
    assert result.lower == -np.inf
    # 120 steps are all there are
    tolerance = 1e-12 if way == "scipy" else 1e-5
    assert abs(result.value - truth) < tolerance * 1
    assert result.value - tolerance < result.upper


def test_ritz_values_come_from_above():
    # the smallest eigenvalue of many close ones: more steps than are taken would be needed
    A = np.diag(np.r_[np.linspace(1e-6, 1, 700) ** 3, -1e-9])
    result = min_eigenvalue(A, "lanczos")
    assert result.value >= -1e-9
    assert result.lower == -np.inf
    assert not result.certified


def test_bad_operators():
    A = np.eye(3)
    with pytest.raises(ValueError, match="method must be 'lanczos' for an operator, got 'dense'"):
        min_eigenvalue(scipy.sparse.linalg.aslinearoperator(A), "dense")
    with pytest.raises(ValueError, match=r"K must be a square operator, got shape \(3, 2\)"):
        min_eigenvalue(scipy.sparse.linalg.aslinearoperator(A[:, :2]))
    A[1, 1] = np.nan
    with pytest.raises(FloatingPointError, match=r"finite vector.* 1 of its entries not finite"):
        min_eigenvalue(scipy.sparse.linalg.aslinearoperator(A))


def test_operators_that_are_not_symmetric_or_not_real():
    A = kernel_like(40, 1.0)
    as_operator = scipy.sparse.linalg.aslinearoperator
    with pytest.raises(TypeError, match="K must be floating point, got complex128"):
        min_eigenvalue(as_operator(A + 1j * np.triu(A, 1)))
    with pytest.raises(TypeError, match="K must be floating point, got int64"):
        min_eigenvalue(as_operator(np.eye(3, dtype=np.int64)))
    undeclared = Operator(1j * A, np.complex128, "mv")
    undeclared.mv = lambda v: undeclared.A @ v
    del undeclared.dtype
    with pytest.raises(TypeError, match="K times a vector must be floating point, got complex128"):
        min_eigenvalue(undeclared)
    for dtype, gap in ((np.float32, 1e-2), (np.float64, 1e-6)):
        assert min_eigenvalue(Operator(A, dtype, "matvec")).method == "lanczos"
        with pytest.raises(ValueError, match=r"K must be symmetric, got u' K v and v' K u that di"):
            min_eigenvalue(Operator(A + gap * np.triu(np.ones((40, 40)), 1), dtype, "matvec"))


def test_an_iteration_that_has_run_out_of_steps_says_so():
    hard = scipy.sparse.diags_array(np.geomspace(1e-10, 1, 2000))
    result = min_eigenvalue(scipy.sparse.linalg.aslinearoperator(hard))
    assert result.value > 10 * 1e-10
    assert not result.resolved
    assert result.residual > result.value
    easy = min_eigenvalue(kernel_like(120, 0.5), "lanczos")
    assert easy.resolved
    assert easy.residual < 1e-10


@pytest.mark.parametrize("method", ["dense", "cholesky"])
@pytest.mark.parametrize("A", [np.ones((2, 2)), -np.ones((2, 2)), np.eye(2)], ids=str)
def test_matrices_at_the_end_of_the_range(A, method):
    result = min_eigenvalue(1.7e308 * A, method)
    truth = Fraction(1.7e308) * int(np.linalg.eigvalsh(A).round()[0])
    assert result.lower == -math.inf or Fraction(result.lower) <= truth
    assert result.upper == math.inf or truth <= Fraction(result.upper)
    assert result.lower <= result.value <= result.upper


def test_summary_of_a_power_law():
    n, a, ridge = 200, 1.7, 1e-3
    values = np.arange(1.0, n + 1) ** -a
    result = summary(kernel_like(n, a), ridge)
    share = values / values.sum()
    expected = {
        "smallest": values[-1],
        "largest": 1.0,
        "condition_number": n**a,
        "trace": values.sum(),
        "effective_rank": np.prod(share**-share),
        "intrinsic_dimension": values.sum(),
        "stable_rank": (values**2).sum(),
        "effective_dimension": (values / (values + ridge)).sum(),
        "decay_exponent": a,
        "unresolved": 0.0,
    }
    for name, number in expected.items():
        # the smallest eigenvalue, 1e-4, has n roundoffs of error
        np.testing.assert_allclose(getattr(result, name), number, rtol=1e-10, err_msg=name)
    assert result.decay_range == (11, 100)


def test_summary_of_what_is_not_resolved():
    result = summary(np.diag([3.0, 1.0, 1e-20, 0.0]))
    assert result.condition_number == np.inf
    assert result.unresolved == 0.5
    assert result.effective_dimension is result.decay_exponent is result.decay_range is None
    np.testing.assert_allclose(result.effective_rank, 4 / 3**0.75, rtol=1e-12)
    # ranks do not change with the scale, nor leave the range
    assert summary(1e-300 * np.eye(5)).stable_rank == summary(1e300 * np.eye(5)).stable_rank == 5
    single = summary(np.diag([1.0, 1e-8]).astype(np.float32))
    assert single.unresolved == 0.5


def test_bad_summaries():
    for ridge in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="ridge must be positive and finite, got"):
            summary(np.eye(2), ridge)
    with pytest.raises(ValueError, match=r"K must have a positive eigenvalue, got -1 as the larg"):
        summary(-np.eye(2))
    for A in (np.eye(2), np.ones((2, 2))):
        with pytest.raises(FloatingPointError, match="The trace exceeds the range of float64"):
            summary(1.7e308 * A)


def test_symmetry_is_checked_across_tiles_without_copies(monkeypatch):
    monkeypatch.setattr(rnntk.linalg.matrices, "_TILE", 3)
    A = kernel_like(8, 1.0)
    assert np.shares_memory(rnntk.linalg.matrices.check_symmetric(A), A)
    for i, j in ((7, 0), (0, 7), (4, 5), (1, 2)):
        B = A.copy()
        B[i, j] += 0.25
        with pytest.raises(ValueError, match=rf"\(({i}, {j}|{j}, {i})\) and .* by 0\.25"):
            min_eigenvalue(B)


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
        (np.ones((0, 0)), r"K must have at least one row, got an empty matrix"),
        (np.ones((2, 3, 2, 3)), r"step axes .* by K\.reshape\(n \* t, n \* t\)\.$"),
        (np.ones((3, 3, 2, 2)), r"; a kernel with output axes .* by K\.swapaxes\(1, 2\)\.resh"),
        (
            np.diag([1, np.longdouble("1e400")]),
            r"K must be finite, got 1e\+400 at \(1, 1\), beyond float64",
        ),
        (jnp.eye(2, dtype=jnp.bfloat16), r"got bfloat16: convert it by K\.astype\('float32'\)"),
        (Kernel(jnp.eye(2), jnp.eye(2)), r"K must be a matrix, got a Kernel: take its \.ntk"),
        (np.ma.array(np.eye(2), mask=np.eye(2)), "K must have no masked entries"),
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
