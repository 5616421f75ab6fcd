"""The transactional outbox: the rows of a run and the results of their requests.

A run fills it (all rows in one transaction), records results (short transactions) and takes rows
out once they are done. Not thread-safe.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import orjson

from config.identity import IdentifyBy
from records.chosen_rows import ChosenRows
from records.identity import RowKey
from records.mapping import InvalidRow, RowMapping
from records.outcomes import CallResult, Verdict
from records.rows import (
    SHARED_EVENT_ID,
    Finished,
    PendingRow,
    RequestKind,
    RowState,
    SettledRow,
)
from state.database import (
    StateError,
    close_after_reading,
    open_for_reading,
    open_state,
    state_errors,
)
from state.delivered import IS_KNOWN, DeliveredTable, Hashes
from state.delivered_samples import (
    DeliveredRow,
    DeliveredSample,
    DeliveredSamples,
    LastRunSample,
    with_id,
)
from state.email_changes import EmailChange, EmailChangeTable
from state.failures import FailureTable
from state.history import RunHistory
from state.leavers import ClearingQueue, begin_clearing
from state.mapping_settings import MappingSettings
from state.mass_rejections import MAX_NOTED_USERS, MassRejectionMemory
from state.members import Leaver, Member, MemberTable
from state.outbox_file import (
    IS_SENT,
    Held,
    OutboxRow,
    attach_outbox,
    create_temporary_outbox,
    release_free_pages,
)
from state.project import Match, Project, ProjectMemory
from state.remembered import RememberedTable

_NOT_DELIVERED: Hashes = (None, None)
_PAGE_ROWS = 1_000  # read at a time while delivering: 1 MB of payloads
MAX_SEQ = 2**63 - 1  # the largest integer of SQLite
_MAX_ROWS_TO_TRY = 20  # of a kind of request that the last run ended
# Names in the table `remembered`: whose results may be recorded; the column of the members' ids.
_RUN_ID, _USER_ID_COLUMN = "run", "user_id_column"

_PENDING = (
    "seq, user_id, email, iif(held = 'profile', NULL, profile), iif(held = 'event', NULL, event)"
)
_EVENT_NEEDS_PROFILE = (
    "NOT EXISTS (SELECT 1 FROM delivered"  # noqa: S608 - our own text
    f" WHERE delivered.user_key = outbox.user_key AND {IS_KNOWN})"
)
_TO_SEND = (
    "kind IS NULL AND (held IS NULL OR held IN ('profile', 'event'))"
    " AND (update_verdict IS NULL OR held = 'profile')"
    " AND (event_verdict IS NULL OR held = 'event')"
)

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

    total: int  # of the rows in the outbox
    to_send: int
    in_the_future: int
    changed_by_settings: int = 0  # delivered profiles that changed settings make different
    kept_events: int = 0  # delivered events that only other settings would change: not sent
    held_back: int = 0  # rows with a request that was rejected before and is not sent again
    changed_settings: Sequence[str] = ()  # since the last delivery, where that is known
    renamed_events: int = 0  # to send, of users who have an event under the former EVENT_NAME
    rows_read: int = 0  # more than `total` where only some rows were chosen
    samples: Sequence[DeliveredSample] = ()  # up to five of each kind, if asked for
    of_last_run: Sequence[DeliveredRow] = ()  # rows that the last run has delivered, if asked for


_INSERT_KEY = (
    "INSERT INTO outbox (kind, seq, user_id, email, user_key, event_at, tie_breaker, profile_hash,"
    " event_hash) VALUES "
)
_KEY = "('unchanged', ?, ?, ?, ?, ?, ?, ?, ?)"
_INSERT_ROW = f"INSERT OR REPLACE INTO outbox ({', '.join(OutboxRow._fields)}) VALUES "  # noqa: S608
_ROW = f"({', '.join('?' * len(OutboxRow._fields))})"
# So many rows go into a statement: SQLite then releases the interpreter once, not for each row.
_ROWS_AT_ONCE = 100


class Outbox:
    """The outbox of one run, with the memory of its state file. Raises StateError.

    Call `fill`, then `begin_delivery` right before the first request, then `record`. With
    `read_only` (a dry run) nothing is written beside the state file.
    If another run takes over the state file in the meantime, no more rows are read to be sent, and
    no more results recorded.
    """

    def __init__(self, path: Path, *, read_only: bool = False, run_id: str | None = None) -> None:
        path = Path(os.path.realpath(path))  # SQLite's own files lie beside the real one
        self.path = path
        if read_only:
            self._database = open_for_reading(path)
            with state_errors(path):
                create_temporary_outbox(self._database)
        else:
            self._database = open_state(path)
            with state_errors(path):
                attach_outbox(self._database, path)
        self.delivered = DeliveredTable(path, self._database)
        self.failures = FailureTable(path, self._database)
        self.members = MemberTable(path, self._database)
        self.email_changes = EmailChangeTable(path, self._database, self.members)
        self.history = RunHistory(path, self._database)
        self._remembered = RememberedTable(path, self._database)
        self.mass_rejections = MassRejectionMemory(self._remembered, self._database)
        self.project = ProjectMemory(self._remembered)
        self.mapping_settings = MappingSettings(self._remembered)
        self._is_read_only = read_only
        self._run_id = run_id or secrets.token_hex(8)
        self._mapping: RowMapping | None = None  # of this run's rows, once `fill` has committed
        self._project_to_note: Project | None = None
        self.resolved_failures = 0  # users and invalid rows that failed before, and no longer
        self._delivery_began_at = 0.0  # unix seconds
        self._is_complete_read = False
        self._tried_first: dict[RequestKind, list[PendingRow]] = {}
        self._ended_kinds: set[RequestKind] = set()
        # Kinds of which the note stays as it is if all rows that were tried first are rejected.
        self._keeps_note: set[RequestKind] = set()
        self._has_delivered_profile = False
        self._is_full_refresh = False
        self._has_moved_users = False  # see `DeliveredTable.has_moved_users`

    def close(self) -> None:
        """Close the file."""
        with state_errors(self.path):
            if self._is_read_only:
                close_after_reading(self.path, self._database)
            else:
                self._database.close()

    @property
    def has_delivered_profile(self) -> bool:
        """Whether a profile of this run was delivered."""
        return self._has_delivered_profile

    def fill(
        self,
        chunks: Iterable[Sequence[Sequence[Any]]],
        mapping: RowMapping,
        *,
        only: Sequence[str] = (),
        full_refresh: bool = False,
        takes_samples: bool = False,
        rows_of_last_run: int = 0,
        rejected_retry_hours: int = 0,
        on_first_to_send: Callable[[], None] = lambda: None,
        now: datetime | None = None,
    ) -> FillSummary:
        """Replace the contents of the outbox with the rows of the query, in one transaction.

        A row whose two requests were delivered with the same content becomes `unchanged` (not with
        `full_refresh`). A request whose content Iterable has rejected less than
        `rejected_retry_hours` ago is held back. Of several rows with one user key, all but the one
        with the latest event become `duplicate`; rows of two users with one `event_id` become
        `invalid`.
        With `only` the outbox then has the rows of these users alone, by id or e-mail, each with
        all its requests, whatever was delivered or rejected. Raises ConfigError where one of them
        has no row, or only a duplicate.
        `rows_of_last_run`: the summary has up to so many rows that the last run has delivered.
        With `takes_samples` the summary has rows that show whose project this is.
        `on_first_to_send` is called as soon as there is a row to send.
        """
        with state_errors(self.path), self._transaction():
            self._database.execute("DELETE FROM outbox")
            self._database.execute("DELETE FROM named_users")
            self.email_changes.clear_read()
            self._has_moved_users = self.delivered.has_moved_users()
            if self._has_other_user_ids(mapping):
                self.email_changes.ignore()
            if not self._is_read_only:
                self._remembered.write(_RUN_ID, self._run_id)
                if mapping.has_event_ids:
                    self.delivered.index_event_ids()
            now_seconds = (now or datetime.now(timezone.utc)).timestamp()
            sends_all = full_refresh or bool(only)
            self.failures.load(int(now_seconds), 0 if sends_all else rejected_retry_hours)
            total = 0
            samples = DeliveredSamples(self.delivered, mapping)
            last_run = LastRunSample(
                self.delivered, mapping, self._last_run_began_at(), rows_of_last_run
            )
            has_to_send = False
            knows_users = not sends_all and self.delivered.has_users()
            chosen = ChosenRows(only, mapping.names_of) if only else None
            for chunk in chunks:
                if takes_samples:
                    samples.take(chunk)
                last_run.take(chunk)
                sends = self._append(chunk, total, mapping, chosen, knows_users=knows_users)
                total += len(chunk)
                if sends and not has_to_send:
                    has_to_send = True
                    on_first_to_send()
            self._mark_duplicates(mapping.identify_by)
            if mapping.has_event_ids:
                self._mark_shared_event_ids()
            rows_read = total
            if chosen is not None:
                total = self._keep(chosen)
            self.failures.release_marked_rows()
            to_send, in_the_future, kept_events, held_back, invalid = self._database.execute(
                "SELECT count(*) FILTER (WHERE kind IS NULL AND held IS NOT 'row'),"
                " count(*) FILTER (WHERE event_at > ? AND event_hash IS NOT NULL),"
                " count(*) FILTER (WHERE is_event_kept AND (kind IS NULL OR kind = 'unchanged')),"
                " count(*) FILTER (WHERE held IS NOT NULL),"
                " count(*) FILTER (WHERE kind = 'invalid') FROM outbox",
                (int(now_seconds * 1_000_000),),
            ).fetchone()
            if invalid:
                self.failures.note_invalid_rows()
            changed = self._count_changed_by_settings(mapping)
            renamed = self._count_renamed_events(mapping)
            changed_settings = self.mapping_settings.changed_names(mapping)
        self._mapping = mapping
        self._is_full_refresh = full_refresh
        return FillSummary(
            *(total, to_send, in_the_future, changed, kept_events, held_back, changed_settings),
            renamed_events=renamed,
            rows_read=rows_read,
            samples=tuple(samples.found),
            of_last_run=tuple(last_run.found),
        )

    def _has_other_user_ids(self, mapping: RowMapping) -> bool:
        """Return whether the members' user ids are those of another column.

        Two columns may have the same numbers for different people.
        """
        column = self._remembered.read(_USER_ID_COLUMN)
        return column not in (None, mapping.user_id_column)

    def _last_run_began_at(self) -> float:
        """Return when the run before this one began, in unix seconds; 0 if there was none."""
        runs = [run for run in self.history.runs() if run.run_id != self._run_id]
        return datetime.fromisoformat(runs[0].started_at).timestamp() if runs else 0.0

    def _append(
        self,
        rows: Sequence[Sequence[Any]],
        first_seq: int,
        mapping: RowMapping,
        chosen: ChosenRows | None,
        *,
        knows_users: bool,
    ) -> bool:
        """Insert rows and return whether any of them is to be sent.

        Those that are not chosen are there to be compared with those that are. With `knows_users` a
        request is unnecessary if it was delivered with the same content.
        """
        known: Mapping[int, Hashes] = {}
        kept: Mapping[int, str | None] = {}
        numbered = enumerate(rows, first_seq)
        # One after the other: the mapping parses a row once for its key and its payloads.
        to_insert: Iterable[tuple[int, Sequence[Any], RowKey | None]] = (
            (seq, row, mapping.key(row)) for seq, row in numbered
        )
        if chosen is not None:
            to_insert = self._insert_others(rows, first_seq, mapping, chosen)
        elif knows_users:
            keys = [mapping.key(row) for row in rows]
            # All rows as unchanged ones first; those that are not are replaced.
            known = self._insert_keys(keys, first_seq, mapping)
            if mapping.sends_events:
                settings = mapping.event_settings
                kept = self._events_with_other_settings(keys, first_seq, known, settings)
            to_insert = (
                (seq, row, key)
                for (seq, row), key in zip(numbered, keys, strict=True)
                if seq in known or key is None
            )
        changed: Sequence[OutboxRow] = [
            _to_outbox_row(seq, row, key, known.get(seq, _NOT_DELIVERED), kept.get(seq), mapping)
            for seq, row, key in to_insert
        ]
        if self.members.exists:
            self._note_named_users(rows, first_seq, changed, mapping)
        if self._has_moved_users:
            changed = self._with_former_event_ids(changed)
        changed, held = self.failures.hold_back(
            changed, self.delivered.find_known if mapping.event_needs_profile else None
        )
        if self.email_changes.exists:
            self.email_changes.take(rows, first_seq, changed, mapping)
        self._insert(_INSERT_ROW, _ROW, changed)
        self.failures.note_held(held)
        held_rows = sum(row.held == Held.ROW for row in held)
        return sum(row.kind is None for row in changed) > held_rows

    def _insert_others(
        self,
        rows: Sequence[Sequence[Any]],
        first_seq: int,
        mapping: RowMapping,
        chosen: ChosenRows,
    ) -> list[tuple[int, Sequence[Any], RowKey | None]]:
        """Insert the rows that are not chosen as unchanged ones; return the others to insert."""
        seqs = set(chosen.take(rows, first_seq))
        found, others, event_ids = [], [], []
        for seq, row in enumerate(rows, first_seq):
            key = mapping.key(row)
            if seq in seqs:
                found.append((seq, row, key))
            elif key is not None:
                others.append((seq, *key))
                if mapping.has_event_ids:
                    record = mapping.to_record(row)
                    event_ids.append(
                        (None if isinstance(record, InvalidRow) else record.event_id, seq)
                    )
        self._insert(_INSERT_KEY, _KEY, others)
        self._database.executemany("UPDATE outbox SET event_id = ? WHERE seq = ?", event_ids)
        return found

    def _keep(self, chosen: ChosenRows) -> int:
        """Remove the rows that are not chosen, once duplicates are marked; return the others."""
        seqs = orjson.dumps(chosen.seqs).decode()
        duplicates = self._database.execute(
            "SELECT seq, reason FROM outbox WHERE kind = 'duplicate'"
            " AND seq IN (SELECT value FROM json_each(?))",
            (seqs,),
        )
        chosen.require_all(dict(duplicates.fetchall()))
        self._database.execute(
            "DELETE FROM outbox WHERE seq NOT IN (SELECT value FROM json_each(?))", (seqs,)
        )
        return len(chosen.seqs)

    def _with_former_event_ids(self, rows: Sequence[OutboxRow]) -> Sequence[OutboxRow]:
        """Give events of users who were moved the id that Iterable has."""
        event_ids = {
            row.user_key: row.event_id
            for row in rows
            if row.event is not None and row.user_key is not None and row.event_id is not None
        }
        former_ids = self.delivered.former_event_ids(event_ids)
        return [
            row._replace(event=with_id(row.event, former_ids[row.user_key]))
            if row.event is not None and row.user_key in former_ids
            else row
            for row in rows
        ]

    def _note_named_users(
        self,
        rows: Sequence[Sequence[Any]],
        first_seq: int,
        changed: Sequence[OutboxRow],
        mapping: RowMapping,
    ) -> None:
        """Note whom invalid rows name, as far as they do: these users have not left."""
        keys = (
            mapping.user_key_of(rows[row.seq - first_seq])
            for row in changed
            if row.kind == "invalid"
        )
        self._database.executemany(
            "INSERT OR IGNORE INTO named_users VALUES (?)", ((key,) for key in keys if key)
        )

    def _insert_keys(
        self, keys: Sequence[RowKey | None], first_seq: int, mapping: RowMapping
    ) -> Mapping[int, Hashes]:
        """Insert the valid rows as unchanged; return by `seq` what differs in `delivered`.

        Where the query names events return what it has for each row.
        """
        found = [(seq, *key) for seq, key in enumerate(keys, first_seq) if key is not None]
        self._insert(_INSERT_KEY, _KEY, found)
        return self.delivered.compare(
            first_seq, finds_all=mapping.has_event_ids, kinds=mapping.kinds
        )

    def _insert(self, statement: str, row: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert rows; `row` is what stands for one of them in the statement."""
        alone = len(rows) % _ROWS_AT_ONCE
        many = statement + ", ".join([row] * _ROWS_AT_ONCE)
        for start in range(alone, len(rows), _ROWS_AT_ONCE):
            values = tuple(chain.from_iterable(rows[start : start + _ROWS_AT_ONCE]))
            self._database.execute(many, values)
        self._database.executemany(statement + row, rows[:alone])

    def _events_with_other_settings(
        self,
        keys: Sequence[RowKey | None],
        first_seq: int,
        known: Mapping[int, Hashes],
        settings: int,
    ) -> Mapping[int, str | None]:
        """Return, by `seq`, the ids of delivered events that were made with other settings."""
        differing = {
            seq: key.user_key
            for seq, (_profile_hash, event_hash) in known.items()
            if (key := keys[seq - first_seq]) and event_hash not in (None, key.event_hash)
        }
        found = self.delivered.find(differing.values()) if differing else {}
        return {
            seq: found[user_key].event_id
            for seq, user_key in differing.items()
            if found[user_key].event_settings != settings
        }

    def _mark_duplicates(self, identify_by: IdentifyBy) -> None:
        """Keep one row per user key: the one with the latest event.

        Equal times are decided by the rows' values, as their order may differ from run to run, and
        by no setting, as another winner can mean another event.
        """
        reason = (
            "'the same e-mail as user ' || ifnull(ranked.winner, '?')"
            " || ', whose row is used instead'"
            if identify_by is IdentifyBy.EMAIL
            else "'the same user id as another row, which is used instead'"
        )
        self._database.execute(
            f"""
            WITH repeated AS (
                SELECT user_key FROM outbox WHERE user_key IS NOT NULL
                GROUP BY user_key HAVING count(*) > 1
            ), ranked AS (
                SELECT seq, row_number() OVER latest AS place,
                       first_value(user_id) OVER latest AS winner
                FROM outbox WHERE user_key IN (SELECT user_key FROM repeated)
                WINDOW latest AS (
                    PARTITION BY user_key ORDER BY event_at DESC, user_id, tie_breaker, seq
                )
            )
            UPDATE outbox SET kind = 'duplicate',
                reason = {reason}
            FROM ranked WHERE ranked.seq = outbox.seq AND ranked.place > 1
            """  # noqa: S608 - our own text
        )

    def _mark_shared_event_ids(self) -> None:
        """Mark rows of several users with one `event_id`: Iterable would keep one event."""
        self._database.execute(
            f"""
            WITH named AS (
                SELECT seq, count(*) OVER sharing AS users,
                       ifnull(lead(seq) OVER in_order, first_value(seq) OVER in_order) AS other
                FROM outbox WHERE event_id IS NOT NULL AND (kind IS NULL OR kind = 'unchanged')
                WINDOW sharing AS (PARTITION BY event_id),
                       in_order AS (PARTITION BY event_id ORDER BY seq)
            )
            UPDATE outbox SET kind = 'invalid',
                reason = '{SHARED_EVENT_ID}: user ' || ifnull(
                    (SELECT user_id FROM outbox AS one WHERE one.seq = named.other), '?'
                ) || ' has it, too'
            FROM named WHERE named.seq = outbox.seq AND named.users > 1
            """  # noqa: S608 - our own text
        )

    def _count_changed_by_settings(self, mapping: RowMapping) -> int:
        """Count the delivered profiles that differ; 0 while the settings are the same."""
        if not self.mapping_settings.differ_for_profiles(mapping):
            return 0
        count: int = self._database.execute(
            "SELECT count(*) FROM outbox JOIN delivered USING (user_key) WHERE outbox.kind IS NULL"
            " AND outbox.profile IS NOT NULL AND delivered.profile_hash <> outbox.profile_hash"
        ).fetchone()[0]
        return count

    def _count_renamed_events(self, mapping: RowMapping) -> int:
        """Count events to send of users who have another one; 0 while their name is the same."""
        if not self.mapping_settings.is_renamed(mapping):
            return 0
        count: int = self._database.execute(
            "SELECT count(*) FROM outbox JOIN delivered USING (user_key) WHERE outbox.kind IS NULL"
            " AND outbox.event IS NOT NULL AND delivered.event_id <> outbox.event_id"
            " AND json_extract(CAST(outbox.event AS TEXT), '$.eventName') = ?",
            (mapping.event_name,),
        ).fetchone()[0]
        return count

    def waiting_profiles(self) -> Iterator[tuple[int | str | None, bytes]]:
        """Yield user id and body of each profile that waits, in the query's order."""
        with state_errors(self.path):
            yield from self._database.execute(
                f"SELECT user_id, profile FROM outbox WHERE {_TO_SEND}"  # noqa: S608 - our own text
                f" AND {IS_SENT[RequestKind.PROFILE]} ORDER BY seq"
            )

    def begin_delivery(
        self,
        project: Project | None = None,
        *,
        is_project_proven: bool = True,
        is_complete_read: bool = False,
        keeps_members: bool = False,
        moves_users: bool = False,
    ) -> None:
        """Prepare the memory for the first request, in one transaction.

        Each request that waits is in doubt from now on, until it is recorded as delivered; if a
        project with a new key is not proven to be the noted one, so is everything else.
        `project` is noted: at once where only its key is new, else with the first delivery.
        After a complete read the failures of rows that it lacks are dropped. With `keeps_members`
        it is noted who is in Iterable, and with `moves_users` under which address; without them,
        what was noted is removed.
        """
        mapping = self._mapping
        assert mapping is not None  # noqa: S101 - `fill` sets it
        self._delivery_began_at = time.time()
        self._is_complete_read = is_complete_read
        self._tried_first, self._keeps_note, self._ended_kinds = {}, set(), set()
        with state_errors(self.path), self._transaction():
            self._require_ours()
            if is_project_proven:
                self.delivered.doubt_pending()
            else:
                self.delivered.doubt_everything()
                self.mapping_settings.forget_delivered_profile()
            self.members.keep(keeps_members)
            self.email_changes.keep(moves_users)
            if keeps_members:
                self._note_user_id_column(mapping)
                self.members.note_present(
                    by_email=mapping.identify_by is IdentifyBy.EMAIL,
                    flag=mapping.profile_flag or None,
                    now=int(time.time()),
                    keeps_cleared=moves_users,
                )
            if mapping.sends_events:
                self.delivered.keep_events(mapping.event_settings)
            self.mapping_settings.note_delivery(mapping, is_complete_read=is_complete_read)
            if project is not None and not self.project.has_judged(project):
                self.failures.forget_all_rejections()
                self.project.note_judging(project)
            resolved = self.failures.begin_delivery(
                is_complete_read=is_complete_read, kinds=mapping.kinds
            )
            match = None if project is None else self.project.match(project)
            if match is Match.OTHER_KEY and project is not None:
                self.project.note(project)
            self._project_to_note = project if match is Match.NOTHING_NOTED else None
        self.resolved_failures += resolved

    def _note_user_id_column(self, mapping: RowMapping) -> None:
        """Remember which column has the user ids; forget those of another one."""
        if self._has_other_user_ids(mapping):
            self.members.forget_user_ids()
            if self.email_changes.exists:
                self.email_changes.forget_all()
        self._remembered.write(_USER_ID_COLUMN, mapping.user_id_column)

    def _require_ours(self) -> None:
        """Raise StateError if another run has taken over the state file since `fill`."""
        if self._is_read_only or self._mapping is None:
            return
        if self._remembered.read(_RUN_ID) != self._run_id:
            raise StateError(
                f"Another run has taken over the state file {self.path}, so this one ends. Run "
                "again: what was not recorded is sent again."
            )

    @property
    def _pending_columns(self) -> str:
        """The columns of `PendingRow`."""
        needs_profile = self._mapping is not None and self._mapping.event_needs_profile
        return f"{_PENDING}, {_EVENT_NEEDS_PROFILE if needs_profile else 'FALSE'}"

    def pending(self) -> Iterator[PendingRow]:
        """Yield the rows to send, in the query's order, reading a page at a time.

        A page has no rows that need only what `end_kind` has ended: to read a million of them for
        nothing would take ten seconds.
        """
        last_seq = -1
        while True:
            needed = " OR ".join(
                f"({IS_SENT[kind]})" for kind in RequestKind if kind not in self._ended_kinds
            )
            with state_errors(self.path):
                self._require_ours()
                page = self._database.execute(
                    f"SELECT {self._pending_columns} FROM outbox"  # noqa: S608 - our own names
                    f" WHERE {_TO_SEND} AND ({needed or 'FALSE'}) AND seq > ? ORDER BY seq LIMIT ?",
                    (last_seq, _PAGE_ROWS),
                ).fetchall()
            if not page:
                return
            yield from map(PendingRow._make, page)
            last_seq = page[-1][0]

    def count_requests(self) -> tuple[int, int]:
        """Return how many profiles and how many events are to be sent."""
        with state_errors(self.path):
            profiles, events = self._database.execute(
                f"SELECT count(*) FILTER (WHERE {IS_SENT[RequestKind.PROFILE]}),"  # noqa: S608
                f" count(*) FILTER (WHERE {IS_SENT[RequestKind.EVENT]})"
                f" FROM outbox WHERE {_TO_SEND}"
            ).fetchone()
            return profiles, events

    def rows_to_try_first(self) -> Mapping[RequestKind, Sequence[PendingRow]]:
        """Return up to 20 rows of each kind of request that the last run ended, see `end_kind`.

        Rows that it left out come before those that were rejected. What is noted is forgotten if a
        complete read needs the request for none of these users, or for no more than 20 in all: the
        rows that are tried would be most of these, and a few that stay rejected would end every
        run.
        """
        for kind in self._kinds:
            noted = self.mass_rejections.users(kind)
            if not any(noted):
                continue
            profiles, events = self.count_requests()
            waiting = profiles if kind is RequestKind.PROFILE else events
            chosen: list[PendingRow] = []
            if waiting > _MAX_ROWS_TO_TRY:
                left_out = self._some_waiting(kind, noted.left_out, _MAX_ROWS_TO_TRY)
                if len(left_out) == _MAX_ROWS_TO_TRY:
                    self._keeps_note.add(kind)
                rest = _MAX_ROWS_TO_TRY - len(left_out)
                chosen = sorted([*left_out, *self._some_waiting(kind, noted.rejected, rest)])
            if chosen:
                self._tried_first[kind] = chosen
            elif self._is_complete_read:
                self.mass_rejections.forget(kind)
        return self._tried_first

    def _some_waiting(
        self, kind: RequestKind, users: Sequence[int], max_rows: int
    ) -> list[PendingRow]:
        """Return some of these users' rows that need the request, from all over the query."""
        with state_errors(self.path):
            found = self._database.execute(
                f"SELECT {self._pending_columns} FROM outbox"  # noqa: S608 - our own names
                f" WHERE {_TO_SEND}"
                f" AND {IS_SENT[kind]}"
                " AND user_key IN (SELECT value FROM json_each(?)) ORDER BY seq",
                (orjson.dumps(users).decode(),),
            ).fetchall()
        count = min(max_rows, len(found))
        return [PendingRow._make(found[place * len(found) // count]) for place in range(count)]

    def end_kind(self, kind: RequestKind, code: str | None) -> None:
        """Note that this run sends no more requests of a kind: most were rejected with this code.

        The next run tries some of its users first: the same ones as this run, if all of them were
        left out by the last run and rejected by this one. The rejections with this code, also those
        that are still to be recorded, are not remembered.
        """
        since = self._delivery_began_at
        self._ended_kinds.add(kind)
        with state_errors(self.path), self._transaction():
            self._require_ours()
            tried = [row.seq for row in self._tried_first.get(kind, ())]
            rejected_count = 0
            if tried and self.mass_rejections.code(kind) == (code or ""):
                rejected_count = self.failures.count_run_before(kind, tried)
            if kind not in self._keeps_note or rejected_count < len(tried):
                rejected = self.failures.rejected_users(kind, code, since, MAX_NOTED_USERS)
                self.mass_rejections.note(kind, code, rejected)
            self.failures.forget_rejections(kind, code, since)

    def accept_kind(self, kind: RequestKind) -> None:
        """Forget that the last run ended a kind of request: the rows that were tried passed."""
        self.mass_rejections.forget(kind)

    # Changed addresses

    def leave_out(self, seqs: Sequence[int], reason: str) -> None:
        """Let these rows end without a request, as not attempted."""
        with state_errors(self.path), self._transaction():
            self._database.execute(
                "UPDATE outbox SET kind = 'not_attempted', reason = ?"
                " WHERE seq IN (SELECT value FROM json_each(?))",
                (reason, orjson.dumps(seqs).decode()),
            )

    def hold_for_moves(self, moves: Sequence[int], waiting: Sequence[int]) -> None:
        """Let rows wait for their move, or until an earlier one has settled."""
        with state_errors(self.path), self._transaction():
            for held, seqs in ((Held.MOVE, moves), (Held.WAIT, waiting)):
                self._database.execute(
                    # A row that is back at the former address may be unchanged.
                    "UPDATE outbox SET held = ?, kind = nullif(kind, 'unchanged')"
                    " WHERE seq IN (SELECT value FROM json_each(?))",
                    (held.value, orjson.dumps(seqs).decode()),
                )

    def fail_change(self, seq: int, code: str, reason: str) -> None:
        """Let a row fail because its user cannot be moved."""
        with state_errors(self.path), self._transaction():
            self._fail_change(seq, code, reason)

    def note_moves(self, changes: Sequence[EmailChange], at: float) -> None:
        """Note moves that are about to be made, on the disk on return."""
        with self._own_transaction():
            self.email_changes.note(changes, at)

    def forget_move(self, change: EmailChange) -> None:
        """Remove the note of a move that was not attempted."""
        with self._own_transaction():
            self.email_changes.forget(change)

    def settle_move(
        self,
        change: EmailChange,
        outcome: str,
        call: CallResult,
        at: float,
        *,
        may_be_new: bool,
        was_attempted: bool = True,
    ) -> bool:
        """Record what became of a move, and return whether its row still needs a request.

        `outcome` is a `MoveOutcome`; `at` is when the attempt was made. With `may_be_new` the
        profile has to be sent whatever is remembered. Without `was_attempted` the move waited for
        another one, which failed.
        """
        entry = {
            "from": change.former_email,
            "outcome": outcome,
            "code": call.code,
            "http_status": call.http_status,
        }
        with self._own_transaction():
            self._database.execute(
                "UPDATE outbox SET email_change = ?, settled_at = ?, held = ? WHERE seq = ?",
                (orjson.dumps(entry).decode(), at, Held.WAIT.value, change.seq),
            )
            if outcome == "failed":
                if was_attempted and call.verdict is Verdict.REJECTED:
                    self.email_changes.forget(change)
                reason = f"the user could not be moved to the new address: {call.code}"
                self._fail_change(change.seq, call.code, reason)
                return False
            self.resolved_failures += self.failures.resolve_change(change.user_key)
            self.email_changes.settle(change, at)
            new = Member(change.user_key, change.user_id, change.email)
            if outcome == "already_there":  # the former address stays, as that of nobody's row
                self.members.forget_user_id(change.former_key)
            else:
                self.members.remove(change.former_key)
            flag = self._mapping.profile_flag if self._mapping else ""
            self.members.put(new, flag or None)
            if outcome == "moved":
                self._move_memory(change, may_be_new=may_be_new)
            self.delivered.doubt_row(change.seq)
            needs_request: bool = self._database.execute(
                "SELECT profile IS NOT NULL OR event IS NOT NULL FROM outbox WHERE seq = ?",
                (change.seq,),
            ).fetchone()[0]
            if not needs_request:
                self._database.execute(
                    "UPDATE outbox SET kind = 'successful' WHERE seq = ?", (change.seq,)
                )
        return bool(needs_request)

    def _move_memory(self, change: EmailChange, *, may_be_new: bool) -> None:
        """Let the new address have what is remembered; drop requests that are not needed."""
        former = self.delivered.find([change.former_key]).get(change.former_key)
        if former is None or self._mapping is None:
            return
        profile_hash, event_hash, event_id, event = self._database.execute(
            "SELECT profile_hash, event_hash, event_id, event FROM outbox WHERE seq = ?",
            (change.seq,),
        ).fetchone()
        sends_profile = may_be_new or self._is_full_refresh
        is_same_profile = not sends_profile and former.profile_hash == change.profile_hash
        is_same_event = former.event_id is not None and former.event_id == change.event_id
        has_other_settings = (
            former.event_hash is not None and former.event_settings != self._mapping.event_settings
        )
        is_event_kept = (
            is_same_event
            and not self._is_full_refresh
            and (former.event_hash == change.event_hash or has_other_settings)
        )
        self.delivered.move(
            change.former_key,
            change.user_key,
            profile_hash=profile_hash if is_same_profile else None,
            event_hash=event_hash if is_event_kept else None,
            event_id=event_id if is_same_event else None,
        )
        if is_same_profile:
            self._database.execute("UPDATE outbox SET profile = NULL WHERE seq = ?", (change.seq,))
        if is_same_event:
            former_id = former.former_event_id or former.event_id
            new_event = None if is_event_kept or event is None else with_id(event, former_id)
            self._database.execute(
                "UPDATE outbox SET event = ? WHERE seq = ?", (new_event, change.seq)
            )

    def rows_of(self, seqs: Sequence[int]) -> list[PendingRow]:
        """Return those of these rows that had to wait, with the requests that they still need.

        They stay held, so that `pending` does not yield them, too.
        """
        with state_errors(self.path):
            self._require_ours()
            found = self._database.execute(
                f"SELECT {self._pending_columns} FROM outbox"  # noqa: S608 - our own names
                " WHERE kind IS NULL AND held = ?"
                " AND seq IN (SELECT value FROM json_each(?)) ORDER BY seq",
                (Held.WAIT.value, orjson.dumps(seqs).decode()),
            )
            return [PendingRow._make(row) for row in found]

    def _fail_change(self, seq: int, code: str | None, reason: str) -> None:
        entry = {"from": None, "outcome": "failed", "code": code, "http_status": None}
        self._database.execute(
            "UPDATE outbox SET kind = 'total_failure', reason = ?,"
            " email_change = ifnull(email_change, ?) WHERE seq = ?",
            (reason, orjson.dumps(entry).decode(), seq),
        )
        self.failures.record_change(seq, code, int(time.time()))

    # Users who left

    def count_leavers(self) -> int:
        """Return how many members no row of this read names; call it before the delivery."""
        return self.members.count_leavers() if self.members.exists else 0

    def find_leavers(self) -> list[Leaver]:
        """Return the members whom no row of this read names; call it before the delivery."""
        return self.members.find_leavers(has_noted_moves=self.email_changes.exists)

    def begin_clearing(self, leavers: Sequence[Leaver]) -> None:
        """Mark clearings as under way, before the first request."""
        with state_errors(self.path), self._transaction():
            self._require_ours()
            begin_clearing(leavers, self.members, self.delivered, int(time.time()))

    def clearing_queue(
        self, leavers: Sequence[Leaver], *, by_email: bool, options: Mapping[str, bool]
    ) -> ClearingQueue:
        """Return the queue of these clearings, for the dispatcher."""
        return ClearingQueue(
            leavers, self.members, self._own_transaction, by_email=by_email, options=options
        )

    def remove_member(self, leaver: Leaver) -> None:
        """Remove a member whom Iterable does not have: who comes back is sent as a new user."""
        with self._own_transaction():
            self.members.remove(leaver.user_key)
            self.delivered.doubt_user(leaver.user_key)

    def note_clearing_failure(self, leaver: Leaver, code: str) -> None:
        """Note why a clearing failed."""
        with self._own_transaction():
            self.members.note_failure(leaver.user_key, code)

    @contextmanager
    def _own_transaction(self) -> Iterator[None]:
        with state_errors(self.path), self._transaction():
            self._require_ours()
            yield

    # Delayed events and results

    def events_of(self, seqs: Iterable[int]) -> list[PendingRow]:
        """Return these rows in the query's order, with their events only."""
        with state_errors(self.path):
            self._require_ours()
            found = self._database.execute(
                "SELECT seq, user_id, email, NULL, event, FALSE FROM outbox"
                " WHERE seq IN (SELECT value FROM json_each(?)) ORDER BY seq",
                (orjson.dumps(list(seqs)).decode(),),
            )
            return [PendingRow._make(row) for row in found]

    def record(self, finished: Sequence[Finished]) -> None:
        """Store the results of requests, in one transaction that is on the disk on return.

        Delivered requests also go into the table `delivered`, for the next run.
        """
        if not finished:
            return
        mapping = self._mapping
        settings = mapping.event_settings if mapping else None
        with state_errors(self.path), self._transaction():
            self._require_ours()
            notes_project = any(call.result.delivered for call in finished)
            if self._project_to_note and notes_project:
                self.project.note(self._project_to_note)
            delivers_first_profile = not self._has_delivered_profile and any(
                call.result.delivered and call.kind is RequestKind.PROFILE for call in finished
            )
            # A partial read leaves rows whose fields were not compared with the project's.
            if delivers_first_profile and mapping and self._is_complete_read:
                self.mapping_settings.note_delivered_profile(mapping)
            resolved = 0
            texts: dict[int, str] = {}  # the rows of a batch mostly share one result
            for kind in RequestKind:
                calls = [call for call in finished if call.kind is kind]
                self._database.executemany(
                    _RECORD[kind],
                    [
                        (
                            call.result.verdict.value,
                            texts.get(id(call.result))
                            or texts.setdefault(id(call.result), _to_text(call.result)),
                            call.finished_at,
                            call.seq,
                        )
                        for call in calls
                    ],
                )
                if kind is RequestKind.PROFILE and self.members.exists and mapping:
                    delivered = [call.seq for call in calls if call.result.delivered]
                    self.members.note_flag(delivered, mapping.profile_flag or None)
                self.delivered.record(
                    kind,
                    [(int(c.finished_at), c.seq) for c in calls if c.result.delivered],
                    settings,
                    sends_profiles=mapping is None or mapping.sends_profiles,
                )
                resolved += self.failures.record(kind, calls)
        self.resolved_failures += resolved
        # Only after the commit, since a failed recording is tried once more.
        if notes_project:
            self._project_to_note = None
        self._has_delivered_profile = self._has_delivered_profile or delivers_first_profile

    def settled(self, before_seq: int = MAX_SEQ, limit: int = -1) -> Iterator[SettledRow]:
        """Yield the rows before `before_seq` with their results so far, in the query's order.

        Also after another run has taken over the state file.
        """
        mapping = self._mapping
        needs_profile = mapping is not None and mapping.event_needs_profile
        in_place = [
            f"{each.value} IS NULL" if each in self._kinds else "NULL" for each in RequestKind
        ]
        needed = f"update_verdict IS 'rejected' AND {_EVENT_NEEDS_PROFILE}"
        with state_errors(self.path):
            rows = self._database.execute(
                f"SELECT kind, {', '.join(in_place)}, update_verdict, event_verdict,"  # noqa: S608
                " seq, user_id, email, reason, update_result, event_result, settled_at,"
                " failure_ages, email_change,"
                f" {needed if needs_profile else 'FALSE'} FROM outbox"
                " WHERE seq < ? ORDER BY seq LIMIT ?",
                (before_seq, limit),
            )
            # Most rows have the state of the row before.
            for key, equal_rows in groupby(rows, key=itemgetter(*range(len(RowState._fields)))):
                state = RowState._make(key)
                for row in equal_rows:
                    yield SettledRow._make((state, *row[len(key) :]))

    def take_settled(self, before_seq: int, limit: int) -> list[SettledRow]:
        """Remove the first `limit` rows before `before_seq` and return them with their results.

        Nothing may be recorded for these rows any more.
        """
        taken = list(self.settled(before_seq, limit))
        if taken:
            with state_errors(self.path):
                # Deleted last: what this call does not return must still be there for `settled`.
                release_free_pages(self._database)
                self._database.execute("DELETE FROM outbox WHERE seq <= ?", (taken[-1].seq,))
        return taken

    @property
    def _kinds(self) -> tuple[RequestKind, ...]:
        """The kinds of requests that rows can need; of the rows of an earlier run any."""
        return tuple(RequestKind) if self._mapping is None else self._mapping.kinds

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            # IMMEDIATE: what is read in the transaction stays true until it is committed.
            self._database.execute("BEGIN" if self._is_read_only else "BEGIN IMMEDIATE")
            yield
            self._database.execute("COMMIT")
        except BaseException:
            # If the disk is full, SQLite has already ended the transaction.
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise


def _to_text(result: CallResult) -> str:
    return orjson.dumps(result.to_json()).decode()


def _to_outbox_row(
    seq: int,
    row: Sequence[Any],
    key: RowKey | None,
    delivered: Hashes,
    kept_event_id: str | None,
    mapping: RowMapping,
) -> OutboxRow:
    """Return the outbox row, with a body for each request that differs from the last delivery.

    Pure. An event that differs only because of other settings, and so has `kept_event_id`, has no
    body.
    """
    record = mapping.to_record(row)
    if key is None or isinstance(record, InvalidRow):
        reason = record.reason if isinstance(record, InvalidRow) else "it cannot be compared"
        return OutboxRow(seq, record.user_id, record.email, kind="invalid", reason=reason)
    is_new_profile = record.profile is not None and delivered[0] != key.profile_hash
    is_new_event = record.event is not None and delivered[1] != key.event_hash
    sends_event = is_new_event and kept_event_id != record.event_id
    return OutboxRow(  # by position: twice as fast
        seq,
        *key,
        None if is_new_profile or sends_event else "unchanged",
        None,
        record.profile if is_new_profile else None,
        record.event if sends_event else None,
        record.event_id,
        (is_new_event and not sends_event) or None,
    )
