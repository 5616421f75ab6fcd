"""Which event of ours a webhook of Iterable confirms."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from config.fields import parse_fields
from config.identity import IdentifyBy
from records.webhooks import read_webhook, to_event_hash
from tests.support.golden import SARAH, SARAHS_EVENT, record_of

SARAHS = record_of(SARAH)
BY_ID = record_of(SARAH, identify_by=IdentifyBy.USER_ID)
FLAT: dict[str, Any] = {
    "email": "Sarah.Johnson@email.com",
    "eventName": "page_view",
    "createdAt": "2026-01-13 14:30:45 +00:00",
    "page": "pricing",
    "timestamp": "2026-01-13 14:30:45",
    "workflowId": 9001,
}


def hashes(content: Any) -> tuple[int, ...]:
    return read_webhook(orjson.dumps(content)).event_hashes


@pytest.mark.parametrize(
    "content",
    [
        FLAT,
        {**FLAT, "timestamp": None},  # createdAt is the same moment in UTC
        {**SARAHS_EVENT, "email": FLAT["email"]},
        {
            "eventName": "emailSend",
            "email": FLAT["email"],
            "dataFields": {"transactionalData": orjson.dumps(FLAT).decode()},
        },
        {"eventName": "emailSend", "dataFields": {"transactionalData": FLAT}},
        {
            "eventName": "pushSend",
            "email": FLAT["email"],
            "dataFields": {"transactionalData": {**SARAHS_EVENT, "email": None}},
        },
    ],
    ids=["flat", "without timestamp", "nested", "text", "object", "push"],
)
def test_the_id_of_our_event_follows_from_what_arrives(content: dict[str, Any]) -> None:
    assert to_event_hash(str(SARAHS.event_id)) in hashes(content)


@pytest.mark.parametrize("page", [None, "", 5, 5.0, True])
@pytest.mark.parametrize("is_flat", [True, False])
def test_an_event_without_a_page_of_text_was_not_recognised(page: object, is_flat: bool) -> None:
    """A template makes an empty text of a page that is missing, and of one that is empty."""
    record = record_of({**SARAH, "page": page})
    assert record.event is not None
    event = orjson.loads(record.event)
    fields = {**event["dataFields"], "page": page}
    named = {"email": event["email"], "eventName": "page_view"}
    content = {**named, **fields} if is_flat else {**named, "dataFields": fields}
    assert to_event_hash(str(record.event_id)) in hashes(content)
    if page in (None, ""):
        other = (
            {**content, "page": ""} if is_flat else {**named, "dataFields": {**fields, "page": ""}}
        )
        assert to_event_hash(str(record.event_id)) in hashes(other)


def test_a_message_whose_data_fields_alone_have_the_address_confirmed_nothing() -> None:
    trigger = {name: value for name, value in FLAT.items() if name != "email"}
    fields = {"email": FLAT["email"], "transactionalData": trigger}
    content = {"eventName": "emailSend", "email": None, "dataFields": fields}
    assert to_event_hash(str(SARAHS.event_id)) in hashes(content)


def test_a_trigger_at_the_top_was_hidden_by_null_in_data_fields() -> None:
    content = {
        "eventName": "emailSend",
        "dataFields": {"transactionalData": None},
        "transactionalData": FLAT,
    }
    assert to_event_hash(str(SARAHS.event_id)) in hashes(content)


def test_a_user_id_leads_to_the_event_id_as_well() -> None:
    content = {**FLAT, "email": None, "userId": BY_ID.identifier}
    assert to_event_hash(str(BY_ID.event_id)) in hashes(content)


@pytest.mark.parametrize("name", ["id", "eventId", "event_id"])
def test_an_id_that_arrives_is_used(name: str) -> None:
    content = {"eventName": "page_view", name: "page-view-id-4711"}
    assert hashes(content) == (to_event_hash("page-view-id-4711"),)
    nested = {"eventName": "page_view", "dataFields": {name: "page-view-id-4711"}}
    assert hashes(nested) == hashes(content)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"eventName": "emailClick", "email": "ann@example.com", "dataFields": {}},
        {**FLAT, "eventName": "emailOpen"},
        {**FLAT, "eventName": ""},
        {"eventName": "page_view"},
        {"eventName": "page_view", "id": "not an id", "timestamp": 5, "createdAt": 7},
        {"eventName": "emailSend", "dataFields": {"transactionalData": '{"eventName":"page_vi'}},
        {"eventName": "emailSend", "dataFields": {"transactionalData": {"eventName": "order"}}},
        {"eventName": ["page_view"], "dataFields": "text"},
    ],
)
def test_other_calls_confirm_nothing(content: dict[str, Any]) -> None:
    assert hashes(content) == ()


def test_an_event_of_another_name_confirms_the_event_of_that_name() -> None:
    """A row can have a name of its own, which is a part of the id."""
    record = record_of(SARAH, event_name="trial_ending")
    assert to_event_hash(str(record.event_id)) in hashes({**FLAT, "eventName": "trial_ending"})
    assert to_event_hash(str(SARAHS.event_id)) not in hashes({**FLAT, "eventName": "trial_ending"})


def test_a_name_like_one_of_iterables_own_events_confirms_if_it_is_the_setting() -> None:
    body = orjson.dumps({**FLAT, "eventName": "emailVerified"})
    record = record_of(SARAH, event_name="emailVerified")
    assert read_webhook(body).event_hashes == ()
    found = read_webhook(body, "emailVerified").event_hashes
    assert to_event_hash(str(record.event_id)) in found


def test_the_field_page_may_be_another_column_than_the_page_of_the_id() -> None:
    row = {name: value for name, value in SARAH.items() if name != "page"}
    record = record_of(
        {**row, "path": "pricing"}, event_fields=parse_fields("page=path", frozenset())
    )
    assert to_event_hash(str(record.event_id)) in hashes(FLAT)


def test_a_call_is_counted_by_the_name_of_its_event() -> None:
    kinds = [
        read_webhook(orjson.dumps({"eventName": name})).kind
        for name in ("emailClick", "emailUnSubscribe", "<script>", "", None, "x" * 65)
    ]
    assert kinds == ["emailClick", "emailUnSubscribe", "other", "other", "other", "other"]


def test_a_repeated_call_has_the_same_hash_whatever_the_order_of_its_keys() -> None:
    one = read_webhook(b'{"eventName":"a","x":1}')
    assert one.body_hash == read_webhook(b'{ "x": 1, "eventName": "a" }').body_hash
    assert one.body_hash != read_webhook(b'{"eventName":"a","x":2}').body_hash


@pytest.mark.parametrize("depth", [253, 300, 1_000])
def test_a_deeply_nested_body_was_a_bug(depth: int) -> None:
    body = b'{"a":' + b"[" * depth + b"]" * depth + b"}"
    if depth <= 253:
        assert read_webhook(body).event_hashes == ()
    else:
        with pytest.raises(ValueError, match="nested too deep"):
            read_webhook(body)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"null", b"\xff"])
def test_what_is_no_json_object_is_an_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"object|JSON|unexpected|invalid|empty|str"):
        read_webhook(body)
