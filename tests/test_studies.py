"""The studies repeat from their keys: one part of each, anew, against the numbers that are kept."""

import importlib
import json
import sys
from pathlib import Path

import jax
import pytest

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
