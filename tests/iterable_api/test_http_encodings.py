"""Responses in an encoding that was not asked for, since a proxy may compress them all the same."""

from __future__ import annotations

import gzip
import resource
import zlib

import pytest

from iterable_api.connections import MAX_BODY_BYTES
from iterable_api.http import IterableHTTP
from iterable_api.responses import NO_API_RESPONSE, USERS_UPDATE, ApiResponse
from records.outcomes import Verdict
from tests.support.raw_server import raw_server
from tests.support.rows import API_KEY, unwaiting_client

SUCCESS = b'{"msg":"Done","code":"Success","params":null}'
USER = b'{"email":"ann@example.com","dataFields":{}}'


def post(body: bytes, encoding: str, head: str = "") -> ApiResponse:
    server = raw_server()
    start = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(body)}\r\n"
    server.response = f"{start}{head}\r\n".encode() + body
    http = IterableHTTP(API_KEY, server.url, timeout_seconds=(5.0, 5.0))
    try:
        return http.post(USERS_UPDATE, USER)
    finally:
        http.close()


def raw_deflate(body: bytes) -> bytes:
    return zlib.compress(body)[2:-4]


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (gzip.compress(SUCCESS, mtime=0), "gzip"),
        (gzip.compress(SUCCESS, mtime=0), "GZIP"),
        (gzip.compress(SUCCESS, mtime=0), "x-gzip"),
        (zlib.compress(SUCCESS), "deflate"),
        (raw_deflate(SUCCESS), "deflate"),
        (gzip.compress(gzip.compress(SUCCESS, mtime=0), mtime=0), "gzip, gzip"),
        (SUCCESS, "identity"),
        (SUCCESS, ""),
    ],
)
def test_a_compressed_answer_made_every_call_unavailable(body: bytes, encoding: str) -> None:
    found = post(body, encoding)
    assert (found.status, found.code, found.content) == (200, "Success", SUCCESS)


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (SUCCESS, "gzip"),
        (gzip.compress(SUCCESS, mtime=0)[:30], "gzip"),
        (gzip.compress(SUCCESS, mtime=0)[:20] + b"\0\0\0", "gzip"),
        (b"", "gzip"),
        (b"\x0b\x16\x80" + SUCCESS, "br"),
        (gzip.compress(SUCCESS, mtime=0), "br"),
    ],
)
def test_a_body_that_cannot_be_decoded_is_not_an_api_response(body: bytes, encoding: str) -> None:
    found = post(body, encoding)
    assert (found.status, found.body, found.code) == (200, None, NO_API_RESPONSE)


def test_what_cannot_be_decoded_is_tried_again() -> None:
    post(b"no gzip", "gzip")
    client, _stop = unwaiting_client(raw_server().url, max_attempts=2)
    result = client.call(USERS_UPDATE, USER)
    assert (result.verdict, result.attempts) == (Verdict.UNAVAILABLE, 2)
    client.close()


def test_the_key_is_redacted_in_a_compressed_answer() -> None:
    echoed = SUCCESS.replace(b"Done", f"Api-Key: {API_KEY}".encode())
    found = post(gzip.compress(echoed), "gzip")
    assert API_KEY.encode() not in found.content
    assert found.message == "Api-Key: [api key]"


def test_a_gzip_bomb_takes_no_more_memory_than_the_largest_answer() -> None:
    bomb = gzip.compress(b"\0" * 400_000_000, compresslevel=9)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = post(bomb, "gzip")
    assert found.body is None
    assert len(found.content) <= 2 * MAX_BODY_BYTES
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000  # kilobytes


def test_a_byte_order_mark_is_not_part_of_the_json() -> None:
    assert post(b"\xef\xbb\xbf" + SUCCESS, "identity").code == "Success"
