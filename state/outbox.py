"""The transactional outbox: the rows of a run and the results of their requests.

A run fills it (all rows in one transaction), records results (short transactions) and clears it,
which removes personal data. Not thread-safe.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from records.identity import RowKey
from records.mapping import InvalidRow, RowMapping
from records.outcomes import Outcome
from records.rows import Failure, Finished, PendingRow, RequestKind, RowState, SettledRow
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
    """The counts of a fill, known before the first request."""

    total: int
    to_send: int
    in_the_future: int
    mapping_changed: bool


class _OutboxRow(NamedTuple):
    """A row of the table `outbox` when it is inserted."""

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
    """The outbox of one state file, with its `delivered` table and `history`. Raises StateError.

    With `read_only` (a dry run) the file is not changed: the outbox is a temporary table.
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
        """Replace the contents of the outbox with the rows of the query, in one transaction.

        A row whose two requests were delivered with the same content becomes `unchanged` (not with
        `full_refresh`). Of several rows with one user key, all but the one with the latest event
        become `duplicate`.
        """
        with state_errors(self.path), self._transaction():
            self._database.execute("DELETE FROM outbox")
            total = 0
            for chunk in chunks:
                self._append(chunk, mapping, total, full_refresh)
                total += len(chunk)
            self._mark_duplicates()
            changed = self._store_mapping(mapping.fingerprint)
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
        delivered = (
            {} if full_refresh else self.delivered.hashes_of([key.user_key for key in keys if key])
        )
        unchanged: list[tuple[Any, ...]] = []
        to_insert: list[_OutboxRow] = []
        for seq, (row, key) in enumerate(zip(rows, keys, strict=True), rows_before):
            if key and delivered.get(key.user_key) == (key.profile_hash, key.event_hash):
                unchanged.append((seq, key.user_id, key.email, key.user_key, key.event_at))
            else:
                to_insert.append(_to_outbox_row(seq, row, key, delivered, mapping))
        self._database.executemany(
            "INSERT INTO outbox (seq, user_id, email, person, event_at, kind)"
            " VALUES (?, ?, ?, ?, ?, 'unchanged')",
            unchanged,
        )
        self._database.executemany(
            f"INSERT INTO outbox ({', '.join(_OutboxRow._fields)})"  # noqa: S608 - our own names
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            to_insert,
        )

    def _mark_duplicates(self) -> None:
        """Keep one row per user key: the one with the latest event, of equal times the first."""
        self._database.execute(
            """
            WITH repeated AS (
                SELECT person FROM outbox WHERE person IS NOT NULL
                GROUP BY person HAVING count(*) > 1
            ), ranked AS (
                SELECT seq, row_number() OVER latest AS place,
                       first_value(user_id) OVER latest AS winner
                FROM outbox WHERE person IN (SELECT person FROM repeated)
                WINDOW latest AS (PARTITION BY person ORDER BY event_at DESC, seq)
            )
            UPDATE outbox SET kind = 'duplicate',
                reason = 'the same e-mail as user ' || ifnull(ranked.winner, '?')
                    || ', whose row is used instead'
            FROM ranked WHERE ranked.seq = outbox.seq AND ranked.place > 1
            """
        )

    def _store_mapping(self, fingerprint: str) -> bool:
        """Store the mapping's fingerprint; return whether the last run had another one."""
        found = self._database.execute("SELECT value FROM remembered WHERE name = 'mapping'")
        before = found.fetchone()
        if not self._is_read_only:
            self._database.execute(
                "INSERT OR REPLACE INTO remembered VALUES ('mapping', ?)", (fingerprint,)
            )
        return before not in (None, (fingerprint,))

    def pending(self) -> Iterator[PendingRow]:
        """Yield the rows to send, in the query's order, reading a page at a time."""
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
        """Return these rows in the query's order, with their events only."""
        with state_errors(self.path):
            found = self._database.execute(
                "SELECT seq, user_id, email, NULL, event FROM outbox"
                " WHERE seq IN (SELECT value FROM json_each(?)) ORDER BY seq",
                (orjson.dumps(list(seqs)).decode(),),
            )
            return [PendingRow._make(row) for row in found]

    def record(self, finished: Sequence[Finished]) -> None:
        """Store the results of requests, in one transaction that is on the disk on return.

        Delivered requests also go into the table `delivered`, for the next run.
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
        """Yield every row with its results so far, in the query's order."""
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
        """Return the reasons why rows failed or were invalid, the most frequent first."""
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
        """Remove personal data from the file; hashes, event ids and times stay."""
        with state_errors(self.path):
            self._database.execute("DELETE FROM outbox")
            # The bytes of deleted rows stay in the file until it is rewritten.
            self._database.execute("VACUUM")
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._database.execute("BEGIN")
            yield
            self._database.execute("COMMIT")
        except BaseException:
            # If the disk is full, SQLite has already ended the transaction.
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise


def _to_outbox_row(
    seq: int,
    row: Sequence[Any],
    key: RowKey | None,
    delivered: Mapping[int, Hashes],
    mapping: RowMapping,
) -> _OutboxRow:
    """Return the outbox row, with a body for each request that differs from the last delivery.

    Pure. At least one request of the row has to be new.
    """
    delivered_profile, delivered_event = (
        delivered.get(key.user_key, _NOT_DELIVERED) if key else _NOT_DELIVERED
    )
    record = mapping.to_record(row)
    if key is None or isinstance(record, InvalidRow):
        reason = record.reason if isinstance(record, InvalidRow) else "it cannot be compared"
        return _OutboxRow(seq, record.user_id, record.email, kind="invalid", reason=reason)
    outbox_row = _OutboxRow(seq, key.user_id, key.email, key.user_key, key.event_at)
    if delivered_profile != key.profile_hash:
        outbox_row = outbox_row._replace(profile=record.profile, profile_hash=key.profile_hash)
    if delivered_event != key.event_hash:
        outbox_row = outbox_row._replace(
            event=record.event, event_hash=key.event_hash, event_id=record.event_id
        )
    return outbox_row
