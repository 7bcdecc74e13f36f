"""Sphinx configuration. Pages of the API, results and notebooks are made here: none is forgotten.

The API is what ``rnntk.__all__`` lists: functions and classes of the root, and public modules with
all that they list in turn.
"""

import json
import re
import shutil
import sys
from importlib import import_module
from inspect import isclass, isfunction, ismodule
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.pycode import ModuleAnalyzer

import rnntk

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for the extension mathml
MODULES = [name for name in rnntk.__all__ if ismodule(getattr(rnntk, name))]
ITEMS = [name for name in rnntk.__all__ if name not in MODULES]
MODULES += [
    f"{name}.{inner}"
    for name in MODULES
    for inner in getattr(getattr(rnntk, name), "__all__", ())
    if ismodule(getattr(getattr(rnntk, name), inner))
]

project = "rnntk"
author = copyright = "The rnntk developers"
version = release = rnntk.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "mathml"]
html_math_renderer = "mathml"
exclude_patterns = ["_build", "conf.py", "mathml.py", "images"]

html_theme = "furo"
html_title = f"rnntk {release}"

autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_use_ivar = True

myst_enable_extensions = ["amsmath", "dollarmath", "fieldlist"]
myst_heading_anchors = 3
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "force"
nb_execution_timeout = 600
nb_execution_raise_on_error = True
# Progress bars go to standard error and have no place on a page.
nb_output_stderr = "remove"


def write_sources() -> None:
    """One page for the package root, one for each public module, and a copy of the notebooks."""
    for folder in ("api", "notebooks", "results"):
        shutil.rmtree(HERE / folder, ignore_errors=True)
    for folder in ("api", "results"):
        (HERE / folder).mkdir()
    for path in sorted((HERE.parent / "benchmarks" / "results").glob("*.json")):
        (HERE / "results" / f"{path.stem}.md").write_text(result_page(path))
    root = [
        f".. auto{'class' if isclass(getattr(rnntk, name)) else 'function'}:: rnntk.{name}"
        + ("\n   :members:" if isclass(getattr(rnntk, name)) else "")
        for name in ITEMS
    ]
    pages = {"rnntk": [".. automodule:: rnntk\n   :no-members:", *root]} | {
        f"rnntk.{name}": [f".. automodule:: rnntk.{name}\n   :members:", *constants(name)]
        for name in MODULES
    }
    for name, directives in pages.items():
        body = "\n\n".join(directives)
        text = f"# {name}\n\n```{{eval-rst}}\n{body}\n```\n"
        (HERE / "api" / f"{name}.md").write_text(text)
    shutil.copytree(HERE.parent / "notebooks", HERE / "notebooks")


def constants(name: str) -> list[str]:
    """Public values of a module, with what the file that defines each says of it."""
    module, docs = import_module(f"rnntk.{name}"), {}
    for source in sorted(sys.modules):
        if source.startswith(f"rnntk.{name}."):
            docs |= ModuleAnalyzer.for_module(source).find_attr_docs()
    found = []
    for constant in getattr(module, "__all__", ()):
        value = getattr(module, constant)
        if callable(value) or ismodule(value):
            continue
        if ("", constant) not in docs:
            raise ExtensionError(f"rnntk.{name}.{constant} has no docstring.")
        text = [f".. py:data:: {constant}", f"   :module: rnntk.{name}"]
        if isinstance(value, float | int | tuple):
            text.append(f"   :value: {value!r}")
        found.append("\n".join([*text, "", *(f"   {line}" for line in docs["", constant])]))
    return found


def result_page(path: Path) -> str:
    """What a benchmark measured: the machine, and every table of its file."""
    found = json.loads(path.read_text())
    where = found.pop("environment", {})
    text = [f"# {path.stem}", ", ".join(f"{name} {value}" for name, value in where.items())]
    for name, value in found.items():
        if not (isinstance(value, list) and value and isinstance(value[0], dict)):
            text.append(f"{name}: {value}")
            continue
        columns = list(dict.fromkeys(column for row in value for column in row))
        rows = [columns, ["---"] * len(columns)]
        rows += [[cell(row.get(column, "")) for column in columns] for row in value]
        text.append(f"## {name}\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in rows))
    return "\n\n".join(text) + "\n"


def cell(value: Any) -> str:
    """A number with three digits, or text that ends no column."""
    return f"{value:.3g}" if isinstance(value, float) else str(value).replace("|", "/")


def public_names() -> set[str]:
    """Full names of all that the root exports and of all that its public modules define."""
    names = {f"rnntk.{name}" for name in rnntk.__all__}
    for module in MODULES:
        here = import_module(f"rnntk.{module}")
        for name in getattr(here, "__all__", vars(here)):
            item = getattr(here, name)
            ours = getattr(item, "__module__", "").startswith(f"rnntk.{module}")
            if ours and not name.startswith("_") and (isclass(item) or isfunction(item)):
                names.add(f"rnntk.{module}.{name}")
    return names


def check_complete(app: Sphinx, error: Exception | None) -> None:
    """Fail where a public name has no entry in the API pages."""
    documented = {name for name, *_ in app.env.get_domain("py").get_objects()}
    missing = sorted(public_names() - documented)
    if missing and not error:
        raise ExtensionError(f"public, but not in the API pages: {', '.join(missing)}")


def skip_member(app: Sphinx, what: str, name: str, item: Any, skip: bool, options: Any) -> bool:
    """Leave out what a NamedTuple says of its fields, and what scikit-learn adds for routing."""
    if re.fullmatch(r"set_\w+_request", name):
        return True
    return skip or (getattr(item, "__doc__", None) or "").startswith("Alias for field number")


def shorten_types(app: Sphinx, *args: Any) -> tuple[str | None, str | None]:
    """Call a JAX array ``Array``, rather than by the name of its private module."""
    signature, result = (
        text and re.sub(r"\bjaxlib\.[\w.]*Array", "Array", text) for text in args[-2:]
    )
    return signature, result


def setup(app: Sphinx) -> None:
    """Write the generated sources before Sphinx reads any, check the result after."""
    write_sources()
    app.connect("autodoc-skip-member", skip_member)
    app.connect("autodoc-process-signature", shorten_types)
    app.connect("build-finished", check_complete)
