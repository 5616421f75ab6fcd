"""Secrets in files: `DB_PASSWORD_FILE` instead of `DB_PASSWORD`."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands.check.files import secret_file_lines
from config.parsers import PROJECT_FOLDER
from config.secret_files import MAX_SECRET_BYTES, read_secret
from config.settings import (
    Settings,
    read_environment,
    secret_files_in,
    unknown_names_in,
)
from errors import ConfigError
from tests.config.test_settings import REQUIRED_ONES

SECRETS = ("DB_PASSWORD", "ITERABLE_API_KEY", "HEALTHCHECK_URL")


def settings_of(folder: Path, **lines: str) -> Settings:
    """Read a `.env` with the required settings, of which empty lines leave one out."""
    path = folder / "settings.env"
    content = {**REQUIRED_ONES, **lines}
    path.write_text("".join(f"{name}='{text}'\n" for name, text in content.items() if text))
    return Settings.from_environment(read_environment(path))


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        ("s3cret", "s3cret"),
        ("s3cret\n", "s3cret"),
        ("s3cret\r\n", "s3cret"),
        ("s3cret\n\n", "s3cret\n"),
        (" with blanks \n", " with blanks "),
        ("x" * MAX_SECRET_BYTES, "x" * MAX_SECRET_BYTES),
    ],
)
def test_one_newline_at_the_end_is_no_part_of_the_secret(
    tmp_path: Path, content: str, secret: str
) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content.encode())
    assert read_secret(path) == secret


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"x" * (MAX_SECRET_BYTES + 1), "more than 4,096 bytes"),
        (b"\xff\xfe", "is not UTF-8"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_file_that_is_no_secret_is_a_problem_of_the_setting(
    tmp_path: Path, content: bytes | None, problem: str
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        settings_of(tmp_path, DB_PASSWORD="", DB_PASSWORD_FILE=str(path), DB_PORT="none")
    text = "\n".join(caught.value.problems)
    assert f"DB_PASSWORD_FILE names {path}" in text
    assert problem in text
    assert "DB_PORT" in text, "all problems are reported at once"


def test_secrets_are_read_from_files(tmp_path: Path) -> None:
    for name in SECRETS:
        (tmp_path / name).write_text(
            "https://hc.example/abc\n" if name == "HEALTHCHECK_URL" else f"of-{name}\n"
        )
    files = {f"{name}_FILE": str(tmp_path / name) for name in SECRETS}
    settings = settings_of(tmp_path, **dict.fromkeys(SECRETS, ""), **files)
    assert settings.db_password == "of-DB_PASSWORD"
    assert settings.iterable_api_key == "of-ITERABLE_API_KEY"
    assert settings.healthcheck_url == "https://hc.example/abc"
    environment = read_environment(tmp_path / "settings.env")
    assert secret_files_in(environment) == [tmp_path / name for name in SECRETS]
    assert unknown_names_in(environment) == []


def test_a_secret_and_its_file_at_once_are_a_problem(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("another")
    with pytest.raises(ConfigError, match="DB_PASSWORD and DB_PASSWORD_FILE are both set"):
        settings_of(tmp_path, DB_PASSWORD="one", DB_PASSWORD_FILE=str(tmp_path / "secret"))


def test_the_environment_may_name_the_file_relative_to_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("another")
    relative = (tmp_path / "secret").relative_to("/")
    up = Path(*[".."] * (len(PROJECT_FOLDER.parts) - 1))
    monkeypatch.setenv("DB_PASSWORD_FILE", str(up / relative))
    assert settings_of(tmp_path, DB_PASSWORD="").db_password == "another"


def test_the_check_warns_of_a_secret_that_everybody_can_read(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("s3cret")
    path.chmod(0o600)
    assert list(secret_file_lines([path])) == []
    path.chmod(0o644)
    (line,) = secret_file_lines([path])
    assert line.is_warning
    assert str(line).endswith(f"chmod 600 {path}")
