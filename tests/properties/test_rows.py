"""Property: any row becomes a record or is invalid, and every row is in the results file."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from datetime import datetime, timezone, tzinfo
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.fields import RESERVED_EVENT_FIELDS, RESERVED_USER_FIELDS, parse_fields
from records.identity import is_email
from records.mapping import InvalidRow, RowMapping
from records.outcomes import Outcome, Verdict
from records.rows import RequestKind
from reporting.summary import RunTally, summarize
from state.outbox import Outbox
from tests.support.hostile import COLUMNS, EMAILS, FEW, FIELD_LISTS, TEXTS, ZONES, rows_of
from tests.support.results import write_results
from tests.support.rows import finished

Row = tuple[Any, ...]
SENT: tuple[dict[str, Any], ...] = ({}, {"sends_events": False}, {"sends_profiles": False})
STARTED_AT = datetime(2026, 1, 20, tzinfo=timezone.utc)


@st.composite
def results_of_queries(draw: st.DrawFn) -> tuple[RowMapping, list[Row]]:
    """Draw a mapping and rows with its columns."""
    columns = COLUMNS if draw(st.booleans()) else COLUMNS[:-1]
    try:
        mapping = RowMapping(
            columns,
            user_fields=parse_fields(draw(FIELD_LISTS), RESERVED_USER_FIELDS),
            event_fields=parse_fields(draw(FIELD_LISTS), RESERVED_EVENT_FIELDS),
            zone=draw(ZONES),
            send_nulls=draw(st.booleans()),
            event_name=draw(st.sampled_from(["page_view", "Trial ending!", "注文", "a_id"])),
            profile_flag=draw(st.sampled_from(["recent_page_view", "vip", ""])),
            **draw(st.sampled_from(SENT)),
        )
    except ValueError:
        mapping = RowMapping(columns)
    if mapping.missing_columns:
        mapping = RowMapping(columns)
    return mapping, draw(st.lists(rows_of(columns), min_size=1, max_size=5))


@FEW
@given(results_of_queries())
def test_any_row_becomes_a_record_with_a_key_or_is_invalid(
    found: tuple[RowMapping, list[Row]],
) -> None:
    mapping, rows = found
    for row in rows:
        key, record = mapping.key(row), mapping.to_record(row)
        if isinstance(record, InvalidRow):
            assert record.reason
            assert "\n" not in record.reason
            continue
        assert key is not None
        assert (key.user_id, key.email) == (record.user_id, record.email)
        assert key == mapping.key(row)
        assert record == mapping.to_record(row)
        assert (record.profile is None, key.profile_hash is None) == (
            not mapping.sends_profiles,
        ) * 2
        assert (record.event is None, key.event_hash is None) == (not mapping.sends_events,) * 2
        bodies = [json.loads(body) for body in (record.profile, record.event) if body]
        assert {body["email"] for body in bodies} == {record.email}
        if record.event:
            assert re.fullmatch(r"[A-Za-z0-9-]{1,64}", bodies[-1]["id"])
            assert type(bodies[-1]["createdAt"]) is int


@FEW
@given(results_of_queries(), st.data())
def test_a_changed_payload_has_another_change_hash(
    found: tuple[RowMapping, list[Row]], data: st.DataObject
) -> None:
    """For any change but one of the type alone, which a column does not change."""
    mapping, (row, *_) = found
    column = data.draw(st.integers(0, len(row) - 1))
    (other,) = data.draw(st.lists(rows_of(COLUMNS[: len(row)]), min_size=1, max_size=1))
    changed = (*row[:column], other[column], *row[column + 1 :])
    before, after = mapping.to_record(row), mapping.to_record(changed)
    keys = mapping.key(row), mapping.key(changed)
    if isinstance(before, InvalidRow) or isinstance(after, InvalidRow):
        return
    if type(row[column]) is not type(changed[column]):
        return
    assert keys[0] is not None
    assert keys[1] is not None
    assert before.profile == after.profile or keys[0].profile_hash != keys[1].profile_hash
    assert before.event == after.event or keys[0].event_hash != keys[1].event_hash


@FEW
@given(results_of_queries(), st.sampled_from(Verdict), st.booleans())
def test_every_row_is_counted_once_in_the_results(
    found: tuple[RowMapping, list[Row]], verdict: Verdict, is_asked_twice: bool
) -> None:
    mapping, rows = found
    with tempfile.TemporaryDirectory() as folder:
        outbox = Outbox(Path(folder, "absent.sqlite3"), read_only=True)  # in memory, so quick
        filled = outbox.fill([rows], mapping)
        pending = list(outbox.pending())
        outbox.record(
            finished((row for row in pending if row.profile), RequestKind.PROFILE, verdict)
        )
        outbox.record(finished((row for row in pending if row.event), RequestKind.EVENT))
        check_account(Path(folder), outbox, len(rows))
        assert (filled.total, filled.to_send) == (len(rows), len(pending))
        if is_asked_twice:
            again = outbox.fill([rows], mapping)
            delivered = len(pending) if verdict is Verdict.DELIVERED else 0
            assert again.to_send == len(pending) - delivered
            check_account(Path(folder), outbox, len(rows))
        outbox.close()


def check_account(folder: Path, outbox: Outbox, row_count: int) -> None:
    """Check that every row is in the results file, and that it is strict JSON."""
    settled = list(outbox.settled())
    tally = RunTally()
    tally.add(settled)
    tally.failures()
    summary = summarize(
        run_id="r",
        status="completed",
        reason=None,
        dry_run=False,
        mode="per-user",
        started_at=STARTED_AT,
        finished_at=STARTED_AT,
        counts=tally.counts,
        api_calls=0,
        retries=0,
        elapsed_seconds=1.0,
    )
    path = write_results(folder, summary, settled)
    results = json.loads(path.read_bytes().decode("utf-8"))
    assert results["total_users"] == len(results["records"]) == row_count
    assert {record["outcome"] for record in results["records"]} <= set(Outcome)


@pytest.mark.parametrize(
    ("user_id", "recorded"),
    [("a\ud800", "a\\ud800"), (-(2**63) - 1, "-9223372036854775809"), (2**63, str(2**63))],
)
@pytest.mark.parametrize("email", ["ann@example.com", "no address"])
def test_an_id_that_sqlite_cannot_hold_ended_the_run_and_lost_every_row(
    tmp_path: Path, user_id: object, recorded: str, email: str
) -> None:
    columns = ("id", "email", "event_time", "event_id")
    mapping = RowMapping(columns, user_fields=(), event_fields=())
    outbox = Outbox(tmp_path / "absent.sqlite3", read_only=True)
    assert outbox.fill([[(user_id, email, STARTED_AT, "e-1")]], mapping).total == 1
    assert [row.user_id for row in outbox.settled()] == [recorded]
    outbox.close()


@given(EMAILS | TEXTS)
def test_any_text_is_an_email_address_or_not(text: str) -> None:
    assert is_email(text) in (True, False)
    assert not is_email(text) or ("@" in text and len(text) <= 254)


@given(
    st.sampled_from([*"ab", "é", ".", "-", "(", '"', "\\", "@", " ", "\u0300", "ﷺ"]),
    st.sampled_from(["{}@example.com", "a@{}.com", "a@{}", '"{}"@example.com', "{}", "a@[{}]"]),
    st.integers(1, 100_000),
    ZONES,
)
def test_a_long_email_address_is_checked_quickly(
    letter: str, form: str, times: int, zone: tzinfo
) -> None:
    """Fails only by the time limit of the fuzzer or of the test suite."""
    email = form.format(letter * times)
    row: Sequence[Any] = (1, email, STARTED_AT, "pricing")
    mapping = RowMapping(
        ("id", "email", "event_time", "page"), user_fields=(), event_fields=(), zone=zone
    )
    assert isinstance(mapping.to_record(row), InvalidRow) is not is_email(email.strip())
