"""What must never stand in a line of the log: secrets, forged lines, what drives a terminal."""

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

from logger_config import redact, register_secret
from tests.support.logs import LINE, SetUp, log_file, set_up

__all__ = ["log_file", "set_up"]  # fixtures

ROOT = Path(__file__).resolve().parent.parent.parent


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


def test_a_secret_is_hidden_in_loggers_that_were_set_up_before(
    set_up: SetUp, log_file: Path
) -> None:
    logger = set_up()
    register_secret("canary-of-logging-2", "password")
    logger.info("canary-of-logging-2")
    assert log_file.read_text().endswith(" - [password]\n")


@pytest.mark.parametrize(
    "secret", ['quote"and\\back-3', "apostrophe'-and-ü-3", "tab\tand\nline-3", "plain-enough-3"]
)
def test_a_secret_is_hidden_in_every_form_that_text_gives_it(
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


SECRETS = [  # whatever is left of one shows by its Xq
    "Xq12345",
    'Xq1"Xq2\\Xq3',
    "Xq1'Xq2",
    "Xq1\tXq2\\Xq3",
    "Xq1üXq2龙Xq3",
    "Xq1%20Xq2+Xq3 &Xq4=Xq5",
    "Xq1\u202eXq2\\Xq3",
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
def test_a_secret_is_hidden_in_longer_texts_in_bytes_and_in_addresses(
    set_up: SetUp, log_file: Path, secret: str, write: Callable[[str], str]
) -> None:
    """A tab beside a backslash, bytes, an address: each showed the password."""
    register_secret(secret, "password")
    set_up().error("it said: %s", write(secret), exc_info=raised(ValueError(write(secret))))
    text = log_file.read_text("utf-8")
    assert text.count("[password]") == 2
    assert "Xq" not in text


def test_a_secret_has_four_characters_or_more() -> None:
    register_secret("q7#z", "password")
    assert redact("<q7#z>") == "<[password]>"


def test_a_secret_that_is_part_of_another_leaves_nothing_of_the_other() -> None:
    register_secret("canary-4", "short one")
    register_secret("canary-4-and-the-rest", "long one")
    assert redact("a canary-4-and-the-rest b canary-4") == "a [long one] b [short one]"


@pytest.mark.parametrize("secret", ["", "abc"])
def test_a_secret_too_short_to_be_one_blackens_no_line(secret: str) -> None:
    register_secret(secret, "password")
    assert redact("abc abc") == "abc abc"


# E-mail addresses, where they are to be left out


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
def test_emails_are_left_out_of_every_line_and_traceback(
    set_up: SetUp, log_file: Path, email: str, write: Callable[[str], str]
) -> None:
    set_up(redact_emails=True).error(
        "it said: %s", write(email), exc_info=raised(KeyError(write(email)))
    )
    text = log_file.read_text("utf-8")
    assert text.count("[e-mail]") == 2
    said = [line for line in text.splitlines() if "[e-mail]" in line]
    assert not re.search(r"ann|hara|rgen|smith|example|192\.0", "".join(said))


def test_a_line_without_an_email_is_left_as_it_is(set_up: SetUp, log_file: Path) -> None:
    line = "users/update user 1: 200 in 5 ms, request 151 bytes, 100 % at 12:00 (a@ b) 'c'"
    set_up(redact_emails=True).info("%s", line)
    assert log_file.read_text().endswith(f" - {line}\n")


def test_emails_stay_where_nothing_else_is_said(set_up: SetUp, log_file: Path) -> None:
    set_up().info("ann@example.com")
    assert log_file.read_text().endswith(" - ann@example.com\n")


# Errors that nobody catches


def test_what_nobody_catches_is_in_the_log_without_secrets_and_not_on_the_console(
    log_file: Path,
) -> None:
    """Python printed it on the console, secrets and all."""
    program = (
        "import sys, threading, warnings\n"
        "from logger_config import register_secret, log_uncaught_errors, setup_logger\n"
        "setup_logger('', sys.argv[1], 'DEBUG'); log_uncaught_errors()\n"
        "secret = 'canary-' + 'of-strays'; register_secret(secret, 'password')\n"
        "class Stray:\n"
        "    def __del__(self): raise ValueError(secret)\n"
        "Stray()\n"
        "def fail(): raise KeyError(secret)\n"
        "thread = threading.Thread(target=fail, name=secret); thread.start(); thread.join()\n"
        "warnings.warn(f'{secret} is old', DeprecationWarning)\n"
        "at_the_end = Stray()\n"
    )
    command = [sys.executable, "-W", "always", "-c", program, str(log_file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    text = log_file.read_text()
    assert re.findall(r"  (\w+Error): '?\[password\]", text)[:2] == ["ValueError", "KeyError"]
    assert "DeprecationWarning: [password] is old" in text
    assert done.stdout == ""
    assert "Error" not in done.stderr
    assert "canary-of" not in text + done.stderr


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
        ("gpj\u200f.\u061cexe\u200e", r"gpj\u200f.\u061cexe\u200e"),  # right to left, unseen
        ("\ufeffa\u200bb\u2060c\u2064", r"\ufeffa\u200bb\u2060c\u2064"),
        ("\ufff9\U000e0041\U000e007f", r"\ufff9\U000e0041\U000e007f"),
        (
            "क्\u200dष 👩\u200d🚀 ❤\ufe0f \u200c",
            "क्\u200dष 👩\u200d🚀 ❤\ufe0f \u200c",
        ),  # words need them
    ],
)
def test_control_characters_are_spelled_out(
    set_up: SetUp,
    log_file: Path,
    capsys: pytest.CaptureFixture[str],
    text: str,
    shown: str,
) -> None:
    assert redact(text) == shown
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
