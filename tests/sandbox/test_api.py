"""The sandbox's Iterable API over real sockets: what a client sees, what a test can ask."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator

import pytest
import requests

from sandbox.iterable_api import IterableSandbox
from tests.support.sandbox_calls import get, post

SARAH = "sarah.johnson@email.com"
UPDATE = {"email": SARAH, "dataFields": {"plan_type": "pro"}}
EVENT = {"email": SARAH, "eventName": "page_view", "id": "page-view-1", "createdAt": 1768314645}
USERS = {"users": [UPDATE, {"email": "two@x.io"}, {"email": "malformed"}]}


@pytest.fixture
def sandbox() -> Iterator[IterableSandbox]:
    with IterableSandbox() as started:
        yield started


# The calls


def test_the_four_posts_are_applied_and_answered(sandbox: IterableSandbox) -> None:
    assert post(sandbox, "users/update", UPDATE).json()["code"] == "Success"
    assert post(sandbox, "events/track", EVENT).json()["params"] == {"id": "page-view-1"}
    assert post(sandbox, "users/bulkUpdate", USERS).json()["failCount"] == 1
    events = {"events": [EVENT, {**EVENT, "id": "page-view-2"}]}
    assert post(sandbox, "events/trackBulk", events).json()["successCount"] == 2
    assert sorted(sandbox.project.users) == [SARAH, "two@x.io"]
    assert sandbox.project.events["page-view-1"].applied_count == 2


def test_the_four_gets_show_what_was_sent(sandbox: IterableSandbox) -> None:
    odd = "o'neil+tag/1@x.io"
    post(sandbox, "users/update", {**UPDATE, "email": odd})
    post(sandbox, "events/track", {**EVENT, "email": odd})
    query = requests.get(
        f"{sandbox.url}/api/users/getByEmail",
        params={"email": odd},
        headers={"Api-Key": "a-key"},
        timeout=5,
    )
    assert query.json()["user"]["dataFields"]["plan_type"] == "pro"
    quoted = odd.replace("/", "%2F").replace("+", "%2B")
    assert get(sandbox, f"/api/users/{quoted}").json() == query.json()
    assert get(sandbox, f"/api/events/{quoted}?limit=1").json()["events"][0]["email"] == odd
    assert get(sandbox, "/api/users/getFields").json()["fields"]["plan_type"] == "string"
    assert get(sandbox, "/api/users/getByEmail?email=nobody@x.io").json() == {}


@pytest.mark.parametrize(
    "path", ["users/getByEmail", "events/a@x.io?limit=0", "events/a@x.io?limit=x"]
)
def test_a_lookup_with_bad_parameters_is_a_400(sandbox: IterableSandbox, path: str) -> None:
    answer = get(sandbox, f"/api/{path}")
    assert (answer.status_code, answer.json()["code"]) == (400, "BadParams")


@pytest.mark.parametrize("key", [None, "", "other"])
def test_a_missing_or_wrong_key_is_a_401_that_applies_nothing(key: str | None) -> None:
    with IterableSandbox(api_key="the-key") as sandbox:
        answer = post(sandbox, "users/update", UPDATE, key=key)
        assert (answer.status_code, answer.json()["code"]) == (401, "BadApiKey")
        assert post(sandbox, "users/update", UPDATE, key="the-key").ok
        assert sandbox.state()["applies"] == 1


def test_an_unknown_path_or_method_is_a_404(sandbox: IterableSandbox) -> None:
    for answer in (
        post(sandbox, "users/upsert", UPDATE),
        get(sandbox, "/api/users/update"),
        get(sandbox, "/"),
        requests.put(f"{sandbox.url}/api/users/update", timeout=5),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "NotFound")


def test_a_body_that_does_not_fit_is_refused_whole(sandbox: IterableSandbox) -> None:
    batch = {"users": [{"email": "a@x.io"}, {"email": "b@x.io", "preferUserId": "yes"}]}
    answer = post(sandbox, "users/bulkUpdate", batch)
    assert answer.status_code == 400
    assert answer.json() == {
        "msg": "[/api/users/bulkUpdate] Invalid JSON body",
        "code": "BadJsonBody",
        "params": {"obj.users[1].preferUserId": "Boolean value expected"},
    }
    assert not sandbox.project.users
    for raw in (b"", b"{", b"\xff", b'{"a": NaN}'):
        assert post(sandbox, "users/update", raw).json()["code"] == "BadJsonBody"


def test_a_body_over_four_million_bytes_is_a_413(sandbox: IterableSandbox) -> None:
    body = json.dumps(USERS).encode()
    fits = post(sandbox, "users/bulkUpdate", body.ljust(4_000_000))
    too_large = post(sandbox, "users/bulkUpdate", body.ljust(4_000_001))
    assert (fits.status_code, too_large.status_code) == (200, 413)
    assert too_large.json()["code"] == "BatchTooLarge"


def test_every_answer_has_a_request_id_of_its_own(sandbox: IterableSandbox) -> None:
    answers = [
        post(sandbox, "users/update", UPDATE),
        post(sandbox, "users/update", b"nonsense"),
        post(sandbox, "users/update", UPDATE, key=None),
        get(sandbox, "/nowhere"),
        get(sandbox, "/sandbox/state"),
    ]
    assert len({answer.headers["Iterable-Request-Id"] for answer in answers}) == 5


# Limits


def test_a_limit_answers_429_with_the_seconds_to_wait_and_can_be_lifted() -> None:
    with IterableSandbox(limits={"users/update": {"per_second": 0.1, "burst": 1}}) as sandbox:
        assert post(sandbox, "users/update", UPDATE).ok
        limited = post(sandbox, "users/update", UPDATE)
        assert limited.status_code == 429
        assert limited.json()["code"] == "RateLimitExceeded"
        params = {"rateLimitLimit": 0.1, "rateLimitRemaining": 0, "rateLimitReset": 10}
        assert limited.json()["params"] == params
        assert "Retry-After" not in limited.headers
        assert post(sandbox, "events/track", EVENT).ok
        sandbox.set_limits({"users/update": None})
        assert post(sandbox, "users/update", UPDATE).ok
        assert sandbox.state()["endpoints"]["users/update"]["rate_limited"] == 1


def test_the_hints_of_a_429_are_options() -> None:
    limits = {"users/update": {"per_second": 0.1, "burst": 1}}
    with IterableSandbox(limits=limits, retry_after=True, rate_limit_reset=False) as sandbox:
        limited = [post(sandbox, "users/update", UPDATE) for _ in range(2)][1]
        assert limited.headers["Retry-After"] == "10"
        assert "rateLimitReset" not in limited.json()["params"]


# Time, counts and records


def test_latency_is_the_service_time_of_calls_that_run_side_by_side() -> None:
    with IterableSandbox(latency_seconds=0.2) as sandbox:
        threads = [
            threading.Thread(target=post, args=(sandbox, "users/update", UPDATE)) for _ in range(20)
        ]
        started_at = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        elapsed_seconds = time.perf_counter() - started_at
        counts = sandbox.state()["endpoints"]["users/update"]
    assert elapsed_seconds >= 0.2
    assert counts["max_in_flight"] > 10  # one after the other it would be 1
    assert counts["max_in_one_second"] > 10


def test_the_state_counts_calls_answers_and_repeated_applies(sandbox: IterableSandbox) -> None:
    for body in (UPDATE, UPDATE, b"nonsense"):
        post(sandbox, "users/update", body)
    for _ in range(3):
        post(sandbox, "events/track", EVENT)
    state = get(sandbox, "/sandbox/state").json()
    assert state == sandbox.state()
    assert (state["users"], state["events"], state["calls"]) == (1, 1, 6)
    assert (state["applies"], state["repeated_applies"]) == (5, 3)
    assert 0 < state["max_requests_in_one_second"] <= 6
    assert 0 < state["first_call_at"] < state["last_call_at"]  # unix seconds
    update = state["endpoints"]["users/update"]
    assert update["answers"] == {"200": 2, "400": 1}
    assert (update["received"], update["applied"], update["repeated"]) == (3, 2, 1)


def test_calls_are_recorded_in_order_without_their_key(sandbox: IterableSandbox) -> None:
    sandbox.set_faults([{"fault": "drop_after", "endpoint": "events/track"}])
    post(sandbox, "users/update", UPDATE, key="a-secret-key")
    with pytest.raises(requests.ConnectionError):
        post(sandbox, "events/track", EVENT)
    first, second = sandbox.calls
    assert (first.endpoint, first.email, first.body, first.status, first.fault) == (
        "users/update", SARAH, UPDATE, 200, None,
    )  # fmt: skip
    assert (second.endpoint, second.status, second.fault) == ("events/track", None, "drop_after")
    assert first.at <= second.at
    shown = get(sandbox, "/sandbox/calls?limit=1")
    assert [call["endpoint"] for call in shown.json()["calls"]] == ["events/track"]
    assert "a-secret-key" not in get(sandbox, "/sandbox/calls").text


def test_faults_limits_and_a_reset_can_be_sent_while_it_runs(sandbox: IterableSandbox) -> None:
    control = f"{sandbox.url}/sandbox"
    post(sandbox, "users/update", UPDATE)
    post(sandbox, "events/track", EVENT)
    assert [user["email"] for user in get(sandbox, "/sandbox/users").json()["users"]] == [SARAH]
    assert get(sandbox, "/sandbox/events").json()["events"][0]["appliedCount"] == 1
    requests.post(f"{control}/reset", timeout=5).raise_for_status()
    assert (sandbox.state()["users"], sandbox.state()["calls"], sandbox.calls) == (0, 0, [])
    rules = [{"fault": "status", "status": 500, "times": 1}]
    requests.post(f"{control}/faults", json=rules, timeout=5).raise_for_status()
    limits = {"users/update": {"per_second": 0.1, "burst": 1}}
    requests.post(f"{control}/limits", json=limits, timeout=5).raise_for_status()
    statuses = [post(sandbox, "users/update", UPDATE).status_code for _ in range(3)]
    assert statuses == [500, 200, 429]
    bad = requests.post(f"{control}/faults", json=[{"fault": "fire"}], timeout=5)
    assert bad.status_code == 400
    assert "fault rule 1: unknown fault 'fire'" in bad.json()["error"]
    assert requests.post(f"{control}/limits", json={"x": 1}, timeout=5).status_code == 400
    assert requests.post(f"{control}/nothing", timeout=5).status_code == 404
