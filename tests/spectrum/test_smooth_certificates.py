"""Proved moments and certificates of tanh, sigmoid, softplus and silu."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import flint
import mpmath
import numpy as np
import pytest
from mpmath import iv

import rnntk
from rnntk import ElmanRNN, activations, bounds
from rnntk.spectrum import ball_kernel, certify
from rnntk.verification import verify
from rnntk.verification.logistic import Moments

NAMES = ("tanh", "sigmoid", "softplus", "silu")
SOME = ("tanh", *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[1:]))
FOLDER = Path(__file__).parents[1] / "oracles"
ORACLE = np.load(FOLDER / "moments.npz")
README = (Path(rnntk.__file__).parents[1] / "README.md").read_text()


def functions(name):
    """phi and phi' of numbers of mpmath."""

    def step(u):
        return 1 / (1 + mpmath.exp(-u))

    def bump(u):
        return step(u) * step(-u)

    return {
        "tanh": (mpmath.tanh, lambda u: mpmath.sech(u) ** 2),
        "sigmoid": (step, bump),
        "softplus": (lambda u: mpmath.log1p(mpmath.exp(u)), step),
        "silu": (lambda u: u * step(u), lambda u: step(u) + u * bump(u)),
    }[name]


def quadrature(name, a, b, c, digits):
    """Both moments by the trapezoidal rule over the plane."""
    with mpmath.workdps(digits + 8):
        a, b, c = map(mpmath.mpf, (a, b, c))
        root, share = mpmath.sqrt(a), c / mpmath.sqrt(a)
        rest = mpmath.sqrt(b - share**2)
        step = mpmath.mpf(6) / digits  # poles are at 3 from the real axis, or farther
        reach = int(mpmath.sqrt(2 * digits * mpmath.log(10)) / step) + 1
        grid = [j * step for j in range(-reach, reach + 1)]
        weights = [step * mpmath.npdf(z) for z in grid]
        found = []
        for f in functions(name):
            inner = [mpmath.fdot(weights, [f(share * z + rest * y) for y in grid]) for z in grid]
            outer = [f(root * z) for z in grid]
            found.append(
                mpmath.fsum(w * p * q for w, p, q in zip(weights, outer, inner, strict=True))
            )
        return found


def inside(ball, value, digits):
    """Whether a ball is as narrow as it should be, and holds the value, known to its digits."""
    with mpmath.workdps(digits + 8):
        middle = mpmath.mpf(ball.mid().str(80, radius=False))
        radius = mpmath.mpf(ball.rad().str(20, radius=False)) * (1 + mpmath.mpf(10) ** -15)
        return abs(middle - value) <= radius + mpmath.mpf(10) ** -digits and radius < 1e-20


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("digits", [12, pytest.param(50, marks=pytest.mark.slow)])
def test_balls_hold_quadratures(name, digits):
    a, b, c = 0.25, 0.375, 0.125
    with flint.ctx.workprec(4 * digits + 128):
        moments = activations.resolve(name).balls(flint)
        found = moments.pair(*map(flint.arb, (a, b, c)))
        for ball, value in zip(found, quadrature(name, a, b, c, digits), strict=True):
            assert inside(ball, value, digits)


@pytest.mark.parametrize("name", NAMES)
def test_balls_of_one_sequence_hold_integrals_in_50_digits(name):
    with flint.ctx.workprec(320), mpmath.workdps(60):
        moments = activations.resolve(name).balls(flint)
        for a in (1e-3, 1.0, 30.0):
            root = mpmath.sqrt(mpmath.mpf(a))
            for ball, f in zip(moments.own(flint.arb(a)), functions(name), strict=True):
                step = mpmath.mpf(1) / 64 / max(1, root)
                grid = [j * step for j in range(-int(17 / step), int(17 / step) + 1)]
                value = step * mpmath.fsum(mpmath.npdf(z) * f(root * z) ** 2 for z in grid)
                assert inside(ball, value, 50), a


@pytest.mark.parametrize("name", NAMES)
def test_balls_hold_the_oracle_at_all_variances(name):
    i = ORACLE["names"].tolist().index(name)
    moments, narrow = activations.resolve(name).balls(flint), 0
    with flint.ctx.workprec(128):
        for k, ((a, b), away) in enumerate(zip(ORACLE["variances"], ORACLE["away"], strict=True)):
            if max(a, b) > 1e6:  # softplus takes long
                continue
            one, two = map(flint.arb, (a, b))
            root = (one * two).sqrt()
            found = moments.pair(one, two, root * (1 - flint.arb(away)))
            for ball, value, own in zip(
                found, ORACLE["products"][k, i], ORACLE["own"][k, :, i].T, strict=True
            ):
                size = np.sqrt(own[0] * own[1])
                off = abs(ball - flint.arb(float(value)))
                assert off.abs_lower() <= 4e-16 * size, (a, b, away)
                narrow += float(ball.rad()) < 1e-20 * size
    assert narrow > 20


def numbers(interval):
    return mpmath.mpf(interval.a._mpi_[0]), mpmath.mpf(interval.b._mpi_[1])


@pytest.mark.parametrize("name", NAMES)
def test_balls_and_intervals_overlap_and_are_narrow(name):
    """Two programs that share a theorem, and no code; variances come another way."""
    precision = iv.prec
    try:
        iv.prec = 192
        with flint.ctx.workprec(128), mpmath.workprec(192):
            intervals, balls = Moments(iv, name), activations.resolve(name).balls(flint)
            for a, b, c in (
                (1.0, 0.5, 0.25),
                (11.0, 9.0, -5.0),
                (0.0, 1.0, 0.0),
                (1e-8, 1.0, 1e-5),
            ):
                one, two = (iv.mpf(v) for v in (a, b))
                found = *intervals(one, two, iv.mpf(c)), *intervals(one, one, one)
                others = *balls.pair(*map(flint.arb, (a, b, c))), *balls.own(flint.arb(a))
                for interval, ball in zip(found, others, strict=True):
                    low, high = numbers(interval)
                    middle = mpmath.mpf(ball.mid().str(60, radius=False))
                    radius = float(ball.rad()) + 1e-45
                    assert low - radius <= middle <= high + radius
                    assert high - low < 1e-30
                    assert radius < 1e-28
    finally:
        iv.prec = precision


@pytest.mark.parametrize("name", NAMES)
def test_balls_of_balls_hold_what_is_inside(name):
    """Wide arguments: moments at any numbers within lie within."""
    moments, rng = activations.resolve(name).balls(flint), np.random.default_rng(0)
    with flint.ctx.workprec(128):
        a, b, c, radius = 1.5, 0.7, 1.0, 2.0**-10
        wide = moments.pair(*(flint.arb(v, radius) for v in (a, b, c)))
        own = moments.own(flint.arb(a, radius))
        for _ in range(5):
            moved = [
                flint.arb(v + radius * m)
                for v, m in zip((a, b, c), rng.uniform(-1, 1, 3), strict=False)
            ]
            found = *moments.pair(*moved), *moments.own(moved[0])
            assert all(w.contains(v) for w, v in zip((*wide, *own), found, strict=True))
        assert max(float(v.rad()) for v in (*wide, *own)) < 0.01


@pytest.mark.parametrize("name", SOME)
def test_certificates_are_verified_and_lies_are_not(name):
    x = np.random.default_rng(1).standard_normal((3, 2, 3))
    certificate = certify(ElmanRNN(name, b_std=0.2), x)
    width = certificate.upper - certificate.lower
    assert 0 < width < 1e-9 * certificate.lower
    assert verify(certificate)
    wrong = dataclasses.replace(
        certificate, lower=certificate.upper, upper=certificate.upper + width
    )
    assert not verify(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_other_lies(name):
    x = np.random.default_rng(2).standard_normal((3, 2, 3))
    certificate = certify(ElmanRNN(name), x)
    width = certificate.upper - certificate.lower
    replace = dataclasses.replace
    assert not verify(
        replace(certificate, lower=certificate.lower - width, upper=certificate.lower)
    )
    assert not verify(replace(certificate, data=certificate.data * (1 + 1e-6)))
    for other in NAMES:
        if other != name:
            network = certificate.network | {"activation": other}
            assert not verify(replace(certificate, network=network))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", SOME)
def test_certificates_agree_with_eigenvalues_and_rigorous_bounds(name):
    rnn = ElmanRNN(
        name, b_std=0.1, readout="mean", depth=2, bidirectional=True, trainable=("U", "b")
    )
    x = 0.7 * np.random.default_rng(3).standard_normal((4, 3, 2))
    certificate = certify(rnn, x)
    kernel = np.asarray(rnntk.infinite_kernel(rnn, x).ntk)
    value = np.linalg.eigvalsh(kernel)[0]
    assert abs(value - certificate.lower) <= 1e-10 * np.trace(kernel)
    found = bounds.min_eigenvalue(rnn, x, rigorous=True)
    assert found.rigorous
    assert max(found.lower.values()) <= certificate.upper
    assert min(found.upper.values()) >= certificate.lower


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", NAMES)
def test_kernels_against_proved_entries(name):
    rnn = ElmanRNN(name, b_std=0.3, trainable=("W", "U", "V"))
    x = np.random.default_rng(5).standard_normal((4, 3, 2)) * [[[1.0]], [[1.0]], [[30.0]], [[1e-3]]]
    lengths = np.array([3, 2, 3, 3])
    entries = ball_kernel.ntk(rnn, x, lengths, 128)
    expected = np.array([[float(v.mid()) for v in row] for row in entries])
    got = np.asarray(rnntk.infinite_kernel(rnn, x, lengths1=lengths).ntk)
    size = np.sqrt(np.outer(np.diagonal(expected), np.diagonal(expected)))
    assert (np.abs(got - expected) <= 1e-12 * size).all()


def test_near_duplicates_and_zeros():
    x = np.random.default_rng(4).standard_normal((2, 3, 2))
    x = np.concatenate([x, x[:1] * (1 + 1e-5), np.zeros((1, 3, 2))])
    certificate = certify(ElmanRNN("tanh", b_std=0.3), x)
    assert 0 < certificate.lower < certificate.upper < (1 + 1e-6) * certificate.lower
    assert certificate.upper < 1e-6


@pytest.mark.slow
def test_the_readme_with_tanh():
    code = README.partition("```python\n")[2].partition("```")[0]
    assert code.count('activation="relu"') == 1
    code = code.replace('activation="relu"', 'activation="tanh"')
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    deviation, interval, ends = run.stdout.splitlines()
    assert float(deviation) < 1
    assert "certified=True" in interval
    lower, upper = map(float, ends.split())
    assert 0.989299 < lower < upper < 0.989300
