"""The text format of the time series archives."""

import numpy as np
import pytest
from written import HEADER, write

from rnntk import datasets

TS = """# a comment
@problemName made
@timeStamps false
@univariate false
@dimensions 2
@equalLength false
@classLabel true a b
@data
1,2,3:4,5,6:a

7:8:b
"""


def test_ts_of_several_channels_and_lengths(tmp_path):
    data = datasets.load(write(tmp_path, TS, "data.ts"))
    expected = [[[1, 4], [2, 5], [3, 6]], [[7, 8], [0, 0], [0, 0]]]
    np.testing.assert_array_equal(data.x, expected)
    assert data.lengths.tolist() == [3, 1]
    assert data.y.tolist() == ["a", "b"]


def test_ts_of_one_channel_targets_and_joined_files(tmp_path):
    head = "@univariate true\n@targetLabel true\n@data\n"
    one = write(tmp_path, head + "1,2:3\n4,5:6.5\n", "A_TRAIN.ts")
    two = write(tmp_path, head + "7,8:9\n", "A_TEST.ts")
    data = datasets.load([one, two])
    assert data.y.tolist() == [3.0, 6.5, 9.0]
    assert data.x[..., 0].tolist() == [[1, 2], [4, 5], [7, 8]]
    assert data.lengths is None
    numbered = TS.replace(":a", ":1.0").replace(":b", ":2.0").replace("true a b", "true 1 2")
    assert datasets.load(write(tmp_path, numbered, "c.ts")).classes.tolist() == ["1.0", "2.0"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("@data", "", "line 9: expected a line that begins with @, or @data, got '1,2,3:4,5,6:a'"),
        ("@classLabel true a b", "@classLabel false", "labels are needed, @classlabel true or"),
        ("@timeStamps false", "@timeStamps true", "time stamps are not read"),
        ("4,5,6", "4,5", "line 9: channel 2 has 2 steps where channel 1 has 3"),
        ("4,5,6", "4,?,6", "line 9: the value of channel 2 at step 2 is missing"),
        ("4,5,6", "4,5,NaN", "line 9: the value of channel 2 at step 3 is missing"),
        ("4,5,6", "4,5,x", "line 9: channel 2 at step 3 must be a finite number, got 'x'"),
        ("7:8:b", "7:b", "line 11: expected 2 channels as in the header, got 1"),
        ("7:8:b", "b", "line 11: expected channels and a label separated by colons, got none"),
        ("7:8:b", "7:8:", "line 11: y is empty"),
        ("1,2,3:4,5,6:a\n\n7:8:b\n", "", "no sequences below @data"),
        (
            "univariate false\n@dimensions 2",
            "univariate TRUE",
            "expected 1 channels as in the header",
        ),
        ("7:8:b", "7:8:c", "line 11: class 'c' is not declared; the line @classlabel has a, b"),
        ("7:8:b", "7:8:b,", "line 11: class 'b,' is not declared"),
        ("true a b", "false\n@targetLabel true", "line 10: y must be a finite number, got 'a'"),
    ],
)
def test_ts_refused(tmp_path, old, new, message):
    path = write(tmp_path, TS.replace(old, new), "data.ts")
    with pytest.raises(ValueError, match=f"data.ts.*{message}"):
        datasets.load(path)


def test_ts_with_a_line_of_an_at_sign_alone_and_odd_case(tmp_path):
    odd = TS.replace("@classLabel true", "@\n@CLASSLABEL\tTRUE").replace("@data", "@DATA")
    assert datasets.load(write(tmp_path, odd, "data.ts")).y.tolist() == ["a", "b"]


@pytest.mark.parametrize("targets", [("01", "+5"), ("1", "2"), ("1e2", "-3")])
def test_targets_are_numbers_however_they_are_written(tmp_path, targets):
    text = "@targetLabel true\n@data\n" + "".join(f"7:{target}\n" for target in targets)
    expected = [float(target) for target in targets]
    assert datasets.load(write(tmp_path, text, "data.ts")).y.tolist() == expected
    # as classes of either format they may be declared values
    classes = text.replace("targetLabel", "classLabel")
    found = datasets.load(write(tmp_path, classes, "data.ts"), task="regression")
    assert found.y.tolist() == expected
    rows = "".join(f"{i},0,0,1,{target}\n" for i, target in enumerate(targets))
    found = datasets.load(write(tmp_path, HEADER + rows), task="regression")
    assert found.y.tolist() == expected


def test_ts_with_classes_and_values_are_not_joined(tmp_path):
    one = write(tmp_path, TS, "one.ts")
    two = write(tmp_path, "@targetLabel true\n@data\n7:8:9\n", "two.ts")
    with pytest.raises(ValueError, match="files with classes and files with values"):
        datasets.load([one, two])
    three = write(tmp_path, "@classLabel true a b\n@data\n7:a\n", "three.ts")
    with pytest.raises(
        ValueError, match=r"three\.ts, line 3: expected 2 channels as in the sequences"
    ):
        datasets.load([one, three])
