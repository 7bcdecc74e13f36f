"""Loaders: what they read, and one message for everything they refuse."""

import io
import zipfile

import numpy as np
import pytest
from written import HEADER, arrays, save, write

from rnntk import datasets


def test_digits_are_scikit_learns_images_row_by_row():
    from sklearn.datasets import load_digits

    data, bunch = datasets.digits(), load_digits()
    np.testing.assert_array_equal(data.x * 16, bunch.images)
    np.testing.assert_array_equal(data.y, bunch.target)
    assert data.x.dtype == np.float64
    assert data.lengths is None
    assert data.is_classification


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (np.arange(12) % 3, True),
        (np.array(list("ab" * 6)), True),
        (np.arange(12) % 2 == 0, True),
        (np.arange(12) / 2, False),
        ((np.arange(12) % 2).astype(np.float32), False),
    ],
)
def test_the_dtype_of_labels_decides(tmp_path, y, classes):
    data = datasets.load(save(tmp_path, **arrays(y=y)))
    assert data.is_classification == classes
    np.testing.assert_array_equal(data.y, y)


def test_npz_is_float64_and_zero_past_each_length(tmp_path):
    x = np.ones((12, 3, 2), np.float32)
    x[0, 1:] = np.nan  # padding may hold anything
    lengths = np.array([1] + [3] * 11)
    data = datasets.load(str(save(tmp_path, **arrays(x=x, lengths=lengths))))
    assert data.x.dtype == np.float64
    np.testing.assert_array_equal(data.lengths, lengths)
    assert data.x[0].sum() == 2


def test_lengths_that_are_all_equal_are_none(tmp_path):
    assert datasets.load(save(tmp_path, **arrays(lengths=np.full(12, 3)))).lengths is None


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"x": np.ones((12, 3))}, r"x must have shape \(sequences, steps, token size\), got"),
        ({"x": np.ones((12, 0, 2))}, r"x must have shape .* got \(12, 0, 2\)"),
        ({"x": np.ones((12, 3, 2), complex)}, "x must be real numbers, got complex128"),
        ({"x": np.full((12, 3, 2), np.nan)}, r"x must be finite, got nan at .* \(0, 0, 0\)"),
        ({"x": np.array([[["a"]]] * 12)}, "x must be real numbers, got <U1"),
        ({"y": np.arange(5)}, r"y must hold one label for each of the 12 sequences.*got \(5,\)"),
        ({"y": np.ones((12, 1))}, r"shape \(12,\), got \(12, 1\)"),
        ({"y": np.full(12, np.inf)}, "y must be finite, got inf for sequence 0"),
        ({"y": np.ones(12, complex)}, r"y must be integers or text .* got complex128"),
        ({"y": np.ones(12, int)}, "y holds one label only, 1"),
        ({"y": np.ones(12)}, "y holds one label only, 1.0"),
        ({"y": np.arange(12)}, "a different class for each of the 12 .* floating point"),
        ({"lengths": np.ones(12)}, "lengths must be 12 integers.*float64"),
        ({"lengths": np.ones(3, int)}, r"lengths must be 12 integers.*shape \(3,\)"),
        ({"lengths": np.full(12, 4)}, r"lengths must lie in 1\.\.3.*got 4 to 4"),
        ({"lengths": np.arange(12)}, r"lengths must lie in 1\.\.3.*got 0 to 11"),
        ({"x": np.array([None, 1], object)}, "array 'x' holds pickled Python objects"),
        ({"y": np.array(["a", None], object)}, "array 'y' holds .* expected plain numbers or text"),
    ],
)
def test_npz_refused(tmp_path, replaced, message):
    path = save(tmp_path, **arrays(**replaced))
    with pytest.raises(ValueError, match=f"data.npz: .*{message}"):
        datasets.load(path)


@pytest.mark.parametrize("missing", ["x", "y"])
def test_npz_without_an_array(tmp_path, missing):
    kept = {key: value for key, value in arrays().items() if key != missing}
    with pytest.raises(ValueError, match=f"array '{missing}' is missing; expected x, y"):
        datasets.load(save(tmp_path, **kept))


@pytest.mark.parametrize("content", [b"", b"plain text", b"PK\x03\x04 cut off"])
def test_npz_that_is_no_archive(tmp_path, content):
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"not a \.npz archive.*; write one with numpy\.savez"):
        datasets.load(path)


def archive(save=np.savez):
    buffer = io.BytesIO()
    save(buffer, **arrays())
    return bytearray(buffer.getvalue())


def overwritten(content, start, new):
    content[start : start + len(new)] = new
    return bytes(content)


def encrypted():
    content = archive()
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + flags] |= 1
    return bytes(content)


def of_huge_shape():
    """An archive with right checksums, whose header claims 10^15 tokens."""
    array, buffer = io.BytesIO(), io.BytesIO()
    np.save(array, np.zeros((1, 1, 2)))
    claim = array.getvalue().replace(b"(1, 1, 2), }" + b" " * 15, b"(1%s, 1, 2), }" % (b"0" * 15))
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("x.npy", claim)
    return buffer.getvalue()


def compressed_by(method):
    content = archive()
    for mark, at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        content[content.index(mark) + at] = method
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        # Inside the data of x: the checksum fails.
        (overwritten(archive(), 200, b"\xff" * 16), "Bad CRC-32"),
        (overwritten(archive(np.savez_compressed), 80, b"\xff" * 16), "Error .* decompress"),
        (encrypted(), "is encrypted"),
        (of_huge_shape(), "Unable to allocate"),
        (compressed_by(99), "compression method is not supported"),
    ],
)
def test_npz_with_a_damaged_array(tmp_path, content, reason):
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"data.npz: array 'x' cannot be read \(.*({reason})"):
        datasets.load(path)


def test_npz_with_a_damaged_directory_or_something_before_it(tmp_path):
    content = archive()
    damaged = overwritten(archive(), content.index(b"PK\x01\x02"), b"\xff" * 8)
    path = tmp_path / "data.npz"
    for wrong in (damaged, b"junk" + bytes(content)):
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match=r"data.npz: not a \.npz archive, or a damaged one"):
            datasets.load(path)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], "got nothing"),
        ("missing.npz", "missing.npz: no such file"),
        ("missing.csv", "missing.csv: no such file"),
        ("data.txt", r"data must be digits, or files that end in \.npz, \.npy, \.csv, \.ts"),
        (["digits", "a.csv"], "digits: data must be digits"),
    ],
)
def test_paths_refused(paths, message):
    with pytest.raises(ValueError, match=message):
        datasets.load(paths)


def test_folder_and_joined_npz_refused(tmp_path):
    folder = tmp_path / "folder.npz"
    folder.mkdir()
    with pytest.raises(ValueError, match="expected a file, found a folder"):
        datasets.load(folder)
    path = save(tmp_path, **arrays())
    with pytest.raises(ValueError, match=r"only \.csv or \.ts files can be joined"):
        datasets.load([path, path])


def test_csv_sorts_steps_pads_and_joins_files(tmp_path):
    one = write(tmp_path, HEADER + "a,2,5,6,u\na,1,3,4,u\n\nb,7,1,2,v\n", "one.csv")
    two = write(tmp_path, "y,x2,x1,step,sequence\nv,9,8,0,a\n", "two.CSV")
    data = datasets.load([one, two])
    np.testing.assert_array_equal(data.x, [[[3, 4], [5, 6]], [[1, 2], [0, 0]], [[8, 9], [0, 0]]])
    np.testing.assert_array_equal(data.lengths, [2, 1, 1])
    np.testing.assert_array_equal(data.y, ["u", "v", "v"])
    assert data.name == "one.csv + two.CSV"


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ("112", "i"),
        (("1", "2.5", "1"), "f"),
        (("a", "b", "b"), "U"),
        (("9" * 5000, "1", "1"), "U"),  # of more digits than Python reads
        (("9" * 19, "1", "1"), "U"),  # whole numbers beyond int64 are classes too
        (("1_1", "11", "11"), "U"),  # which Python reads as one number
        (("01", "1", "1"), "U"),
        (("-1", "1", "1"), "i"),
        (("1e2", "100", "3"), "f"),
    ],
)
def test_csv_labels(tmp_path, labels, kind):
    rows = "".join(f"{i},0,0,1,{label}\n" for i, label in enumerate(labels))
    found = datasets.load(write(tmp_path, HEADER + rows)).y
    assert found.dtype.kind == kind
    if kind == "U":
        assert found.tolist() == list(labels)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv_separators_blank_lines_and_spaces(tmp_path, separator):
    lines = ["", "  ", HEADER.strip(), "a,1,3, 4,u", " , , , , ", "", "b,7,1,2,v"]
    text = "\n".join(lines).replace(",", separator)
    data = datasets.load(write(tmp_path, text))
    np.testing.assert_array_equal(data.x, [[[3, 4]], [[1, 2]]])


def test_declared_tasks(tmp_path):
    path = save(tmp_path, **arrays(y=np.arange(12) % 3))
    assert datasets.load(path).is_classification
    values = datasets.load(path, task="regression")
    assert not values.is_classification
    np.testing.assert_array_equal(values.y, np.arange(12) % 3)
    path = save(tmp_path, **arrays(y=np.arange(12) % 3 * 1.0))
    assert datasets.load(path, task="classification").classes.tolist() == [0, 1, 2]
    images = datasets.load("digits", task="regression")
    assert not images.is_classification
    np.testing.assert_array_equal(images.y, datasets.digits().y)
    with pytest.raises(ValueError, match=r"task must be one of .* got 'ranking'"):
        datasets.load(path, task="ranking")
    for y, task, message in (
        (np.array(list("ab" * 6)), "regression", "y must be numbers for a regression, got text"),
        (np.arange(12) / 2, "classification", r"y must be whole numbers or text .* got 0\.5"),
        # int64 has neither
        (np.arange(12) % 2 * 1e300, "classification", r"must be whole numbers .* got 1e\+300"),
        (np.tile([np.inf, 1], 6), "classification", "must be whole numbers or text .* got inf"),
    ):
        with pytest.raises(ValueError, match=message):
            datasets.load(save(tmp_path, **arrays(y=y)), task=task)


def test_npy_pairs_in_any_order(tmp_path):
    made = arrays()
    for name in ("x", "y"):
        np.save(tmp_path / f"{name}.npy", made[name])
    np.save(tmp_path / "one.npy", made["x"][..., 0])
    x, y, one = (tmp_path / f"{name}.npy" for name in ("x", "y", "one"))
    for pair in ((x, y), (y, x)):
        np.testing.assert_array_equal(datasets.load(pair).x, made["x"])
    np.testing.assert_array_equal(datasets.load([one, y]).x, made["x"][..., :1])
    for wrong in ([x], [x, one], [x, y, one]):
        with pytest.raises(ValueError, match=r"\.npy files come in pairs.*x\.npy \(12, 3, 2\)"):
            datasets.load(wrong)
    x.write_bytes(b"not an array")
    with pytest.raises(ValueError, match=r"x\.npy: not a \.npy file, or a damaged one"):
        datasets.load([x, y])


def test_layout_of_other_libraries_is_pointed_out(tmp_path):
    with pytest.warns(UserWarning, match=r"\(12, 3, 64\) is read as \(sequences, steps, token"):
        datasets.load(save(tmp_path, **arrays(d=64)))
    x = np.ones((12, 3, 2))
    x[0, 1:] = np.nan
    path = save(tmp_path, **arrays(x=x))
    with pytest.raises(ValueError, match=r"converted by rnntk\.layouts\.from_nan_padded"):
        datasets.load(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'sequence' is missing.*got an empty file"),
        ("sequence,step,x1\n", "column 'y' is missing; expected the header sequence,step,x1"),
        ("sequence,step,x1,x3,y\n", "column 'x2' is missing"),
        ("sequence,step,x1,x1,y\n", "column 'x1' is given twice"),
        (",sequence,step,x1,y\n", "column 1 has no name: an index, or a separator at the end"),
        ("sequence,step,x1,y,\n", "column 5 has no name"),
        ("sequence,step,x1,day,y\n", "column 4 is 'day', which is not expected"),
        ("sequence;step;x1;x2\n", r"column 'y' is missing.*got sequence;step;x1;x2 \(semicolons"),
        (HEADER + "a,0,1_5,2,1\nb,0,1,2,0\n", "line 2: x1 must be a finite number, got '1_5'"),
        ("\n\n" + HEADER + "a,0,1,oops,1\n", "line 4: x2 must be a finite number, got 'oops'"),
        (HEADER, "no rows below the header"),
        (HEADER + "a,0,1,2,1\n ,0,1,2,0\n", "line 3: sequence is empty; expected its name"),
        (HEADER + "a,0,1,2\n", "line 2: expected 5 cells .* header, separated by commas, got 4"),
        (HEADER + f"a,{'9' * 5000},1,2,1\n", "line 2: step must be a whole number, got '99"),
        (HEADER + "a,0,1,2,1\nb,0,oops,2,1\n", "line 3: x1 must be a finite number, got 'oops'"),
        (HEADER + "a,0,1,nan,1\n", "line 2: x2 must be a finite number, got 'nan'"),
        (HEADER + "a,0.5,1,2,1\n", "line 2: step must be a whole number, got '0.5'"),
        (HEADER + "a,0,1,2,1\na,0,1,2,1\n", "line 3: sequence 'a' has step 0 twice"),
        (HEADER + "a,0,1,2,1\na,1,1,2,2\n", "line 3: y is '2' where earlier rows .* have '1'"),
        (HEADER + "a,0,1,2,\nb,0,1,2,1\n", "line 2: y is empty"),
        (HEADER + "a,0,1,2,1\nb,0,1,2,u\n", "line 3: y is 'u' where other sequences have numbers"),
        (HEADER + "a,0,1,2,1\nb,0,1,2,1\n", "y holds one label only"),
    ],
)
def test_csv_refused(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match=f"data.csv.*{message}"):
        datasets.load(path)


def test_csv_files_of_different_token_sizes(tmp_path):
    one = write(tmp_path, HEADER + "a,0,1,2,1\n", "one.csv")
    two = write(tmp_path, "sequence,step,x1,y\na,0,1,2\n", "two.csv")
    with pytest.raises(ValueError, match=r"two.csv: tokens have 1 columns x1\.\.x1.*before 2"):
        datasets.load([one, two])


def test_csv_that_is_binary(tmp_path):
    path = tmp_path / "data.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not a text file in UTF-8"):
        datasets.load(path)
