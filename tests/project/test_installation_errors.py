"""What is said of a package or a file that cannot be imported.

`end_to_end/test_missing_packages.py` shows the same with real installations.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from errors import ExitStatus, InstallationError, explain_import_error, require_packages


def error_of(module: str) -> ImportError:
    """Import a module that cannot be imported; return the error."""
    with pytest.raises(ImportError) as caught:
        importlib.import_module(module)
    return caught.value


def test_a_package_that_is_not_installed_is_named_with_the_interpreter() -> None:
    error = explain_import_error(ModuleNotFoundError("No module named 'dotenv'", name="dotenv"))
    assert error.exit_status == ExitStatus.BAD_SETTINGS
    assert f"The package python-dotenv is not installed for {sys.executable}" in str(error)
    assert "-r requirements.txt" in str(error)


def test_the_demo_names_its_own_file_of_requirements() -> None:
    missing = ModuleNotFoundError("No module named 'aiohttp'", name="aiohttp.web")
    assert "-r requirements-dev.txt" in str(explain_import_error(missing, "requirements-dev.txt"))


def test_a_broken_package_is_not_called_missing() -> None:
    error = explain_import_error(ImportError("libssl.so.3: cannot open", name="mysql.connector"))
    assert "The package mysql-connector-python" in str(error)
    assert "is broken (libssl.so.3: cannot open)" in str(error)
    assert "--force-reinstall" in str(error)


def test_a_missing_module_of_python_is_not_a_package() -> None:
    error = explain_import_error(ModuleNotFoundError("No module named '_sqlite3'", name="_sqlite3"))
    assert "lacks its module _sqlite3" in str(error)


def test_a_missing_file_of_the_program_is_told_as_such() -> None:
    assert "is incomplete" in str(explain_import_error(error_of("state.nowhere")))


def test_a_broken_file_of_another_package_is_not_called_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "theirs.py").write_text("import nowhere_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    message = str(explain_import_error(error_of("theirs")))
    assert "The package nowhere_at_all is not installed" in message


def test_what_a_run_imports_later_is_looked_for_before(monkeypatch: pytest.MonkeyPatch) -> None:
    require_packages(["orjson", "email_validator"])
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "sqlglot", raising=False)
    with pytest.raises(InstallationError, match="The package sqlglot is not installed"):
        require_packages(["sqlglot"])
