"""Printing to the terminal: what is escaped, what is redacted, what is exact."""

from __future__ import annotations

import io
import json

import pytest

from commands.console import print_json, print_line, print_payload
from logger_config import register_secret

PASSWORD = "xyzzy-example"
BODY = '{"email":"ann@xyzzy-example.com","name":"Zoë 🚀\u202e"}'.encode()


def printed(encoding: str) -> str:
    """Return what `print_payload` prints on a terminal of this encoding."""
    register_secret(PASSWORD, "database password")
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    print_payload(out, "users/update", BODY)
    return out.buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_a_payload_means_the_same_on_every_terminal_and_is_not_redacted(encoding: str) -> None:
    endpoint, _, payload = printed(encoding).rstrip("\n").partition(" ")
    assert endpoint == "users/update"
    assert json.loads(payload) == json.loads(BODY)
    assert "\u202e" not in payload


def test_on_a_terminal_that_has_its_characters_a_payload_is_exact() -> None:
    assert "Zoë 🚀" in printed("utf-8")


def test_json_is_exact_and_messages_are_redacted(capsys: pytest.CaptureFixture[str]) -> None:
    register_secret(PASSWORD, "database password")
    print_json(f'{{\n"reason": "{PASSWORD}"\n}}')
    print_line(f"The password is {PASSWORD}")
    output, _errors = capsys.readouterr()
    assert output == f'{{\n"reason": "{PASSWORD}"\n}}\nThe password is [database password]\n'
