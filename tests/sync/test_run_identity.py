"""Every type of project with every identity, in both modes, with all kinds of difficult rows.

`--log-cli-level=INFO` shows a line of figures for each.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from commands.verify.run import verify
from config.settings import Settings
from sandbox.iterable_api import IterableSandbox
from sync.project_check import OtherProjectError
from tests.conftest import SourceDatabase
from tests.support.runs import Runs, counts_of, results_of
from tests.support.users import add_users, email_of, sent_calls

logger = logging.getLogger(__name__)

ROWS = 1_000
NO_EMAIL = range(851, 901)
SHARED = range(901, 931)  # two neighbours have one e-mail
TAKEN = range(931, 951)  # the e-mail of another user who is in Iterable
FORGOTTEN_ID = range(951, 961)
FORGOTTEN_EMAIL = range(961, 971)
MALFORMED = range(971, 981)
BAD_ID = range(981, 991)

QUERY = (
    "SELECT c.id, CASE WHEN c.id BETWEEN 981 AND 985 THEN REPEAT('x', 53)"
    " WHEN c.id BETWEEN 986 AND 990 THEN CONCAT('u-', c.id, ' ') ELSE CONCAT('u-', c.id) END"
    " AS customer_no, c.email, c.first_name, c.last_name, c.plan_type, c.candidate,"
    " p.page, p.device, p.location, p.event_time FROM customers c"
    " JOIN page_views p ON p.user_id = c.id WHERE p.event_time >= %(window_start)s ORDER BY c.id"
)


class Case(NamedTuple):
    """A project type and an identity that fit together, and what follows."""

    project_type: str
    identify_by: str
    invalid: frozenset[int]
    duplicate: int  # of the shared e-mails
    rejected: frozenset[int]
    conflicts: int  # of the shared e-mails, all but the first of each

    @property
    def counts(self) -> dict[str, int]:
        failed = len(self.rejected) + self.conflicts
        sent = ROWS - len(self.invalid) - self.duplicate - failed
        named = {
            "successful": sent,
            "total_failures": failed,
            "invalid": len(self.invalid),
            "duplicates": self.duplicate,
        }
        return {name: count for name, count in named.items() if count}


BY_EMAIL_INVALID = frozenset({*NO_EMAIL, *MALFORMED})
BY_ID_INVALID = frozenset({*MALFORMED, *BAD_ID})
FORGOTTEN = frozenset({*FORGOTTEN_ID, *FORGOTTEN_EMAIL})
CASES = [
    Case("email", "email", BY_EMAIL_INVALID, 15, frozenset(FORGOTTEN_EMAIL), 0),
    Case("hybrid", "email", BY_EMAIL_INVALID, 15, frozenset(FORGOTTEN_EMAIL), 0),
    Case("userid", "userid", BY_ID_INVALID, 0, FORGOTTEN, 0),
    Case("hybrid", "userid", BY_ID_INVALID, 0, frozenset({*FORGOTTEN, *TAKEN}), 15),
]


@pytest.fixture
def source(mariadb: SourceDatabase) -> SourceDatabase:
    add_users(mariadb.run_sql, range(1, ROWS + 1))
    mariadb.run_sql(
        "UPDATE customers SET email = NULL WHERE id BETWEEN 851 AND 900;"
        "UPDATE customers SET email = CONCAT('shared', id - (id + 1) % 2, '@example.com')"
        " WHERE id BETWEEN 901 AND 930;"
        "UPDATE customers SET email = 'no address' WHERE id BETWEEN 971 AND 980;"
    )
    return mariadb


@contextmanager
def sandbox_of(project_type: str) -> Iterator[IterableSandbox]:
    """Run a project in which the e-mails of TAKEN belong to other users."""
    forgotten = [*(f"u-{n}" for n in FORGOTTEN_ID), *(email_of(n) for n in FORGOTTEN_EMAIL)]
    with IterableSandbox(
        project_type=project_type, forgotten=forgotten, keep_calls=10_000
    ) as iterable:
        for n in TAKEN:
            named = {"email": email_of(n)} if project_type == "email" else {"userId": f"other-{n}"}
            fields = {} if project_type == "email" else {"email": email_of(n)}
            iterable.project.update_user({**named, "dataFields": fields})
        yield iterable


def runs_of(tmp_path: Path, source: SourceDatabase, api: IterableSandbox, **more: str) -> Runs:
    query_file = tmp_path / "own.sql"
    query_file.write_text(QUERY, "utf-8")
    return Runs.between(
        tmp_path, source, api, QUERY_FILE=str(query_file), USER_ID_COLUMN="customer_no", **more
    )


@pytest.mark.parametrize("mode", ["per-user", "bulk"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.identify_by}-{case.project_type}")
def test_every_identity_leaves_exactly_the_expected_users_and_events(
    source: SourceDatabase, tmp_path: Path, case: Case, mode: str
) -> None:
    with sandbox_of(case.project_type) as api:
        runs = runs_of(tmp_path, source, api, SYNC_MODE=mode, IDENTIFY_BY=case.identify_by)
        report = runs.run()
        assert counts_of(report) == case.counts
        check_users_and_events(api, case)
        calls = Counter(call.endpoint for call in sent_calls(api))
        if mode == "per-user":
            sent = ROWS - len(case.invalid) - case.duplicate
            # No event follows the update of a user whom Iterable does not take.
            assert calls == {"users/update": sent, "events/track": case.counts["successful"]}
        logger.info("%s by %s, %s: %s, %s", *case[:2], mode, counts_of(report), dict(calls))
        before = len(api.calls)
        again = counts_of(runs.run())
        assert again == {
            **{name: n for name, n in case.counts.items() if name != "successful"},
            "unchanged": case.counts["successful"],
        }
        assert len(api.calls) == before, "what was rejected is remembered"


def check_users_and_events(api: IterableSandbox, case: Case) -> None:
    """Check that there is nobody but the expected users, none bare, each with one event."""
    by_email = case.identify_by == "email"
    users, events = api.project.users, list(api.project.events.values())
    assert not [user.key for user in users.values() if user.is_bare]
    expected = {
        (f"shared{n - (n + 1) % 2}@example.com" if n in SHARED else email_of(n))
        if by_email
        else f"u-{n}"
        for n in range(1, ROWS + 1)
        if n not in case.invalid and n not in case.rejected
    }
    keys = {user.key: user.key for user in users.values()}
    if case.project_type != "email":  # the users that were there before
        keys |= {f"other-{n}": email_of(n) if by_email else "" for n in TAKEN}
    found = {key for key in keys.values() if key}
    missing = expected - found
    assert found <= expected
    assert len(missing) == case.conflicts
    assert all(int(key[2:]) in SHARED for key in missing)
    assert Counter(keys[event.user.key] for event in events if event.user) == Counter(found)
    assert api.project.event_id_collision_count == 0
    for key in found - {f"shared{n}@example.com" for n in SHARED}:
        n = int(key[2:]) if not by_email else int(key[4:].partition("@")[0])
        (user,) = (user for user in users.values() if keys[user.key] == key)
        assert user.data_fields["first_name"] == f"First{n}"
        if not by_email and n not in SHARED:
            assert user.email == (None if n in NO_EMAIL else email_of(n))


@pytest.mark.parametrize("mode", ["per-user", "bulk"])
@pytest.mark.parametrize(
    ("project_type", "identify_by"), [("userid", "email"), ("email", "userid")]
)
def test_an_identity_that_does_not_fit_the_project_creates_nobody(
    source: SourceDatabase, tmp_path: Path, project_type: str, identify_by: str, mode: str
) -> None:
    with sandbox_of(project_type) as api:
        before = dict(api.project.users)
        runs = runs_of(tmp_path, source, api, SYNC_MODE=mode, IDENTIFY_BY=identify_by)
        report = runs.run()
        assert counts_of(report).get("successful", 0) == 0
        assert api.project.users == before
        assert not api.project.events
        logger.info("%s by %s, %s: %s", project_type, identify_by, mode, counts_of(report))


@pytest.mark.parametrize("mode", ["per-user", "bulk"])
def test_the_event_of_a_user_whom_iterable_has_is_sent_though_the_update_is_rejected(
    embedded: SourceDatabase, tmp_path: Path, mode: str
) -> None:
    """User 2 takes the e-mail of user 1 and views a page; user 3 is new and takes it as well."""
    add_users(embedded.run_sql, [1, 2])
    with IterableSandbox(project_type="hybrid", keep_calls=100) as api:
        runs = Runs.between(tmp_path, embedded, api, IDENTIFY_BY="userid", SYNC_MODE=mode)
        assert counts_of(runs.run()) == {"successful": 2}
        add_users(embedded.run_sql, [3])
        embedded.run_sql(
            f"UPDATE customers SET email = '{email_of(1)}' WHERE id IN (2, 3);"
            "UPDATE page_views SET event_time = '2026-02-01 10:00:00' WHERE user_id = 2"
        )
        assert counts_of(runs.run()) == {
            "unchanged": 1,
            "partial_failures": 1,
            "total_failures": 1,
        }
        assert set(api.project.users) == {"1", "2"}
        keys = Counter(event.user.key for event in api.project.events.values() if event.user)
        assert keys == {"1": 1, "2": 2}


@pytest.mark.parametrize("mode", ["per-user", "bulk"])
@pytest.mark.parametrize("identity", [{"IDENTIFY_BY": "userid"}, {"USER_FIELDS": "userId=id"}])
def test_a_remembered_conflict_was_given_the_end_of_the_run_as_the_reason(
    embedded: SourceDatabase, tmp_path: Path, mode: str, identity: dict[str, str]
) -> None:
    add_users(embedded.run_sql, [1, 2])
    taken = {"userId": "2", "dataFields": {"email": "other@example.com"}}
    if "IDENTIFY_BY" in identity:
        taken = {"userId": "other", "dataFields": {"email": email_of(2)}}
    with IterableSandbox(project_type="hybrid", keep_calls=100) as api:
        api.project.update_user(taken)
        runs = Runs.between(tmp_path, embedded, api, SYNC_MODE=mode, **identity)
        for _ in range(2):
            _, record = results_of(runs.run())["records"]
            code = record["users_update"]["response"]["code"]
            assert record["reason"] == f"the event was not sent: {code} from users/update"
            assert record["events_track"] is None
        assert record["users_update"]["attempts"] == 0


def test_what_was_delivered_by_user_id_is_read_back_by_it(
    embedded: SourceDatabase, tmp_path: Path
) -> None:
    add_users(embedded.run_sql, [1, 2, 3])
    embedded.run_sql(
        "UPDATE customers SET email = NULL WHERE id = 1;"
        "UPDATE customers SET email = 'Two@Example.com' WHERE id = 2"
    )
    with IterableSandbox(project_type="userid", keep_calls=100) as api:
        runs = Runs.between(tmp_path, embedded, api, IDENTIFY_BY="userid")
        runs.run()

        def found() -> set[tuple[object, str, str]]:
            settings = Settings.from_environment(runs.settings)
            findings = verify(settings, 10, threading.Event(), now=lambda: 1e10)
            return {(each.user_id, each.kind.value, each.comparison.value) for each in findings}

        as_sent = {(n, kind, "as sent") for n in (1, 2, 3) for kind in ("profile", "event")}
        assert found() == as_sent
        asked = {call.endpoint.rpartition("/")[0] for call in api.calls if not call.body}
        assert {"users", "events/byUserId"} <= asked
        del api.project.users["3"]
        assert (3, "profile", "missing") in found()


@pytest.mark.parametrize("is_same", [True, False])
def test_a_new_key_is_proven_by_reading_back_by_user_id(
    embedded: SourceDatabase, tmp_path: Path, is_same: bool
) -> None:
    add_users(embedded.run_sql, [1, 2])
    with IterableSandbox(project_type="userid", keep_calls=100) as api:
        runs = Runs.between(tmp_path, embedded, api, IDENTIFY_BY="userid")
        runs.run()
        with closing(sqlite3.connect(runs.state_file)) as database, database:
            database.execute("UPDATE delivered SET profile_at = 1, event_at = 1")
        runs.settings["ITERABLE_API_KEY"] = "another-key-0123456789abcdef"
        if not is_same:
            api.project.users.clear()
            api.project.events.clear()
        error = runs.run().error
        assert isinstance(error, OtherProjectError) != is_same
        assert sum(call.body is not None for call in api.calls) == 4, "of the first run"


def test_a_state_file_of_another_identity_stops_the_run(
    embedded: SourceDatabase, tmp_path: Path
) -> None:
    add_users(embedded.run_sql, [1, 2])
    with IterableSandbox(project_type="hybrid", keep_calls=100) as api:
        runs = Runs.between(tmp_path, embedded, api)
        runs.run()
        count = len(api.calls)
        runs.settings["IDENTIFY_BY"] = "userid"
        report = runs.run(ignore_guards=True)
        assert (report.summary.status, len(api.calls)) == ("aborted", count)
        assert "with IDENTIFY_BY=email, not userid" in str(report.error)


@pytest.mark.parametrize("how", ["empty", "404", "code", "text"])
def test_who_is_gone_is_recognized_by_each_answer_for_an_unknown_user_id(
    embedded: SourceDatabase, tmp_path: Path, how: str
) -> None:
    add_users(embedded.run_sql, [1, 2, 3])
    with IterableSandbox(project_type="userid", unknown_user_response=how) as api:
        settings = {"IDENTIFY_BY": "userid", "ON_LEAVE": "clear"}
        runs = Runs.between(tmp_path, embedded, api, **settings)
        runs.run()
        with closing(sqlite3.connect(runs.state_file)) as database, database:
            database.execute("UPDATE delivered SET profile_at = 1")
        del api.project.users["2"]
        embedded.run_sql("UPDATE customers SET plan_type = 'free' WHERE id > 1")
        leavers = runs.run().summary.to_json()["leavers"]
        assert {name: n for name, n in leavers.items() if n} == {
            "found": 2,
            "cleared": 1,
            "gone": 1,
        }
        assert set(api.project.users) == {"1", "3"}
        assert api.project.users["3"].data_fields["recent_page_view"] is False
