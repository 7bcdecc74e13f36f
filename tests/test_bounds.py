"""Bounds against the eigenvalue they bound, computed with 60 digits from the definition."""

import itertools
import math

import jax
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnntk import ElmanRNN, bounds, datasets, infinite_kernel, powers
from rnntk.activations import leaky_relu

DIGITS = 60
EVERY = {"schur", "schur_series", "schur_both", "schur_split", "schur_time"} | {
    f"{kind}{time}" for kind in ("series", "separation") for time in ("", "_time")
}
KINDS = ("generic", "close", "duplicate", "zero tokens", "zero sequence", "parallel", "mixed norms")


def moments(name, a, b, c):
    """E phi(u) phi(u') and E phi'(u) phi'(u') for variances a, b and covariance c."""
    if name == "erf":
        state = 2 / mpmath.pi * mpmath.asin(2 * c / mpmath.sqrt((1 + 2 * a) * (1 + 2 * b)))
        return state, 4 / mpmath.pi / mpmath.sqrt((1 + 2 * a) * (1 + 2 * b) - 4 * c * c)
    if name in ("sin", "cos"):
        fall = mpmath.exp(-(a + b) / 2)
        both = fall * mpmath.sinh(c), fall * mpmath.cosh(c)
        return both if name == "sin" else both[::-1]
    below = {"relu": 0, "abs": -1, "linear": 1, "leaky": mpmath.mpf(0.25)}[name]
    if a == 0 or b == 0:
        return mpmath.mpf(0), (1 + below) ** 2 / mpmath.mpf(4)
    scale = mpmath.sqrt(a * b)
    angle = mpmath.acos(max(-1, min(1, c / scale)))
    positive = (mpmath.sin(angle) + (mpmath.pi - angle) * mpmath.cos(angle)) / (2 * mpmath.pi)
    negative = (mpmath.sin(angle) - angle * mpmath.cos(angle)) / (2 * mpmath.pi)
    share = (mpmath.pi - angle) / (2 * mpmath.pi)
    state = scale * ((1 + below**2) * positive - 2 * below * negative)
    return state, (1 + below**2) * share + 2 * below * (mpmath.mpf(1) / 2 - share)


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


@settings(max_examples=150)
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
@settings(max_examples=150)
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
    if case[0] in ("sin", "cos"):  # whose kernels are those of variance 1e12 otherwise
        x = x / max(1.0, np.abs(x).max())
    check(*case, x, rigorous=False)
