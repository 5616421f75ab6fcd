"""The file of confirmations: repeats count once, nothing names a user, old entries go."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
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
    assert read.confirmed_at(["page-view-1", "page-view-2", "page-view-3"]) == {
        "page-view-1": NOW + 9,
        "page-view-2": NOW,
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_is_older_than_thirty_days_is_forgotten(path: Path) -> None:
    file = ConfirmationsFile(path)
    file.add([Received(webhook(1), NOW), Received(webhook(2), NOW + 90_000)])
    file.forget_old(NOW + KEPT_SECONDS + 80_000)
    assert Confirmations(path).confirmed_at(["page-view-1", "page-view-2"]) == {
        "page-view-2": NOW + 90_000
    }
    assert Confirmations(path).counts(NOW + KEPT_SECONDS + 80_000) == {"page_view": 1}
    file.close()


def test_without_a_file_nothing_is_confirmed(path: Path) -> None:
    read = Confirmations(path)
    assert (read.exist, read.counts(), read.confirmed_at(["page-view-1"])) == (False, {}, {})
    assert not path.exists()


def test_a_second_confirmation_did_not_renew_the_thirty_days(path: Path) -> None:
    later = NOW + 20 * 86_400
    file = ConfirmationsFile(path)
    file.add([Received(webhook(1), NOW), Received(webhook(2), NOW)])
    # The same body once more, and another body for the same event.
    file.add([Received(webhook(1), later)])
    file.add([Received(Webhook(99, "page_view", webhook(2).event_hashes), later)])
    file.forget_old(NOW + KEPT_SECONDS + 10)
    file.close()
    found = Confirmations(path).confirmed_at(["page-view-1", "page-view-2"])
    assert found == {"page-view-1": later, "page-view-2": later}


def test_the_counts_of_the_last_thirty_days_had_older_ones(path: Path) -> None:
    """Where no webhook has come since, or the listener is stopped, nothing removes them."""
    file = ConfirmationsFile(path)
    file.add([Received(webhook(1), NOW)])
    file.close()
    assert Confirmations(path).counts(NOW + KEPT_SECONDS) == {"page_view": 1}
    assert Confirmations(path).counts(NOW + KEPT_SECONDS + 2 * 86_400) == {}


def test_a_file_that_was_just_made_was_one_of_another_program(path: Path) -> None:
    path.touch()
    read = Confirmations(path)
    assert (read.exist, read.counts(), read.confirmed_at(["page-view-1"])) == (False, {}, {})


def make_foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE theirs (x)")


@pytest.mark.parametrize(
    "make", [make_foreign, lambda path: path.write_text("hello " * 1_000)], ids=["sqlite", "text"]
)
def test_a_file_of_another_program_is_refused_as_it_is(
    path: Path, make: Callable[[Path], object]
) -> None:
    make(path)
    path.chmod(0o644)
    before = path.read_bytes()
    for open_it in (lambda: ConfirmationsFile(path), lambda: Confirmations(path).counts()):
        with pytest.raises(ConfirmationsError, match="is not a file of confirmations"):
            open_it()
    assert path.read_bytes() == before
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_file_that_somebody_made_read_only_is_refused(path: Path) -> None:
    ConfirmationsFile(path).close()
    path.chmod(0o400)
    with pytest.raises(ConfirmationsError, match=r"Permission denied.*its mode"):
        ConfirmationsFile(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o400


def test_a_symbolic_link_was_too_many_levels_of_links(path: Path) -> None:
    path.symlink_to(path.with_name("other.sqlite3"))
    with pytest.raises(ConfirmationsError, match="is a symbolic link"):
        ConfirmationsFile(path)


def test_a_file_of_a_newer_version_is_refused(path: Path) -> None:
    ConfirmationsFile(path).close()
    set_version(path, 2)
    for open_it in (lambda: ConfirmationsFile(path), lambda: Confirmations(path).counts()):
        with pytest.raises(ConfirmationsError, match="made by a newer version of this program"):
            open_it()


def test_a_file_of_version_1_4_0_is_used_as_it_is(path: Path) -> None:
    file = ConfirmationsFile(path)
    file.add([Received(webhook(1), NOW)])
    file.close()
    set_version(path, 0)
    assert Confirmations(path).confirmed_at(["page-view-1"]) == {"page-view-1": NOW}
    ConfirmationsFile(path).close()
    assert Confirmations(path).confirmed_at(["page-view-1"]) == {"page-view-1": NOW}
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (1,)


def set_version(path: Path, version: int) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(f"PRAGMA user_version = {version}")


def test_a_folder_that_does_not_exist_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfirmationsError, match="No such file"):
        ConfirmationsFile(tmp_path / "missing" / "file")
