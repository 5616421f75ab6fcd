"""The results of rows whose batch got a response with counts."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from records.outcomes import CallResult, Verdict
from records.rows import PendingRow, RequestKind
from tests.support.batch_results import DELIVERED, REJECTED, again, batch, codes, counted, read
from tests.support.fake_bulk_client import row

# Responses with counts


def test_a_response_with_only_the_two_counts_delivers_every_row() -> None:
    reading = read(batch(3), counted(3, 0))
    assert codes(reading) == dict.fromkeys(range(3), (DELIVERED, "Success"))


def test_a_rows_result_holds_what_the_response_said_of_it() -> None:
    result = read(batch(2), counted(2, 0)).settled[1]
    assert result.to_json() == {
        "success": True,
        "verdict": "delivered",
        "http_status": 200,
        "attempts": 2,
        "request_id": None,
        "response": {
            "code": "Success",
            "msg": "batch of 2: successCount 2, failCount 0",
            "params": None,
        },
    }
    assert result.elapsed_seconds == 0.5


@pytest.mark.parametrize(
    "name",
    ["invalidEmails", "invalidDataEmails", "conflictEmails", "forgottenEmails", "notFoundEmails"],
)
def test_a_row_named_in_a_list_is_rejected_with_the_name_of_the_list(name: str) -> None:
    call = counted(2, 1, failedUpdates={name: ["user.1@example.com"]})
    assert codes(read(batch(3), call)) == {
        0: (DELIVERED, "Success"),
        1: (REJECTED, f"failedUpdates.{name}"),
        2: (DELIVERED, "Success"),
    }


@pytest.mark.parametrize("name", ["USER.1@EXAMPLE.COM", " user.1@example.com "])
def test_emails_are_compared_trimmed_and_in_lower_case(name: str) -> None:
    call = counted(1, 1, failedUpdates={"invalidEmails": [name]})
    assert codes(read(batch(2), call))[1] == (REJECTED, "failedUpdates.invalidEmails")


def test_an_email_with_non_ascii_letters_is_matched_in_lower_case() -> None:
    body = orjson.dumps({"email": "STRASSE.ÅSE@ÖL.de", "dataFields": {}})
    rows = [row(0), PendingRow(1, 1, "STRASSE.ÅSE@ÖL.de", body, body)]
    call = counted(1, 1, failedUpdates={"conflictEmails": ["strasse.åse@öl.de"]})
    assert codes(read(rows, call))[1] == (REJECTED, "failedUpdates.conflictEmails")


def by_user_id(seq: int, email: str | None = None) -> PendingRow:
    """Return a row that the userId names, with its e-mail among the fields."""
    fields = {"email": email} if email else {}
    profile = orjson.dumps({"userId": f"u-{seq}", "dataFields": fields})
    event = orjson.dumps({"userId": f"u-{seq}", "eventName": "page_view", "dataFields": {}})
    return PendingRow(seq, f"u-{seq}", email, profile, event, True)


@pytest.mark.parametrize(
    ("lists", "code"),
    [
        ({"failedUpdates": {"forgottenUserIds": ["u-1"]}}, "failedUpdates.forgottenUserIds"),
        ({"failedUpdates": {"conflictEmails": ["B@Example.com"]}}, "failedUpdates.conflictEmails"),
        ({"invalidUserIds": ["u-1"]}, "failedUpdates.invalidUserIds"),
    ],
)
def test_a_row_is_found_by_either_identifier_that_it_carries(
    lists: dict[str, Any], code: str
) -> None:
    rows = [by_user_id(0, "a@example.com"), by_user_id(1, "b@example.com"), by_user_id(2)]
    assert codes(read(rows, counted(2, 1, **lists))) == {
        0: (DELIVERED, "Success"),
        1: (REJECTED, code),
        2: (DELIVERED, "Success"),
    }


def test_a_user_id_is_compared_exactly() -> None:
    rows = [by_user_id(0), by_user_id(1)]
    reading = read(rows, counted(1, 1, failedUpdates={"invalidUserIds": ["U-1"]}))
    assert reading.settled == {}
    assert again(reading) == [[0], [1]]


@pytest.mark.parametrize("failed", [1, 2])
def test_rows_that_a_name_fits_both_are_sent_again_each_alone(failed: int) -> None:
    rows = [by_user_id(seq, "shared@example.com") for seq in (0, 1)] + [by_user_id(2)]
    lists = {"conflictEmails": ["shared@example.com"] * failed}
    reading = read(rows, counted(3 - failed, failed, failedUpdates=lists))
    assert codes(reading) == {2: (DELIVERED, "Success")}
    assert again(reading) == [[0], [1]]


def test_nothing_is_delivered_beside_an_unclear_name_if_the_counts_disagree() -> None:
    rows = [by_user_id(seq, "shared@example.com") for seq in (0, 1)] + [by_user_id(2)]
    lists = {"conflictEmails": ["shared@example.com"]}
    reading = read(rows, counted(0, 3, failedUpdates=lists))
    assert reading.settled == {}
    assert again(reading) == [[0], [1], [2]]


def test_the_deprecated_list_is_read_too() -> None:
    call = counted(1, 1, invalidEmails=["user.0@example.com"])
    assert codes(read(batch(2), call)) == {
        0: (REJECTED, "failedUpdates.invalidEmails"),
        1: (DELIVERED, "Success"),
    }


def test_a_row_named_in_two_lists_gets_the_reason_of_the_first() -> None:
    lists = {"forgottenEmails": ["user.0@example.com"], "invalidEmails": []}
    call = counted(1, 1, failedUpdates=lists, invalidEmails=["user.0@example.com"])
    assert codes(read(batch(2), call)) == {
        0: (REJECTED, "failedUpdates.forgottenEmails"),
        1: (DELIVERED, "Success"),
    }


@pytest.mark.parametrize("failed", [0, 3])
def test_a_disallowed_event_name_rejects_every_event_whatever_the_counts(failed: int) -> None:
    call = counted(3 - failed, failed, disallowedEventNames=["page_view"])
    reading = read(batch(3), call, RequestKind.EVENT)
    assert codes(reading) == dict.fromkeys(range(3), (REJECTED, "disallowedEventNames"))


@pytest.mark.parametrize(
    "names", [["other"], ["Page_View"], "page_view", {"page_view": 1}, 7, [7, None, ["page_view"]]]
)
def test_another_events_name_in_disallowed_event_names_rejects_no_row(names: object) -> None:
    """`disallowedEventNames` that named another event rejected every row."""
    call = counted(3, 0, disallowedEventNames=names)
    reading = read(batch(3), call, RequestKind.EVENT)
    assert codes(reading) == dict.fromkeys(range(3), (DELIVERED, "Success"))


def test_disallowed_event_names_say_nothing_of_profiles() -> None:
    call = counted(3, 0, disallowedEventNames=["page_view"])
    assert codes(read(batch(3), call)) == dict.fromkeys(range(3), (DELIVERED, "Success"))


def test_only_the_events_with_a_disallowed_name_are_rejected() -> None:
    rows = batch(3)
    rows[1] = rows[1]._replace(event=(rows[1].event or b"").replace(b"page_view", b"other"))
    call = counted(2, 1, disallowedEventNames=["other"])
    assert codes(read(rows, call, RequestKind.EVENT)) == {
        0: (DELIVERED, "Success"),
        1: (REJECTED, "disallowedEventNames"),
        2: (DELIVERED, "Success"),
    }


def test_emails_that_only_case_folding_makes_equal_are_two_users() -> None:
    """A failure of strasse@ was counted for straße@."""
    rows = [
        row(seq)._replace(profile=orjson.dumps({"email": email, "dataFields": {}}))
        for seq, email in enumerate(("strasse@example.de", "straße@example.de"))
    ]
    call = counted(1, 1, failedUpdates={"invalidEmails": ["STRASSE@example.de"]})
    assert codes(read(rows, call)) == {
        0: (REJECTED, "failedUpdates.invalidEmails"),
        1: (DELIVERED, "Success"),
    }


def test_a_failure_that_only_a_user_id_names_is_found_by_bisection() -> None:
    call = counted(1, 1, failedUpdates={"invalidUserIds": ["1"], "conflictUserIds": None})
    assert again(read(batch(2), call)) == [[0], [1]]


def test_a_named_row_keeps_its_own_reason_beside_a_disallowed_event_name() -> None:
    call = counted(
        0,
        2,
        disallowedEventNames=["page_view"],
        failedUpdates={"invalidEmails": ["user.1@example.com"]},
    )
    assert codes(read(batch(2), call, RequestKind.EVENT)) == {
        0: (REJECTED, "disallowedEventNames"),
        1: (REJECTED, "failedUpdates.invalidEmails"),
    }


@pytest.mark.parametrize("counts", [(3, 1), (4, 1), (3, 0), (5, 0), (0, 0), (0, 4), (2, 2)])
def test_counts_that_do_not_add_up_split_the_batch(counts: tuple[int, int]) -> None:
    reading = read(batch(4), counted(*counts))
    assert codes(reading) == {}
    assert again(reading) == [[0, 1], [2, 3]]


def test_rows_that_are_not_named_are_sent_again_without_the_named_failures() -> None:
    call = counted(2, 2, failedUpdates={"invalidEmails": ["user.1@example.com"]})
    reading = read(batch(4), call)
    assert codes(reading) == {1: (REJECTED, "failedUpdates.invalidEmails")}
    assert again(reading) == [[0, 2, 3]]


def test_a_name_that_is_not_in_the_batch_delivers_no_row() -> None:
    call = counted(1, 1, failedUpdates={"invalidEmails": ["stranger@example.com"]})
    reading = read(batch(2), call)
    assert codes(reading) == {}
    assert again(reading) == [[0], [1]]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((1, 0), (DELIVERED, "Success")),
        ((0, 1), (REJECTED, "NotNamed")),
        ((0, 0), ("unavailable", "NotNamed")),
        ((1, 1), ("unavailable", "NotNamed")),
        ((2, 0), ("unavailable", "NotNamed")),
    ],
)
def test_a_row_sent_alone_gets_its_verdict_from_the_counts(
    counts: tuple[int, int], expected: tuple[str, str]
) -> None:
    assert codes(read(batch(1), counted(*counts))) == {0: expected}


# Responses that say nothing about rows


@pytest.mark.parametrize("verdict", [Verdict.UNAVAILABLE, Verdict.REFUSED])
def test_every_row_of_an_unavailable_or_refused_batch_gets_that_verdict(verdict: Verdict) -> None:
    call = CallResult(verdict, 503, "GenericError", "down", {"huge": "params"}, attempts=5)
    reading = read(batch(3), call)
    assert reading.to_resend == ()
    for result in reading.settled.values():
        assert (result.verdict, result.http_status, result.code) == (verdict, 503, "GenericError")
        assert (result.attempts, result.params) == (5, None)


# Any response

EMAILS = st.sampled_from(["user.0@example.com", "User.2@Example.com", "stranger@example.com"])
JUNK = st.none() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
LISTS = st.dictionaries(
    st.sampled_from(["invalidEmails", "forgottenEmails", "invalidUserIds", "Emails"]),
    st.lists(EMAILS | JUNK, max_size=4) | JUNK,
)
RESPONSES = st.fixed_dictionaries(
    {"successCount": st.integers(0, 6), "failCount": st.integers(0, 6)},
    optional={
        "failedUpdates": LISTS | JUNK,
        "invalidEmails": st.lists(EMAILS | JUNK, max_size=3) | JUNK,
        "disallowedEventNames": JUNK,
    },
)


@given(st.integers(1, 6), RESPONSES, st.sampled_from(RequestKind))
def test_no_response_with_counts_raises_an_exception(
    count: int, body: dict[str, Any], kind: RequestKind
) -> None:
    call = CallResult(Verdict.DELIVERED, 200, None, "", body)
    reading = read(batch(count), call, kind)
    delivered = [seq for seq, result in reading.settled.items() if result.delivered]
    if delivered:
        assert len(delivered) == body["successCount"]
        assert len(reading.settled) - len(delivered) == body["failCount"]
