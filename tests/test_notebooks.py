"""Every notebook runs from top to bottom, in a process of its own as a reader's would."""

from pathlib import Path

import pytest
from scripts import assert_runs

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.py"))


def test_notebooks_are_found() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_without_warnings(path: Path, tmp_path: Path) -> None:
    assert_runs(path, tmp_path, "error")
