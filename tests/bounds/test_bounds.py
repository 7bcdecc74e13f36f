"""Bounds against the eigenvalue they bound, computed with 60 digits from the definition."""

import itertools
import math
import sys

import flint
import jax
import mpmath
import numpy as np
import pytest
from exact_moments import moments
from hypothesis import given, settings
from hypothesis import strategies as st

from rnntk import ElmanRNN, bounds, datasets, infinite_kernel, spectrum
from rnntk.activations import leaky_relu
from rnntk.bounds.enclosed import Enclosed
from rnntk.bounds.rounded import Rounded
from rnntk.bounds.upper import upper_bounds
from rnntk.spectrum.certificate import certify

DIGITS = 100  # of which acos loses half between parallel points
EVERY = {"schur", "schur_series", "schur_both", "schur_split", "schur_time"} | {
    f"{kind}{time}" for kind in ("series", "separation") for time in ("", "_time")
}
KINDS = ("generic", "close", "duplicate", "zero tokens", "zero sequence", "parallel", "mixed norms")


def exact_kernel(rnn, name, x):
    """The NTK from the recursion of docs/theory/infinite.md, entry by entry."""
    n, t, d = x.shape
    w2, u2, b2, v2, h2 = (
        mpmath.mpf(float(s)) ** 2
        for s in (rnn.w_std, rnn.u_std, rnn.b_std, rnn.v_std, rnn.initial_state_std)
    )
    trained = {g: int(g in rnn.trainable) for g in "WUbV"}
    sequences = [x, x[:, ::-1]][: 1 + rnn.bidirectional]
    cells = {}
    for direction, order in enumerate(sequences):
        tokens = [[[mpmath.mpf(float(v)) for v in token] for token in row] for row in order]
        dot = {}  # covariance of what a layer reads, and the tangent kernel below it
        for i, j, s, r in itertools.product(range(n), range(n), range(t), range(t)):
            fan_in = d if rnn.input_scaling == "fan_in" else 1
            pairs = zip(tokens[i][s], tokens[j][r], strict=True)
            dot[i, j, s, r] = mpmath.fsum(p * q for p, q in pairs) / fan_in, mpmath.mpf(0)
        for _ in range(rnn.depth):
            dot = layer(name, dot, (w2, u2, b2, h2), trained, rnn.initial_state)
        for (i, j, s, r), (state, back) in dot.items():
            s, r = (t - 1 - s, t - 1 - r) if direction else (s, r)
            value = v2 * (trained["V"] * state + back)
            cells.setdefault(direction, {})[i, j, s, r] = value
    last = [t - 1, 0]
    size = n * t if rnn.readout == "sequence" else n
    kernel = mpmath.zeros(size)
    for direction, values in cells.items():
        for (i, j, s, r), value in values.items():
            if rnn.readout == "sequence":
                kernel[i * t + s, j * t + r] += value
            elif rnn.readout == "mean":
                kernel[i, j] += value / t**2
            elif s == r == last[direction]:
                kernel[i, j] += value
    return kernel


def layer(name, dot, scales, trained, start):
    w2, u2, b2, h2 = scales
    signal, tangent, state, back = {}, {}, {}, {}

    def visit(i, j, s, r):
        if (i, j, s, r) in state:
            return
        if s and r:
            visit(i, j, s - 1, r - 1)
            before, carried = state[i, j, s - 1, r - 1], back[i, j, s - 1, r - 1]
        else:
            same = s == r == 0 and (start == "shared" or (start == "independent" and i == j))
            before, carried = h2 * same, 0
        token, below = dot[i, j, s, r]
        own = {"W": w2 * before, "U": u2 * token, "b": b2}
        signal[i, j, s, r] = sum(own.values())
        tangent[i, j, s, r] = sum(trained[g] * own[g] for g in own) + w2 * carried + u2 * below
        if (i, s) != (j, r):
            visit(i, i, s, s)
            visit(j, j, r, r)
        values = signal[i, i, s, s], signal[j, j, r, r], signal[i, j, s, r]
        state[i, j, s, r], slope = moments(name, *values)
        back[i, j, s, r] = slope * tangent[i, j, s, r]

    for key in dot:
        visit(*key)
    return {key: (state[key], back[key]) for key in dot}


def truth(rnn, name, x):
    """The smallest eigenvalue, within 1e-40 of the largest."""
    with mpmath.workdps(DIGITS):
        kernel = exact_kernel(rnn, name, np.asarray(x, np.float64))
        return min(mpmath.eigsy(kernel, eigvals_only=True)), max(abs(v) for v in kernel)


def tokens(seed, kind, shape, dtype=np.float64):
    """Random sequences, of norms 1e-6 to 1e6 and correlations up to 1 - 1e-12."""
    rng = np.random.default_rng(seed)
    n, t, _ = shape
    x = rng.standard_normal(shape)
    if kind == "close":
        c = 1 - 10.0 ** rng.uniform(-12, -0.5)
        x = c * rng.standard_normal((1, *shape[1:])) + math.sqrt(1 - c * c) * x
    if kind == "duplicate":
        x[-1] = x[0]
    if kind == "zero tokens":
        x[rng.random((n, t)) < 0.5] = 0
    if kind == "zero sequence":
        x[0] = 0
    if kind == "parallel":
        x[-1] = rng.choice([2.0, 0.3, -1.0, -3.0]) * x[0]
    if kind == "mixed norms":
        x = x * 10.0 ** rng.uniform(-3, 3, (n, t, 1))
    return (x * 10.0 ** rng.uniform(-6, 6) if rng.random() < 0.5 else x).astype(dtype)


ARCHITECTURES = [
    ("relu", {}),
    ("relu", {"trainable": ("W",)}),
    ("relu", {"trainable": ("U", "V"), "b_std": 0.3}),
    ("relu", {"trainable": ("b",), "b_std": 0.5}),
    ("relu", {"depth": 2}),
    ("relu", {"readout": "mean"}),
    ("relu", {"readout": "sequence", "trainable": ("W", "U")}),
    ("relu", {"bidirectional": True, "readout": "sequence"}),
    ("relu", {"initial_state": "shared", "initial_state_std": 0.7}),
    ("relu", {"initial_state": "independent", "initial_state_std": 0.7, "readout": "mean"}),
    ("erf", {"b_std": 0.2}),
    ("erf", {"readout": "sequence", "input_scaling": "fan_in"}),
    ("abs", {"bidirectional": True}),
    ("linear", {}),
    ("leaky", {"trainable": ("V",)}),
]


def network(name, options):
    return ElmanRNN(leaky_relu(0.25) if name == "leaky" else name, **options)


def check(name, options, x, *, rigorous):

    rnn = network(name, options)
    smallest, size = truth(rnn, name, x)
    found = bounds.min_eigenvalue(rnn, x, rigorous=rigorous)
    slack = size * mpmath.mpf(10) ** -45  # of the oracle
    assert set(found.lower) == EVERY
    for bound, value in found.lower.items():
        assert value >= 0
        assert value <= smallest + slack, (bound, value, mpmath.nstr(smallest, 20))
    for bound, value in found.upper.items():
        assert value >= smallest - slack, (bound, value, mpmath.nstr(smallest, 20))


instances = given(
    seed=st.integers(0, 10**9), kind=st.sampled_from(KINDS), case=st.sampled_from(ARCHITECTURES)
)


@settings(max_examples=75)
@instances
def test_rigorous_bounds_hold(seed, kind, case):
    check(*case, tokens(seed, kind, (3, 2, 2)), rigorous=True)


@pytest.mark.slow
@settings(max_examples=2000)
@given(
    seed=st.integers(0, 10**9),
    kind=st.sampled_from(KINDS),
    case=st.sampled_from(ARCHITECTURES),
    shape=st.sampled_from([(1, 1, 1), (2, 3, 1), (4, 2, 3), (3, 4, 2), (5, 1, 2)]),
)
def test_rigorous_bounds_hold_often(seed, kind, case, shape):
    check(*case, tokens(seed, kind, shape), rigorous=True)


@pytest.mark.usefixtures("x64")
@settings(max_examples=75)
@given(seed=st.integers(0, 10**9), kind=st.sampled_from(KINDS))
def test_bounds_hold(seed, kind):
    check("relu", {}, tokens(seed, kind, (4, 3, 2)), rigorous=False)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@settings(max_examples=2000)
@given(
    seed=st.integers(0, 10**9),
    kind=st.sampled_from(KINDS),
    case=st.sampled_from([*ARCHITECTURES, ("sin", {}), ("cos", {"depth": 2})]),
)
def test_bounds_hold_often(seed, kind, case):
    x = tokens(seed, kind, (3, 2, 2))
    if case[0] in ("erf", "sin", "cos"):
        # At variance a the kernels of parallel sequences have relative condition a, and the
        # allowances, a few hundred roundings, do not cover 1e12; rigorous bounds do.
        x = x / max(1.0, np.abs(x).max())
    check(*case, x, rigorous=False)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@settings(max_examples=6)
@given(seed=st.integers(0, 10**9))
@pytest.mark.parametrize("name", ["tanh", "gelu"])
def test_series_of_other_activations(name, seed):
    # The recursion's entries, whose error is n eps, take the place of the oracle.
    x = 0.5 * np.random.default_rng(seed).standard_normal((4, 3, 2))
    values = np.linalg.eigvalsh(np.asarray(infinite_kernel(ElmanRNN(name), x).ntk))
    found = bounds.min_eigenvalue(ElmanRNN(name), x)
    assert 0 < max(found.lower.values()) <= values[0] + 1e-13 * values[-1]
    assert min(found.upper.values()) >= values[0] - 1e-13 * values[-1]
    assert found.lower["schur_split"] > 0.8 * values[0]
    assert found.lower["series_time"] > 0


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("n", "t", "d", "scale", "common"),
    [(40, 10, 8, 1.0, 0.0), (100, 5, 4, 1.0, 0.0), (40, 10, 8, 4.0, 0.95)],
)
def test_tightness_on_generic_data(n, t, d, scale, common):
    rng = np.random.default_rng(0)
    shared, own = rng.standard_normal((1, t, d)), rng.standard_normal((n, t, d))
    x = scale * (common * shared + math.sqrt(1 - common**2) * own)
    smallest = np.linalg.eigvalsh(np.asarray(infinite_kernel(ElmanRNN(), x).ntk))[0]
    found = bounds.min_eigenvalue(ElmanRNN(), x)
    low = found.lower
    assert low["schur_split"] > 0.97 * smallest
    assert low["series_time"] > smallest / 5
    assert low["separation_time"] > smallest / 9
    assert low["separation"] > smallest / 30
    assert found.upper["residual"] < 1.25 * smallest
    # what the page of theory proves of their order
    assert low["schur"] <= low["schur_both"] * (1 + 1e-9)
    assert low["schur_series"] <= low["schur_both"] * (1 + 1e-9)
    assert low["separation"] <= low["series"] <= low["series_time"]
    assert low["separation"] <= low["separation_time"] <= low["series_time"]


@pytest.mark.usefixtures("x64")
@settings(max_examples=30)
@given(seed=st.integers(0, 10**9), gap=st.floats(1e-12, 0.5))
def test_the_constant_of_the_separation(seed, gap):
    n = 4
    # lmin >= (1 - 1/n) / (2 pi^(3/2)) min T_ii / sqrt(1 + log n / log(1/rho)), here with rho and
    # T_ii of one step: T = L, of norm 2.
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1, 1, 3)) + gap * rng.standard_normal((n, 1, 3))
    x /= np.linalg.norm(x, axis=2, keepdims=True)
    half = [np.sum((x[i] - x[j]) ** 2) / 4 for i, j in itertools.combinations(range(n), 2)]
    if max(half) > 0.5:  # some correlation is negative
        return
    proved = (1 - 1 / n) / (2 * math.pi**1.5) * 2
    proved /= math.sqrt(1 - math.log(n) / math.log1p(-2 * min(half)))
    found = bounds.min_eigenvalue(ElmanRNN(trainable=("U",)), x)
    assert (
        proved * (1 - 1e-3) <= found.lower["separation"] * 1.1
    )  # the grid of orders loses a few %


def test_radii_do_not_grow_along_nearly_parallel_sequences():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 20, 2)) + 1e-6 * rng.standard_normal((4, 20, 2))
    found = bounds.min_eigenvalue(ElmanRNN(), x, rigorous=True)
    assert 0 < found.lower["separation_time"] < found.lower["schur_split"]
    assert found.lower["schur_split"] > 0.5 * found.upper["residual"]
    assert found.lower["separation_time"] > found.upper["residual"] / 20


@pytest.mark.parametrize("power", [-100, 0, 400])
def test_rigorous_bounds_raise_their_precision(power):
    # the variances of erf cancel to 2^-power of themselves
    x = np.ldexp(np.random.default_rng(0).standard_normal((3, 3, 2)), power)
    for name in ("erf", "relu"):
        truth = certify(ElmanRNN(name), x)
        found = bounds.min_eigenvalue(ElmanRNN(name), x, rigorous=True)
        assert 0.5 * truth.upper < max(found.lower.values()) <= truth.upper
        assert truth.lower <= min(found.upper.values()) < 2 * truth.lower
    with pytest.raises(FloatingPointError, match="leaves the range of float64: rescale"):
        bounds.min_eigenvalue(ElmanRNN(), np.ldexp(x, 600 - power), rigorous=True)


def test_rigorous_bounds_count_radii_whose_squares_underflow():
    arithmetic = Enclosed(flint)
    with flint.ctx.workprec(128):
        # any symmetric matrix in these balls may have been meant, among them an indefinite one
        for power in (-170, -330, -400):
            matrix = np.full((2, 2), flint.arb(0, flint.arb(10) ** power), object)
            matrix[0, 0] = matrix[1, 1] = flint.arb(10) ** power / 2
            assert arithmetic.smallest(matrix) < -(flint.arb(10) ** power) / 2
            certain = np.array([[flint.arb(10) ** power]], object)
            assert arithmetic.smallest(certain) > flint.arb(10) ** power * 0.999


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("rigorous", [False, True])
def test_duplicates_have_no_positive_bound(rigorous):
    x = np.random.default_rng(0).standard_normal((4, 3, 2))
    x[1] = x[0]
    found = bounds.min_eigenvalue(ElmanRNN(), x, rigorous=rigorous)
    assert max(found.lower.values()) == 0
    assert found.upper["pair"] <= 1e-12


@pytest.mark.usefixtures("x64")
def test_one_sequence_has_no_pair():
    found = bounds.min_eigenvalue(ElmanRNN(), np.ones((1, 3, 2)))
    assert set(found.left_out) == {"pair", "residual"}
    assert found.lower["schur_split"] == pytest.approx(found.upper["diagonal"], rel=1e-12)


def test_upper_bounds_keep_their_allowance_where_rounding_makes_them_negative():
    kernel = np.full((2, 2), 1.0) + np.array([[0, 1e-10], [1e-10, 0]])
    found = upper_bounds(kernel, Rounded(2.0**-52, 16.0))
    assert found["diagonal"] == pytest.approx(1.0)
    for name in ("pair", "residual"):
        assert 16 * 2.0**-52 <= found[name] < 1e-13


def test_rigorous_covers_some_activations_only():
    with pytest.raises(ValueError, match=r"relu, abs, linear, erf, gelu.* got .*'elu'"):
        bounds.min_eigenvalue(ElmanRNN("elu"), np.ones((2, 3, 1)), rigorous=True)


def test_rigorous_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "flint", None)
    with pytest.raises(ImportError, match=r"rnntk\[certify\]"):
        bounds.min_eigenvalue(ElmanRNN(), np.ones((2, 3, 1)), rigorous=True)


@pytest.mark.usefixtures("x64")
def test_small_norms_matter_behind_a_fixed_token_only():
    rnn, key = ElmanRNN(), jax.random.key(0)

    def share(x):
        kernel = np.asarray(infinite_kernel(rnn, x).ntk)
        return np.linalg.eigvalsh(kernel)[0] / np.trace(kernel) * len(x)

    levels = (1.0, 0.3, 0.1, 0.03, 0.01)
    behind = [share(datasets.fixed_first_token(key, 40, 8, 8, eps)) for eps in levels]
    # measured by an independent script on other draws, which scatter by a fifth
    np.testing.assert_allclose(behind, [0.44, 0.40, 0.19, 0.060, 0.020], rtol=0.25)
    assert behind[3] / behind[4] == pytest.approx(3.0, rel=0.1)  # linear in eps
    x = datasets.unit_tokens(key, 40, 8, 8)
    plain = [share(eps * x) for eps in levels]
    np.testing.assert_allclose(plain, plain[0], rtol=1e-8)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("scale", [1e3, 1e5, 1e8])
def test_saturated_erf_between_parallel_and_opposite_sequences(scale):
    rnn = ElmanRNN("erf", b_std=0.3)
    for seed in range(3):
        x = scale * np.random.default_rng(seed).standard_normal((3, 2, 1))
        exact, found = spectrum.certify(rnn, x), bounds.min_eigenvalue(rnn, x)
        assert max(found.lower.values()) <= exact.upper
        assert min(found.upper.values()) >= exact.lower
