"""Packages that are not installed, or broken: one line that says what to install, exit status 2."""

from __future__ import annotations

import os
import re
import site
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from errors import PACKAGES
from tests.support.program import copy_of_project
from tests.support.program_files import PROJECT_FOLDER
from tests.support.terminal import Terminal

SETTINGS = {
    "DB_HOST": "127.0.0.1",
    "DB_PORT": "9",
    "DB_USER": "u",
    "DB_PASSWORD": "p",
    "DB_NAME": "d",
    "ITERABLE_API_KEY": "k",
    "ITERABLE_API_BASE_URL": "http://127.0.0.1:9",
}
ACTIONS = (["--dry-run"], ["--check"], ["--history"], ["--verify", "1"], ["--export", "x.csv"])


@dataclass
class Installation:
    """A copy of the program and a virtual environment with some of the packages."""

    project: Path
    python: Path
    packages: Path

    def run(self, *flags: str, **settings: str) -> subprocess.CompletedProcess[str]:
        places = {"STATE_FILE": "s.sqlite3", "LOG_FILE": "run.log", "RESULTS_DIR": "."}
        return subprocess.run(
            [str(self.python), str(self.project / "main.py"), *flags],
            env={"PATH": os.environ["PATH"], **SETTINGS, **places, **settings},
            cwd=self.project,
            capture_output=True,
            text=True,
            check=False,
        )

    def run_on_a_terminal(self, *flags: str) -> tuple[int, str]:
        """Run with standard error on a terminal; return the exit status and what it shows."""
        terminal = Terminal()
        ended = subprocess.run(
            [str(self.python), str(self.project / "main.py"), *flags],
            env={"PATH": os.environ["PATH"], **SETTINGS, "STATE_FILE": "s.sqlite3"},
            cwd=self.project,
            stdout=subprocess.DEVNULL,
            stderr=terminal.stream,
            check=False,
        )
        return ended.returncode, terminal.output()

    def refusal(self, *flags: str, **settings: str) -> str:
        """Run, check the exit status and return the one line that was printed."""
        ended = self.run(*flags, **settings)
        (line,) = (ended.stdout + ended.stderr).splitlines()
        assert ended.returncode == 2, line
        assert not (self.project / "s.sqlite3").exists()
        return line

    def install(self, without: str) -> None:
        """Link all packages of the tests' own Python but one."""
        for installed in site.getsitepackages():
            for path in Path(installed).iterdir():
                if path.name.partition(".")[0] not in (without, "a1_coverage"):
                    (self.packages / path.name).symlink_to(path)


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    project = copy_of_project(tmp_path / "project")
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=False, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    python = environment / "bin" / "python"
    return Installation(project, python, environment / "lib" / version / "site-packages")


@pytest.mark.parametrize("flags", ACTIONS)
def test_without_any_package_every_command_ended_with_a_traceback(
    installation: Installation, flags: Sequence[str]
) -> None:
    line = installation.refusal(*flags)
    python = re.escape(str(installation.python))
    names = "|".join(PACKAGES.values())
    assert re.fullmatch(
        f"The package ({names}) is not installed for {python}: "
        f"{python} -m pip install -r requirements.txt",
        line,
    )


def test_help_and_version_need_no_package(installation: Installation) -> None:
    for flag in ("--help", "--version", "--help-settings"):
        assert installation.run(flag).returncode == 0


def test_a_demo_without_packages_names_the_file_that_lists_them(installation: Installation) -> None:
    assert installation.refusal("--demo").endswith(
        f": {installation.python} -m pip install -r requirements-dev.txt"
    )


@pytest.mark.parametrize("module", ["dotenv", "mysql", "requests", "email_validator", "jinja2"])
def test_one_missing_package_was_called_a_bug(installation: Installation, module: str) -> None:
    installation.install(without=module)
    (installation.project / ".env").touch()
    for flag in ("--dry-run", "--check"):
        line = installation.refusal(flag, REPORT="true")
        assert line.startswith(f"The package {PACKAGES[module]} is not installed for ")


def test_a_run_on_a_terminal_missed_rich_only_when_it_was_about_to_send(
    installation: Installation,
) -> None:
    installation.install(without="rich")
    status, shown = installation.run_on_a_terminal()
    assert status == 2
    assert shown.startswith("The package rich is not installed for ")
    assert not (installation.project / "s.sqlite3").exists()
    assert installation.run().returncode == 1  # without a terminal: the database is unreachable


def test_a_package_that_is_not_needed_may_be_missing(installation: Installation) -> None:
    installation.install(without="jinja2")
    assert installation.run("--history").returncode == 0


def test_a_broken_package_is_named_with_its_own_words(installation: Installation) -> None:
    installation.install(without="orjson")
    broken = "raise ImportError('libfoo.so.1: cannot open shared object file', name='orjson')"
    (installation.packages / "orjson.py").write_text(broken, encoding="ascii")
    assert installation.refusal("--history") == (
        f"The package orjson of {installation.python} is broken (libfoo.so.1: cannot open shared "
        f"object file): {installation.python} -m pip install --force-reinstall -r requirements.txt"
    )


@pytest.mark.parametrize("content", [None, ""], ids=["missing", "of another version"])
def test_a_file_of_the_program_that_is_missing_is_told_as_such(
    installation: Installation, content: str | None
) -> None:
    installation.install(without="")
    module = installation.project / "state" / "history.py"
    module.unlink()
    if content is not None:
        module.write_text(content, encoding="ascii")
    line = installation.refusal("--history")
    assert line.startswith(f"The program in {installation.project} is incomplete, or its files ")
    assert "state.history" in line
    assert line.endswith("): install all its files again.")


def test_without_a_virtual_environment_the_line_says_how_to_make_one(tmp_path: Path) -> None:
    python = Path(sys.base_prefix, "bin", "python3")
    if not python.exists():
        pytest.skip("the tests' Python has no python3")
    project = copy_of_project(tmp_path / "project")
    command = [str(python), "-S", str(project / "main.py"), "--history"]
    environment = {"PATH": os.environ["PATH"], "STATE_FILE": str(tmp_path / "s.sqlite3")}

    def line() -> str:
        ended = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False
        )
        assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
        return ended.stderr

    assert "python3 -m venv .venv; .venv/bin/pip install -r requirements.txt; then" in line()
    venv.create(project / ".venv", with_pip=False)
    assert f"start the program with {project}/.venv/bin/python, where " in line()


def test_every_runtime_package_has_a_module_that_is_known() -> None:
    lines = (PROJECT_FOLDER / "requirements.txt").read_text(encoding="utf-8").splitlines()
    named = {line.partition("==")[0] for line in lines if "==" in line}
    assert named - set(PACKAGES.values()) == {"tzdata"}


def test_an_address_that_is_not_plain_ended_in_a_bug(installation: Installation) -> None:
    """`email-validator` was noticed only at such an address, in the middle of a run."""
    installation.install(without="email_validator")
    line = installation.refusal()
    assert line.startswith("The package email-validator is not installed for ")
