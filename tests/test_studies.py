"""The studies repeat from their keys: one part of each, anew, against the numbers that are kept."""

import importlib
import itertools
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from rnntk import ElmanRNN, infinite_kernel

STUDIES = Path(__file__).parent.parent / "benchmarks" / "studies"
PARTS = {
    "additive": "sin, unit tokens",
    "complexity": "first token, linear",
    "distant_tokens": "unit tokens",
    "joint": "N = 1, span 0",
    "negative": "N = 1, the last",
    "per_token": "unit tokens, width 64",
    "sgd_risk": "MAML, power law",
}


def test_every_study_is_listed_and_kept():
    names = {path.stem for path in STUDIES.glob("*.py")} - {"common"}
    assert names == set(PARTS)
    for name, part in PARTS.items():
        kept = json.loads((STUDIES / "results" / f"{name}-quick.json").read_text())
        assert part in kept["parts"]
        assert {"device", "jax"} <= set(kept["environment"])


@pytest.mark.usefixtures("x64")
def test_the_cost_of_the_first_token_for_the_mean_readout(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(STUDIES), *sys.path])
    study = importlib.import_module("distant_tokens")
    length, step = 3, 1e-5
    rnn = ElmanRNN(readout="mean")
    x = np.zeros((2, length, 2 * length))
    x[0, :, :length], x[1, :, length:] = np.eye(length), np.eye(length)

    def kernel(place, value):
        seen = x.copy()  # all tokens orthogonal, but one of each sequence
        seen[1, place[1]] = value * x[0, place[0]] + np.sqrt(1 - value**2) * x[1, place[1]]
        return float(infinite_kernel(rnn, seen).ntk[0, 1])

    places = list(itertools.product(range(length), repeat=2))
    slopes = [(kernel(place, step) - kernel(place, -step)) / (2 * step) for place in places]
    matrix = np.reshape(slopes, (length, length))
    np.testing.assert_allclose(study.mean_weights(length), matrix, rtol=1e-8, atol=1e-9)
    own = float(infinite_kernel(rnn, x[:1]).ntk[0, 0])
    # the smallest norm of a function whose coefficient at the first token is 1
    coefficients = np.linalg.inv(matrix) @ np.eye(length)[0]
    norm = coefficients @ matrix @ coefficients
    assert study.mean_weight(length) == pytest.approx(1 / (norm * own), rel=1e-8)


def test_a_weight_below_the_smallest_float_costs_infinity(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(STUDIES), *sys.path])
    study = importlib.import_module("distant_tokens")
    lengths = [4, 8, 16, 32, 64]
    weights = dict(zip(lengths, [*np.exp(-np.array(lengths[:4])), 0.0], strict=True))
    monkeypatch.setattr(study, "weight", lambda rnn, norms, fixed, at: weights[len(norms)])
    found = study.curve(lengths, {})
    assert found["cost"][-1] == np.inf
    assert found["laws"]["exponential"] == "1 exp(1 L)"  # of the lengths before


def same(one, two):
    """Numbers to 1e-3, the scatter of float32 training between machines; all else exactly."""
    if isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            same(one[key], two[key])
    elif isinstance(one, list):
        assert len(one) == len(two)
        for a, b in zip(one, two, strict=True):
            same(a, b)
    elif isinstance(one, float):
        assert one == pytest.approx(two, rel=1e-3)
    elif not isinstance(one, str) or one in ("inf", "nan"):  # formulas round
        assert one == two


@pytest.mark.slow
@pytest.mark.parametrize("name", PARTS)
def test_a_part_repeats(name, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(STUDIES), *sys.path])
    study, common = (importlib.import_module(module) for module in (name, "common"))
    with jax.enable_x64(True):
        found = common.plain(study.parts(False)[PARTS[name]]())
    kept = json.loads((STUDIES / "results" / f"{name}-quick.json").read_text())
    same(found, kept["parts"][PARTS[name]])
