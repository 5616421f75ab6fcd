"""Which flags go with which action, and what is said of the others."""

from __future__ import annotations

import re

import pytest

import main
from commands.flags import FLAGS_OF_ACTION
from errors import ExitStatus

VALUES = {
    "--limit": "5",
    "--verify": "5",
    "--mode": "bulk",
    "--env-file": "x",
    "--export": "x.csv",
    "--listen": "8080",
}
OPTIONS = (
    *("--limit", "--mode", "--full-refresh", "--ignore-guards"),
    *("--env-file", "--quiet", "--verbose", "--json"),
)


def words(*flags: str) -> list[str]:
    """Return the flags, each with a value where it needs one."""
    return [word for flag in flags for word in (flag, VALUES.get(flag)) if word is not None]


def refusal(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Return the one line on standard error with which these arguments are refused."""
    with pytest.raises(SystemExit) as ending:
        main._parse_flags(argv)
    assert ending.value.code == ExitStatus.BAD_SETTINGS
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    return line.removesuffix(" (see main.py --help)")


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("action", FLAGS_OF_ACTION)
def test_a_flag_that_the_action_does_not_use_was_ignored(
    capsys: pytest.CaptureFixture[str], action: str, option: str
) -> None:
    """`--export x.csv --json` and `--check --dry-run` were accepted."""
    if option in FLAGS_OF_ACTION[action].split():
        assert main._parse_flags(words(action, option))
        return
    for argv in (words(action, option), words(option, action)):
        assert refusal(capsys, *argv) == f"{action} does not use {option}: leave it out"


@pytest.mark.parametrize("action", [name for name in FLAGS_OF_ACTION if name != "--dry-run"])
def test_an_action_is_no_dry_run(capsys: pytest.CaptureFixture[str], action: str) -> None:
    line = refusal(capsys, *words(action, "--dry-run"))
    assert line == f"{action} does not use --dry-run: leave it out"


def test_a_sync_takes_all_the_other_flags(capsys: pytest.CaptureFixture[str]) -> None:
    flags = main._parse_flags(words(*(flag for flag in OPTIONS if flag != "--verbose")))
    assert (flags.limit, flags.mode, flags.full_refresh, flags.json) == (5, "bulk", True, True)
    assert "not allowed with argument" in refusal(capsys, "--quiet", "--verbose")


def test_all_flags_that_are_not_used_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(capsys, "--history", "--limit", "5", "--quiet")
    assert line == "--history does not use --limit and --quiet: leave them out"


def test_an_export_to_an_empty_name_is_still_an_export(capsys: pytest.CaptureFixture[str]) -> None:
    assert main._parse_flags(["--export", ""]).export == ""
    assert refusal(capsys, "--export", "", "--json").startswith("--export does not use --json")


@pytest.mark.parametrize(
    ("argument", "flag"),
    [
        *(("--dry", "--dry-run"), ("--dryrun", "--dry-run"), ("--dry_run", "--dry-run")),
        *(("--lim", "--limit"), ("--limt=5", "--limit"), ("-limit", "--limit")),
        *(("--historie", "--history"), ("--verfy", "--verify"), ("--Quiet", "--quiet")),
        *(("--settings", "--help-settings"), ("--full", "--full-refresh"), ("--j", "--json")),
    ],
)
def test_an_unknown_flag_is_answered_with_the_nearest_one(
    capsys: pytest.CaptureFixture[str], argument: str, flag: str
) -> None:
    unknown = argument.partition("=")[0]
    assert refusal(capsys, argument) == f"unknown flag {unknown}: did you mean {flag}?"


@pytest.mark.parametrize("argument", ["--nothing-like-it", "-x", "--\udcff", "--=", "-=x"])
def test_every_unknown_flag_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], argument: str
) -> None:
    assert re.match(
        r"unknown flag -.*: did you mean --[a-z-]+\?|unexpected argument", refusal(capsys, argument)
    )


def test_the_value_of_an_unknown_flag_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert "hunter2" not in refusal(capsys, "--password=hunter2")


@pytest.mark.parametrize("argument", ["rows.csv", "5", ""])
def test_an_argument_that_is_no_flag_is_named(
    capsys: pytest.CaptureFixture[str], argument: str
) -> None:
    assert refusal(capsys, "--check", argument) == f"unexpected argument {argument!r}"


def test_the_table_names_only_flags_that_exist() -> None:
    named = {word for entry in FLAGS_OF_ACTION.items() for word in " ".join(entry).split()}
    assert named <= set(main._parser().flag_names())
