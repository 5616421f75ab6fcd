"""Users who left the query's result, while their profile flag is set to false.

The order of the steps is what survives a crash: a clearing is marked as under way, and the user's
profile hash emptied, in one transaction before the first request. So a user who comes back is
always sent again, whatever became of the clearing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import orjson

from records.outcomes import CallResult
from records.rows import Finished, PendingRow, RequestKind
from state.delivered import DeliveredTable
from state.members import Leaver, MemberTable


@dataclass
class ClearingResults:
    """The results of clearings: a call's result by user key."""

    cleared: dict[int, CallResult]
    failed: dict[int, CallResult]


class ClearingQueue:
    """The flags to be set to false, for the dispatcher: in the place of the outbox.

    `transaction` surrounds what is written at once. Raises StateError.
    """

    def __init__(
        self,
        leavers: Sequence[Leaver],
        members: MemberTable,
        transaction: Callable[[], AbstractContextManager[None]],
        *,
        by_email: bool,
        options: Mapping[str, bool],
    ) -> None:
        self._options = options
        self._leavers = list(leavers)
        self._members = members
        self._transaction = transaction
        self._by_email = by_email
        self.results = ClearingResults({}, {})

    def pending(self) -> Iterator[PendingRow]:
        """Yield a row for each user, numbered from 0: a profile that has the flag alone."""
        name = "email" if self._by_email else "userId"
        for seq, leaver in enumerate(self._leavers):
            fields = {leaver.flag: False}
            body = orjson.dumps({name: leaver.identifier, "dataFields": fields, **self._options})
            email = leaver.identifier if self._by_email else None
            yield PendingRow(seq, leaver.user_id, email, body, None)

    def record(self, finished: Sequence[Finished]) -> None:
        """Store the results of requests, in one transaction."""
        if not finished:
            return
        with self._transaction():
            for seq, _kind, result, finished_at in finished:
                leaver = self._leavers[seq]
                user_key = leaver.user_key
                if result.delivered:
                    self._members.note_cleared(leaver, int(finished_at))
                    self.results.cleared[user_key] = result
                else:
                    self._members.note_failure(user_key, result.code)
                    self.results.failed[user_key] = result

    def events_of(self, seqs: Sequence[int]) -> list[PendingRow]:  # noqa: ARG002
        """Return none, as no event follows a clearing."""
        return []

    def rows_to_try_first(self) -> Mapping[RequestKind, Sequence[PendingRow]]:
        """Return none: a mass rejection of clearings is not remembered."""
        return {}

    def accept_kind(self, kind: RequestKind) -> None:
        """Do nothing, for the same reason."""

    def end_kind(self, kind: RequestKind, code: str | None) -> None:
        """Do nothing, for the same reason; the clearings that are left out fail."""


def begin_clearing(
    leavers: Sequence[Leaver], members: MemberTable, delivered: DeliveredTable, now: int
) -> None:
    """Mark clearings as under way, before the first request; the caller commits."""
    keys = [leaver.user_key for leaver in leavers]
    members.begin_clearing(keys, now)
    delivered.doubt_profiles(keys)
