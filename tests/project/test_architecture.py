"""The layers of the program: what may import what, and who may use which outside library."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.support.program_files import PACKAGES, PROJECT_FOLDER, TOP_MODULES, program_files

# Each unit may import itself, the units named beside it, and those in EVERYWHERE. `main` is on top.
MAY_IMPORT = {
    "errors": "",
    "logger_config": "",
    "config": "",
    "records": "config",
    "source": "",
    "db_connection": "source",
    "state": "records config",
    "iterable_api": "records config",
    "iterable_client": "iterable_api records config",
    "reporting": "records config",
    "sync": "reporting iterable_client iterable_api state db_connection source records config",
    "commands": "sync reporting iterable_client iterable_api state db_connection source records"
    " config sandbox",
    "main": "commands sync config",
}
EVERYWHERE = {"errors", "logger_config"}
OUTSIDE = ("sandbox", "tests", "tools", "benchmarks")

# No other unit imports these libraries.
ONLY_USED_BY = {
    "requests": {"iterable_api", "iterable_client", "reporting"},
    "urllib3": {"iterable_api"},
    "mysql": {"source"},
    "sqlite3": {"state"},
    "dotenv": {"config"},
    "email_validator": {"records"},
    "waitress": {"commands"},
    "rich": {"commands", "sync"},
    "jinja2": {"reporting"},
}
MEANINGLESS_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "base"}


def unit_of(path: Path) -> str:
    """Return the package, or the module at the top, that a file belongs to."""
    return path.relative_to(PROJECT_FOLDER).parts[0].removesuffix(".py")


@cache
def imports_of(path: Path) -> frozenset[str]:
    """Return the first names of everything that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{path}: a relative import"
            assert not node.level, f"{path}: a relative import"
            names.add(node.module.split(".")[0])
    return frozenset(names)


def test_the_table_names_every_unit() -> None:
    assert (
        set(MAY_IMPORT) == {unit_of(path) for path in program_files()} == {*PACKAGES, *TOP_MODULES}
    )


@pytest.mark.parametrize("unit", MAY_IMPORT)
def test_a_unit_imports_only_the_layers_below_it(unit: str) -> None:
    allowed = {unit, *MAY_IMPORT[unit].split(), *(EVERYWHERE if unit != "errors" else ())}
    for path in program_files():
        if unit_of(path) == unit:
            ours = imports_of(path) & {*MAY_IMPORT, *OUTSIDE}
            assert ours <= allowed, f"{path} imports {sorted(ours - allowed)}"


def test_the_layers_have_no_cycle() -> None:
    order = list(MAY_IMPORT)
    for unit, below in MAY_IMPORT.items():
        for other in set(below.split()) & set(order):
            assert order.index(other) < order.index(unit), f"{unit} imports {other}"


@pytest.mark.parametrize("library", ONLY_USED_BY)
def test_a_library_is_used_by_its_units_alone(library: str) -> None:
    users = {unit_of(path) for path in program_files() if library in imports_of(path)}
    assert users == ONLY_USED_BY[library]


def test_the_sandbox_does_not_import_the_program() -> None:
    for path in (PROJECT_FOLDER / "sandbox").rglob("*.py"):
        assert not imports_of(path) & set(MAY_IMPORT), path


def test_no_file_has_a_meaningless_name() -> None:
    files = [*program_files()]
    for folder in OUTSIDE:
        files += (PROJECT_FOLDER / folder).rglob("*.py")
    assert [path for path in files if set(path.stem.split("_")) & MEANINGLESS_NAMES] == []


@pytest.mark.parametrize("path", program_files(), ids=str)
def test_every_file_begins_with_a_docstring(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text("utf-8")))
