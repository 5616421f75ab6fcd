"""Paths of the program's source files."""

from __future__ import annotations

from pathlib import Path

PROJECT_FOLDER = Path(__file__).resolve().parent.parent.parent
TOP_MODULES = ("main", "db_connection", "iterable_client", "logger_config", "errors")
PACKAGES = (
    *("config", "records", "source", "state", "iterable_api", "sync", "reporting", "commands"),
)


def program_files() -> list[Path]:
    """Return all Python files of the program, without sandbox, tests, tools and benchmarks."""
    inside = (path for package in PACKAGES for path in (PROJECT_FOLDER / package).rglob("*.py"))
    return sorted([*PROJECT_FOLDER.glob("*.py"), *inside])
