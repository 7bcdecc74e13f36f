"""The text format of the time series archives, ``.ts``, as sktime and aeon write it.

Lines that begin with ``@`` describe the data; behind ``@data`` each line is a sequence: the values
of each channel, separated by commas, channels by colons, and the label at the end.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from rnntk.datasets.csv_files import NUMBER, parse_labels
from rnntk.datasets.dataset import Dataset, Task, checked
from rnntk.sequences import stacked

Line = tuple[str, str]  # where it stands, and its text


def read_ts(paths: Iterable[Path], name: str, task: Task | None) -> Dataset:
    """Sequences of several files of one kind, such as training and test part of an archive."""
    sequences: list[np.ndarray] = []
    labels: list[Line] = []  # without what stands before
    values = set()
    for path in paths:
        lines = _lines(path)
        header = _header(path, lines)
        values.add(_has_values(path, header))
        found = len(sequences)
        for where, text in lines:
            *channels, label = text.split(":")
            sequences.append(_sequence(where, channels))
            labels.append((label.strip(), where))
            _check_declared(where, header, sequences[-1].shape[1], label.strip())
            if sequences[-1].shape[1] != sequences[0].shape[1]:
                raise ValueError(
                    f"{where}: expected {sequences[0].shape[1]} channels as in the sequences "
                    f"before, got {sequences[-1].shape[1]}."
                )
        if len(sequences) == found:
            raise ValueError(f"{path}: no sequences below @data.")
    if len(values) > 1:
        raise ValueError(f"{name}: files with classes and files with values cannot be joined.")
    y = parse_labels(labels, "regression" if values == {True} else task)
    if values == {False} and y.dtype.kind == "f" and task is None:
        y = np.array([text for text, _ in labels])  # class labels such as 1.0, by their text
    x, lengths = stacked(sequences)
    return checked(name, x, y, lengths, task)


def _check_declared(where: str, header: dict[str, list[str]], channels: int, label: str) -> None:
    """Refuse what contradicts the header: another number of channels, an unknown class."""
    declared = header.get("dimensions") or ["1"] * (header.get("univariate") == ["true"])
    if declared and declared[0] != str(channels):
        raise ValueError(
            f"{where}: expected {declared[0]} channels as in the header, got {channels}."
        )
    classes = header.get("classlabel", [])[1:]
    if classes and label and label not in classes and not _is_among(label, classes):
        raise ValueError(
            f"{where}: class {label!r} is not declared; the line @classlabel has "
            f"{', '.join(classes)}."
        )


def _is_among(label: str, classes: list[str]) -> bool:
    """Whether a class is the number that another text declares, as 1.0 is 1."""
    numbers = {float(text) for text in classes if NUMBER.fullmatch(text)}
    return bool(NUMBER.fullmatch(label)) and float(label) in numbers


def _lines(path: Path) -> Iterator[Line]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                text = line.strip()
                if text and not text.startswith("#"):
                    yield f"{path}, line {number}", text
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not a text file in UTF-8.") from None


def _header(path: Path, lines: Iterator[Line]) -> dict[str, list[str]]:
    """The words behind each ``@`` up to ``@data``; the first two in lower case."""
    found: dict[str, list[str]] = {}
    for where, text in lines:
        if not text.startswith("@"):
            raise ValueError(
                f"{where}: expected a line that begins with @, or @data, got {text!r}."
            )
        word, *rest = text[1:].split() or [""]
        if word.lower() == "data":
            return found
        found[word.lower()] = [first.lower() for first in rest[:1]] + rest[1:]
    raise ValueError(f"{path}: no line @data; expected a file in the .ts format.")


def _has_values(path: Path, header: dict[str, list[str]]) -> bool:
    """Whether labels are values (``@targetlabel true``) rather than classes."""
    if header.get("timestamps", ["false"])[0] == "true":
        raise ValueError(
            f"{path}: time stamps are not read; write the values alone, with @timestamps false."
        )
    classes, values = (header.get(key, ["false"])[0] for key in ("classlabel", "targetlabel"))
    if "true" not in (classes, values):
        raise ValueError(
            f"{path}: labels are needed, @classlabel true or @targetlabel true, got neither."
        )
    return values == "true"


def _sequence(where: str, channels: list[str]) -> np.ndarray:
    """Tokens, shape (steps, channels)."""
    if not channels:
        raise ValueError(f"{where}: expected channels and a label separated by colons, got none.")
    rows = [[cell.strip() for cell in channel.split(",")] for channel in channels]
    for k, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            raise ValueError(
                f"{where}: channel {k} has {len(row)} steps where channel 1 has {len(rows[0])}; "
                "channels of one sequence must be equally long."
            )
        for step, cell in enumerate(row, 1):
            if cell == "?" or cell.lower() == "nan":
                raise ValueError(
                    f"{where}: the value of channel {k} at step {step} is missing; fill it in, or "
                    "leave the sequence out."
                )
            if not NUMBER.fullmatch(cell) or not np.isfinite(float(cell)):
                raise ValueError(
                    f"{where}: channel {k} at step {step} must be a finite number, got {cell!r}."
                )
    return np.array(rows, np.float64).T
