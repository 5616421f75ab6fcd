"""Redaction of the log: secrets, e-mail addresses, forged lines, control characters."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, urlencode

import orjson
import pytest

from logger_config import RowText, redact, register_secret
from tests.support.logs import LINE, SetUp, log_file, set_up

__all__ = ["log_file", "set_up"]  # fixtures

ROOT = Path(__file__).resolve().parent.parent.parent


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:  # noqa: BLE001 - with its traceback
        return caught


# Secrets


def test_a_secret_is_redacted_in_messages_arguments_and_tracebacks(
    set_up: SetUp, log_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = "canary-of-logging-1"
    register_secret(secret, "api key")
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


def test_beside_the_text_of_a_row_only_texts_were_redacted(set_up: SetUp, log_file: Path) -> None:
    secret = "canary-of-logging-3"
    register_secret(secret, "api key")
    error = ValueError(f"with {secret}\nforged")
    set_up().info(f"{secret}: %s, %s, %d of %.1f", error, RowText(f"{secret}\n"), 1, 2.0)
    end = f" - [api key]: with [api key]\\nforged, {secret}\\n, 1 of 2.0\n"
    assert log_file.read_text().endswith(end)


def test_a_secret_is_redacted_in_loggers_that_were_set_up_earlier(
    set_up: SetUp, log_file: Path
) -> None:
    logger = set_up()
    register_secret("canary-of-logging-2", "password")
    logger.info("canary-of-logging-2")
    assert log_file.read_text().endswith(" - [password]\n")


@pytest.mark.parametrize(
    "secret", ['quote"and\\back-3', "apostrophe'-and-ü-3", "tab\tand\nline-3", "plain-enough-3"]
)
def test_a_secret_is_redacted_as_text_repr_and_json(
    set_up: SetUp, log_file: Path, secret: str
) -> None:
    register_secret(secret, "password")
    logger = set_up()
    logger.info("%s", secret)
    logger.info("%r", secret)
    logger.info("%s", orjson.dumps({"password": secret}).decode())
    written = [line.rsplit(" - ", 1)[-1] for line in log_file.read_text().splitlines()]
    assert written[0] == "[password]"
    assert written[1].strip("'\"") == "[password]"
    assert written[2] == '{"password":"[password]"}'


SECRETS = [  # a part that is left after redaction shows an Xq
    "Xq12345",
    'Xq1"Xq2\\Xq3',
    "Xq1'Xq2",
    "Xq1\tXq2\\Xq3",
    "Xq1üXq2龙Xq3",
    "Xq1%20Xq2+Xq3 &Xq4=Xq5",
    "Xq1\u202eXq2\\Xq3",
    'Xq1ü\u202eXq2"Xq3',
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize(
    "write",
    [
        lambda secret: f"'\"{secret}",
        lambda secret: repr({"it's": f'"{secret}"'}),
        lambda secret: repr(f'it\'s "{secret}"'),
        lambda secret: repr(secret.encode()),
        lambda secret: repr(f'it\'s "{secret}"'.encode()),
        ascii,
        json.dumps,
        lambda secret: json.dumps(secret, ensure_ascii=False),
        lambda secret: f"https://127.0.0.1/?{urlencode({'key': secret})}",
        lambda secret: f"https://{quote(secret, safe='')}@127.0.0.1/",
        lambda secret: f"https://127.0.0.1/{quote(secret)}",
    ],
)
def test_a_secret_is_redacted_in_longer_texts_bytes_and_urls(
    set_up: SetUp, log_file: Path, secret: str, write: Callable[[str], str]
) -> None:
    """The password was visible after a tab and a backslash, in bytes and in a URL."""
    register_secret(secret, "password")
    set_up().error("it said: %s", write(secret), exc_info=raised(ValueError(write(secret))))
    text = log_file.read_text("utf-8")
    assert text.count("[password]") == 2
    assert "Xq" not in text


def test_a_secret_of_four_characters_is_redacted() -> None:
    register_secret("q7#z", "password")
    assert redact("<q7#z>") == "<[password]>"


def test_a_secret_that_is_part_of_another_one_leaves_no_remainder() -> None:
    register_secret("canary-4", "short one")
    register_secret("canary-4-and-the-rest", "long one")
    assert redact("a canary-4-and-the-rest b canary-4") == "a [long one] b [short one]"


@pytest.mark.parametrize("secret", ["", "abc"])
def test_a_secret_of_three_characters_is_not_redacted(secret: str) -> None:
    register_secret(secret, "password")
    assert redact("abc abc") == "abc abc"


# E-mail addresses


@pytest.mark.parametrize(
    "email",
    [
        *("ann@example.com", "o'hara+news=x/y{z}@mail.example.co.uk", "jürgen@müller.example"),
        *('"ann smith"@example.com', "ann@[192.0.2.1]", "ann@localhost"),
    ],
)
@pytest.mark.parametrize(
    "write",
    [
        "user {0} attempt 1".format,
        "('{0}', 'Ann')".format,
        lambda email: json.dumps({"email": email}),
        lambda email: repr({"email": email}),
        lambda email: f"/api/users/getByEmail?{urlencode({'email': email})} HTTP/1.1",
        lambda email: f"/api/events/{quote(email, safe='')} HTTP/1.1",
    ],
)
def test_emails_are_redacted_in_lines_and_tracebacks(
    set_up: SetUp, log_file: Path, email: str, write: Callable[[str], str]
) -> None:
    set_up(redact_emails=True).error(
        "it said: %s", write(email), exc_info=raised(KeyError(write(email)))
    )
    text = log_file.read_text("utf-8")
    assert text.count("[e-mail]") == 2
    redacted = [line for line in text.splitlines() if "[e-mail]" in line]
    assert not re.search(r"ann|hara|rgen|smith|example|192\.0", "".join(redacted))


def test_a_line_without_an_email_is_unchanged(set_up: SetUp, log_file: Path) -> None:
    line = "users/update user 1: 200 in 5 ms, request 151 bytes, 100 % at 12:00 (a@ b) 'c'"
    set_up(redact_emails=True).info("%s", line)
    assert log_file.read_text().endswith(f" - {line}\n")


def test_emails_are_logged_by_default(set_up: SetUp, log_file: Path) -> None:
    set_up().info("ann@example.com")
    assert log_file.read_text().endswith(" - ann@example.com\n")


# Uncaught errors


def test_an_uncaught_error_is_logged_without_secrets_and_not_printed(
    log_file: Path,
) -> None:
    """Python printed it on the console with the secrets."""
    program = (
        "import sys, threading, warnings\n"
        "from logger_config import register_secret, log_uncaught_errors, setup_logger\n"
        "setup_logger('', sys.argv[1], 'DEBUG'); log_uncaught_errors()\n"
        "secret = 'canary-' + 'of-uncaught'; register_secret(secret, 'password')\n"
        "class FailsWhenDeleted:\n"
        "    def __del__(self): raise ValueError(secret)\n"
        "FailsWhenDeleted()\n"
        "def fail(): raise KeyError(secret)\n"
        "thread = threading.Thread(target=fail, name=secret); thread.start(); thread.join()\n"
        "warnings.warn(f'{secret} is old', DeprecationWarning)\n"
        "at_exit = FailsWhenDeleted()\n"
    )
    command = [sys.executable, "-W", "always", "-c", program, str(log_file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    text = log_file.read_text()
    assert re.findall(r"  (\w+Error): '?\[password\]", text)[:2] == ["ValueError", "KeyError"]
    assert "DeprecationWarning: [password] is old" in text
    assert done.stdout == ""
    assert "Error" not in done.stderr
    assert "canary-of" not in text + done.stderr


# Control characters in text from outside

FORGED = "2026-01-13 14:30:45 - main - INFO - Run completed"


@pytest.mark.parametrize(
    ("text", "escaped"),
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
        ("gpj\u200f.\u061cexe\u200e", r"gpj\u200f.\u061cexe\u200e"),  # invisible, right to left
        ("\ufeffa\u200bb\u2060c\u2064", r"\ufeffa\u200bb\u2060c\u2064"),
        ("\ufff9\U000e0041\U000e007f", r"\ufff9\U000e0041\U000e007f"),
        (
            "क्\u200dष 👩\u200d🚀 ❤\ufe0f \u200c",
            "क्\u200dष 👩\u200d🚀 ❤\ufe0f \u200c",
        ),  # parts of words
    ],
)
def test_control_and_invisible_characters_are_escaped(
    set_up: SetUp,
    log_file: Path,
    capsys: pytest.CaptureFixture[str],
    text: str,
    escaped: str,
) -> None:
    assert redact(text) == escaped
    set_up().warning("from outside: %s", text)
    for written in (log_file.read_text(), capsys.readouterr().err):
        (line,) = written.removesuffix("\n").split("\n")
        assert line.endswith(f" - WARNING - from outside: {escaped}")


def test_the_text_of_an_exception_cannot_forge_a_log_line(set_up: SetUp, log_file: Path) -> None:
    """A newline in a server's message began a new log line."""
    error = raised(ValueError(f"bad\n{FORGED}\n\x1b[31mred\r{FORGED}"))
    set_up().error("failed", exc_info=error)
    first, *others = log_file.read_text().splitlines()
    assert LINE.fullmatch(first)
    assert f"  {FORGED}" in others
    assert not [line for line in others if LINE.fullmatch(line)]
    assert "\x1b" not in log_file.read_text()
    assert any(line.startswith("  Traceback") for line in others)


def test_a_stack_trace_is_indented_like_a_traceback(set_up: SetUp, log_file: Path) -> None:
    set_up().error("failed", stack_info=True)
    first, *others = log_file.read_text().splitlines()
    assert LINE.fullmatch(first)
    assert others
    assert all(line.startswith("  ") for line in others)
