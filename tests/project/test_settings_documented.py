"""`.env.example` and the code name the same settings, with the same defaults."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from config.settings import DEFAULTS, NAMES, REQUIRED, Settings, read_environment
from errors import ConfigError

PROJECT_FOLDER = Path(__file__).resolve().parent.parent.parent
EXAMPLE = PROJECT_FOLDER / ".env.example"


def example_lines() -> list[str]:
    return EXAMPLE.read_text(encoding="utf-8").splitlines()


def example_settings() -> dict[str, str]:
    """Return the settings of `.env.example`, read without the program's parser."""
    lines = [line for line in example_lines() if line and not line.startswith("#")]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def test_the_example_names_every_setting_once() -> None:
    names = [line.partition("=")[0] for line in example_lines() if re.match("[A-Z]", line)]
    assert sorted(names) == sorted(NAMES)


def test_the_example_has_placeholders_for_required_settings_and_defaults_for_the_others() -> None:
    settings = example_settings()
    for name in REQUIRED:
        assert re.fullmatch("your_[a-z_]+_here", settings.pop(name)), name
    assert settings == dict(DEFAULTS)


def test_the_example_explains_each_setting_in_the_line_above_it() -> None:
    lines = example_lines()
    for number, line in enumerate(lines):
        if re.match("[A-Z]", line):
            assert re.match(r"# \w.{10,}", lines[number - 1]), line


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
