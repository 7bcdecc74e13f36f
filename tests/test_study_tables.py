"""The tables of docs/studies.md say what the kept results say, to their last digit."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "studies.md").read_text()


def parts(name):
    kept = json.loads((ROOT / f"benchmarks/studies/results/{name}-quick.json").read_text())
    return kept["parts"]


def table(first, which=0):
    """Rows by their first cell, of a table whose first header cell begins with ``first``."""
    found = re.findall(rf"^(\| ?{re.escape(first)}.*\n\|[-|]+\|\n(?:\|.*\n)+)", PAGE, re.MULTILINE)
    lines = [line.strip().strip("|").split("|") for line in found[which].splitlines()]
    cells = [[cell.strip() for cell in line] for line in lines]
    return cells[0][1:], {row[0]: row[1:] for row in cells[2:]}


def says(cell, value):
    """A cell is a value in its own number of digits; a dash or ``more than`` is infinity."""
    if cell == "-" or cell.startswith("more than"):
        assert math.isinf(value), (cell, value)
        return
    mantissa, _, power = cell.partition("e")
    whole, _, decimals = mantissa.partition(".")
    unit = 10.0 ** (int(power or 0) - len(decimals))
    if not decimals and not power:
        unit = 10.0 ** max(0, len(whole) - 3)  # 12600 has three digits
    assert abs(float(cell) - value) <= 0.5 * unit * (1 + 1e-9), (cell, value)


def say(cells, values):
    for cell, value in zip(cells, np.array(values, float), strict=True):
        says(cell, value)


def means(part, name, lengths):
    at = [part["lengths"].index(length) for length in lengths]
    return np.array(part["intervals"][name], float)[at, 0]


SETTINGS = {
    "linear, unit tokens": "identity, unit tokens",
    "linear, fixed tokens, norm 1": "identity, fixed tokens, eps = 1",
    "linear, fixed tokens, norm 0.1": "identity, fixed tokens, eps = 0.1",
    "linear, fixed tokens, norm 0.01": "identity, fixed tokens, eps = 0.01",
    "linear, unit tokens, {math}`w^2 = 2.5`": "identity, unit tokens, w^2 = 2.5",
    "sin, unit tokens": "sin, unit tokens",
}
LEARNERS = {
    "kernel regression": "kernel",
    "network, one pass": "network",
    "linearized network, one pass": "linearized",
    "Gaussian features, exact": "exact",
    "Theorem 2.1: enough": "upper",
    "the quadratic form: enough": "rademacher",
}


def test_sums_over_positions():
    found = parts("additive")
    rows = table("target, setting")[1]
    assert rows.keys() == SETTINGS.keys()
    for name, cells in rows.items():
        part = found[SETTINGS[name]]
        say(cells[:-1], means(part, "kernel", [1, 2, 4, 8, 16, 32, 64]))
        law = part["laws"]["kernel"]
        assert cells[-1].split(" by ")[0].endswith("stretched")
        assert law["best"] == "stretched exponential"
        says(cells[-1].split(" by ")[1].split(":")[0], law["margin"])
    rows = table("samples at L =")[1]
    assert rows.keys() == LEARNERS.keys()
    for name, cells in rows.items():
        say(cells, means(found["networks"], LEARNERS[name], [1, 2, 4, 8]))


def test_functions_of_several_positions():
    found = parts("joint")
    spans, rows = table("N, span")
    for name, cells in rows.items():
        for span, cell in zip(spans, cells, strict=True):
            key = f"{name}, span {span}"
            if name.startswith("one"):
                key = "N = 1, span 0" if span == "0" else f"one token, {span} before the end"
            assert bool(cell) == (key in found)
            if cell:
                says(cell, float(found[key]["samples"][0]))


TOKENS = {
    "unit tokens": "unit tokens",
    "{math}`w^2 = 1.8`": "w^2 = 1.8",
    "{math}`w^2 = 2.1`": "w^2 = 2.1",
    "{math}`w^2 = 2.5`": "w^2 = 2.5",
    "fixed first token, the others of norm 1": "fixed token, eps = 1",
    "... of norm 0.1": "fixed token, eps = 0.1",
    "... of norm 0.01": "fixed token, eps = 0.01",
    "... of norm {math}`L^{-3/2}`": "fixed token, eps = L^-1.5",
    "mean readout": "mean readout",
    "W alone trained": "only W",
    "U alone, and V alone": "only U",
    "erf, {math}`w^2 = 1`": "erf, w^2 = 1",
}


def test_distant_tokens():
    found = parts("distant_tokens")
    rows = table("setting | best law")[1]
    assert rows.keys() == TOKENS.keys()
    for name, (best, margin, _, cost) in rows.items():
        part = found[TOKENS[name]]
        assert best == part["best"]
        say([margin, cost], [part["margin"], part["cost"][-1]])
    np.testing.assert_allclose(found["only U"]["cost"], found["only V"]["cost"], rtol=1e-9)


def test_forms_and_capacities():
    found = parts("complexity")
    for name, cells in table("target | L = 2")[1].items():
        say(cells[:-1], found[name]["forms"])
        best, margin = re.search(r"(\w+) by ([\d.]+)$", cells[-1]).groups()
        law = found[name]["laws"]["bound"]
        assert law.startswith(best)
        says(margin, float(re.search(r" by ([\d.]+),", law)[1]))
    columns = ("test loss", "generalization", "rademacher", "local", "loss of zero")
    rows = table("n, L, d, width")[1]
    assert len(rows) == len(found["capacities"])
    for (name, cells), part in zip(rows.items(), found["capacities"], strict=True):
        at = [part["n"], part["L"], part["d"], part["width"] or "infinite"]
        assert name == ", ".join(map(str, at))
        say(cells, [part[column] for column in columns])


def test_per_token():
    found = parts("per_token")
    kinds = ["unit tokens"] * 3 + ["fixed tokens, eps = 0.3"] * 3
    rows = PAGE.split("| width, N |")[1].split("\n\n")[0]  # names repeat
    lines = re.findall(r"^\| .*?(\d+) \|(.*)\|$", rows, re.MULTILINE)
    for kind, (width, cells) in zip(kinds, lines, strict=True):
        errors = np.mean(found[f"{kind}, width {width}"]["errors"], axis=0)
        say([cell.strip() for cell in cells.split("|")], errors)


def test_risks():
    found = parts("sgd_risk")
    counts, rows = table("L = 8, N")
    one = found["L = 8"]
    at = [one["counts"].index(int(count)) for count in counts]
    kinds = ("upper", "kernel", "exact", "lower")
    for cells, kind in zip(rows.values(), kinds, strict=True):
        for cell, i in zip(cells, at, strict=True):
            if cell:
                says(cell, float(one[kind][i]))
            else:
                assert one[kind][i] == "nan"


def test_maml():
    found = parts("sgd_risk")
    rates, rows = table("rate a")
    power, kernel = found["MAML, power law"], found["MAML, features of the kernel"]
    at = [power["rates"].index(float(rate)) for rate in rates]
    for name, cells in rows.items():
        part = kernel if name.startswith("kernel") else power
        key, count = re.search(r", (\w+).*?(\d+)?$", name).groups()
        values = part["shape"] if key == "trace" else part[{"runs": "risk"}.get(key, key)]
        last = part["counts"].index(int(count)) if key in ("runs", "exact") else None
        say(cells, [values[i] if last is None else values[i][last] for i in at])


def test_parities():
    found = parts("negative")
    rows = table("samples | 32")[1]
    kept = [part for name, part in found.items() if name.startswith("N =")]
    for cells, part in zip(rows.values(), kept, strict=True):
        say(cells, part["errors"])
    cells = [row[0] for row in table("| test error")[1].values()]
    flow = found["v_std = 1"]
    values = [flow["kernel ridge"], min(flow["kernel"])]
    values += [min(map(float, found[f"v_std = {v}"]["network"])) for v in ("1", "0.3", "0.1")]
    say(cells, values)


def test_a_wrong_digit_is_seen():
    says("0.82", 0.8247)
    says("12600", 12551.0)
    with pytest.raises(AssertionError):
        says("0.83", 0.8247)
    with pytest.raises(AssertionError):
        says("-", 3.0)
