"""What must never stand in a line of the log: secrets, forged lines, what drives a terminal."""

from __future__ import annotations

import logging
from pathlib import Path

import orjson
import pytest

from logger_config import hide_secret, printable, without_secrets
from tests.logs import LINE, SetUp, log_file, set_up

__all__ = ["log_file", "set_up"]  # fixtures


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:  # noqa: BLE001 - with its traceback
        return caught


# Secrets


def test_a_secret_is_taken_out_of_messages_arguments_and_tracebacks(
    set_up: SetUp, log_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = "canary-of-logging-1"
    hide_secret(secret, "api key")
    logger = set_up("DEBUG")
    logger.info("Api-Key: %s", secret)
    logger.debug("headers %s", {"Api-Key": secret, "x": [secret.encode()]})
    cause = raised(ValueError(f"with {secret}"))
    logger.error("failed for %r", cause, exc_info=cause)
    logger.error("in a stack", stack_info=True, extra={"secret": secret})
    logging.getLogger("test_of_logging.http").warning(f"{secret}{secret}")
    for text in (log_file.read_text(), capsys.readouterr().err):
        assert secret not in text
        assert "Api-Key: [api key]" in text
        assert "ValueError: with [api key]" in text
        assert "[api key][api key]" in text


def test_a_secret_is_hidden_in_loggers_that_were_set_up_before(
    set_up: SetUp, log_file: Path
) -> None:
    logger = set_up()
    hide_secret("canary-of-logging-2", "password")
    logger.info("canary-of-logging-2")
    assert log_file.read_text().endswith(" - [password]\n")


@pytest.mark.parametrize(
    "secret", ['quote"and\\back-3', "apostrophe'-and-ü-3", "tab\tand\nline-3", "plain-enough-3"]
)
def test_a_secret_is_hidden_in_every_form_that_text_gives_it(
    set_up: SetUp, log_file: Path, secret: str
) -> None:
    hide_secret(secret, "password")
    logger = set_up()
    logger.info("%s", secret)
    logger.info("%r", secret)
    logger.info("%s", orjson.dumps({"password": secret}).decode())
    written = [line.rsplit(" - ", 1)[-1] for line in log_file.read_text().splitlines()]
    assert written[0] == "[password]"
    assert written[1].strip("'\"") == "[password]"
    assert written[2] == '{"password":"[password]"}'


def test_a_secret_has_four_characters_or_more() -> None:
    hide_secret("q7#z", "password")
    assert without_secrets("<q7#z>") == "<[password]>"


def test_a_secret_that_is_part_of_another_leaves_nothing_of_the_other() -> None:
    hide_secret("canary-4", "short one")
    hide_secret("canary-4-and-the-rest", "long one")
    assert without_secrets("a canary-4-and-the-rest b canary-4") == "a [long one] b [short one]"


@pytest.mark.parametrize("secret", ["", "abc"])
def test_a_secret_too_short_to_be_one_blackens_no_line(secret: str) -> None:
    hide_secret(secret, "password")
    assert without_secrets("abc abc") == "abc abc"


# Text from outside

FORGED = "2026-01-13 14:30:45 - main - INFO - Run completed"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, 100 % of it \\ too", "plain text, 100 % of it \\ too"),
        ("小龙 🚀 O'Hara ü", "小龙 🚀 O'Hara ü"),
        (f"x\n{FORGED}", rf"x\n{FORGED}"),
        ("a\rb", r"a\rb"),
        ("a\tb\0c", r"a\tb\x00c"),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("\x9b31m\x85", r"\x9b31m\x85"),
        ("line\u2028separators\u2029", r"line\u2028separators\u2029"),
        ("\u202egnp.exe\u2066", r"\u202egnp.exe\u2066"),
        ("\x7f", r"\x7f"),
    ],
)
def test_control_characters_are_spelled_out(
    set_up: SetUp,
    log_file: Path,
    capsys: pytest.CaptureFixture[str],
    text: str,
    shown: str,
) -> None:
    assert printable(text) == shown
    set_up().warning("from outside: %s", text)
    for written in (log_file.read_text(), capsys.readouterr().err):
        (line,) = written.removesuffix("\n").split("\n")
        assert line.endswith(f" - WARNING - from outside: {shown}")


def test_no_line_of_an_exceptions_text_passes_for_a_line_of_the_log(
    set_up: SetUp, log_file: Path
) -> None:
    """It did: a newline in what a server had said began a line of its own."""
    trouble = raised(ValueError(f"bad\n{FORGED}\n\x1b[31mred\r{FORGED}"))
    set_up().error("failed", exc_info=trouble)
    first, *others = log_file.read_text().splitlines()
    assert LINE.fullmatch(first)
    assert f"  {FORGED}" in others
    assert not [line for line in others if LINE.fullmatch(line)]
    assert "\x1b" not in log_file.read_text()
    assert any(line.startswith("  Traceback") for line in others)
