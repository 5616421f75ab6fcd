"""`--listen`: its parts, without a process. `end_to_end/test_listen.py` has the rest."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from commands.listen.recorder import Recorder
from commands.listen.run import to_address, works_in_an_address
from errors import ConfigError
from records.webhooks import Webhook, to_event_hash
from state.confirmations import KEPT_SECONDS, Confirmations, ConfirmationsFile, Received
from tests.support.program import wait_until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "confirmations.sqlite3"


def test_a_webhook_that_could_not_be_written_in_time_was_a_bug(path: Path) -> None:
    """In Python 3.10, whose futures raise a TimeoutError of their own."""
    recorder = Recorder(path, timeout_seconds=0.1)
    with closing(sqlite3.connect(path, isolation_level=None)) as lock:
        lock.execute("BEGIN IMMEDIATE")
        assert not recorder.record(Webhook(1, "page_view", ()))
        lock.execute("ROLLBACK")
    recorder.close()


def test_a_listener_that_receives_nothing_removes_what_is_old(path: Path) -> None:
    file = ConfirmationsFile(path)
    webhook = Webhook(1, "page_view", (to_event_hash("page-view-1"),))
    file.add([Received(webhook, int(time.time()) - KEPT_SECONDS - 10)])
    file.close()
    recorder = Recorder(path, clean_every_seconds=0.05)
    wait_until(lambda: not Confirmations(path).confirmed_at(["page-view-1"]))
    recorder.close()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("8080", ("127.0.0.1", 8080)),
        ("192.0.2.1:1", ("192.0.2.1", 1)),
        ("[::1]:65535", ("::1", 65_535)),
        ("localhost:0", ("localhost", 0)),
    ],
)
def test_an_address_is_a_port_with_or_without_a_host(text: str, address: tuple[str, int]) -> None:
    assert to_address(text) == address


@pytest.mark.parametrize(
    "text",
    ["", "x", "65536", "-1", "\u0663", "http://127.0.0.1:8080", "127.0.0.1:80/x", "9" * 5_000],
)
def test_what_is_no_address_is_a_wrong_flag(text: str) -> None:
    with pytest.raises(ConfigError, match="--listen needs a port, as in 8080") as raised:
        to_address(text)
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize("character", "/:%?#&")
def test_a_token_with_a_character_of_addresses_works_in_the_header_only(character: str) -> None:
    assert not works_in_an_address(f"0123456789abcdef{character}")
    assert works_in_an_address("aZ09._~+=-aZ09._~+=-")
