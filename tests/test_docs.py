"""The pages of the documentation: their code runs, their links lead somewhere, none is missing."""

import re
from pathlib import Path

import pytest
from scripts import assert_runs

import rnntk

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path
    for path in (ROOT / "docs").rglob("*.md")
    if path.relative_to(ROOT / "docs").parts[0] not in {"_build", "api", "notebooks", "results"}
)
# Made when the documentation is built, or by it.
MADE = {"notebooks", "api", "results"}


def blocks(path: Path) -> list[str]:
    """Python code between fences."""
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)


def name(path: Path) -> str:
    """A page by its place."""
    return path.relative_to(ROOT).as_posix()


WITH_CODE = [path for path in (ROOT / "README.md", *PAGES) if blocks(path)]


def test_pages_with_code_are_found() -> None:
    assert {"README.md", "docs/getting_started.md", "docs/what_is_the_ntk.md"} <= set(
        map(name, WITH_CODE)
    )


@pytest.mark.parametrize("path", WITH_CODE, ids=name)
def test_code_runs_from_top_to_bottom(path: Path, tmp_path: Path) -> None:
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks(path)))
    assert_runs(script, tmp_path, "error::RuntimeWarning")


@pytest.mark.parametrize("path", [ROOT / "README.md", *PAGES], ids=name)
def test_links_lead_to_files(path: Path) -> None:
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if re.match(r"[a-z]+:", target):
            assert target.startswith("https://"), target
            continue
        assert (path.parent / target).exists(), f"{name(path)} links to {target}"


def test_the_table_of_contents_lists_every_page() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    entries = set(re.findall(r"^[\w/*]+$", index, re.MULTILINE))
    for path in PAGES:
        place = path.relative_to(ROOT / "docs").with_suffix("").as_posix()
        folder = place.split("/")[0]
        listed = place in entries or f"{folder}/*" in entries or f"{folder}**" in entries
        assert place == "index" or listed, place
    named = {entry for entry in entries if "*" not in entry}
    assert named <= {p.relative_to(ROOT / "docs").with_suffix("").as_posix() for p in PAGES}


def test_names_that_the_pages_use_exist() -> None:
    """Words in code style that begin with a public module, or with the package."""
    modules = {n for n in rnntk.__all__ if n.islower() and hasattr(getattr(rnntk, n), "__path__")}
    missing = set()
    for path in [ROOT / "README.md", *PAGES]:
        for full in re.findall(r"`(?:rnntk\.)?([a-z_]+(?:\.[A-Za-z_]+)+)[(`]", path.read_text()):
            first, *rest = full.split(".")
            if first not in modules or rest[-1] in {"py", "md", "png", "json"}:
                continue
            item = getattr(rnntk, first)
            for part in rest:
                found = getattr(item, "__dataclass_fields__", {}).get(part)
                item = found if found is not None else getattr(item, part, None)
                if item is None:
                    missing.add(f"{name(path)}: {full}")
                    break
    assert not missing
