"""Whatever Iterable answers, to the byte: a verdict, never more than it says, and on the record."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import orjson
import pytest
import requests
from hypothesis import example, given
from hypothesis import strategies as st

from bulk import BulkSender, read_answer
from delivery import HeldBack, Reported
from iterable_http import IterableHTTP
from outbox import Outbox
from outcomes import CallResult, Finished, Half, PendingRow, Verdict
from results import entries
from tests.bulk_iterable import email_of
from tests.bulk_iterable import row as bulk_row
from tests.hostile import DEEP_JSON, FEW, JSON_TEXTS, JSON_VALUES, TEXTS
from tests.raw_server import raw_server
from tests.rows import API_KEY, fill, rows, unwaiting_client
from verdicts import (
    EVENTS_TRACK,
    EVENTS_TRACK_BULK,
    USERS_BULK_UPDATE,
    USERS_UPDATE,
    named_wait_seconds,
)

# What the API says, and what it might say in every place

COUNTS = st.integers(0, 4) | st.sampled_from([-1, True, 1.0, "1", None, 2**64 - 1, [1]])
NAMED = st.sampled_from([*(email_of(seq).lower() for seq in range(4)), "who@example.com", "", 7])
NAMES = st.lists(NAMED | JSON_VALUES, max_size=4) | JSON_VALUES
LIST_NAMES = ["invalidEmails", "forgottenEmails", "conflictEmails", "invalidUserIds", "Emails"]
CODES: st.SearchStrategy[Any] = st.sampled_from(
    ["Success", "BadParams", "success", "RateLimitExceeded", "", 7, None, {}]
)
SAYINGS = st.sampled_from(["Done", 'Event "x" is disallowed from tracking', "", 7, None])
PARAMS = st.one_of(
    st.dictionaries(
        st.sampled_from(["obj.users[1].x", "users[0]", "events[99999999999]", "rateLimitReset"]),
        JSON_VALUES | st.sampled_from([1, 1e308, -1, True, "5"]),
        max_size=3,
    ),
    st.fixed_dictionaries({"validationErrors": st.dictionaries(TEXTS, JSON_VALUES) | JSON_VALUES}),
    st.fixed_dictionaries(
        {"validationErrors": st.fixed_dictionaries({"score": st.just({"offendingValue": 1})})}
    ),
    JSON_VALUES,
)
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "code": CODES | JSON_VALUES,
        "msg": SAYINGS | JSON_VALUES,
        "params": PARAMS,
        "successCount": COUNTS,
        "failCount": COUNTS,
        "failedUpdates": st.dictionaries(st.sampled_from(LIST_NAMES), NAMES) | JSON_VALUES,
        "invalidEmails": NAMES,
        "disallowedEventNames": NAMES,
        "filteredOutFields": NAMES,
        "createdFields": NAMES,
    },
)
LIKELY = st.sampled_from(
    [
        {"code": "Success", "msg": "", "params": None},
        {"successCount": 4, "failCount": 0},
        {"successCount": 3, "failCount": 1, "invalidEmails": [email_of(1)]},
        {"code": "BadJsonBody", "msg": "", "params": {"obj.users[2].x": "Boolean expected"}},
    ]
)
DOCUMENTS = st.one_of(
    (BODIES | LIKELY).map(lambda body: orjson.dumps(body, default=str)),
    st.builds(
        '{{"{}":{},"code":"Success","successCount":4,"failCount":0}}'.format,
        st.sampled_from(["msg", "params", "code", "failedUpdates", "createdFields", "x"]),
        JSON_TEXTS | DEEP_JSON,
    ).map(lambda text: text.encode("utf-8", "surrogatepass")),
    JSON_TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.binary(max_size=60),
    st.sampled_from([b"", b" ", API_KEY.encode(), b"\xef\xbb\xbf{}", b'{"code":"Success"}garbage']),
)

# HTTP, and what is none

STATUSES = [*(200, 201, 204, 299, 300, 301, 304, 400, 401, 403, 404, 408, 409, 413, 425, 429)]
STATUSES += [500, 503, 599, 600, 999, 1000, 99, 0, -1, 100, 101, 103]
STATUS_LINES = st.one_of(
    st.sampled_from(["HTTP/1.1 200 OK", "HTTP/1.1 400 Bad Request", "HTTP/1.1 429 x"]),
    st.builds("HTTP/1.1 {} x".format, st.sampled_from(STATUSES)),
    st.sampled_from(
        ["HTTP/1.0 200", "HTTP/0.9 200 OK", "HTTP/2 200", "ICY 200 OK", "", "HTTP/1.1"]
    ),
    st.sampled_from(["HTTP/1.1 2 00", "HTTP/1.1 +200 OK", "HTTP/1.1 \xb2 x"]),
    st.sampled_from(["HTTP/1.1 100 Continue\r\n\r\n" * 50 + "HTTP/1.1 200 OK", "x" * 70_000]),
)
WAITS = st.one_of(
    st.sampled_from(
        ["5", "-5", "1e9", "1e999", "nan", "", "1_0", "5, 6", "0x5", "\xb2", "9" * 500]
    ),
    st.sampled_from(["Wed, 21 Oct 2026 07:28:00 GMT", "Wed, 32 Oct 99999 99:99:99 +9999", "Oct"]),
    st.text(max_size=20),
    st.from_regex(r"[A-Z][a-z]{2}, [0-9]{1,3} (Jan|Oct|x) -?[0-9]{1,6} [0-9:]{0,9} .{0,6}"),
)
HEADERS = st.one_of(
    st.builds(
        "Content-Length: {}".format, st.sampled_from(["0", "1", "-1", "5, 5", "5, 6", "1e3"])
    ),
    st.builds(
        "Content-Length: {}".format, st.sampled_from(["+9", " 9 ", "9" * 30, "", "\xb2", "0x9"])
    ),
    st.sampled_from(["Transfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked", "TE: x"]),
    st.builds(
        "Content-Encoding: {}".format, st.sampled_from(["gzip", "deflate", "br", "zstd", "x"])
    ),
    st.builds("Retry-After: {}".format, WAITS),
    st.builds("Set-Cookie: {}".format, TEXTS),
    st.builds("{}: {}".format, TEXTS, TEXTS),
    st.sampled_from(
        ["Location: http://127.0.0.1:1/", "Connection: keep-alive", "Connection: close"]
    ),
    st.sampled_from([" folded", "no colon", ": no name", "A: " + "x" * 70_000, "\0: \0"]),
    st.sampled_from(["\r\n".join(f"X-{n}: {n}" for n in range(times)) for times in (90, 5_000)]),
)
CHUNK_SIZES = st.sampled_from(
    ["{:x}", "{:x};a=b", "-{:x}", "+{:x}", "0x{:x}", "{:x}" + "0" * 20, "z", ""]
)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """Give the bytes of an answer: one like HTTP's, or anything at all."""
    if draw(st.integers(0, 9)) == 9:
        return draw(st.binary(max_size=200))
    body = draw(DOCUMENTS)
    headers = draw(st.lists(HEADERS, max_size=3))
    if draw(st.booleans()):
        body = gzip.compress(body, mtime=0) if draw(st.integers(0, 9)) == 9 else body
        headers.append(f"Content-Length: {len(body)}")
    if any("chunked" in header for header in headers) and draw(st.booleans()):
        size = draw(CHUNK_SIZES).format(len(body)).encode()
        body = (
            size + b"\r\n" + body + draw(st.sampled_from([b"\r\n0\r\n\r\n", b"", b"\r\n0", b"x"]))
        )
    head = "\r\n".join([draw(STATUS_LINES), *headers])
    return head.encode("utf-8", "surrogatepass") + b"\r\n\r\n" + body


ENDPOINTS = st.sampled_from([USERS_UPDATE, EVENTS_TRACK, USERS_BULK_UPDATE, EVENTS_TRACK_BULK])
SUCCESS = b'HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{"code":"Success"}'


@FEW
@given(answers(), ENDPOINTS, st.booleans())
@example(SUCCESS, USERS_UPDATE, False)
def test_any_answer_is_a_verdict_and_success_only_where_it_says_so(
    answer: bytes, endpoint: str, resets: bool
) -> None:
    server = raw_server()
    server.answer, server.resets = answer, resets
    client, _stop = unwaiting_client(server.url, max_attempts=2)
    result = client.call(endpoint, b"{}", "user 1")
    client.close()
    assert API_KEY not in repr(result)
    if result.delivered:
        assert result.http_status is not None
        assert result.http_status in map(int, re.findall(rb"HTTP/\S* +\+?([0-9]+)", answer))
        assert 200 <= result.http_status < 300
        said = last_object_of(server.url, endpoint)
        is_bulk = endpoint in (USERS_BULK_UPDATE, EVENTS_TRACK_BULK)
        assert type(said["successCount"]) is int if is_bulk else said["code"] == "Success"
    check_recordable(result)


def last_object_of(url: str, endpoint: str) -> dict[str, Any]:
    http = IterableHTTP(API_KEY, url)
    said: dict[str, Any] = json.loads(http.post(endpoint, b"{}").content)
    http.close()
    return said


def check_recordable(result: CallResult) -> None:
    """The outcome of a call goes into the outbox and comes out as JSON."""
    outbox = Outbox(Path("/nowhere/absent.sqlite3"), read_only=True)  # in memory
    fill(outbox, rows(1))
    outbox.record([Finished(0, half, result, 1_768_400_000.0) for half in Half])
    assert bool(outbox.failures()) is not result.delivered
    (entry,) = entries(outbox.settled(), "why")
    shown = json.loads(orjson.dumps(entry))
    assert shown["users_update"]["success"] is result.delivered
    assert shown["overall_success"] is result.delivered
    outbox.close()


# Bulk


@given(
    st.integers(1, 4),
    DOCUMENTS,
    st.sampled_from([200, 200, 202, 400, 413, 500]),
    st.sampled_from(Half),
)
@example(4, b'{"successCount":4,"failCount":0}', 200, Half.PROFILE)
def test_any_answer_to_a_batch_settles_each_row_or_sends_it_again_in_a_smaller_one(
    count: int, document: bytes, status: int, half: Half
) -> None:
    batch = [bulk_row(seq, fields='{"score": 1}') for seq in range(count)]
    endpoint = USERS_BULK_UPDATE if half is Half.PROFILE else EVENTS_TRACK_BULK
    server = raw_server()
    server.answer, server.resets = b"HTTP/1.1 %d x\r\n\r\n%b" % (status, document), False
    client, _stop = unwaiting_client(server.url, max_attempts=1)
    call = client.call(endpoint, b"{}")
    client.close()
    reading = read_answer(half, batch, call)
    parts: list[PendingRow] = [row for part in reading.again for row in part]
    assert sorted([*reading.settled, *(row.seq for row in parts)]) == list(range(count))
    assert all(0 < len(part) < count for part in reading.again)
    delivered = {seq for seq, result in reading.settled.items() if result.delivered}
    if delivered:
        said = json.loads(document)
        assert status < 300
        assert (said["successCount"], said["failCount"]) == (len(delivered), count - len(delivered))
        assert not said.get("disallowedEventNames")
        assert not delivered & named_in(said)
    for result in reading.settled.values():
        check_recordable(result)


def named_in(said: dict[str, Any]) -> set[int]:
    """Return the rows whose addresses stand in a list of failures."""
    lists = [said.get("invalidEmails")]
    updates = said.get("failedUpdates")
    if isinstance(updates, dict):
        lists += [each for name, each in updates.items() if name.endswith("Emails")]
    named = [each for one in lists if isinstance(one, list) for each in one]
    return {seq for seq in range(4) if email_of(seq).lower() in named}


@given(DOCUMENTS, st.sampled_from([200, 400, 401, 404, 429, 500]), ENDPOINTS)
@example(b"[" * 100_000, 200, USERS_UPDATE)
def test_any_answer_that_somebody_else_got_is_judged(
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
def test_any_named_wait_is_a_time_or_none(retry_after: str, body: object) -> None:
    wait = named_wait_seconds(retry_after, body)
    assert wait is None or 0 <= wait < float("inf")


DEEP = b"[" * 600 + b"]" * 600


@pytest.mark.parametrize("key", ["createdFields", "filteredOutFields", "msg", "failedUpdates"])
def test_an_answer_to_a_batch_that_is_nested_deep_ended_the_run(key: str) -> None:
    """What cannot be written again was thought to be no answer, after it had been counted."""
    body = b'{"successCount":1,"failCount":0,"%b":[%b]}' % (key.encode(), DEEP)
    server = raw_server()
    server.answer, server.resets = b"HTTP/1.1 200 OK\r\n\r\n" + body, False
    client, _stop = unwaiting_client(server.url)
    reports: list[Reported] = []

    def report(each: Reported | HeldBack) -> bool:
        assert isinstance(each, Reported)
        reports.append(each)
        return True

    BulkSender(client).send([bulk_row(1)], report, has_permit=True)
    client.close()
    finished = [each for one in reports for each in one.finished]
    assert [each.result.verdict for each in finished] == [Verdict.DELIVERED, Verdict.DELIVERED]
    for each in finished:
        check_recordable(each.result)


@pytest.mark.parametrize("verdict", Verdict)
def test_a_call_of_any_verdict_is_recordable(verdict: Verdict) -> None:
    check_recordable(CallResult(verdict, None, None, ""))
