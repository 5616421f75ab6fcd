"""Rows whose users are named by user id (`IDENTIFY_BY=userid`)."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import orjson
import pytest

from config.identity import IdentifyBy
from records.identity import RowKey
from records.mapping import InvalidRow, RowMapping, SyncRecord
from tests.support.golden import SARAH, SARAHS_EVENT, SARAHS_PROFILE, mapping_for, record_of, sarah

BY_USER_ID: dict[str, Any] = {"identify_by": IdentifyBy.USER_ID}
SARAHS_FIELDS: Any = SARAHS_PROFILE["dataFields"]


def key_of(row: dict[str, Any], **options: Any) -> RowKey:
    key = mapping_for(row, **{**BY_USER_ID, **options}).key(tuple(row.values()))
    assert key is not None
    return key


def reason_of(row: dict[str, Any], **options: Any) -> str:
    invalid = mapping_for(row, **options).to_record(tuple(row.values()))
    assert isinstance(invalid, InvalidRow)
    return invalid.reason


def test_the_user_id_stands_at_the_top_and_the_email_among_the_fields() -> None:
    record = record_of(sarah(id=42), **BY_USER_ID)
    assert orjson.loads(record.profile or b"") == {
        "userId": "42",
        "dataFields": {"email": "sarah.johnson@email.com", **SARAHS_FIELDS},
    }
    event = {name: value for name, value in SARAHS_EVENT.items() if name != "email"}
    assert orjson.loads(record.event or b"") == {"userId": "42", **event, "id": record.event_id}
    assert next(iter(orjson.loads(record.event or b""))) == "userId"
    assert (record.user_id, record.identifier) == (42, "42")


@pytest.mark.parametrize("email", [None, "", "  "])
def test_a_user_without_an_email_is_valid_and_has_no_such_field(email: str | None) -> None:
    row = sarah(email=email)
    record = record_of(row, send_nulls=True, **BY_USER_ID)
    assert record.email is None
    assert "email" not in orjson.loads(record.profile or b"")["dataFields"]
    assert key_of(row).email is None


def test_the_query_needs_no_column_email() -> None:
    row = {name: value for name, value in SARAH.items() if name != "email"}
    mapping = mapping_for(row, **BY_USER_ID)
    assert mapping.missing_columns == []
    assert isinstance(mapping.to_record(tuple(row.values())), SyncRecord)
    assert mapping_for(row).missing_columns == ["email"]


def test_a_malformed_email_is_invalid_all_the_same() -> None:
    assert reason_of(sarah(email="no address"), **BY_USER_ID) == "malformed e-mail address"


@pytest.mark.parametrize(
    ("user_id", "reason"),
    [
        (None, "is empty"),
        ("", "is empty"),
        ("x" * 53, "has more than 52 characters"),
        (" 42", "has a blank at its beginning or end: select TRIM(...)"),
        ("42 ", "has a blank at its beginning or end: select TRIM(...)"),
        ("straße", "has other characters than printable ASCII: select HEX(...)"),
        ("a\tb", "has other characters than printable ASCII: select HEX(...)"),
    ],
)
def test_a_user_id_that_iterable_does_not_accept_is_invalid(user_id: Any, reason: str) -> None:
    row = sarah(id=user_id)
    assert reason_of(row, **BY_USER_ID) == f"the user id {reason}"
    mapping = mapping_for(row, **BY_USER_ID)
    assert mapping.key(tuple(row.values())) is None
    assert mapping.invalid_column(tuple(row.values())) == list(row).index("id")


@pytest.mark.parametrize("user_id", ["!", "a b", "x" * 52, "~{}|", "Ann@Example.com"])
def test_a_user_id_of_printable_ascii_is_sent_as_it_is(user_id: str) -> None:
    assert record_of(sarah(id=user_id), **BY_USER_ID).identifier == user_id


def test_the_form_in_which_the_driver_gives_a_user_id_changes_nothing() -> None:
    rows = [sarah(id=value) for value in (42, "42", Decimal(42))]
    records = {record_of(row, **BY_USER_ID)[2:] for row in rows}
    assert len(records) == 1
    assert len({key_of(row)[1:] for row in rows}) == 1
    assert record_of(sarah(id=b"\xab\x01"), **BY_USER_ID).identifier == "AB01"


def test_user_ids_are_compared_exactly_and_emails_do_not_count() -> None:
    upper, lower = key_of(sarah(id="A")), key_of(sarah(id="a"))
    assert upper.user_key != lower.user_key
    assert key_of(sarah(id="A", email="other@example.com")).user_key == upper.user_key
    events = {record_of(sarah(id=each), **BY_USER_ID).event_id for each in ("A", "a")}
    assert len(events) == 2


def test_a_changed_email_changes_the_profile_and_not_the_event() -> None:
    one, other = key_of(sarah()), key_of(sarah(email="new@example.com"))
    assert one.profile_hash != other.profile_hash
    assert one.event_hash == other.event_hash
    ids = {record_of(sarah(email=each), **BY_USER_ID).event_id for each in ("a@b.de", "c@d.de")}
    assert len(ids) == 1


def test_another_column_takes_the_place_of_the_column_id() -> None:
    row = {"customer_no": "C-7", **{k: v for k, v in SARAH.items() if k != "id"}}
    options = {"user_id_column": "Customer_No"}
    record = record_of(row, **options, **BY_USER_ID)
    assert (record.user_id, record.identifier) == ("C-7", "C-7")
    by_email = record_of(row, **options)
    assert (by_email.user_id, by_email.identifier) == ("C-7", "sarah.johnson@email.com")
    assert mapping_for(row, **BY_USER_ID).missing_columns == ["id"]


# The field `userId`, beside an e-mail that names the user


@pytest.mark.parametrize(("value", "sent"), [(42, "42"), ("C-7", "C-7"), (Decimal("1.50"), "1.50")])
def test_the_field_user_id_is_sent_as_a_text(value: Any, sent: str) -> None:
    record = record_of(sarah(no=value), "userId=no")
    assert orjson.loads(record.profile or b"")["dataFields"]["userId"] == sent


def test_a_missing_user_id_is_left_out_also_where_nulls_are_sent() -> None:
    record = record_of(sarah(no=None), "userId=no", send_nulls=True)
    assert "userId" not in orjson.loads(record.profile or b"")["dataFields"]


def test_a_field_user_id_that_iterable_does_not_accept_makes_the_row_invalid() -> None:
    row = sarah(no="x" * 53)
    invalid = mapping_for(row, "userId=no").to_record(tuple(row.values()))
    assert isinstance(invalid, InvalidRow)
    assert invalid.reason == "field 'userId' has more than 52 characters"


def test_an_event_needs_a_delivered_profile_wherever_a_user_id_is_sent() -> None:
    assert not RowMapping(tuple(SARAH)).event_needs_profile
    assert RowMapping(tuple(SARAH), **BY_USER_ID).event_needs_profile
    row = sarah(no=1)
    assert mapping_for(row, "userId=no").event_needs_profile
