"""Where rows wait to be sent, results are recorded, and what was delivered is remembered.

Owns the three phases of a run in SQLite: fill (all rows, in one transaction), record (short
transactions), clear (personal data leaves with the run). Knows neither HTTP nor MySQL. Used by
one thread. Whatever is wrong with the file is a `StateError` (`state_file`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from records.mapping import InvalidRow, RowKey, RowMapping
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
from state.delivered import DeliveredTable, Hashes
from state.history import RunHistory

_NOT_DELIVERED: Hashes = (None, None)
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


@dataclass(frozen=True)
class FillSummary:
    """What a fill found, told before the first call."""

    total: int
    to_send: int
    in_the_future: int
    mapping_changed: bool


class _OutboxRow(NamedTuple):
    """A row as it is put into the outbox."""

    seq: int
    user_id: int | str | None
    email: str | None
    person: int | None = None
    event_at: int | None = None
    kind: str | None = None
    reason: str | None = None
    profile: bytes | None = None
    profile_hash: int | None = None
    event: bytes | None = None
    event_hash: int | None = None
    event_id: str | None = None


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
        self.delivered = DeliveredTable(path, self._database)
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
        known = (
            {} if full_refresh else self.delivered.hashes_of([key.person for key in keys if key])
        )
        unchanged: list[tuple[Any, ...]] = []
        waiting: list[_OutboxRow] = []
        for seq, (row, key) in enumerate(zip(rows, keys, strict=True), rows_before):
            if key and known.get(key.person) == (key.profile_hash, key.event_hash):
                unchanged.append((seq, key.user_id, key.email, key.person, key.event_at))
            else:
                waiting.append(_to_outbox_row(seq, row, key, known, mapping))
        self._database.executemany(
            "INSERT INTO outbox (seq, user_id, email, person, event_at, kind)"
            " VALUES (?, ?, ?, ?, ?, 'unchanged')",
            unchanged,
        )
        self._database.executemany(
            f"INSERT INTO outbox ({', '.join(_OutboxRow._fields)})"  # noqa: S608 - our own names
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            waiting,
        )

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
                self.delivered.record(
                    kind, [(int(c.finished_at), c.seq) for c in calls if c.result.delivered]
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


def _to_outbox_row(
    seq: int,
    row: Sequence[Any],
    key: RowKey | None,
    known: Mapping[int, Hashes],
    mapping: RowMapping,
) -> _OutboxRow:
    """Decide which of its halves a row waits for; at least one is new."""
    had_profile, had_event = known.get(key.person, _NOT_DELIVERED) if key else _NOT_DELIVERED
    record = mapping.to_record(row)
    if key is None or isinstance(record, InvalidRow):
        reason = record.reason if isinstance(record, InvalidRow) else "it cannot be compared"
        return _OutboxRow(seq, record.user_id, record.email, kind="invalid", reason=reason)
    waiting = _OutboxRow(seq, key.user_id, key.email, key.person, key.event_at)
    if had_profile != key.profile_hash:
        waiting = waiting._replace(profile=record.profile, profile_hash=key.profile_hash)
    if had_event != key.event_hash:
        waiting = waiting._replace(
            event=record.event, event_hash=key.event_hash, event_id=record.event_id
        )
    return waiting
