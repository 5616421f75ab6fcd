"""Hypothesis strategies for hostile responses: bodies, status lines, headers.

Used by `tests/properties/test_responses.py` and `tests/properties/test_source_reading.py`.
"""

from __future__ import annotations

import gzip
from typing import Any

import orjson
from hypothesis import strategies as st

from tests.support.fake_bulk_client import email_of
from tests.support.hostile import DEEP_JSON, JSON_TEXTS, JSON_VALUES, TEXTS
from tests.support.rows import API_KEY

# Bodies: documented ones, and unexpected values in every place

COUNTS = st.integers(0, 4) | st.sampled_from([-1, True, 1.0, "1", None, 2**64 - 1, [1]])
NAMED = st.sampled_from([*(email_of(seq).lower() for seq in range(4)), "who@example.com", "", 7])
NAMES = st.lists(NAMED | JSON_VALUES, max_size=4) | JSON_VALUES
LIST_NAMES = ["invalidEmails", "forgottenEmails", "conflictEmails", "invalidUserIds", "Emails"]
CODES: st.SearchStrategy[Any] = st.sampled_from(
    ["Success", "BadParams", "success", "RateLimitExceeded", "", 7, None, {}]
)
MESSAGES = st.sampled_from(["Done", 'Event "x" is disallowed from tracking', "", 7, None])
PARAMS = st.one_of(
    st.dictionaries(
        st.sampled_from(["obj.users[1].x", "users[0]", "events[99999999999]", "rateLimitReset"]),
        JSON_VALUES | st.sampled_from([1, 1e308, -1, True, "5"]),
        max_size=3,
    ),
    st.fixed_dictionaries({"validationErrors": JSON_VALUES}),
    st.fixed_dictionaries(
        {"validationErrors": st.fixed_dictionaries({"score": st.just({"offendingValue": 1})})}
    ),
    JSON_VALUES,
)
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "code": CODES | JSON_VALUES,
        "msg": MESSAGES | JSON_VALUES,
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

# HTTP, valid and invalid

STATUSES = [*(200, 201, 204, 299, 300, 301, 304, 400, 401, 403, 404, 408, 409, 413, 425, 429)]
STATUSES += [500, 503, 599, 600, 999, 1000, 99, 0, -1, 100, 101, 103]
STATUS_LINES = st.one_of(
    st.sampled_from(["HTTP/1.1 200 OK", "HTTP/1.1 400 Bad Request"]),
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
def responses(draw: st.DrawFn) -> bytes:
    """Draw the bytes of a response: similar to HTTP, or anything."""
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
