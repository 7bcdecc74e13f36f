"""Sequences as other libraries lay them out."""

import numpy as np
import pytest

from rnntk import layouts


def test_nan_padded():
    x = np.array([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [np.nan, np.nan]]])
    tokens, lengths = layouts.from_nan_padded(x)
    np.testing.assert_array_equal(tokens, [[[1, 2], [3, 4]], [[5, 6], [0, 0]]])
    assert lengths.tolist() == [2, 1]


def test_channels_first():
    x = np.arange(12.0).reshape(2, 2, 3)
    tokens, lengths = layouts.from_channels_first(x)
    np.testing.assert_array_equal(tokens, x.swapaxes(1, 2))
    assert lengths.tolist() == [3, 3]


class Frame(dict):
    """What a pandas frame does with a name, and with one that it does not have."""


def test_long_frame_against_a_loop():
    rng = np.random.default_rng(0)
    names = rng.choice(["b", "a", "c"], 50)
    step, one, two = rng.permutation(50), rng.normal(size=50), rng.normal(size=50)
    frame = Frame(name=names, step=step, one=one, two=two)
    tokens, lengths = layouts.from_long_frame(
        frame, sequence="name", columns=["two", "one"], step="step"
    )
    order = list(dict.fromkeys(names.tolist()))
    for i, name in enumerate(order):
        rows = sorted(np.flatnonzero(names == name), key=lambda r: step[r])
        expected = np.stack([two[rows], one[rows]], axis=1).astype(np.float32)
        assert lengths[i] == len(rows)
        np.testing.assert_array_equal(tokens[i, : len(rows)], expected)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: layouts.from_nan_padded(np.ones(3)), ValueError, r"got \(3,\)"),
        (
            lambda: layouts.from_nan_padded(np.array([[1.0], [np.nan]])),
            ValueError,
            "got NaN alone in sequence 1",
        ),
        (
            lambda: layouts.from_nan_padded(np.array([[1.0, np.nan, 2.0]])),
            ValueError,
            "got it at step 1 of sequence 0, whose last step is 2",
        ),
        (lambda: layouts.from_nan_padded(np.ones((2, 3), complex)), TypeError, "got complex128"),
        (
            lambda: layouts.from_nan_padded(np.ma.masked_array(np.ones((2, 3)), np.eye(2, 3))),
            ValueError,
            "no masked entries",
        ),
        (lambda: layouts.from_channels_first(np.ones((2, 3))), ValueError, r"x\[0\] must have"),
        (
            lambda: layouts.from_channels_first([np.ones((2, 3)), np.ones((1, 3))]),
            ValueError,
            "one token size",
        ),
        (
            lambda: layouts.from_long_frame({"a": [1]}, sequence="a", columns=[]),
            ValueError,
            "columns must list",
        ),
        (
            lambda: layouts.from_long_frame({"a": [1]}, sequence="b", columns=["a"]),
            ValueError,
            "frame must have the column 'b'",
        ),
        (
            lambda: layouts.from_long_frame(
                {"a": [1, 1], "s": [0, 0], "v": [1.0, 2.0]}, sequence="a", columns=["v"], step="s"
            ),
            ValueError,
            "got 0 twice for 1",
        ),
        (
            lambda: layouts.from_long_frame(
                {"a": [1, 1], "v": [1.0, np.nan]}, sequence="a", columns=["v"]
            ),
            ValueError,
            "column 'v' must have no missing values, got one in row 1",
        ),
        (
            lambda: layouts.from_long_frame({"a": [1, 1], "v": [1.0]}, sequence="a", columns=["v"]),
            ValueError,
            "must have 2 rows",
        ),
    ],
)
def test_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


FRAME = {"id": ["a", "a", "b"], "t": [1, 0, 0], "x": [1.0, 2.0, 3.0]}


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        (
            {"id": ["a", None, "b"]},
            ValueError,
            "'id' must have no missing values, got one in row 1",
        ),
        (
            {"id": [1.0, 2.0, np.nan]},
            ValueError,
            "'id' must have no missing values, got one in row 2",
        ),
        ({"id": [[1], [2], [3]]}, ValueError, r"'id' must have a row for each step, got \(3, 1\)"),
        (
            {"id": [], "t": [], "x": []},
            ValueError,
            r"'id' must have a row for each step, got \(0,\)",
        ),
        ({"t": [1, 0]}, ValueError, r"'t' must have 3 rows, got \(2,\)"),
        (
            {"t": [1.0, np.nan, 0.0]},
            ValueError,
            "'t' must have no missing values, got one in row 1",
        ),
        ({"t": [1, None, 0]}, ValueError, "'t' must have no missing values, got one in row 1"),
        (
            {"t": np.array(["2020", "NaT", "2021"], "datetime64[D]")},
            ValueError,
            "'t' must have no missing values, got one in row 1",
        ),
        # as text 10 comes before 9
        ({"t": ["10", "9", "8"]}, TypeError, "'t' must be numbers or times, got <U2"),
        ({"x": [1.0, None, 2.0]}, TypeError, "column 'x' must be real numbers, got object"),
    ],
)
def test_columns_of_frames_refused(changed, error, message):
    with pytest.raises(error, match=message):
        layouts.from_long_frame({**FRAME, **changed}, sequence="id", columns=["x"], step="t")


@pytest.mark.parametrize(
    "changed",
    [
        {"id": np.array(["a", "a", 7], object)},
        {"t": np.array([1, 0, 0], object)},
        {"t": np.array(["2021", "2020", "2020"], "datetime64[D]")},
    ],
)
def test_names_and_steps_of_any_kind(changed):
    frame = {**FRAME, **changed}
    x, lengths = layouts.from_long_frame(frame, sequence="id", columns=["x"], step="t")
    assert x[..., 0].tolist() == [[2.0, 1.0], [3.0, 0.0]]
    assert lengths.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: layouts.from_nan_padded([[1.0, 2.0], [3.0]]),
            ValueError,
            "x must be one array, got",
        ),
        (lambda: layouts.from_nan_padded(np.ones((0, 3, 2))), ValueError, r"got \(0, 3, 2\)"),
        (
            lambda: layouts.from_nan_padded([[[1.0, 2.0, np.nan], [3.0, 4.0, np.nan]]]),
            ValueError,
            r"of \(sequences, channels, steps\) take x\.swapaxes\(1, 2\)",
        ),
        (
            lambda: layouts.from_channels_first(None),
            TypeError,
            "x must be an array or a list .* None",
        ),
        (
            lambda: layouts.from_channels_first([[[1.0, 2.0], [3.0]]]),
            ValueError,
            r"x\[0\] must be one array, got parts of unequal lengths",
        ),
    ],
)
def test_layouts_refused(call, error, message):
    with pytest.raises(error, match=f"(?i){message}"):
        call()
