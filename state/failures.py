"""The table `failures`: what failed when it was last judged. Only this module uses it.

It serves two purposes. A failure is known, and not new, while a user's request fails with the same
code, or a row is invalid for the same reason. And content that Iterable has rejected is not sent
again for some hours: the failure stands without a call.

The table holds hashes, codes and times, nothing that names a user. One row stands for

- a request: `row_key` is the user key and `kind` the `RequestKind`. `content_hash` is the hash of
  rejected content; NULL: the next run sends it again. `event_hash`, beside a profile, is the hash
  of the user's event if it was delivered although the profile was not.
- invalid rows: `kind` is INVALID_ROW and `row_key` a hash of the column `id` and the reason. Rows
  without an id share one entry per reason, and `row_count` says how many there were.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import orjson

from records.identity import to_change_hash
from records.outcomes import JSON, Verdict
from records.rows import EMAIL_CHANGE, INVALID_ROW, FailureAge, Finished, RequestKind, common_reason
from state.database import state_errors
from state.held_requests import Failures, HeldRow, KnownFailure, hold_back, to_ages_text
from state.outbox_file import IS_NEEDED, VERDICT_COLUMN, OutboxRow

_SECONDS_PER_HOUR = 3_600
# A run of a daily cron job may judge a row some seconds earlier in the day than the run before.
_EARLY_SECONDS = 300
_MAX_UNIX_SECONDS = 253_402_300_799  # the last second of the year 9999
_CHUNK_ROWS = 1_000  # invalid rows that are looked up at a time

# Values of another type, which no version of this program writes, must not break a comparison.
_FIRST_FAILED_AT = f"max(0, min({_MAX_UNIX_SECONDS}, CAST(first_failed_at AS INTEGER)))"
_RUNS_FAILED = "max(0, min(1000000000, CAST(runs_failed AS INTEGER)))"
_ROW_COUNT = "max(0, min(1000000000, CAST(row_count AS INTEGER)))"

_RECORD = """
    INSERT INTO failures (row_key, kind, verdict, http_status, code, content_hash,
        judged_at, first_failed_at, runs_failed)
    SELECT user_key, :kind, :verdict, :http_status, :code,
        CASE WHEN :is_final THEN iif(:kind = 'profile', profile_hash, event_hash) END, :at, :at, 1
    FROM outbox WHERE seq = :seq
    ON CONFLICT (row_key, kind) DO UPDATE SET
        first_failed_at = iif(code IS excluded.code, first_failed_at, excluded.first_failed_at),
        runs_failed = iif(code IS excluded.code, runs_failed + 1, 1),
        verdict = excluded.verdict, http_status = excluded.http_status, code = excluded.code,
        content_hash = excluded.content_hash, judged_at = excluded.judged_at
"""
_NOTE_AGE = f"""
    UPDATE outbox SET failure_ages = json_set(ifnull(failure_ages, '{{}}'), '$.' || :kind, json((
        SELECT json_array({_FIRST_FAILED_AT}, {_RUNS_FAILED}) FROM failures
        WHERE row_key = outbox.user_key AND kind = :kind
    ))) WHERE seq = :seq
"""  # noqa: S608 - our own text
_USERS_OF_SEQS = "SELECT user_key FROM outbox WHERE seq IN (SELECT value FROM json_each(:seqs))"
# What this read still needs. Requests that are held back, and rows that are left out, are in it.
_OPEN = {
    **{
        kind.value: "SELECT user_key FROM outbox"  # noqa: S608 - our own text
        f" WHERE (kind IS NULL OR kind = 'not_attempted') AND {kind.value} IS NOT NULL"
        for kind in RequestKind
    },
    EMAIL_CHANGE: "SELECT user_key FROM outbox WHERE held = 'move' OR email_change IS NOT NULL",
    INVALID_ROW: "SELECT failure_key FROM outbox WHERE failure_key IS NOT NULL",
}


class FailureTable:
    """The table in an open state file. Raises StateError.

    Call `load` before rows are added to the outbox.
    """

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        self._path = path
        self._database = database
        self._has_rows = self._has_held_requests = self._has_invalid_rows = False
        self._not_remembered: set[tuple[RequestKind, str | None]] = set()
        self._retry_after_seconds = 0
        self._now = 0

    def load(self, now: int, retry_after_hours: int) -> None:
        """Prepare for a read; `now` is in unix seconds, 0 hours hold nothing back."""
        self._now = now
        self._retry_after_seconds = max(0, retry_after_hours * _SECONDS_PER_HOUR - _EARLY_SECONDS)
        with state_errors(self._path):
            self._has_rows = self._exists()
        self._has_held_requests = self._has_invalid_rows = False

    def make_new_again(self, since: float) -> None:
        """Let failures be new once more that came up since then (unix seconds).

        The run that met them was killed before it reported them. Its rejections stay remembered.
        """
        with state_errors(self._path):
            self._database.execute(
                "UPDATE failures SET runs_failed = 0"
                " WHERE runs_failed = 1 AND first_failed_at >= ?",
                (int(since),),
            )

    def hold_back(
        self,
        rows: Sequence[OutboxRow],
        find_known: Callable[[Iterable[int]], set[int]] | None = None,
    ) -> tuple[Sequence[OutboxRow], Sequence[HeldRow]]:
        """Return the rows to insert, and which of them Iterable has rejected not long ago.

        `find_known` returns the users whom Iterable has; None: an event needs no such user.
        Call `note_held` with the latter once the rows are in the outbox.
        """
        if not (self._has_rows and self._retry_after_seconds):
            return rows, ()
        failures = self._find([row.user_key for row in rows if row.user_key is not None])
        if not failures:
            return rows, ()
        failing = {user_key for user_key, _kind in failures}
        unknown = failing - find_known(failing) if find_known else set()
        checked = [
            (row, None)
            if row.user_key not in failing or row.user_key is None
            else hold_back(
                row,
                row.user_key,
                failures,
                self._is_recent,
                event_needs_profile=row.user_key in unknown,
            )
            for row in rows
        ]
        held = [each for _row, each in checked if each]
        self._has_held_requests |= bool(held)
        return [row for row, _held in checked], held

    def note_held(self, rows: Sequence[HeldRow]) -> None:
        """Give these rows of the outbox the results of their requests that are held back."""
        with state_errors(self._path):
            self._database.executemany(
                "UPDATE outbox SET held = :held, failure_ages = :failure_ages,"
                " update_verdict = :update_verdict, update_result = :update_result,"
                " event_verdict = :event_verdict, event_result = :event_result WHERE seq = :seq",
                [row._asdict() for row in rows],
            )

    def _is_recent(self, failure: KnownFailure) -> bool:
        # A time in the future comes from a clock that was ahead.
        return 0 <= self._now - failure.judged_at < self._retry_after_seconds

    def release_marked_rows(self) -> None:
        """Hold nothing back of rows that became duplicate or invalid: they are not sent at all."""
        if self._has_held_requests:
            with state_errors(self._path):
                self._database.execute(
                    "UPDATE outbox SET held = NULL, failure_ages = NULL, update_verdict = NULL,"
                    " update_result = NULL, event_verdict = NULL, event_result = NULL"
                    " WHERE kind IS NOT NULL AND held IS NOT NULL"
                )

    def note_invalid_rows(self) -> None:
        """Give the invalid rows of the outbox their keys and ages, once all rows are in it."""
        self._has_invalid_rows = True
        counted: Counter[int] = Counter()
        with state_errors(self._path):
            for chunk in self._invalid_rows():
                keys = [_to_invalid_key(user_id, reason) for _seq, user_id, reason in chunk]
                known = self._find(keys) if self._has_rows else {}
                noted = []
                for (seq, user_id, _reason), key in zip(chunk, keys, strict=True):
                    counted[key] += user_id is None
                    failure = known.get((key, INVALID_ROW))
                    is_known = failure is not None and (
                        user_id is not None or counted[key] <= failure.row_count
                    )
                    age = failure.age_in_this_run if failure and is_known else self._new_age()
                    noted.append((key, to_ages_text({INVALID_ROW: age}), seq))
                self._database.executemany(
                    "UPDATE outbox SET failure_key = ?, failure_ages = ? WHERE seq = ?", noted
                )

    def _new_age(self) -> FailureAge:
        return FailureAge(self._now, 1)

    def _invalid_rows(self) -> Iterator[list[tuple[int, int | str | None, str]]]:
        last_seq = -1
        while True:
            chunk = self._database.execute(
                "SELECT seq, user_id, reason FROM outbox"
                " WHERE kind = 'invalid' AND seq > ? ORDER BY seq LIMIT ?",
                (last_seq, _CHUNK_ROWS),
            ).fetchall()
            if not chunk:
                return
            yield chunk
            last_seq = chunk[-1][0]

    def begin_delivery(
        self, *, is_complete_read: bool, kinds: Sequence[RequestKind] = tuple(RequestKind)
    ) -> int:
        """Bring the table up to date with the rows of this read; the caller commits.

        `kinds` are the requests that are sent; nothing is said of the failures of another kind.
        Invalid rows and requests that are held back have failed once more. After a complete read,
        what the read lacks or no longer needs is dropped. Returns the number of resolved failures:
        users and invalid rows.
        """
        resolved = 0
        with state_errors(self._path):
            if self._has_rows:
                if self._has_held_requests:
                    self._count_held_requests()
                self._doubt_pending_events()
                if is_complete_read:
                    resolved = self._drop_what_the_read_lacks(kinds)
            if self._has_invalid_rows:
                self._record_invalid_rows(is_complete_read)
            self._has_rows = self._exists()
        return resolved

    def forget_all_rejections(self) -> None:
        """Let this run and the next ones send what was rejected; the caller commits.

        The failures stay known.
        """
        with state_errors(self._path):
            self._database.execute("UPDATE failures SET content_hash = NULL")

    def forget_rejections(self, kind: RequestKind, code: str | None, since: float) -> None:
        """Let the next run send what is rejected with this code; the caller commits.

        That is what was judged since then (unix seconds), and what `record` still gets. The
        failures stay known.
        """
        self._not_remembered.add((kind, code))
        with state_errors(self._path):
            self._database.execute(
                "UPDATE failures SET content_hash = NULL"
                " WHERE kind = ? AND code IS ? AND judged_at >= ?",
                (kind.value, code, int(since)),
            )

    def count_run_before(self, kind: RequestKind, seqs: Sequence[int]) -> int:
        """Count the run before for the rejected ones of these rows, so that they are known.

        It left them out because others were rejected, and said so. The caller commits. Returns how
        many of the rows were rejected.
        """
        verdict = VERDICT_COLUMN[kind]
        with state_errors(self._path):
            rejected = self._database.execute(
                f"SELECT seq, user_key FROM outbox WHERE {verdict} = 'rejected'"  # noqa: S608
                " AND seq IN (SELECT value FROM json_each(?))",
                (orjson.dumps(seqs).decode(),),
            ).fetchall()
            self._database.executemany(
                "UPDATE failures SET runs_failed = 2 WHERE row_key = ? AND kind = ?"
                " AND runs_failed = 1",
                [(user_key, kind.value) for _seq, user_key in rejected],
            )
            self._database.executemany(
                _NOTE_AGE, [{"kind": kind.value, "seq": seq} for seq, _user_key in rejected]
            )
        return len(rejected)

    def rejected_users(
        self, kind: RequestKind, code: str | None, since: float, limit: int
    ) -> list[int]:
        """Return the keys of users whose request was rejected with this code since then."""
        with state_errors(self._path):
            found = self._database.execute(
                "SELECT row_key FROM failures WHERE kind = ? AND verdict = ? AND code IS ?"
                " AND judged_at >= ? LIMIT ?",
                (kind.value, Verdict.REJECTED.value, code, int(since), limit),
            )
            return [row_key for (row_key,) in found]

    def record(self, kind: RequestKind, finished: Sequence[Finished]) -> int:
        """Record the results of requests of one kind; the caller commits.

        Returns the number of users whose failures are resolved by it.
        """
        resolved = 0
        failed = [each for each in finished if not each.result.delivered]
        delivered = [each.seq for each in finished if each.result.delivered]
        with state_errors(self._path):
            if delivered and self._has_rows:
                users = {"seqs": orjson.dumps(delivered).decode()}
                resolved = self._resolve(kind.value, f"IN ({_USERS_OF_SEQS})", users)
                if kind is RequestKind.EVENT:
                    self._database.execute(
                        "UPDATE failures SET event_hash = outbox.event_hash FROM outbox"
                        " WHERE outbox.seq IN (SELECT value FROM json_each(:seqs))"
                        " AND failures.row_key = outbox.user_key AND failures.kind = 'profile'",
                        users,
                    )
            if failed:
                self._has_rows = True
                self._database.executemany(_RECORD, [self._to_parameters(each) for each in failed])
                self._database.executemany(
                    _NOTE_AGE, [{"kind": kind.value, "seq": each.seq} for each in failed]
                )
        return resolved

    def record_change(self, seq: int, code: str | None, at: int) -> None:
        """Record that the address of a row's user could not be changed; the caller commits."""
        self._has_rows = True
        parameters = {"verdict": "rejected", "http_status": None, "is_final": False, "at": at}
        row = {"kind": EMAIL_CHANGE, "seq": seq}
        with state_errors(self._path):
            self._database.execute(_RECORD, {**parameters, **row, "code": code})
            self._database.execute(_NOTE_AGE, row)

    def resolve_change(self, user_key: int) -> int:
        """Forget such a failure; return 1 if the user has none left. The caller commits."""
        with state_errors(self._path):
            return self._resolve(EMAIL_CHANGE, f"IN ({int(user_key)})")

    def _to_parameters(self, finished: Finished) -> JSON:
        result = finished.result
        return {
            "kind": finished.kind.value,
            "seq": finished.seq,
            "verdict": result.verdict.value,
            "http_status": result.http_status,
            "code": result.code,
            # What a proxy or firewall has blocked says nothing about the content.
            "is_final": result.verdict is Verdict.REJECTED
            and not result.is_blocked
            and (finished.kind, result.code) not in self._not_remembered,
            "at": int(finished.finished_at),
        }

    def _exists(self) -> bool:
        return bool(self._database.execute("SELECT EXISTS (SELECT 1 FROM failures)").fetchone()[0])

    def _find(self, row_keys: Iterable[int]) -> Failures:
        found = self._database.execute(
            # Iterable moves an event to the user for whom its id came last: `delivered` then has
            # no event id for the former user.
            "SELECT row_key, CAST(kind AS TEXT), CAST(http_status AS INTEGER), CAST(code AS TEXT),"  # noqa: S608 - our own text
            " CAST(content_hash AS INTEGER), iif(kind = 'profile', (SELECT"
            " CAST(failures.event_hash AS INTEGER) FROM delivered WHERE user_key = row_key"
            " AND event_id IS NOT NULL), NULL), ifnull(CAST(judged_at AS INTEGER), 0),"
            f" ifnull({_FIRST_FAILED_AT}, 0), ifnull({_RUNS_FAILED}, 1),"
            f" ifnull({_ROW_COUNT}, 0)"
            " FROM failures WHERE row_key IN (SELECT value FROM json_each(?))",
            (orjson.dumps(list(row_keys)).decode(),),
        )
        return {(row_key, kind): KnownFailure._make(rest) for row_key, kind, *rest in found}

    def _count_held_requests(self) -> None:
        for kind in RequestKind:
            self._database.execute(
                "UPDATE failures SET runs_failed = runs_failed + 1 WHERE kind = ? AND row_key IN"  # noqa: S608 - our own names
                " (SELECT user_key FROM outbox WHERE kind IS NULL AND held IS NOT NULL"
                f" AND {VERDICT_COLUMN[kind]} IS NOT NULL)",
                (kind.value,),
            )

    def _doubt_pending_events(self) -> None:
        self._database.execute(
            "UPDATE failures SET event_hash = NULL WHERE kind = 'profile' AND event_hash IS NOT"  # noqa: S608
            " NULL AND row_key IN"
            f" (SELECT user_key FROM outbox WHERE {IS_NEEDED[RequestKind.EVENT]})"
        )

    def _drop_what_the_read_lacks(self, kinds: Sequence[RequestKind]) -> int:
        resolved = self._count_rows_without_id_that_are_gone()
        not_judged = {kind.value for kind in RequestKind if kind not in kinds}
        for kind, still_open in _OPEN.items():
            if kind in not_judged:
                continue
            resolved += self._resolve(kind, f"NOT IN ({still_open})")
        return resolved

    def _count_rows_without_id_that_are_gone(self) -> int:
        """Count them where other rows without an id are still invalid for the same reason."""
        count: int = self._database.execute(
            f"SELECT ifnull(sum(max(0, {_ROW_COUNT} - still_invalid)), 0)"  # noqa: S608
            " FROM failures JOIN (SELECT failure_key, count(*) AS still_invalid FROM outbox"
            " WHERE failure_key IS NOT NULL AND user_id IS NULL GROUP BY failure_key)"
            " ON row_key = failure_key WHERE kind = ?",
            (INVALID_ROW,),
        ).fetchone()[0]
        return count

    def _resolve(self, kind: str, which: str, parameters: JSON | None = None) -> int:
        """Remove failures of one kind and return how many users have none left.

        `which` is a condition on `row_key`; invalid rows count one by one.
        """
        values = {**(parameters or {}), "kind": kind}
        condition = f"kind = :kind AND row_key {which}"
        removed = self._database.execute(
            f"SELECT row_key, max(1, ifnull({_ROW_COUNT}, 1)) FROM failures"  # noqa: S608
            f" WHERE {condition}",
            values,
        ).fetchall()
        if not removed:
            return 0
        self._database.execute(f"DELETE FROM failures WHERE {condition}", values)  # noqa: S608
        left = {
            row_key
            for (row_key,) in self._database.execute(
                "SELECT row_key FROM failures WHERE row_key IN (SELECT value FROM json_each(?))",
                (orjson.dumps([row_key for row_key, _count in removed]).decode(),),
            )
        }
        return sum(count for row_key, count in removed if row_key not in left)

    def _record_invalid_rows(self, is_complete_read: bool) -> None:
        # `row_count` counts the rows without an id; a partial read may lack some of them.
        self._database.execute(
            "INSERT INTO failures (row_key, kind, verdict, judged_at, first_failed_at, runs_failed,"
            " row_count)"
            " SELECT failure_key, :kind, 'invalid', :now, :now, 1,"
            " iif(count(user_id), 1, count(*)) FROM outbox"
            " WHERE failure_key IS NOT NULL GROUP BY failure_key"
            " ON CONFLICT (row_key, kind) DO UPDATE SET runs_failed = runs_failed + 1,"
            " judged_at = excluded.judged_at, row_count = iif(:is_complete, excluded.row_count,"
            " max(ifnull(row_count, 0), excluded.row_count))",
            {"kind": INVALID_ROW, "now": self._now, "is_complete": is_complete_read},
        )


def _to_invalid_key(user_id: int | str | None, reason: str | None) -> int:
    return to_change_hash([None if user_id is None else str(user_id), common_reason(reason)])
