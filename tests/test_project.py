"""Checks on the project itself: versions, pinned list, commands, imports, what the files tell."""

import ast
import functools
import graphlib
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

import rnntk

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "rnntk").rglob("*.py"))


def module(path: Path) -> str:
    """The name by which a source file is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINNED = (ROOT / "requirements" / "dev.txt").read_text().splitlines()


def project_files() -> list[Path]:
    """What is, or could be, committed; nothing in a copy without its history."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [path for line in listed.stdout.splitlines() if (path := ROOT / line).is_file()]


def imports(nodes: Iterable[ast.AST]) -> set[str]:
    """Full names of all that statements import."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_version_is_in_one_place() -> None:
    assert PYPROJECT["project"]["dynamic"] == ["version"]
    assert PYPROJECT["tool"]["hatch"]["version"]["path"] == "rnntk/__init__.py"
    holders = [module(path) for path in SOURCES if rnntk.__version__ in path.read_text()]
    assert holders == ["rnntk"]


def test_version_is_that_of_citation_and_changelog() -> None:
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.findall(r"^version: (.*)$", citation, re.MULTILINE) == [rnntk.__version__]
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert re.findall(r"^## (\S+)", changelog, re.MULTILINE)[0] == rnntk.__version__


def test_pinned_list_holds_names_versions_and_markers_only() -> None:
    pin = re.compile(r"[a-z0-9-]+==[0-9][0-9a-z.]*( ; [a-z_]+ [!=<>]+ '[^'/]*'( and .*)?)?")
    wrong = [line for line in PINNED if not pin.fullmatch(line) or "/" in line]
    assert not wrong


def test_pinned_list_covers_dependencies_and_leaves_tensorflow_out() -> None:
    pinned = {line.split("==")[0] for line in PINNED}
    extras = PYPROJECT["project"]["optional-dependencies"]
    wanted = [
        *PYPROJECT["project"]["dependencies"],
        *(item for name, items in extras.items() if name != "cuda" for item in items),
    ]
    assert {re.match(r"[a-z0-9-]+", item).group() for item in wanted} <= pinned
    assert not pinned & {"tensorflow", "tf2jax"}


def test_readme_uses_make_targets_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for name in ("README.md", "CONTRIBUTING.md"):
        used = set(re.findall(r"(?:`|^)make ([a-z-]+)", (ROOT / name).read_text(), re.MULTILINE))
        assert used, name
        assert used <= targets, name


@pytest.mark.parametrize("name", ["_src", "tensorflow", "neural_tangents"])
def test_forbidden_imports(name: str) -> None:
    # interop is the one place that may load neural_tangents, which needs what JAX made private.
    users = [
        module(path)
        for path in SOURCES
        if not module(path).startswith("rnntk.interop")
        and any(name in full.split(".") for full in imports(ast.walk(ast.parse(path.read_text()))))
    ]
    assert not users


def test_import_of_rnntk_loads_nothing_that_few_need() -> None:
    code = "import sys, rnntk; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "rnntk" in loaded
    assert not {
        "tensorflow",
        "neural_tangents",
        "flint",
        "mpmath",
        "beartype",
        "zarr",
        "dask",
        "matplotlib",
        "sklearn",
    } & set(loaded)


@pytest.mark.parametrize("path", SOURCES, ids=module)
def test_modules_import(path: Path) -> None:
    if path.stem != "__main__":
        importlib.import_module(module(path))


@pytest.mark.parametrize("folder", ["rnntk", "tests", "benchmarks", "notebooks", "docs"])
def test_files_fit_on_a_few_pages(folder: str) -> None:
    lengths = {p: len(p.read_text().splitlines()) for p in sorted((ROOT / folder).rglob("*.py"))}
    assert not {p.name: n for p, n in lengths.items() if n > 400 and "_build" not in p.parts}


# Who may import whom: the packages of a line those of the lines above it. Packages that stand in
# one line know nothing of each other.
LAYERS = (
    ("sequences", "kernel", "files", "keys"),
    ("checks", "layouts", "checkpoint"),
    ("activations", "linalg", "tiling", "concepts"),
    ("network", "storage"),
    ("infinite", "empirical", "train"),
    ("spectrum", "predict", "sgd_risk"),
    ("bounds", "datasets", "estimators"),
    ("compare",),
    ("plot",),
    ("report", "interop"),
    ("cli",),
    ("__main__",),
)
# Methods of the public class call what stands above it, imported where they run.
# The version stands in the root.
METHODS_OF = {
    "rnntk.network.elman": ("rnntk.network", "rnntk.interop"),
    "rnntk.storage.identity": ("rnntk",),
}


MODULES = {module(path) for path in SOURCES}


def ours(path: Path, *, top: bool) -> set[str]:
    """Modules of this package that a file imports; ``top``: not within functions."""
    tree = ast.parse(path.read_text())
    names = imports(tree.body if top else ast.walk(tree))
    # a name that is imported from a module belongs to the module
    known = {full if full in MODULES else full.rpartition(".")[0] for full in names}
    return known & MODULES


def package(name: str) -> str:
    """The folder or file of the root that a module belongs to; empty for the root itself."""
    return ".".join(name.split(".")[1:2])


@pytest.mark.parametrize("path", SOURCES, ids=module)
def test_imports_point_down(path: Path) -> None:
    level = {name: i for i, layer in enumerate(LAYERS) for name in layer}
    own, found = package(module(path)), ours(path, top=False)
    if own in ("", "verification"):  # the root imports all, verification nothing but itself
        assert own == "" or {package(name) for name in found} <= {own}
        return
    if allowed := METHODS_OF.get(module(path)):
        within = found - ours(path, top=True)
        assert all(name.startswith(allowed) for name in within)
        found -= within
    for name in {package(name) for name in found} - {own, "verification"}:
        # the report and what runs it are users of the root
        assert level[own] > (level["plot"] if name == "" else level[name]), f"imports {name}"


def test_modules_form_no_circle() -> None:
    graph = {module(path): ours(path, top=True) for path in SOURCES if module(path) != "rnntk"}
    order = graphlib.TopologicalSorter(
        # a module's own package is no dependency of it
        {
            k: {v for v in found - {k, "rnntk"} if not k.startswith(f"{v}.")}
            for k, found in graph.items()
        }
    )
    order.prepare()  # raises CycleError, naming it


@pytest.mark.parametrize("path", [p for p in SOURCES if p.name == "__init__.py"], ids=module)
def test_no_module_has_the_name_of_an_export(path: Path) -> None:
    here = importlib.import_module(module(path))
    exported = {
        name for name in getattr(here, "__all__", ()) if not inspect.ismodule(getattr(here, name))
    }
    assert not exported & {p.stem for p in path.parent.glob("*.py")}


def test_exports_exist_and_are_documented() -> None:
    assert len(set(rnntk.__all__)) == len(rnntk.__all__)
    for name in rnntk.__all__:
        assert getattr(rnntk, name).__doc__, name


def public_names() -> set[str]:
    """All that users may call, with the members of classes, by full name and by its parts."""
    names = set()
    for name in rnntk.__all__:
        item = getattr(rnntk, name)
        inner = getattr(item, "__all__", dir(item)) if inspect.ismodule(item) else ()
        names |= {f"rnntk.{name}"} | {f"rnntk.{name}.{one}" for one in inner}
        for full, one in [(f"rnntk.{name}", item)] + [
            (f"rnntk.{name}.{k}", getattr(item, k)) for k in inner
        ]:
            if inspect.isclass(one):
                names |= {f"{full}.{member}" for member in dir(one)}
    return names


def test_docstrings_of_public_names_refer_to_public_names() -> None:
    public, wrong = public_names(), {}
    for name in public:
        item = functools.reduce(getattr, name.split(".")[1:], rnntk)
        if not (inspect.isroutine(item) or inspect.isclass(item) or inspect.ismodule(item)):
            continue
        text = inspect.getdoc(item) or ""
        roles = re.findall(r":(?:func|class|meth|mod|data):`~?(rnntk[\w.]*)`", text)
        if private := sorted(set(roles) - public):
            wrong[name] = private
    assert not wrong


def test_files_tell_nothing_of_the_machine_they_were_made_on() -> None:
    home, registry = r"/(root|home|Users)/\w", r"(pypi|files\.pythonhosted|index)\.(org|local)"
    wanted = re.compile(rf"{home}|{registry}|--(extra-)?index-url|://[^/\s]+/simple\b|/tmp/\w")
    told = {}
    for path in project_files():
        if path == Path(__file__) or path.suffix in {".png", ".npz"}:
            continue
        if found := wanted.search(path.read_text(errors="replace")):
            told[path.relative_to(ROOT).as_posix()] = found.group()
    assert not told


def test_text_files_end_in_one_newline_and_have_no_trailing_space() -> None:
    kinds = {".py", ".md", ".toml", ".txt", ".cff", ""}
    for path in project_files():
        if path.suffix in kinds and (text := path.read_text()):
            assert text.endswith("\n"), path
            assert not text.endswith("\n\n"), path
            assert not re.search(r"[ \t]$", text, re.MULTILINE), path
