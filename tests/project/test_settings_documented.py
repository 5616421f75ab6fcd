"""The code, `.env.example` and the README name the same settings, with the same defaults."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from config.settings import DEFAULTS, NAMES, REQUIRED, ConfigError, Settings, read_environment

PROJECT_FOLDER = Path(__file__).resolve().parent.parent.parent
EXAMPLE = PROJECT_FOLDER / ".env.example"
README = PROJECT_FOLDER / "README.md"


def example_lines() -> list[str]:
    return EXAMPLE.read_text(encoding="utf-8").splitlines()


def example_settings() -> dict[str, str]:
    """Every setting of `.env.example`, read without the program's own reader."""
    lines = [line for line in example_lines() if line and not line.startswith("#")]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def readme_settings() -> dict[str, str]:
    """Every row of the README's settings table: the setting, and its default."""
    text = README.read_text(encoding="utf-8")
    section = re.split(r"(?m)^#+ .*[Ss]ettings.*$", text, maxsplit=1)[1]
    table = re.search(r"(?m)^\|.*\n(?:^\|.*\n)+", section)
    assert table, "the README has no table of settings"
    rows = [row.strip("|").split("|") for row in table.group().splitlines()[2:]]
    return {row[0].strip().strip("`"): row[1].strip().strip("`") for row in rows}


def test_the_example_names_every_setting_once() -> None:
    names = [line.partition("=")[0] for line in example_lines() if re.match("[A-Z]", line)]
    assert sorted(names) == sorted(NAMES)


def test_the_example_has_placeholders_for_what_is_required_and_the_defaults_of_the_rest() -> None:
    settings = example_settings()
    for name in REQUIRED:
        assert re.fullmatch("your_[a-z_]+_here", settings.pop(name)), name
    assert settings == dict(DEFAULTS)


def test_the_example_explains_each_setting_in_the_line_above_it() -> None:
    lines = example_lines()
    for number, line in enumerate(lines):
        if re.match("[A-Z]", line):
            assert re.match(r"# \w.{10,}", lines[number - 1]), line


def test_the_readme_table_names_every_setting_with_its_default() -> None:
    settings = readme_settings()
    assert list(settings)[: len(REQUIRED)] == list(REQUIRED)
    assert settings == {**dict.fromkeys(REQUIRED, "required"), **DEFAULTS}


def test_an_example_that_nobody_filled_in_is_refused_for_exactly_the_required_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError) as refused:
        Settings.from_environment(read_environment(EXAMPLE))
    described = [problem.partition(" ")[0] for problem in refused.value.problems]
    assert described == list(REQUIRED)


def test_the_example_works_once_the_required_settings_are_filled_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name in REQUIRED:
        monkeypatch.setenv(name, "mine")
    filled_in = Settings.from_environment(read_environment(EXAMPLE))
    assert filled_in == Settings.from_environment(dict.fromkeys(REQUIRED, "mine"))


def test_the_example_is_committed_and_the_real_one_never_is() -> None:
    ignored = (PROJECT_FOLDER / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert ".env" in ignored
    assert ".env.example" not in ignored
    assert not any(line.startswith(".env*") or line.startswith("*.env") for line in ignored)
