"""Parts of a response that the client returns: `params` or the bulk body, if JSON can hold them."""

from __future__ import annotations

import orjson
import pytest
import requests

from iterable_client import IterableClient
from records.outcomes import Verdict
from sandbox.iterable_api import IterableSandbox
from tests.support.golden import SARAH
from tests.support.recording_servers import website
from tests.support.rows import API_KEY


def deeply_nested_response(levels: int) -> bytes:
    return b'{"msg":"","code":"Success","params":%b%b}' % (b"[" * levels, b"]" * levels)


def test_a_response_of_any_depth_can_be_written_to_the_results_file() -> None:
    """orjson reads 1,024 levels and writes 254; a deeper response is not an API response."""
    kept = set()
    with website() as site:
        client = IterableClient(API_KEY, site.url, max_attempts=1)
        for levels in range(240, 265):
            site.response = deeply_nested_response(levels)
            entry = client.process_user_record(dict(SARAH))
            assert orjson.dumps([entry])
            update = entry["users_update"]
            kept.add((entry["outcome"], update["response"]["params"] is not None))
    assert kept == {("successful", True), ("successful", False), ("total_failure", False)}


def test_a_response_that_is_nested_too_deep_is_not_an_api_response() -> None:
    response = requests.Response()
    response.status_code, response._content = 200, deeply_nested_response(100_000)
    delivered, said = IterableClient(API_KEY)._handle_response(response, "users/update")
    assert not delivered
    assert said["code"] == "not an API response"


@pytest.mark.parametrize("send", ["bulk_update_users", "bulk_track_events"])
def test_a_delivered_batch_keeps_its_body_and_a_rejected_one_its_params(
    iterable: IterableSandbox, send: str
) -> None:
    client = IterableClient(API_KEY, iterable.url)
    taken = getattr(client, send)([b'{"email":"a@example.com","eventName":"page_view"}'])
    assert (taken.verdict, taken.params["successCount"]) == (Verdict.DELIVERED, 1)
    rejected = getattr(client, send)([b'{"email":1}'])
    assert rejected.verdict is Verdict.REJECTED
    assert rejected.code == "BadJsonBody"
    assert "code" not in rejected.params
