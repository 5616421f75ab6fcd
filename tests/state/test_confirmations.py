"""The file of confirmations: repeats count once, nothing names a user, old entries go."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import pytest

from records.webhooks import Webhook, to_event_hash
from state.confirmations import (
    KEPT_SECONDS,
    Confirmations,
    ConfirmationsError,
    ConfirmationsFile,
    Received,
)

NOW = 1_768_400_000


def webhook(number: int, kind: str = "page_view") -> Webhook:
    return Webhook(number, kind, (to_event_hash(f"page-view-{number}"),))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "confirmations.sqlite3"


def test_a_repeat_counts_once(path: Path) -> None:
    file = ConfirmationsFile(path)
    assert file.add([Received(webhook(1), NOW), Received(webhook(1), NOW)]) == 1
    assert file.add([Received(webhook(1), NOW + 9), Received(webhook(2, "emailSend"), NOW)]) == 1
    file.close()
    read = Confirmations(path)
    assert read.counts(NOW) == {"emailSend": 1, "page_view": 1}
    assert read.confirmed(["page-view-1", "page-view-2", "page-view-3"]) == {
        "page-view-1",
        "page-view-2",
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_is_older_than_thirty_days_is_forgotten(path: Path) -> None:
    file = ConfirmationsFile(path)
    file.add([Received(webhook(1), NOW), Received(webhook(2), NOW + 90_000)])
    file.forget_old(NOW + KEPT_SECONDS + 80_000)
    assert Confirmations(path).confirmed(["page-view-1", "page-view-2"]) == {"page-view-2"}
    assert Confirmations(path).counts(NOW + KEPT_SECONDS + 80_000) == {"page_view": 1}
    file.close()


def test_without_a_file_nothing_is_confirmed(path: Path) -> None:
    read = Confirmations(path)
    assert (read.exist, read.counts(), read.confirmed(["page-view-1"])) == (False, {}, set())
    assert not path.exists()


def test_a_file_of_another_program_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE theirs (x)")
    database.close()
    for open_it in (lambda: ConfirmationsFile(path), lambda: Confirmations(path).counts()):
        with pytest.raises(ConfirmationsError, match="is not a file of confirmations"):
            open_it()


def test_a_folder_that_does_not_exist_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfirmationsError, match="No such file"):
        ConfirmationsFile(tmp_path / "missing" / "file")
