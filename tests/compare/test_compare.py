"""Comparisons against kernels from Jacobians, flows by matrix exponentials, counts by hand."""

import warnings

import jax
import numpy as np
import pytest
import scipy.linalg
import scipy.special

from rnntk import compare, datasets
from rnntk.compare import measures
from rnntk.network.elman import ElmanRNN
from rnntk.train import descent, fit

KEY = jax.random.key(4)
N, N_TEST, T, D = 5, 4, 3, 2
RNN = ElmanRNN("erf", b_std=0.5, trainable=("W", "b", "V"))
LENGTHS, LENGTHS_TEST = np.array([3, 1, 2, 3, 3]), np.array([2, 3, 3, 1])
SETTINGS = {"widths": [24, 12], "steps": 6, "seeds": 2, "record": [0, 2, 6], "step_size": 0.3}


def problem(outputs=1, per_step=False):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N + N_TEST, T, D))
    y = rng.standard_normal((N + N_TEST, T, outputs) if per_step else (N + N_TEST, outputs))
    return x[:N], y[:N], x[N:], y[N:]


@pytest.fixture(scope="module")
def found():
    with jax.enable_x64(True):
        return compare.with_kernel(RNN, KEY, *problem(2), **SETTINGS)


outputs_by_parameters = jax.jit(jax.jacobian(RNN.apply))


def jacobian(params, x):
    rows = outputs_by_parameters(params, x)
    groups = [rows[group].reshape(len(x), 2, -1) for group in RNN.trainable]
    return np.concatenate(groups, axis=-1).astype(float)


def mean_kernel(params, x):
    return np.einsum("iop,jop->ij", jacobian(params, x), jacobian(params, x)) / 2


def flow(params, x, y, time):
    """Outputs on all sequences, by the exponential of the flow's generator."""
    rows = jacobian(params, x).reshape(2 * len(x), -1)
    cross = rows @ rows[: y.size].T
    square = cross[: y.size]
    decay = scipy.linalg.expm(-square * time / len(y))
    learnt = np.linalg.solve(square, (np.eye(y.size) - decay) @ y.ravel())
    return (cross @ learnt).reshape(len(x), 2)


def rms(values):
    return np.sqrt(np.mean(np.square(values)))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("width", [12, 24])
def test_columns_are_what_they_say(found, width):
    x, y, x_test, y_test = problem(2)
    everything = np.concatenate([x, x_test])
    rate = found.settings["learning_rate"]
    at = {name: found.column(name)[found.widths.index(width)] for name in found.table}
    assert (at["time"] == rate * 6).all()
    trained = fit(
        RNN,
        jax.random.fold_in(KEY, width),
        x,
        y,
        width=width,
        learning_rate=rate,
        steps=6,
        seeds=2,
    )
    for i in range(2):
        start, end = (
            jax.tree.map(lambda leaf, i=i: leaf[i], params)
            for params in (trained.initial_params, trained.params)
        )
        outputs = np.asarray(RNN.apply(end, everything) - RNN.apply(start, everything))
        predicted = flow(start, everything, y, rate * 6)
        close = {"rtol": 1e-6}
        got = at["gap_empirical"][i]
        np.testing.assert_allclose(got, rms(outputs[N:] - predicted[N:]) / rms(y), **close)
        np.testing.assert_allclose(at["loss"][i], np.square(outputs[:N] - y).sum() / 2 / N, **close)
        losses = np.square(predicted[:N] - y).sum() / 2 / N
        np.testing.assert_allclose(at["loss_empirical"][i], losses, **close)
        error = rms(outputs[N:] - y_test) / rms(y_test)
        np.testing.assert_allclose(at["error"][i], error, **close)
        wrong = (outputs[N:].argmax(axis=1) != y_test.argmax(axis=1)).mean()
        assert at["misclassified"][i] == wrong
        kernels = [mean_kernel(params, x) for params in (start, end)]
        drift = np.linalg.norm(kernels[1] - kernels[0]) / np.linalg.norm(kernels[0])
        np.testing.assert_allclose(at["kernel_drift"][i], drift, **close)
        target = y @ y.T
        cosine = (kernels[1] * target).sum() / np.linalg.norm(kernels[1]) / np.linalg.norm(target)
        np.testing.assert_allclose(at["alignment"][i], cosine, **close)
        for group in RNN.trainable:
            moved = np.linalg.norm(end[group] - start[group]) / np.linalg.norm(start[group])
            np.testing.assert_allclose(at[f"movement_{group}"][i], moved, **close)
        np.testing.assert_allclose(at["flipped"][i], flipped(start, end, x), **close)
        # The linearized network takes the same finite steps, which the flow does not.
        assert 0 < at["gap_linearized"][i] != at["gap_empirical"][i]


def flipped(start, end, x):
    signs = []
    for params in (start, end):
        h, found = np.zeros((len(x), len(params["b"]))), []
        for s in range(T):
            w, u, b = (np.asarray(params[group]) for group in "WUb")
            u = RNN.w_std / np.sqrt(len(b)) * h @ w.T + RNN.u_std * x[:, s] @ u.T + RNN.b_std * b
            found.append(u > 0)
            h = scipy.special.erf(u)
        signs.append(np.stack(found))
    return (signs[0] != signs[1]).mean()


def test_the_table_is_tidy(found):
    assert {len(column) for column in found.table.values()} == {2 * 2 * 3}
    assert all(column.ndim == 1 for column in found.table.values())
    rows = set(
        zip(*(found.table[name].tolist() for name in ("width", "seed", "step")), strict=True)
    )
    assert rows == {(m, i, k) for m in (12, 24) for i in (0, 1) for k in (0, 2, 6)}
    start = found.table["step"] == 0
    for name in ("gap_infinite", "gap_empirical", "gap_linearized", "kernel_drift", "flipped"):
        assert (found.table[name][start] == 0).all()
        assert (found.table[name][~start] > 0).all()


def test_save_and_load(found, tmp_path):
    found.save(tmp_path / "folder" / "found.npz")
    again = compare.load(tmp_path / "folder" / "found.npz")
    assert again.settings == found.settings
    assert list(again.table) == list(found.table)
    for name, column in found.table.items():
        np.testing.assert_array_equal(again.table[name], column)
    with pytest.raises(FileNotFoundError, match=r"nothing\.npz"):
        compare.load(tmp_path / "nothing.npz")
    np.savez(tmp_path / "other.npz", a=1)
    with pytest.raises(ValueError, match=r"path must be a file of Comparison\.save"):
        compare.load(tmp_path / "other.npz")


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "readout", ["sequence", *(pytest.param(v, marks=pytest.mark.slow) for v in ("last", "mean"))]
)
def test_small_steps_on_small_labels_follow_the_flow_for_every_readout(readout):
    """The linearized network and the flow then agree, padding and all: the same unit of time."""
    rnn = ElmanRNN("erf", readout=readout, b_std=0.3)
    x, y, x_test, y_test = problem(per_step=readout == "sequence")
    result = compare.with_kernel(
        rnn,
        KEY,
        x,
        1e-5 * y,
        x_test,
        1e-5 * y_test,
        widths=[10],
        steps=100,
        seeds=1,
        step_size=0.01,
        record=[100],
        lengths=LENGTHS,
        lengths_test=LENGTHS_TEST,
    )
    # Steps of 1% of the stable ones differ from the flow by less than that; 1 is what y is.
    assert 0 < result.column("gap_empirical") < 0.01
    assert result.column("gap_linearized") < 1e-4
    assert result.column("loss_linearized") < 0.9 * (1e-10 * loss_of(y, readout))


def loss_of(y, readout):
    real = (np.arange(T) < LENGTHS[:, None])[..., None] if readout == "sequence" else 1
    return np.square(y * real).sum() / 2 / N


def power_law(exponent, spread, seeds=200):
    rng = np.random.default_rng(1)
    widths = np.repeat([16, 64, 256, 1024], seeds)
    noise = np.exp(spread * rng.standard_normal(len(widths)))
    table = {
        "width": widths,
        "seed": np.tile(np.arange(seeds), 4),
        "step": np.ones(len(widths), int),
        "gap": 3 * widths**exponent * noise,
    }
    return compare.Comparison(table, {})


def test_slopes_and_their_intervals():
    one = power_law(-0.7, 0.5)
    slope = one.slope("gap")
    want = np.polyfit(np.log(one.widths), np.log(one.column("gap")).mean(axis=1), 1)[0]
    np.testing.assert_allclose(slope.value, want, rtol=1e-12)
    assert slope.lower < -0.7 < slope.upper
    # Least squares by the textbook: sd of a mean over the root of the sum of squares of log width.
    at = np.log(one.widths) - np.log(one.widths).mean()
    sd = 0.5 / np.sqrt(200) / np.sqrt(np.square(at).sum())
    np.testing.assert_allclose((slope.upper - slope.lower) / (2 * 1.96 * sd), 1, atol=0.15)
    one.table["gap"][:5] = np.nan  # diverged: left out
    np.testing.assert_allclose(one.slope("gap").value, slope.value, atol=0.05)


def test_what_has_no_slope_is_named(found):
    one = power_law(-0.5, 0.1, seeds=2)
    for change, message in (
        (0.0, "gap must be positive"),
        (np.nan, "gap must be positive, with a finite value at every width"),
    ):
        one.table["gap"][:2] = change
        with pytest.raises(ValueError, match=message):
            one.slope("gap")
    with pytest.raises(ValueError, match=r"name must be one of \('width', .*got 'gaps'"):
        found.slope("gaps")
    with pytest.raises(ValueError, match=r"step must be one of those recorded, \(0, 2, 6\), got 3"):
        found.slope("loss", step=3)
    narrow = compare.Comparison({k: v[:6] for k, v in found.table.items()}, {})
    with pytest.raises(ValueError, match=r"slope needs at least two widths, got \(12,\)"):
        narrow.slope("loss")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"widths": []}, "widths must hold at least one width, got none"),
        ({"widths": [0]}, "widths must be a whole number of at least 1, got 0"),
        ({"steps": 0}, "steps must be a whole number of at least 1, got 0"),
        ({"step_size": 0.0}, "step_size must be finite and positive, got 0"),
        ({"y_test": None}, "y_test must come with x_test, got x_test alone"),
        ({"x_test": None}, "y_test must come with x_test, got y_test alone"),
        ({"x_test": np.ones((4, 2, D))}, r"x_test must have sequences like those of x, \(3, 2\)"),
        ({"y_test": np.ones((3, 1))}, "y_test: y must hold a label for each sequence"),
        ({"y": np.ones(3)}, "y must hold a label for each sequence"),
    ],
)
def test_bad_input_is_named(changes, message):
    names = ("x", "y", "x_test", "y_test")
    arguments = {"rnn": RNN, "key": KEY} | dict(zip(names, problem(), strict=True)) | SETTINGS
    with pytest.raises(ValueError, match=message):
        compare.with_kernel(**arguments | changes)


def test_an_interrupt_keeps_the_widths_that_are_finished(monkeypatch, tmp_path):
    x, y, *_ = (v.astype(np.float32) for v in problem())
    settings, traced = SETTINGS | {"checkpoint": tmp_path}, []
    flipped = measures.Measures.flipped
    counted = lambda *arguments: traced.append(0) or flipped(*arguments)  # noqa: E731
    monkeypatch.setattr(measures.Measures, "flipped", counted)
    want = compare.with_kernel(RNN, KEY, x, y, **SETTINGS)
    programs = len(traced)
    run, widths = descent.on_members, []

    def interrupted(call, *arguments):
        if call is descent.draw:
            widths.append(arguments[1][2][0])
        if widths[-1:] == [24] and call is descent.advance_stored:
            raise KeyboardInterrupt
        return run(call, *arguments)

    monkeypatch.setattr(descent, "on_members", interrupted)
    with pytest.warns(RuntimeWarning, match="interrupted"):
        part = compare.with_kernel(RNN, KEY, x, y, **settings)
    assert part.widths == (12,)
    monkeypatch.setattr(descent, "on_members", run)
    again = compare.with_kernel(RNN, KEY, x, y, **settings)
    for name, column in want.table.items():
        np.testing.assert_array_equal(again.table[name], column)
    assert 0 < programs == len(traced)  # those of the first call serve the others
    assert "error" not in again.table  # no test sequences: gaps are on those trained on


# Off criticality, where kernels of narrow networks are less heavy-tailed than at w_std^2 = 2.
CALM = {"w_std": 1.0, "u_std": 1.0}


def digits():
    """Odd digits from even ones."""
    train, test = datasets.split(datasets.load(("digits",)), 24, n_test=16)
    y, y_test = (2.0 * (part.y % 2) - 1 for part in (train, test))
    return train.x.astype(np.float32), y, test.x.astype(np.float32), y_test


def synthetic():
    x = np.random.default_rng(0).standard_normal((40, 6, 4)).astype(np.float32) / 2
    y = np.tanh(x.sum(axis=2).mean(axis=1))
    return x[:24], y[:24], x[24:], y[24:]


TASKS = pytest.mark.parametrize("task", [digits, synthetic])


@pytest.mark.slow
@TASKS
def test_in_the_lazy_regime_the_gap_to_the_kernel_falls_like_one_over_the_root_of_width(task):
    found = compare.with_kernel(
        ElmanRNN(**CALM),
        KEY,
        *task(),
        widths=[64, 128, 256, 512, 1024, 2048],
        steps=40,
        seeds=8,
        step_size=0.1,
        record=[40],
    )
    assert abs(found.slope("gap_infinite").value + 0.5) < 0.15
    assert (found.table["diverged"] == 0).all()
    assert np.median(found.column("gap_infinite")[-1]) < 0.1


@pytest.mark.slow
@TASKS
def test_narrow_networks_are_not_their_kernel(task):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of networks that diverge
        found = compare.with_kernel(
            ElmanRNN(**CALM), KEY, *task(), widths=[2, 4, 8], steps=40, seeds=64, record=[40]
        )
    # A quarter of the labels and more, however the steps: it falls as it should, from far above.
    assert (np.nanmedian(found.column("gap_infinite"), axis=1) > 0.2).all()


@pytest.mark.slow
@TASKS
@pytest.mark.parametrize(
    ("scale", "step_size"), [(1.0, 1.8), (0.03, 0.1)], ids=["large step", "small output scale"]
)
def test_elsewhere_it_does_not(task, scale, step_size):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of networks that diverge
        found = compare.with_kernel(
            ElmanRNN(v_std=scale, **CALM),
            KEY,
            *task(),
            widths=[64, 128, 256, 512],
            steps=40,
            seeds=8,
            step_size=step_size,
            record=[40],
        )
    assert abs(found.slope("gap_infinite").value + 0.5) > 0.15
