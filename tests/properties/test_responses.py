"""Property: any response of the API gets a verdict that it supports, and can be recorded."""

from __future__ import annotations

import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import orjson
import pytest
import requests
from hypothesis import example, given
from hypothesis import strategies as st

from iterable_api.connections import MAX_RESPONSE_BYTES
from iterable_api.http import IterableHTTP
from iterable_api.responses import (
    EVENTS_TRACK,
    EVENTS_TRACK_BULK,
    USERS_BULK_UPDATE,
    USERS_UPDATE,
    requested_wait_seconds,
)
from records.outcomes import CallResult, Verdict
from records.rows import Finished, PendingRow, RequestKind
from state.outbox import Outbox
from sync.bulk import BulkSender
from sync.bulk_responses import to_batch_result
from sync.dispatcher import AnyReport, CallReport
from tests.support.fake_bulk_client import email_of
from tests.support.fake_bulk_client import row as bulk_row
from tests.support.hostile import FEW, JSON_VALUES
from tests.support.hostile_responses import DOCUMENTS, PARAMS, WAITS, responses
from tests.support.raw_server import raw_server
from tests.support.results import entries_of
from tests.support.rows import API_KEY, failures_of, fill, rows, unwaiting_client

ENDPOINTS = st.sampled_from([USERS_UPDATE, EVENTS_TRACK, USERS_BULK_UPDATE, EVENTS_TRACK_BULK])
SUCCESS = b'HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{"code":"Success"}'


@FEW
@given(responses(), ENDPOINTS, st.booleans())
@example(SUCCESS, USERS_UPDATE, False)
def test_any_response_gets_a_verdict_and_is_delivered_only_if_it_says_so(
    content: bytes, endpoint: str, resets: bool
) -> None:
    server = raw_server()
    server.response, server.resets = content, resets
    client, _stop = unwaiting_client(server.url, max_attempts=2)
    result = client.call(endpoint, b"{}", "user 1")
    client.close()
    assert API_KEY not in repr(result)
    if result.delivered:
        assert result.http_status is not None
        assert result.http_status in map(int, re.findall(rb"HTTP/\S* +\+?([0-9]+)", content))
        assert 200 <= result.http_status < 300
        response = last_object_of(server.url, endpoint)
        is_bulk = endpoint in (USERS_BULK_UPDATE, EVENTS_TRACK_BULK)
        assert type(response["successCount"]) is int if is_bulk else response["code"] == "Success"
    check_recordable(result)


def last_object_of(url: str, endpoint: str) -> dict[str, Any]:
    http = IterableHTTP(API_KEY, url)
    response: dict[str, Any] = json.loads(http.post(endpoint, b"{}").content)
    http.close()
    return response


def check_recordable(result: CallResult) -> None:
    """Check that a result can be stored in the outbox and read back as JSON."""
    outbox = Outbox(Path("/nowhere/absent.sqlite3"), read_only=True)  # in memory
    fill(outbox, rows(1))
    outbox.record([Finished(0, kind, result, 1_768_400_000.0) for kind in RequestKind])
    assert bool(failures_of(outbox)) is not result.delivered
    (entry,) = entries_of(outbox.settled())
    recorded = entry
    assert recorded["users_update"]["success"] is result.delivered
    assert recorded["overall_success"] is result.delivered
    outbox.close()


# Bulk


@FEW
@given(
    st.integers(1, 4),
    DOCUMENTS,
    st.sampled_from([200, 200, 202, 400, 413, 500]),
    st.sampled_from(RequestKind),
)
@example(4, b'{"successCount":4,"failCount":0}', 200, RequestKind.PROFILE)
def test_any_bulk_response_settles_each_row_or_sends_it_again_in_a_smaller_batch(
    count: int, document: bytes, status: int, kind: RequestKind
) -> None:
    batch = [bulk_row(seq, fields='{"score": 1}') for seq in range(count)]
    endpoint = USERS_BULK_UPDATE if kind is RequestKind.PROFILE else EVENTS_TRACK_BULK
    server = raw_server()
    server.response, server.resets = b"HTTP/1.1 %d x\r\n\r\n%b" % (status, document), False
    client, _stop = unwaiting_client(server.url, max_attempts=1)
    call = client.call(endpoint, b"{}")
    client.close()
    reading = to_batch_result(kind, batch, call)
    parts: list[PendingRow] = [row for part in reading.to_resend for row in part]
    assert sorted([*reading.settled, *(row.seq for row in parts)]) == list(range(count))
    assert all(0 < len(part) < count for part in reading.to_resend)
    delivered = {seq for seq, result in reading.settled.items() if result.delivered}
    if delivered:
        response = json.loads(document)
        assert status < 300
        assert (response["successCount"], response["failCount"]) == (
            len(delivered),
            count - len(delivered),
        )
        assert not response.get("disallowedEventNames")
        assert not delivered & named_in(response)
    for result in reading.settled.values():
        check_recordable(result)


def named_in(response: dict[str, Any]) -> set[int]:
    """Return the rows whose e-mail is in one of the lists of failures."""
    lists = [response.get("invalidEmails")]
    updates = response.get("failedUpdates")
    if isinstance(updates, dict):
        lists += [each for name, each in updates.items() if name.endswith("Emails")]
    named = [each for one in lists if isinstance(one, list) for each in one]
    return {seq for seq in range(4) if email_of(seq).lower() in named}


@given(DOCUMENTS, st.sampled_from([200, 400, 401, 404, 429, 500]), ENDPOINTS)
@example(b"[" * 100_000, 200, USERS_UPDATE)
@example(b'{"msg":' + b"[" * 252 + b"]" * 252 + b"}", 200, USERS_BULK_UPDATE)
def test_any_response_passed_in_from_outside_gets_a_verdict(
    document: bytes, status: int, endpoint: str
) -> None:
    response = requests.Response()
    response.status_code, response._content = status, document
    client, _stop = unwaiting_client("http://127.0.0.1:1")
    delivered, reply = client._handle_response(response, endpoint)
    client.close()
    assert orjson.dumps(reply)
    assert not delivered or status == 200


@given(WAITS, JSON_VALUES | st.fixed_dictionaries({"params": PARAMS}))
def test_any_retry_after_is_a_finite_wait_or_none(retry_after: str, body: object) -> None:
    wait = requested_wait_seconds(retry_after, body)
    assert wait is None or 0 <= wait < float("inf")


DEEP = b"[" * 600 + b"]" * 600


@pytest.mark.parametrize("key", ["createdFields", "filteredOutFields", "msg", "failedUpdates"])
def test_a_deeply_nested_bulk_response_ended_the_run(key: str) -> None:
    """It was rejected as unreadable after it had been counted as a response."""
    body = b'{"successCount":1,"failCount":0,"%b":[%b]}' % (key.encode(), DEEP)
    server = raw_server()
    server.response, server.resets = b"HTTP/1.1 200 OK\r\n\r\n" + body, False
    client, _stop = unwaiting_client(server.url, max_attempts=1)
    reports: list[CallReport] = []

    def report(each: AnyReport) -> bool:
        if isinstance(each, CallReport):
            reports.append(each)
        return True

    BulkSender(client).send([bulk_row(1)], report)
    client.close()
    finished = [each for one in reports for each in one.finished]
    assert [each.result.verdict for each in finished] == [Verdict.UNAVAILABLE] * 2
    for each in finished:
        check_recordable(each.result)


@pytest.mark.parametrize("size", [b"-2", b"-c", b"-ffffffff"])
def test_a_chunk_of_negative_length_ended_the_run(size: bytes) -> None:
    server, head = raw_server(), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    server.response, server.resets = head + size + b'\r\n{"code":"Success"}\r\n0\r\n\r\n', False
    client, _stop = unwaiting_client(server.url, max_attempts=2)
    result = client.call(USERS_UPDATE, b"{}")
    client.close()
    assert (result.verdict, result.attempts) == (Verdict.UNAVAILABLE, 2)


def test_a_chunk_of_minus_one_byte_was_read_without_a_limit() -> None:
    """It was read past the limit of 8 MB, until the memory was full."""
    server, head = raw_server(), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    server.response, server.resets = head + b"-1\r\n" + b" " * 2 * MAX_RESPONSE_BYTES, False
    http = IterableHTTP(API_KEY, server.url)
    tracemalloc.start()
    response = http.post(USERS_UPDATE, b"{}")
    _now, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    http.close()
    assert (response.status, response.problem) == (None, "ProtocolError")
    assert most_bytes < 2 * MAX_RESPONSE_BYTES


@pytest.mark.parametrize("verdict", Verdict)
def test_a_call_of_any_verdict_is_recordable(verdict: Verdict) -> None:
    check_recordable(CallResult(verdict, None, None, ""))
