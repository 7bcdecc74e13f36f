"""Enclosures of exact kernels against 200 bits and more of mpmath, and certificates that lie."""

import dataclasses
import sys

import mpmath
import numpy as np
import pytest
import scipy.sparse.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

import rnntk
from rnntk import ElmanRNN, infinite_kernel
from rnntk.spectrum import ball_kernel
from rnntk.spectrum.certificate import Certificate, certify
from rnntk.verification import verify

SLOPES = {"relu": 0.0, "abs": -1.0, "linear": 1.0, "leaky": 0.3}  # below 0
ACTIVATIONS = (*SLOPES, "erf")


def network(activation, **options):
    phi = rnntk.activations.leaky_relu(SLOPES["leaky"]) if activation == "leaky" else activation
    return ElmanRNN(phi, **options)


def draw(n=5, t=4, d=3, seed=0):
    return np.random.default_rng(seed).standard_normal((n, t, d))


def moments(activation, a, b, c):
    """E phi phi' and E phi' phi' by the formulas of the papers, from relu's at c and at -c."""
    if activation == "erf":
        sine = 2 * c / mpmath.sqrt((1 + 2 * a) * (1 + 2 * b))
        root = mpmath.sqrt((1 + 2 * a) * (1 + 2 * b) - 4 * c * c)
        return 2 / mpmath.pi * mpmath.asin(sine), 4 / mpmath.pi / root
    scale = mpmath.sqrt(a * b)
    if not scale:
        return mpmath.mpf(0), mpmath.mpf(0)
    theta = mpmath.acos(max(-1, min(1, c / scale)))

    def relu(angle):
        side = mpmath.sin(angle) + (mpmath.pi - angle) * mpmath.cos(angle)
        return scale * side / (2 * mpmath.pi), (mpmath.pi - angle) / (2 * mpmath.pi)

    below = mpmath.mpf(SLOPES[activation])
    (state, slope), (turned, reverse) = relu(theta), relu(mpmath.pi - theta)
    both = 1 + below**2
    return both * state - 2 * below * turned, both * slope + 2 * below * reverse


def truth(activation, x, w_std=2**0.5, u_std=2**0.5, b_std=0.0):
    """Smallest eigenvalue of the last-step kernel, and the trace."""
    n, t, _ = x.shape
    exact = [[[mpmath.mpf(float(v)) for v in token] for token in row] for row in x]

    def dot(i, j, s):
        return mpmath.fdot(exact[i][s], exact[j][s])

    # angles of nearly parallel sequences lose half of the digits, at every step
    with mpmath.workprec(3000):
        w2, u2, b2 = (mpmath.mpf(std) ** 2 for std in (w_std, u_std, b_std))
        own = []
        for i in range(n):
            own.append([])
            state = mpmath.mpf(0)
            for s in range(t):
                a = w2 * state + u2 * dot(i, i, s) + b2
                own[i].append(a)
                state = moments(activation, a, a, a)[0]
        matrix = mpmath.zeros(n)
        for i in range(n):
            for j in range(i + 1):
                state = back = mpmath.mpf(0)
                for s in range(t):
                    pre = w2 * state + u2 * dot(i, j, s) + b2
                    a, b = own[i][s], own[j][s]
                    state, slope = moments(activation, a, b, pre)
                    back = slope * (pre + w2 * back)
                matrix[i, j] = matrix[j, i] = state + back
    with mpmath.workprec(300):
        return min(mpmath.eigsy(matrix, eigvals_only=True)), sum(matrix[i, i] for i in range(n))


KINDS = ("generic", "duplicate", "parallel", "opposite", "zero", "zero first", "common first")


def batch(n, t, d, seed, scale, gap, kind):
    """Sequences that are a common one plus ``gap`` times their own, one of a special kind."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1, t, d)) + gap * rng.standard_normal((n, t, d))
    if kind == "duplicate":
        x[-1] = x[0]
    if kind in ("parallel", "opposite"):
        x[-1] = (3 if kind == "parallel" else -1) * x[0]
    if kind == "zero":
        x[-1] = 0
    if kind == "zero first":
        x[:, 0] = 0
    if kind == "common first":
        x[:, 0] = x[0, 0]
    return scale * x


def check_against_mpmath(activation, n, t, d, seed, scale, gap, kind, b_std):
    x = batch(n, t, d, seed, scale, gap, kind)
    certificate = certify(network(activation, b_std=b_std), x)
    value, trace = truth(activation, x, b_std=b_std)
    error = trace * mpmath.mpf(2) ** -250  # of 300 bits of the eigenvalues
    with mpmath.workprec(300):
        assert mpmath.mpf(certificate.lower) <= value + error
        assert mpmath.mpf(certificate.upper) >= value - error
    # 1024 bits are enough for all that is not singular, and float64 for this much anyway
    if abs(value) > 1e6 * error:
        assert 0 < certificate.upper - certificate.lower <= 1e-6 * certificate.lower
    assert certificate.upper - certificate.lower <= 1e-11 * trace


INSTANCES = {
    "activation": st.sampled_from(ACTIVATIONS),
    "n": st.integers(1, 5),
    "t": st.integers(1, 4),
    "d": st.integers(1, 3),
    "seed": st.integers(0, 10**6),
    "scale": st.sampled_from([1e-6, 1e-3, 1.0, 1e3, 1e6]),
    "gap": st.sampled_from([1.0, 1e-2, 1e-6, 1e-12]),
    "kind": st.sampled_from(KINDS),
    "b_std": st.sampled_from([0.0, 0.3]),
}


@settings(max_examples=60)
@given(**INSTANCES)
def test_the_enclosure_contains_the_truth(**instance):
    check_against_mpmath(**instance)


@pytest.mark.slow
@settings(max_examples=2000)
@given(**INSTANCES)
def test_the_enclosure_contains_the_truth_in_many_instances(**instance):
    check_against_mpmath(**instance)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_near_duplicates_are_enclosed_narrowly(activation):
    x = draw(6, 5, 4)
    x = np.concatenate([x, x * (1 + 1e-6 * draw(6, 5, 4, seed=1))])
    certificate = certify(network(activation), x)
    assert certificate.upper - certificate.lower <= 1e-6 * certificate.lower
    with mpmath.workprec(300):
        assert certificate.lower <= truth(activation, x)[0] <= certificate.upper
    # negative control: another last bit of a token is another kernel, outside of the enclosure
    if activation in ("erf", "linear"):
        x[0, 0, 0] += 1e-8
        with mpmath.workprec(300):
            assert not certificate.lower <= truth(activation, x)[0] <= certificate.upper


@pytest.mark.parametrize("activation", ["relu", "abs", "leaky"])
def test_nearly_equal_sequences_lose_the_digits_of_their_angle_once(activation):
    # entries of radius 2^-128 / distance; one such factor a step would leave nothing
    x = draw(4, 8, 3)
    x = np.concatenate([x, x * (1 + 1e-12 * draw(4, 8, 3, seed=1))])
    certificate = certify(network(activation), x)
    assert certificate.bits == 128
    size = float(np.max(infinite_kernel(network(activation), x).ntk))
    assert certificate.radius < 1e3 * size * 2.0**-128 / 1e-12
    bounds = rnntk.bounds.min_eigenvalue(network(activation), x, rigorous=True)
    assert 0.5 * certificate.lower < max(bounds.lower.values()) <= certificate.upper
    assert certificate.lower <= min(bounds.upper.values()) < 1.01 * certificate.upper


NETWORKS = [
    {},
    {"activation": "erf", "b_std": 0.3, "v_std": 0.5},
    {"activation": "linear", "depth": 2, "readout": "mean"},
    {"activation": rnntk.activations.leaky_relu(1 / 3), "depth": 2, "b_std": 0.2},
    {"activation": "abs", "readout": "mean"},
    {"readout": "mean", "depth": 2, "bidirectional": True, "trainable": ("U", "b"), "b_std": 0.5},
    {"readout": "sequence", "bidirectional": True, "activation": "erf", "trainable": ("W", "V")},
    {"readout": "sequence", "initial_state": "shared", "initial_state_std": 0.7},
    {"readout": "mean", "initial_state": "independent", "initial_state_std": 0.7, "depth": 2},
    {"initial_state": "independent", "initial_state_std": 0.7, "trainable": ("U",)},
    {"depth": 3, "bidirectional": True, "input_scaling": "fan_in", "b_std": 0.1},
]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("config", NETWORKS, ids=lambda c: "-".join(c) or "default")
def test_every_network_agrees_with_its_float64_kernel(config):
    rnn, x, lengths = ElmanRNN(**config), draw(), np.array([4, 2, 4, 1, 3])
    certificate = certify(rnn, x, lengths=lengths)
    kernel = np.asarray(infinite_kernel(rnn, x, lengths1=lengths).ntk)
    if rnn.readout == "sequence":
        exists = (np.arange(4) < lengths[:, None]).ravel()
        kernel = kernel.reshape(20, 20)[np.ix_(exists, exists)]
    values = np.linalg.eigvalsh(kernel)
    rounding = 1e-14 * values[-1]  # a few roundoffs of the largest entries, measured 4e-16
    assert certificate.n == len(kernel)
    assert certificate.lower - rounding <= values[0] <= certificate.upper + rounding
    assert 0 < certificate.lower < certificate.upper <= (1 + 1e-6) * certificate.lower
    assert verify(certificate)


def test_tokens_are_taken_as_they_are():
    # float64 tokens in a process that computes in float32, and numbers of float32 themselves
    x = draw()
    single = certify(ElmanRNN(), x.astype(np.float32))
    assert single.lower == certify(ElmanRNN(), x.astype(np.float32).astype(float)).lower
    double = certify(ElmanRNN(), x)
    assert double.upper < single.lower or single.upper < double.lower
    assert truth("relu", x)[0] <= double.upper
    # what is beyond a sequence's length is never read
    padded = np.concatenate([x, np.full((5, 2, 3), np.nan)], axis=1)
    assert certify(ElmanRNN(), padded, lengths=np.full(5, 4)).lower == double.lower


def singular(kind):
    x = draw(4, 3, 2)
    if kind == "duplicate":
        x[3] = x[1]
    if kind == "negative zero":
        x[1, 1] = 0.0
        x[3] = x[1]
        x[3, 1] = -0.0
    if kind == "silent":
        x[2] = 0
    if kind == "scaled":
        x[3] = 2 * x[0]
    if kind == "few features":
        return ElmanRNN("linear"), draw(7, 3, 2)
    if kind == "nothing trained":
        return ElmanRNN(trainable=("b",)), x
    if kind == "common first token":
        x[:, 0] = x[0, 0]
        return ElmanRNN(readout="sequence"), x
    return ElmanRNN(), x


@pytest.mark.parametrize(
    "kind",
    [
        "duplicate",
        "negative zero",
        "silent",
        "scaled",
        "few features",
        "nothing trained",
        "common first token",
    ],
)
def test_singular_kernels_are_never_certified_positive(kind):
    rnn, x = singular(kind)
    certificate = certify(rnn, x)
    assert certificate.lower == 0
    assert 0 <= certificate.upper < 1e-11
    assert verify(certificate)
    # negative control: the same kernel with a little less of what makes it singular
    if kind == "duplicate":
        x[3, 0, 0] *= 1 + 2.0**-50
        assert certify(rnn, x).lower > 0


def test_independent_initial_states_tell_equal_sequences_apart():
    x = draw(3)
    x[2] = x[0]
    network = {"initial_state": "independent", "initial_state_std": 0.5}
    assert certify(ElmanRNN(**network), x).lower > 0.01


def test_a_precision_that_does_not_suffice_is_said_by_a_wide_enclosure():
    x = draw(3, 4, 2)
    x = np.concatenate([x, x * (1 + 1e-13 * draw(3, 4, 2, seed=1))])
    coarse = certify(ElmanRNN("linear"), x, max_bits=128, rtol=1e-12)
    fine = certify(ElmanRNN("linear"), x, rtol=1e-12)
    assert fine.bits > coarse.bits == 128
    assert coarse.lower <= fine.lower <= fine.upper <= coarse.upper
    assert fine.radius < coarse.radius
    # where even the entries' balls are not finite
    x = 1e30 * np.concatenate([draw(3, 4, 2), 2 * draw(3, 4, 2)])
    coarse = certify(ElmanRNN("erf"), x, max_bits=128)
    assert (coarse.lower, coarse.upper, coarse.radius) == (0, np.inf, np.inf)
    assert not verify(coarse)
    fine = certify(ElmanRNN("erf"), x)
    assert 0 < fine.lower < fine.upper < np.inf


def test_extreme_scales():
    x = draw(3)
    middle = certify(ElmanRNN(), x)
    # powers of two change nothing but the exponents
    for power in (-500, 500):
        certificate = certify(ElmanRNN(), np.ldexp(x, power))
        assert certificate.lower == np.ldexp(middle.lower, 2 * power)
        assert certificate.upper == np.ldexp(middle.upper, 2 * power)
    tiny = certify(ElmanRNN(), np.ldexp(x, -600))
    assert tiny.lower == 0
    assert 0 < tiny.upper < 1e-300
    with pytest.raises(FloatingPointError, match="exceeds the range of float64: rescale"):
        certify(ElmanRNN(), np.ldexp(x, 600))


def test_certificates_of_kernels_are_saved_whole(tmp_path):
    rnn = ElmanRNN("erf", depth=2, readout="mean", trainable=("W", "U"), v_std=0.3)
    certificate = certify(rnn, draw(), lengths=np.array([4, 2, 4, 1, 3]))
    certificate.save(tmp_path / "certificate.npz")
    again = Certificate.load(tmp_path / "certificate.npz")
    for field in dataclasses.fields(Certificate):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(certificate, field.name))
    assert verify(again)
    np.savez(tmp_path / "other.npz", data=np.eye(2))
    with pytest.raises(ValueError, match=r"must hold a certificate, got arrays \['data'\]"):
        Certificate.load(tmp_path / "other.npz")
    np.savez(tmp_path / "short.npz", certificate='{"lower": 1}', data=np.eye(2), lengths=[])
    with pytest.raises(ValueError, match=r"must hold the fields .* got \['lower'\]"):
        Certificate.load(tmp_path / "short.npz")
    np.savez(tmp_path / "text.npz", certificate="lower", data=np.eye(2), lengths=[])
    with pytest.raises(ValueError, match=r"Expecting value"):
        Certificate.load(tmp_path / "text.npz")
    np.save(tmp_path / "array.npy", np.eye(2))
    (tmp_path / "text").write_text("lower: 1")
    for name in ("array.npy", "text"):
        with pytest.raises(ValueError, match="must hold a certificate, got a file of another kin"):
            Certificate.load(tmp_path / name)
    whole = (tmp_path / "certificate.npz").read_bytes()
    for place in (len(whole) // 4, len(whole) // 2):
        (tmp_path / "damaged.npz").write_bytes(whole[:place] + b"????" + whole[place + 4 :])
        with pytest.raises(ValueError, match=r"damaged\.npz must hold a certificate, got"):
            Certificate.load(tmp_path / "damaged.npz")


def test_balls_of_kernel_entries_contain_the_truth():
    # radii themselves, which a lucky eigenvalue would not show
    x, lengths = draw(2, 3, 2), np.array([3, 3])
    for activation in ACTIVATIONS:
        rnn = network(activation)
        for bits in (32, 128):
            matrix = ball_kernel.ntk(rnn, x, lengths, bits)
            fine = ball_kernel.ntk(rnn, x, lengths, 4 * bits)
            assert all(
                coarse.contains(sharp)
                for row, other in zip(matrix, fine, strict=True)
                for coarse, sharp in zip(row, other, strict=True)
            )


def test_bad_input(monkeypatch):
    rnn, x = ElmanRNN(), draw()
    with pytest.raises(ValueError, match=r"x must have shape .* got \(4, 3\)"):
        certify(rnn, x[0])
    with pytest.raises(ValueError, match=r"x must be finite, got nan at .* \(1, 2, 0\)"):
        certify(rnn, np.where(np.arange(60).reshape(5, 4, 3) == 18, np.nan, x))
    with pytest.raises(TypeError, match="x must be float32 or float64, got int64"):
        certify(rnn, np.ones((2, 3, 1), int))
    with pytest.raises(ValueError, match=r"lengths must lie in 1\.\.4"):
        certify(rnn, x, lengths=np.array([5, 1, 1, 1, 1]))
    with pytest.raises(TypeError, match="certify of a network needs x"):
        certify(rnn)
    for options in ({"x": x}, {"rtol": 1e-6}, {"rtol": 1e-5}, {"max_bits": 256}):
        with pytest.raises(TypeError, match=f"as it stands, without {next(iter(options))}"):
            certify(np.eye(2), **options)
    with pytest.raises(TypeError, match="K must be a matrix of numbers, got MatrixLinearOperator"):
        certify(scipy.sparse.linalg.aslinearoperator(np.eye(2)))
    with pytest.raises(ValueError, match="K must be symmetric"):
        certify(np.array([[1.0, 2.0], [3.0, 1.0]]))
    with pytest.raises(ValueError, match="rtol must lie between 0 and 1, got 0"):
        certify(rnn, x, rtol=0)
    with pytest.raises(ValueError, match="max_bits must be at least 128, got 64"):
        certify(rnn, x, max_bits=64)
    with pytest.raises(ValueError, match=r"relu, abs, linear, erf, .* got 'elu'"):
        certify(ElmanRNN("elu"), x)

    def erf(u):
        return u / 2

    with pytest.raises(ValueError, match=r"relu, abs, linear, erf, .* got 'erf'"):
        certify(ElmanRNN(erf), x)
    certificate = certify(rnn, x)
    monkeypatch.setitem(sys.modules, "flint", None)
    with pytest.raises(ImportError, match=r"needs python-flint: .* 'rnntk\[certify\]'"):
        certify(rnn, x)
    monkeypatch.setitem(sys.modules, "mpmath", None)
    with pytest.raises(ImportError, match=r"needs mpmath"):
        verify(certificate)
