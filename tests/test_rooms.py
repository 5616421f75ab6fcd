"""The rooms of the house: what may import what, and names that say what is inside.

The table is the picture. A new edge that fails here is either one too many, or belongs into the
table and into the README's picture in the same commit.
"""

from __future__ import annotations

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = {path.stem: path for path in sorted(ROOT.glob("*.py"))}
FOLDERS = ("sandbox", "tests", "benchmarks")
MOST_LINES = 320

# What each room may import of ours, from the ground up: only of what stands above it here.
MAY_IMPORT = {
    # words and pure functions
    "outcomes": "",
    "fields": "",
    "json_values": "",
    "records": "fields json_values",
    "verdicts": "outcomes",
    "pacing": "",
    "measurements": "",
    "check_lines": "",
    "iterable_types": "",
    # settings
    "setting_values": "fields",
    "settings": "fields setting_values",
    # the outside, one kind a room
    "logger_config": "",
    "read_ahead": "",
    "pure_driver": "",
    "mysql_source": "pure_driver",
    "db_connection": "mysql_source",
    "query_plan": "",
    "answer_deadline": "",
    "iterable_http": "answer_deadline verdicts",
    "iterable_client": "iterable_http json_values outcomes pacing records verdicts",
    "state_file": "",
    "run_history": "state_file",
    "waiting_rows": "records",
    "outbox": "outcomes records run_history state_file waiting_rows",
    "wiring": "db_connection records settings",
    "source_rows": "db_connection read_ahead settings wiring",
    # delivery
    "delivery": "outcomes pacing verdicts",
    "bulk": "delivery outcomes pacing verdicts",
    # what is told
    "console": "logger_config",
    "part_file": "",
    "results": "outcomes part_file",
    "csv_export": "part_file",
    "monitoring": "outcomes part_file results",
    "live_line": "measurements",
    "progress": "live_line measurements outcomes settings",
    "report_text": "fields measurements settings",
    "report_charts": "measurements report_text",
    "report_page": "measurements outcomes report_charts report_text results settings",
    "report": "logger_config measurements outcomes part_file report_page results settings",
    # --check and --verify
    "database_check": (
        "check_lines db_connection fields iterable_types query_plan read_ahead records settings"
        " wiring"
    ),
    "file_check": "check_lines settings state_file",
    "iterable_check": "check_lines iterable_http iterable_types settings verdicts",
    "setup_check": "check_lines database_check file_check iterable_check settings",
    "delivered_rows": "records run_history settings source_rows state_file wiring",
    "read_back": "outcomes",
    "verification": (
        "delivered_rows iterable_check iterable_http logger_config outcomes pacing read_back"
        " settings verdicts"
    ),
    # a run, and the program
    "stop_signal": "",
    "process_limits": "",
    "sync_run": (
        "bulk db_connection delivery iterable_client logger_config outbox outcomes progress"
        " report results settings source_rows state_file stop_signal verdicts wiring"
    ),
    "actions": (
        "console csv_export logger_config outbox run_history sandbox setting_values settings"
        " setup_check source_rows verification"
    ),
    "main": (
        "actions console csv_export db_connection delivery logger_config monitoring process_limits"
        " results"
        " settings state_file stop_signal sync_run verification"
    ),
}

# Who may speak to what is outside. Nobody else imports these.
SPEAKS_TO = {
    "requests": {"answer_deadline", "iterable_http", "iterable_client", "monitoring"},
    "urllib3": {"answer_deadline", "iterable_http"},
    "mysql": {"pure_driver", "mysql_source", "db_connection"},
    "sqlite3": {"state_file", "run_history", "delivered_rows"},
    "dotenv": {"settings"},
    "email_validator": {"records"},
    "rich": {"live_line"},
    "sandbox": {"actions"},
    "mysql_mimic": set(),
    "aiohttp": set(),
    "tests": set(),
    "benchmarks": set(),
}


@cache
def imports_of(path: Path) -> frozenset[str]:
    """Return the first names of everything that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{path}: a relative import"
            names.add(node.module.split(".")[0])
    return frozenset(names)


def own_imports(module: str) -> frozenset[str]:
    return imports_of(MODULES[module]) & {*MODULES, *FOLDERS}


def all_files() -> list[Path]:
    inside = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    return sorted([*MODULES.values(), *inside])


# Imports


def test_every_room_is_in_the_table_and_no_other() -> None:
    assert set(MODULES) == set(MAY_IMPORT)


@pytest.mark.parametrize("module", MODULES)
def test_a_room_imports_exactly_what_the_table_lets_it(module: str) -> None:
    assert own_imports(module) == set(MAY_IMPORT.get(module, "").split())


def test_imports_point_one_way() -> None:
    order = list(MAY_IMPORT)
    for module, imported in MAY_IMPORT.items():
        for other in set(imported.split()) & set(order):
            assert order.index(other) < order.index(module), f"{module} imports {other}"
    graph = {module: own_imports(module) for module in MODULES}
    assert list(TopologicalSorter(graph).static_order())[-1] == "main"


@pytest.mark.parametrize("library", SPEAKS_TO)
def test_only_some_rooms_know_what_is_outside(library: str) -> None:
    assert {module for module in MODULES if library in imports_of(MODULES[module])} == (
        SPEAKS_TO[library]
    )


def test_the_sandbox_knows_nothing_of_the_program() -> None:
    for path in (ROOT / "sandbox").rglob("*.py"):
        assert not imports_of(path) & set(MODULES), path


# Names and sizes


def test_no_name_says_nothing() -> None:
    empty = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "handler", "base"}
    vague = [path for path in all_files() if set(path.stem.split("_")) & empty]
    assert vague == []


@pytest.mark.parametrize(
    "name",
    [
        *("main.py", "settings.py", "db_connection.py", "records.py", "iterable_client.py"),
        *("pacing.py", "outbox.py", "delivery.py", "results.py", "logger_config.py"),
        *("sandbox/__main__.py", "sql/schema.sql", "sql/sample_data.sql"),
        *("sql/pro_users_recent_engagement.sql", "requirements.txt", "requirements-dev.txt"),
        *("constraints.txt", "THIRD_PARTY.md"),
        *("README.md", "QUICKSTART.md", ".env.example", "scripts/demo", "scripts/test"),
        *("deploy", "benchmarks", ".ci/run"),
    ],
)
def test_what_the_documentation_names_is_there(name: str) -> None:
    assert (ROOT / name).exists()


@pytest.mark.parametrize("module", MODULES)
def test_a_room_is_small_enough_to_be_read_at_once(module: str) -> None:
    lines = len(MODULES[module].read_text("utf-8").splitlines())
    assert lines < MOST_LINES


@pytest.mark.parametrize("module", MODULES)
def test_a_room_says_at_its_door_what_it_owns(module: str) -> None:
    docstring = ast.get_docstring(ast.parse(MODULES[module].read_text("utf-8")))
    assert docstring
    assert len(docstring.splitlines()) <= 12
    assert docstring.splitlines()[0].endswith((".", ":", "?"))
