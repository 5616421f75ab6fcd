"""Expected errors, whose messages are for the operator, and the exit statuses."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Sequence
from enum import IntEnum
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

# The packages of requirements.txt and, at the end, those of --demo, by the module that is imported.
# Not tzdata: most systems have the time zones.
PACKAGES = {
    "dotenv": "python-dotenv",
    "email_validator": "email-validator",
    "jinja2": "jinja2",
    "mysql": "mysql-connector-python",
    "orjson": "orjson",
    "requests": "requests",
    "rich": "rich",
    "urllib3": "urllib3",
    "waitress": "waitress",
    "aiohttp": "aiohttp",
    "mysql_mimic": "mysql-mimic",
    "sqlglot": "sqlglot",
}
_PROJECT_FOLDER = Path(__file__).resolve().parent


class ExitStatus(IntEnum):
    """Exit status of the program. After a signal it is 128 + the signal's number instead."""

    OK = 0
    STOPPED_EARLY = 1
    BAD_SETTINGS = 2
    SOME_FAILED = 3
    BUG = 70  # EX_SOFTWARE of sysexits.h


class SyncError(Exception):
    """An expected error. Its message says what happened and what to do next."""

    exit_status: ClassVar[ExitStatus] = ExitStatus.STOPPED_EARLY

    @property
    def lines(self) -> list[str]:
        """The message as the lines to print."""
        return [str(self)]


def mark_as_printed(error: BaseException) -> None:
    """Mark an error that was printed a short time ago: `main` does not print it."""
    vars(error)["was_printed"] = True


def was_printed(error: BaseException) -> bool:
    """Return whether `mark_as_printed` was called for this error."""
    return "was_printed" in vars(error)


class ConfigError(SyncError):
    """Unusable settings or flags, with the list of all problems."""

    exit_status = ExitStatus.BAD_SETTINGS

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)

    @property
    def lines(self) -> list[str]:
        """The problems, one on each line."""
        return self.problems


class InstallationError(SyncError):
    """A package, a module of Python or a file of this program is missing or broken."""

    exit_status = ExitStatus.BAD_SETTINGS


def require_packages(modules: Iterable[str]) -> None:
    """Raise InstallationError for the first module of `PACKAGES` that is not installed.

    Some packages are imported in the middle of a run; this finds out before it starts.
    """
    for module in modules:
        if find_spec(module) is None:
            raise InstallationError(_missing(PACKAGES[module], "requirements.txt"))


def explain_import_error(
    error: ImportError, requirements: str = "requirements.txt"
) -> InstallationError:
    """Return what is not installed and what to do; `requirements` is the file that names it."""
    module = (error.name or "").partition(".")[0]
    if module in sys.stdlib_module_names:
        return InstallationError(
            f"The Python at {sys.executable} lacks its module {error.name} ({error}): use another "
            "Python, or install the missing part of this one."
        )
    if _is_ours(module) or (module not in PACKAGES and _is_imported_here(error)):
        return InstallationError(
            f"The program in {_PROJECT_FOLDER} is incomplete, or its files are of different "
            f"versions ({error}): install all its files again."
        )
    package = PACKAGES.get(module, module)
    if isinstance(error, ModuleNotFoundError):
        return InstallationError(_missing(package, requirements))
    return InstallationError(
        f"The package {package} of {sys.executable} is broken ({error}): {sys.executable} -m pip "
        f"install --force-reinstall -r {requirements}"
    )


def _missing(package: str, requirements: str) -> str:
    problem = f"The package {package} is not installed for {sys.executable}"
    environment = _PROJECT_FOLDER / ".venv"
    if sys.prefix != sys.base_prefix:  # a virtual environment
        return f"{problem}: {sys.executable} -m pip install -r {requirements}"
    if (environment / "bin" / "python").exists():
        return (
            f"{problem}: start the program with {environment}/bin/python, where "
            f"{environment}/bin/pip install -r {requirements} puts it"
        )
    return (
        f"{problem}. In {_PROJECT_FOLDER} run: python3 -m venv .venv; .venv/bin/pip install -r "
        f"{requirements}; then start the program with .venv/bin/python"
    )


def _is_ours(module: str) -> bool:
    return bool(module) and (
        (_PROJECT_FOLDER / module).is_dir() or (_PROJECT_FOLDER / f"{module}.py").is_file()
    )


def _is_imported_here(error: ImportError) -> bool:
    """Return whether a file of this program, not one of a package, has the import statement."""
    frames = [
        frame.filename
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen")
    ]
    if not frames:
        return False
    path = Path(frames[-1]).resolve()
    return path.is_relative_to(_PROJECT_FOLDER) and "site-packages" not in path.parts
