"""Laws of growth from values that follow them; numbers of samples against direct searches."""

from functools import partial

import jax
import numpy as np
import pytest

from rnntk import ElmanRNN, compare, datasets, infinite_kernel, sgd_risk
from rnntk.compare.samples import _crossing, _first
from rnntk.concepts import Additive, NVariable, PerToken

KEY = jax.random.key(0)
LENGTHS = np.array([2, 4, 8, 16, 32, 64])


@pytest.mark.parametrize(
    ("law", "values"),
    [
        ("polynomial", 5 * LENGTHS**1.7),
        ("exponential", 0.3 * np.exp(0.2 * LENGTHS)),
        ("stretched exponential", 2 * np.exp(1.08 * LENGTHS ** (2 / 3))),
    ],
)
def test_growth_finds_the_law(law, values):
    noise = np.exp(0.02 * np.random.default_rng(0).standard_normal(6))
    found = compare.growth(LENGTHS, values * noise)
    assert found.best == law
    assert found.margin > 5
    best = found.laws[law]
    np.testing.assert_allclose(best.predict(LENGTHS), values, rtol=0.1)
    if law == "stretched exponential":
        assert best.exponent == pytest.approx(2 / 3, abs=0.05)
    # the score is that of least squares with its parameters
    residual = np.log(values * noise) - np.log(best.predict(LENGTHS))
    count = 3 if law == "stretched exponential" else 2
    score = 6 * np.log(np.mean(residual**2)) + count * np.log(6)
    assert best.score == pytest.approx(score, rel=1e-9)


def test_growth_refuses_fewer_than_four_lengths():
    for few in ([1, 2, 3], [1, 2, 3, 3]):
        with pytest.raises(ValueError, match="lengths must be at least four different numbers"):
            compare.growth(few, np.ones(len(few)))


def test_crossings():
    # error = 1 / n: between two sizes the line in logarithms is exact
    assert _crossing([4, 16], [1 / 4, 1 / 16], 1 / 8) == pytest.approx(8, rel=1e-12)
    assert _crossing([4, 16], [0.1, 0.01], 0.5) == 4
    assert _crossing([4, 16], [0.9, 0.8], 0.5) == np.inf
    assert _crossing([4, 16], [np.inf, 0.3], 0.5) == 16
    for wanted in (4, 5, 77, 4097):
        assert _first(lambda n, w=wanted: n >= w, 4) == wanted
    assert _first(lambda n: False, 4) == np.inf


@pytest.fixture(scope="module")
def small():
    with jax.enable_x64(True):
        return compare.sample_complexity(
            ElmanRNN(),
            partial(Additive.draw, f="identity"),
            [1, 3],
            KEY,
            draws=2,
            most=64,
            n_test=64,
        )


@pytest.mark.usefixtures("x64")
def test_numbers_of_samples_are_those_of_a_direct_search(small):
    key = jax.random.fold_in(jax.random.fold_in(KEY, 3), 1)
    keys = jax.random.split(key, 4)
    concept = Additive.draw(keys[0], 3, 4, "identity")
    x = datasets.unit_tokens(keys[1], 128, 3, 4)
    y = concept(x)
    y = (y - y[64:].mean()) / y[64:].std()
    K = np.asarray(infinite_kernel(ElmanRNN(), x).ntk)
    ridge = 1e-6 * K[0, 0] * np.eye(64)
    errors = []
    for n in (4, 8, 16, 32, 64):
        predicted = K[64:, :n] @ np.linalg.solve((K[:64, :64] + ridge)[:n, :n], y[:n])
        errors.append(np.sqrt(np.mean((predicted - y[64:]) ** 2)))
    wanted = _crossing([4, 8, 16, 32, 64], errors, 0.5)
    assert small.column("kernel")[1, 1] == pytest.approx(wanted, rel=1e-6)
    values, vectors = np.linalg.eigh(K[:64, :64] / 64)
    problem = sgd_risk.LeastSquares(values, vectors.T @ y[:64] / 8 / np.sqrt(values))
    upper = int(small.column("upper")[1, 1])
    step = 0.3 / problem.trace
    reached = [sgd_risk.upper_bound(problem, step, n).value <= 0.125 for n in (upper - 1, upper)]
    assert reached == [False, True]
    form = 4 * K[0, 0] * y[:64] @ np.linalg.solve(K[:64, :64] + ridge, y[:64]) / 0.25
    assert small.column("rademacher")[1, 1] == pytest.approx(form, rel=1e-6)


def test_predictions_are_in_order(small):
    assert small.lengths == (1, 3)
    assert np.isfinite(small.column("kernel")).all()
    assert np.isnan(small.column("network")).all()
    # the bounds enclose what is exact for Gaussian features
    assert (small.column("exact") < small.column("upper")).all()
    mean, low, high = small.interval("kernel")[0]
    assert low <= mean <= high
    assert mean == pytest.approx(np.sqrt(small.column("kernel")[0].prod()))
    with pytest.raises(ValueError, match=r"reached by all draws at four lengths or more .* got 2"):
        small.growth("kernel")
    with pytest.raises(ValueError, match=r"name must be one of .* got 'kernal'"):
        small.column("kernal")


@pytest.mark.slow
def test_networks_need_what_the_recursion_says():
    found = compare.sample_complexity(
        ElmanRNN(),
        partial(Additive.draw, f="identity"),
        [2],
        KEY,
        draws=1,
        most=64,
        sgd_most=256,
        width=64,
    )
    for name in ("network", "linearized"):
        # one draw of one network, whose kernel is off by a factor like 1 + 64^(-1/2)
        assert abs(np.log(found.column(name) / found.column("exact"))) < np.log(2.5), name


def test_an_interrupted_training_ends_the_call(tmp_path):
    path, blocks = tmp_path / "rows.npz", []

    def tokens(key, n, length, token_size):
        blocks.append(n)
        if blocks.count(64) == 5:  # the second of the longest training, each of the others has one
            raise KeyboardInterrupt
        return datasets.unit_tokens(key, n, length, token_size)

    with pytest.raises(KeyboardInterrupt):
        compare.sample_complexity(
            ElmanRNN(),
            Additive.draw,
            [1],
            KEY,
            tokens=tokens,
            draws=1,
            most=8,
            n_test=8,
            sgd_most=128,
            width=4,
            checkpoint=path,
        )
    assert blocks.count(64) == 5
    assert not path.exists()


def test_a_call_goes_on_from_its_checkpoint(tmp_path):
    path = tmp_path / "rows.npz"

    def call(lengths, key=KEY):
        return compare.sample_complexity(
            ElmanRNN(), Additive.draw, lengths, key, draws=1, most=16, sgd_most=32, checkpoint=path
        )

    call([1])
    with np.load(path) as file:
        stored = dict(file)
    stored["kernel"][0] = 7.5
    np.savez(path, **stored)
    both = call([1, 2])
    assert both.column("kernel")[0, 0] == 7.5  # read, not computed
    assert both.lengths == (1, 2)
    with pytest.raises(ValueError, match="is of other work: key was"):
        call([1], jax.random.key(1))
    path.write_text("nothing")
    with pytest.raises(ValueError, match="checkpoint must be a file that this wrote"):
        call([1])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"error": 1.5}, "error must lie between 0 and 1, got 1.5"),
        ({"lengths": []}, "lengths must be ascending, at least one"),
        ({"lengths": [4, 2]}, r"lengths must be ascending, at least one, got \[4, 2\]"),
        ({"step_size": -1.0}, "step_size must be finite and positive, got -1.0"),
        (
            {"tokens": lambda key, n, t, d: datasets.unit_tokens(key, n + 1, t, d)},
            r"tokens must draw arrays of the shape .* got \(3, 2, 4\) for \(2, 2, 4\)",
        ),
        ({"embed": lambda x: x[1:]}, "embed must return as many sequences .* got 1 for 2"),
        ({"most": 2}, "most must be a whole number of at least 4, got 2"),
        ({"rnn": ElmanRNN(readout="sequence")}, "rnn must have one output a sequence"),
        (
            {"concept": lambda key, length, d: NVariable.draw(key, length, d, (1, 9))},
            r"positions .* 1\.\.2, got 9",
        ),
    ],
)
def test_refuses(changed, message):
    given = {"rnn": ElmanRNN(), "concept": Additive.draw, "lengths": [2], "key": KEY} | changed
    with pytest.raises(ValueError, match=message):
        compare.sample_complexity(**given)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"concept": "additive"}, "concept must draw concepts, .* got 'additive'"),
        ({"concept": PerToken.draw}, "concept must draw an Additive or an NVariable, got y_j"),
        ({"lengths": 2}, "lengths must be a sequence of whole numbers, got 2"),
    ],
)
def test_refuses_types(changed, message):
    given = {"rnn": ElmanRNN(), "concept": Additive.draw, "lengths": [2], "key": KEY} | changed
    with pytest.raises(TypeError, match=message):
        compare.sample_complexity(**given)


def test_large_steps_have_no_bounds():
    found = compare.sample_complexity(
        ElmanRNN(), Additive.draw, [2], KEY, draws=1, most=8, sgd_most=16, step_size=5.0
    )
    for name in ("upper", "lower"):
        assert np.isnan(found.column(name)).all()
    assert np.isfinite(found.column("rademacher")).all()
