"""Dependencies: every package is used, pinned, and listed with its licence."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from config.version import VERSION
from tests.project.test_architecture import OUTSIDE, imports_of
from tests.support.documents import Document, codes
from tests.support.program_files import PACKAGES, PROJECT_FOLDER, TOP_MODULES, program_files

PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
THIRD_PARTY = Document("THIRD_PARTY.md")
# Packages whose name differs from that of the module.
PACKAGE_OF = {"dotenv": "python-dotenv", "mysql": "mysql-connector-python"}
# Packages that are not imported: the file that uses them, and the words there.
USED_WITHOUT_IMPORT = {
    "tzdata": ("config/parsers.py", "from zoneinfo import"),
    "mypy": ("scripts/test", "-m mypy"),
    "pytest-cov": ("scripts/test", "--cov"),
    "pytest-socket": ("pyproject.toml", "--disable-socket"),
    "pytest-timeout": ("pyproject.toml", "timeout ="),
    "pytest-xdist": ("scripts/test", "-n 3"),
    "ruff": ("scripts/test", "-m ruff"),
    "types-requests": ("requirements.txt", "requests=="),
}


def pins(name: str) -> dict[str, str]:
    """Return the versions that a requirements file names itself, by package."""
    lines = (PROJECT_FOLDER / name).read_text(encoding="utf-8").splitlines()
    named = [line for line in lines if line and not line.startswith(("#", "-r ", "-c "))]
    return {
        canonicalize_name(package): version for package, version in map(_name_and_version, named)
    }


def _name_and_version(line: str) -> tuple[str, str]:
    package, exactly, version = line.partition("==")
    assert exactly, f"{line} names no exact version"
    return package, version


RUNTIME, DEVELOPMENT, TRANSITIVE = map(
    pins, ("requirements.txt", "requirements-dev.txt", "constraints.txt")
)
PINNED = {**TRANSITIVE, **RUNTIME, **DEVELOPMENT}


def with_dependencies(packages: Iterable[str]) -> set[str]:
    """Return these packages and all their dependencies, on any supported Python."""
    found: set[str] = set()
    waiting = [Requirement(name) for name in packages]
    while waiting:
        wanted = waiting.pop()
        found.add(canonicalize_name(wanted.name))
        waiting += _needs(wanted.name, frozenset(wanted.extras))
    return found


@cache
def _needs(package: str, extras: frozenset[str]) -> tuple[Requirement, ...]:
    try:
        texts = metadata.requires(package) or []
    except metadata.PackageNotFoundError:  # for another Python only; these have no dependencies
        return ()
    return tuple(each for each in map(Requirement, texts) if _applies(each, extras))


def _applies(requirement: Requirement, extras: frozenset[str]) -> bool:
    return requirement.marker is None or any(
        requirement.marker.evaluate(
            {"python_version": python, "python_full_version": f"{python}.0", "extra": extra}
        )
        for python in PYTHONS
        for extra in ("", *extras)
    )


def all_python_files() -> list[Path]:
    """Return all Python files of the project."""
    inside = (path for folder in OUTSIDE for path in (PROJECT_FOLDER / folder).rglob("*.py"))
    return [*program_files(), *inside]


def outside(path: Path) -> set[str]:
    """Return the imports of a file that are neither the project's nor the standard library's."""
    return set(imports_of(path)) - {*TOP_MODULES, *PACKAGES, *OUTSIDE, *sys.stdlib_module_names}


def packages_of(paths: Iterable[Path]) -> set[str]:
    """Return the packages that files import."""
    names = {name for path in paths for name in outside(path)}
    return {canonicalize_name(PACKAGE_OF.get(name, name)) for name in names}


def licence_of(package: str) -> str:
    """Return the licence as the metadata of the package states it."""
    fields = metadata.metadata(package)
    stated = fields.get_all("License-Expression") or fields.get_all("License")
    if stated:
        return str(stated[0])
    classifiers: list[str] = fields.get_all("Classifier") or []
    licences = [text for text in classifiers if text.startswith("License ::")]
    return ", ".join(text.rpartition(" :: ")[2] for text in licences)


# Required packages are used


def test_the_program_imports_only_packages_of_requirements_txt() -> None:
    for path in program_files():
        assert packages_of([path]) <= set(RUNTIME), path


def test_other_code_imports_only_required_packages() -> None:
    for path in all_python_files():
        # peer_dlt.py runs in an environment of its own, in which `benchmarks.peers` installs them.
        peers = {"dlt", "pymysql"} if path.name == "peer_dlt.py" else set()
        assert packages_of([path]) <= {*RUNTIME, *DEVELOPMENT, *peers}, path


def test_every_package_of_requirements_txt_is_used() -> None:
    assert set(RUNTIME) - packages_of(program_files()) - set(USED_WITHOUT_IMPORT) == set()


def test_every_package_of_requirements_dev_txt_is_used() -> None:
    assert set(DEVELOPMENT) - packages_of(all_python_files()) - set(USED_WITHOUT_IMPORT) == set()


@pytest.mark.parametrize("package", USED_WITHOUT_IMPORT)
def test_a_package_that_is_never_imported_is_used_elsewhere(package: str) -> None:
    assert package in {*RUNTIME, *DEVELOPMENT}
    assert package not in packages_of(all_python_files())
    name, words = USED_WITHOUT_IMPORT[package]
    assert words in (PROJECT_FOLDER / name).read_text(encoding="utf-8")


# Installations are reproducible


def test_every_transitive_dependency_is_pinned_and_nothing_else() -> None:
    required = {*RUNTIME, *DEVELOPMENT}
    assert with_dependencies(required) - required == set(TRANSITIVE)


def test_the_program_is_installed_with_the_constraints() -> None:
    lines = (PROJECT_FOLDER / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert "-c constraints.txt" in lines
    assert "constraints.txt" in (PROJECT_FOLDER / "scripts/venv.sh").read_text(encoding="utf-8")


@pytest.mark.parametrize("package", PINNED)
def test_the_installed_version_is_the_pinned_one(package: str) -> None:
    try:
        installed = metadata.version(package)
    except metadata.PackageNotFoundError:
        assert package in TRANSITIVE, "is not installed"
    else:
        assert installed == PINNED[package]


# Licences


@pytest.mark.parametrize(
    ("heading", "required"), [("the program", RUNTIME), ("development", DEVELOPMENT)]
)
def test_every_package_is_listed_under_its_heading(heading: str, required: dict[str, str]) -> None:
    listed = [codes(row[0])[0] for row in THIRD_PARTY.table(heading)]
    of_the_program = with_dependencies(RUNTIME)
    expected = with_dependencies(required)
    assert listed == sorted(expected if required is RUNTIME else expected - of_the_program)


@pytest.mark.parametrize("heading", ["the program", "development"])
def test_every_licence_is_that_of_the_packages_metadata(heading: str) -> None:
    for name, licence in THIRD_PARTY.table(heading):
        (package,) = codes(name)
        try:
            assert licence == licence_of(package), package
        except metadata.PackageNotFoundError:
            assert package in TRANSITIVE, package


def test_the_version_is_the_same_in_every_place() -> None:
    """That of pyproject.toml was two releases old."""
    job = (PROJECT_FOLDER / "deploy" / "cronjob.yaml").read_text(encoding="utf-8")
    assert f"mysql-to-iterable:{VERSION}\n" in job
    quick_start = (PROJECT_FOLDER / "QUICKSTART.md").read_text(encoding="utf-8")
    assert f"\nmysql-to-iterable {VERSION}\n" in quick_start
    project = (PROJECT_FOLDER / "pyproject.toml").read_text(encoding="utf-8")
    changelog = (PROJECT_FOLDER / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f'\nversion = "{VERSION}"\n' in project
    headings = re.findall(r"^## (.+)$", changelog, re.MULTILINE)
    assert next(each for each in headings if each != "Unreleased") == VERSION
