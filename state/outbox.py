"""Where rows wait to be sent, results are recorded, and what was delivered is remembered.

Owns the three phases of a run in SQLite: fill (all rows, in one transaction), record (short
transactions), clear (personal data leaves with the run). Knows neither HTTP nor MySQL. Used by
one thread. Whatever is wrong with the file is a `StateError` (`state_file`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import orjson

from records.mapping import RowMapping
from records.outcomes import (
    Failure,
    Finished,
    Outcome,
    PendingRow,
    RequestKind,
    RowState,
    SettledRow,
)
from state.database import close_after_reading, open_for_reading, open_state, state_errors
from state.history import RunHistory
from state.waiting_rows import OutboxRow, to_outbox_row

_PAGE_ROWS = 1_000  # read at a time while delivering: 1 MB of payloads

_STATE = "kind, profile IS NULL, event IS NULL, update_verdict, event_verdict"
_TO_SEND = "kind IS NULL AND update_verdict IS NULL AND event_verdict IS NULL"

_RECORD = {
    RequestKind.PROFILE: (
        "UPDATE outbox SET update_verdict = ?, update_result = ?, settled_at = ? WHERE seq = ?"
    ),
    RequestKind.EVENT: (
        "UPDATE outbox SET event_verdict = ?, event_result = ?, settled_at = ? WHERE seq = ?"
    ),
}
_REMEMBER = {
    RequestKind.PROFILE: """
        INSERT INTO delivered (person, profile_hash, profile_at)
        SELECT person, profile_hash, ? FROM outbox WHERE seq = ?
        ON CONFLICT (person) DO UPDATE
        SET profile_hash = excluded.profile_hash, profile_at = excluded.profile_at
    """,
    RequestKind.EVENT: """
        INSERT INTO delivered (person, event_hash, event_id, event_at)
        SELECT person, event_hash, event_id, ? FROM outbox WHERE seq = ?
        ON CONFLICT (person) DO UPDATE SET event_hash = excluded.event_hash,
            event_id = excluded.event_id, event_at = excluded.event_at
    """,
}


@dataclass(frozen=True)
class FillSummary:
    """What a fill found, told before the first call."""

    total: int
    to_send: int
    in_the_future: int
    mapping_changed: bool


class Outbox:
    """The outbox of one state file.

    With `read_only` the file is only read (a dry run): the rows then wait in a temporary table
    that vanishes with this object.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        if read_only:
            self._database = open_for_reading(path)
            with state_errors(path):
                schema = "SELECT sql FROM main.sqlite_schema WHERE name = 'outbox'"
                table = self._database.execute(schema).fetchone()[0]
                self._database.execute(table.replace("CREATE TABLE", "CREATE TEMP TABLE"))
        else:
            self._database = open_state(path)
        self.history = RunHistory(path, self._database)
        self._is_read_only = read_only

    def close(self) -> None:
        """Close the file."""
        with state_errors(self.path):
            if self._is_read_only:
                close_after_reading(self.path, self._database)
            else:
                self._database.close()

    def fill(
        self,
        chunks: Iterable[Sequence[Sequence[Any]]],
        mapping: RowMapping,
        *,
        full_refresh: bool = False,
        now: datetime | None = None,
    ) -> FillSummary:
        """Take in every row, in one transaction: whatever breaks it leaves nothing behind.

        Rows whose two halves were delivered as they are become `unchanged` (not so with
        `full_refresh`), of several rows of one person all but the latest event `duplicate`.
        """
        with state_errors(self.path), self._transaction():
            self._database.execute("DELETE FROM outbox")
            total = 0
            for chunk in chunks:
                self._append(chunk, mapping, total, full_refresh)
                total += len(chunk)
            self._mark_duplicates()
            changed = self._remember_mapping(mapping.fingerprint)
            now_us = int((now or datetime.now(timezone.utc)).timestamp() * 1_000_000)
            to_send, in_the_future = self._database.execute(
                "SELECT count(*) FILTER (WHERE kind IS NULL), count(*) FILTER (WHERE event_at > ?)"
                " FROM outbox",
                (now_us,),
            ).fetchone()
            return FillSummary(total, to_send, in_the_future, changed)

    def _append(
        self,
        rows: Sequence[Sequence[Any]],
        mapping: RowMapping,
        rows_before: int,
        full_refresh: bool,
    ) -> None:
        keys = [mapping.key(row) for row in rows]
        known = {} if full_refresh else self._known([key.person for key in keys if key])
        unchanged: list[tuple[Any, ...]] = []
        waiting: list[OutboxRow] = []
        for seq, (row, key) in enumerate(zip(rows, keys, strict=True), rows_before):
            if key and known.get(key.person) == (key.profile_hash, key.event_hash):
                unchanged.append((seq, key.user_id, key.email, key.person, key.event_at))
            else:
                waiting.append(to_outbox_row(seq, row, key, known, mapping))
        self._database.executemany(
            "INSERT INTO outbox (seq, user_id, email, person, event_at, kind)"
            " VALUES (?, ?, ?, ?, ?, 'unchanged')",
            unchanged,
        )
        self._database.executemany(
            f"INSERT INTO outbox ({', '.join(OutboxRow._fields)})"  # noqa: S608 - our own names
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            waiting,
        )

    def _known(self, persons: Sequence[int]) -> dict[int, tuple[int | None, int | None]]:
        """Return what was delivered to these people, in one look-up for the whole chunk.

        As one JSON value: SQLite then lets go of the interpreter once and not for every row,
        and the rows that follow are fetched meanwhile. Row by row, a million look-ups took 6 s
        beside the fetching thread, this way 3 s.
        """
        found = self._database.execute(
            # CAST: what somebody wrote there that is no number is no hash of ours, and no error.
            "SELECT json_group_array(json_array(person, CAST(profile_hash AS INTEGER),"
            " CAST(event_hash AS INTEGER)))"
            " FROM delivered WHERE person IN (SELECT value FROM json_each(?))",
            (orjson.dumps(persons).decode(),),
        ).fetchone()[0]
        return {
            person: (profile_hash, event_hash)
            for person, profile_hash, event_hash in orjson.loads(found)
        }

    def _mark_duplicates(self) -> None:
        """Keep one row a person: the latest event, the first such row where times are equal."""
        self._database.execute(
            """
            WITH twice AS (
                SELECT person FROM outbox WHERE person IS NOT NULL
                GROUP BY person HAVING count(*) > 1
            ), ranked AS (
                SELECT seq, row_number() OVER latest AS place,
                       first_value(user_id) OVER latest AS winner
                FROM outbox WHERE person IN (SELECT person FROM twice)
                WINDOW latest AS (PARTITION BY person ORDER BY event_at DESC, seq)
            )
            UPDATE outbox SET kind = 'duplicate',
                reason = 'the same e-mail as user ' || ifnull(ranked.winner, '?')
                    || ', whose event is later'
            FROM ranked WHERE ranked.seq = outbox.seq AND ranked.place > 1
            """
        )

    def _remember_mapping(self, fingerprint: str) -> bool:
        """Note the mapping of this run; say whether what is remembered had another one."""
        found = self._database.execute("SELECT value FROM remembered WHERE name = 'mapping'")
        before = found.fetchone()
        if not self._is_read_only:
            self._database.execute(
                "INSERT OR REPLACE INTO remembered VALUES ('mapping', ?)", (fingerprint,)
            )
        return before not in (None, (fingerprint,))

    def pending(self) -> Iterator[PendingRow]:
        """Yield the rows to be sent, in the query's order, a page at a time."""
        last_seq = -1
        while True:
            with state_errors(self.path):
                page = self._database.execute(
                    "SELECT seq, user_id, email, profile, event FROM outbox"  # noqa: S608
                    f" WHERE {_TO_SEND} AND seq > ? ORDER BY seq LIMIT ?",
                    (last_seq, _PAGE_ROWS),
                ).fetchall()
            if not page:
                return
            yield from map(PendingRow._make, page)
            last_seq = page[-1][0]

    def events_of(self, seqs: Iterable[int]) -> list[PendingRow]:
        """Return the events of rows whose profiles are done with."""
        with state_errors(self.path):
            found = self._database.execute(
                "SELECT seq, user_id, email, NULL, event FROM outbox"
                " WHERE seq IN (SELECT value FROM json_each(?)) ORDER BY seq",
                (orjson.dumps(list(seqs)).decode(),),
            )
            return [PendingRow._make(row) for row in found]

    def record(self, finished: Sequence[Finished]) -> None:
        """Write down what calls came to, in one transaction that is on the disk on return.

        Only what Iterable took is remembered for the next run.
        """
        with state_errors(self.path), self._transaction():
            for kind in RequestKind:
                calls = [call for call in finished if call.kind is kind]
                self._database.executemany(
                    _RECORD[kind],
                    [
                        (
                            call.result.verdict.value,
                            orjson.dumps(call.result.to_json()).decode(),
                            call.finished_at,
                            call.seq,
                        )
                        for call in calls
                    ],
                )
                self._database.executemany(
                    _REMEMBER[kind],
                    [(int(c.finished_at), c.seq) for c in calls if c.result.delivered],
                )

    def outcome_counts(self) -> dict[Outcome, int]:
        """Count the rows by outcome; the mapping holds every outcome."""
        counts = dict.fromkeys(Outcome, 0)
        with state_errors(self.path):
            groups = self._database.execute(
                f"SELECT {_STATE}, count(*) FROM outbox GROUP BY 1, 2, 3, 4, 5"  # noqa: S608
            )
            for *state, count in groups:
                counts[RowState(*state).outcome] += count
        return counts

    def settled(self) -> Iterator[SettledRow]:
        """Yield every row with what it has come to so far, in the query's order."""
        with state_errors(self.path):
            rows = self._database.execute(
                f"SELECT {_STATE}, user_id, email, reason, update_result, event_result,"  # noqa: S608
                " settled_at FROM outbox ORDER BY seq"
            )
            states: dict[tuple[Any, ...], RowState] = {}  # a few dozen, for any number of rows
            for row in rows:
                key = row[:5]
                state = states.get(key) or states.setdefault(key, RowState._make(key))
                yield SettledRow._make((state, *row[5:]))

    def failures(self) -> list[Failure]:
        """Return the reasons why rows failed or were invalid, the commonest first."""
        with state_errors(self.path):
            found = self._database.execute(
                """
                SELECT 'users/update', json_extract(update_result, '$.verdict'),
                    json_extract(update_result, '$.response.code'), count(*), min(user_id)
                FROM outbox WHERE update_verdict <> 'delivered' GROUP BY 2, 3
                UNION ALL
                SELECT 'events/track', json_extract(event_result, '$.verdict'),
                    json_extract(event_result, '$.response.code'), count(*), min(user_id)
                FROM outbox WHERE event_verdict <> 'delivered' GROUP BY 2, 3
                UNION ALL
                SELECT 'row', 'invalid', reason, count(*), min(user_id)
                FROM outbox WHERE kind = 'invalid' GROUP BY reason
                ORDER BY 4 DESC, 1 DESC, 3
                """
            )
            return [Failure(*row) for row in found]

    def clear(self) -> None:
        """Have personal data leave the file: what stays is hashes, event ids and times."""
        with state_errors(self.path):
            self._database.execute("DELETE FROM outbox")
            # A deleted row's bytes stay in the file until it is written anew.
            self._database.execute("VACUUM")
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._database.execute("BEGIN")
            yield
            self._database.execute("COMMIT")
        except BaseException:
            # SQLite has ended the transaction by itself where the disk is full.
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise
