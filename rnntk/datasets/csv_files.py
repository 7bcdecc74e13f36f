"""Tables in long format: one row for each step, in ``.csv`` files."""

import csv
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rnntk.datasets.dataset import Dataset, Task, checked
from rnntk.sequences import stacked

WHOLE = re.compile(r"[+-]?\d+")
PLAIN = re.compile(r"-?(0|[1-9]\d*)")  # whole numbers that are written in one way
CODE = re.compile(r"[\d_+-]+")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
LONGEST = 4000  # digits, of which Python reads no more than 4300 as a whole number
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
Label = tuple[str, str]  # its text, and where it stands


def read_csv(paths: Iterable[Path], name: str, task: Task | None) -> Dataset:
    """Sequences of several files, each of which numbers its own."""
    sequences: list[np.ndarray] = []
    labels: list[Label] = []
    for path in paths:
        for tokens, label in _read_one(path):
            if sequences and tokens.shape[1] != sequences[0].shape[1]:
                d, before = tokens.shape[1], sequences[0].shape[1]
                raise ValueError(
                    f"{path}: tokens have {d} columns x1..x{d}, those of the files before {before}."
                )
            sequences.append(tokens)
            labels.append(label)
    x, lengths = stacked(sequences)
    return checked(name, x, parse_labels(labels, task), lengths, task)


def _read_one(path: Path) -> list[tuple[np.ndarray, Label]]:
    """Tokens in the order of their steps, and label, of each sequence."""
    rows: dict[str, dict[int, list[float]]] = {}
    labels: dict[str, Label] = {}
    tokens: list[str] = []
    for where, row in _rows(path):
        tokens = tokens or [column for column in row if column[:1] == "x"]
        if not row["sequence"]:
            raise ValueError(f"{where}: sequence is empty; expected its name.")
        steps = rows.setdefault(row["sequence"], {})
        step = _number(int, row["step"], "step", where)
        if step in steps:
            raise ValueError(f"{where}: sequence {row['sequence']!r} has step {step} twice.")
        steps[step] = [
            _number(float, row[f"x{k}"], f"x{k}", where) for k in range(1, len(tokens) + 1)
        ]
        label = labels.setdefault(row["sequence"], (row["y"], where))[0]
        if row["y"] != label:
            raise ValueError(
                f"{where}: y is {row['y']!r} where earlier rows of sequence "
                f"{row['sequence']!r} have {label!r}; expected one label a sequence."
            )
    if not rows:
        raise ValueError(f"{path}: no rows below the header.")
    return [
        (np.array([steps[step] for step in sorted(steps)]), labels[sequence])
        for sequence, steps in rows.items()
    ]


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Where each row below the header stands, and its cells by column."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = iter(file)
            skipped, header = 0, ""
            for header in lines:
                if header.strip():
                    break
                skipped += 1
            separator = max(SEPARATORS, key=header.count)
            columns = [cell.strip() for cell in next(csv.reader([header], delimiter=separator), [])]
            _check_columns(path, columns, separator)
            reader = csv.reader(lines, delimiter=separator)
            for cells in reader:
                where = f"{path}, line {reader.line_num + skipped + 1}"
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) != len(columns):
                    raise ValueError(
                        f"{where}: expected {len(columns)} cells as in the header, separated by "
                        f"{SEPARATORS[separator]}, got {len(cells)}."
                    )
                yield where, {c: cell.strip() for c, cell in zip(columns, cells, strict=True)}
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not a text file in UTF-8.") from None
    except csv.Error as error:
        raise ValueError(f"{path}: not a .csv file ({error}).") from None


def _check_columns(path: Path, columns: list[str], separator: str) -> None:
    """Refuse a header that is not complete, or has more than it should."""
    d = max(1, sum(bool(re.fullmatch(r"x[1-9]\d*", column)) for column in columns))
    expected = ["sequence", "step", *(f"x{k}" for k in range(1, d + 1)), "y"]
    twice = [column for column in columns if column and columns.count(column) > 1]
    missing = [column for column in expected if column not in columns]
    unexpected = [column for column in columns if column not in expected]
    if twice:
        problem = f"column {twice[0]!r} is given twice"
    elif missing:
        problem = f"column {missing[0]!r} is missing"
    elif unexpected:
        place = columns.index(unexpected[0]) + 1
        problem = (
            f"column {place} is {unexpected[0]!r}, which is not expected"
            if unexpected[0]
            else f"column {place} has no name: an index, or a separator at the end of the line"
        )
    else:
        return
    found = SEPARATORS[separator]
    raise ValueError(
        f"{path}: {problem}; expected the header sequence,step,x1,...,xd,y, "
        + (f"got {separator.join(columns)} ({found}), " if columns else "got an empty file, ")
        + "cells separated by commas, semicolons or tabs."
    )


def _number(kind: type, cell: str, column: str, where: str) -> Any:
    # Python would read 1_5 as 15
    if (WHOLE if kind is int else NUMBER).fullmatch(cell) and len(cell) <= LONGEST:
        value = kind(cell)
        if kind is int or math.isfinite(value):
            return value
    wanted = "a whole number" if kind is int else "a finite number"
    raise ValueError(f"{where}: {column} must be {wanted}, got {cell!r}.")


def parse_labels(labels: list[Label], task: Task | None = None) -> np.ndarray:
    """Whole numbers, other numbers, or text; a mixture of numbers and text is refused.

    Whole numbers are classes, by their value if all are written in the one way that int64 has for
    them, else by their text: "01" and "1", or "1_1" and "11", are different. Labels of a
    regression are numbers, however they are written.
    """
    texts = [text for text, _ in labels]
    for text, where in labels:
        if not text:
            raise ValueError(f"{where}: y is empty; expected a label.")
    if task == "regression":
        return np.array([_number(float, text, "y", where) for text, where in labels])
    if all(PLAIN.fullmatch(text) and len(text) <= 20 for text in texts):
        try:
            return np.array([int(text) for text in texts], np.int64)
        except OverflowError:
            return np.array(texts)
    if all(CODE.fullmatch(text) for text in texts):
        return np.array(texts)
    numeric = [bool(NUMBER.fullmatch(text)) for text in texts]
    if all(numeric):
        return np.array([float(text) for text in texts])
    if any(numeric):
        text, where = labels[numeric.index(False)]
        raise ValueError(
            f"{where}: y is {text!r} where other sequences have numbers; expected all numbers "
            "or all text."
        )
    return np.array(texts)
