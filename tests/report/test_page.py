"""The page: its figures, and what it says of the numbers."""

import base64
import dataclasses
import shutil
import subprocess

import numpy as np
import pytest
from pages import FIGURES, Page

from rnntk.report import page, pipeline, words
from rnntk.report.results import Convergence
from rnntk.report.settings import Settings


def test_page_holds_every_figure_and_says_what_is_seen(folder, results):
    found = Page((folder / "report.html").read_text())
    assert set(found.images) == set(found.captions) == FIGURES
    assert found.open == []
    assert found.links == []
    for values in found.images.values():
        svg = base64.b64decode(values["src"].split("base64,")[1])
        assert b"<svg" in svg
        assert values["alt"]
    captions = found.captions
    assert (
        words.number(results["spectrum"]["min_eigenvalue"]["value"], 6)
        in (captions["min_eigenvalue"])
    )
    slope = results["widths"]["kinds"]["ntk_unit_diagonal"]["slope"]
    assert f"{abs(slope):.2f}" in captions["convergence"]
    assert f"{100 * results['predictions']['methods']['NTK']['score']:.1f}%" in captions["scores"]


def test_page_in_a_browser(folder, tmp_path):
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    if browser is None:
        pytest.skip("no Chromium on this machine")
    done = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            (folder / "report.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert set(Page(done.stdout).images) == FIGURES


def with_shape(finished, name, **changes):
    kinds = dict(finished.widths.kinds)
    kinds[name] = dataclasses.replace(kinds[name], **changes)
    return dataclasses.replace(finished, widths=dataclasses.replace(finished.widths, kinds=kinds))


def shown(results):
    return page.html(results, dict.fromkeys(FIGURES, "data:,"), "rnntk report")


def test_page_escapes_names(finished):
    data = {**finished.data, "name": "<b>&.csv"}
    assert "<b>&" not in shown(dataclasses.replace(finished, data=data))


@pytest.mark.parametrize(
    ("slope", "error", "said"),
    [(-0.5, 0.1, True), (-0.5, 0.3, False), (0.2, 0.1, False), (-0.5, None, False)],
)
def test_page_says_approach_only_where_it_is_seen(finished, slope, error, said):
    changed = with_shape(finished, "ntk_unit_diagonal", slope=slope, slope_standard_error=error)
    text = shown(changed)
    assert ("approaches its limit" in text) == said
    assert ("the slope is not negative" in text) == (not said and error is not None)


@pytest.mark.parametrize(("slope", "said"), [(-0.45, False), (0.1, True)])
def test_page_explains_a_slope_far_from_theory(finished, slope, said):
    assert ("heavy-tailed" in shown(with_shape(finished, "nngp", slope=slope))) == said


def test_page_says_what_is_not_defined(finished):
    lost = np.full((3, 2), np.nan)
    none = Convergence(lost, lost[:, 0], None, None)
    widths = dataclasses.replace(
        finished.widths,
        kinds=dict.fromkeys(finished.widths.kinds, none),
        trace_over_limit=lost,
        overflowed=(2, 2, 2),
    )
    text = shown(dataclasses.replace(finished, widths=widths))
    assert "the trace alone is not defined times" in text
    assert "2 of width 16, 2 of width 32, 2 of width 64" in text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.5, "50.0%"),
        (-21443306467369627409637.0, "−2.14×10²⁴%"),
        (1e-7, "1×10⁻⁵%"),
        (float("inf"), "not defined"),
        (0.0, "0.0%"),
    ],
)
def test_percentages_stay_short(value, expected):
    assert words.percent(value) == expected


def test_command_quotes_paths():
    settings = Settings(data=("my data.csv",), n=9, widths=(8,), seeds=1, out="an out")
    expected = "rnntk report --data 'my data.csv' --n 9 --widths 8 --seeds 1 --out 'an out'"
    assert pipeline.command(settings) == expected
