"""`.env.example` follows from the declared settings and works once it is filled in."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.settings import NAMES, REQUIRED, Settings, read_environment
from errors import ConfigError
from tools import document_tables

PROJECT_FOLDER = Path(__file__).resolve().parent.parent.parent
EXAMPLE = PROJECT_FOLDER / ".env.example"


def test_the_example_is_the_one_made_from_the_declared_settings() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    assert document_tables.env_example() == text, "run python -m tools.document_tables"


def test_an_unedited_example_is_refused_for_exactly_the_required_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError) as refused:
        Settings.from_environment(read_environment(EXAMPLE))
    named = [problem.partition(" ")[0] for problem in refused.value.problems]
    assert named == list(REQUIRED)


def test_the_example_works_after_the_required_settings_are_filled_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name in REQUIRED:
        monkeypatch.setenv(name, "mine")
    filled_in = Settings.from_environment(read_environment(EXAMPLE))
    assert filled_in == Settings.from_environment(dict.fromkeys(REQUIRED, "mine"))


def test_git_ignores_env_but_not_the_example() -> None:
    ignored = (PROJECT_FOLDER / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert ".env" in ignored
    assert ".env.example" not in ignored
    assert not any(line.startswith(".env*") or line.startswith("*.env") for line in ignored)
