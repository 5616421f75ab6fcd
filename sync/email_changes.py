"""Changed e-mail addresses: a user in Iterable gets the row's new address (`EMAIL_CHANGES=move`).

Otherwise the new address becomes a second user without history, while the first one goes on getting
mails. `users/updateEmail` moves the profile and the events; the user's other requests have to wait
60 s after it (Iterable's API reference). A user is moved only where it is clear who moved where:
see `plan_moves`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import NamedTuple

from iterable_client import IterableClient
from records.outcomes import JSON, CallResult, Verdict
from records.rows import PendingRow
from reporting.formatting import counted
from state.email_changes import EmailChange
from state.outbox import Outbox

logger = logging.getLogger(__name__)

SETTLE_SECONDS = 60.0  # before other calls for the user
MAX_MOVES_IN_FLIGHT = 10
_UNKNOWN_CODES = frozenset({"UnknownEmailError", "UnknownUserIdError"})
_CIRCLE = "AddressesInACircle"
_CIRCLE_REASON = "its address was exchanged with those of other users: change one of them first"
_IN_USE = "AddressInUse"
_IN_USE_REASON = "its new address is that of another user, who has a new one and cannot be moved"
_PARTIAL_READ = "its e-mail address has changed; only a run that reads all rows moves users"
_UNCERTAIN = "another user may still have its address in Iterable, as a move had no response"


class MoveOutcome(str, Enum):
    """What became of a change; the values of `records[].email_change.outcome`."""

    MOVED = "moved"
    ALREADY_THERE = "already_there"  # Iterable has another user with the new address
    NOT_IN_ITERABLE = "not_in_iterable"  # the former address: there was nobody to move
    FAILED = "failed"


@dataclass(frozen=True)
class MovePlan:
    """What to do with the changes of a read."""

    moves: Sequence[EmailChange] = ()
    # By `seq` of a move: that of the move that has to free its new address first.
    needs: Mapping[int, int] = field(default_factory=dict)
    circles: Sequence[EmailChange] = ()  # nobody can be moved first
    blocked: Sequence[EmailChange] = ()  # the new address is that of a user who is not moved
    waiting: Sequence[tuple[int, float]] = ()  # (seq, unix time) of a move shortly before


def plan_moves(
    changes: Sequence[EmailChange],
    shared_user_ids: set[str],
    rows_named: Mapping[int, Sequence[int | None]],
) -> MovePlan:
    """Decide who is moved. Pure. The other rows are sent to their new address.

    A user is moved if no other row has the user id, and no row has the former address, except one
    that is moved away itself (a chain). `rows_named` has the rows by the user key of each former
    address, see `EmailChangeTable.rows_named`.
    """
    eligible = {each.seq: each for each in changes if each.user_id not in shared_user_ids}
    is_shrinking = True
    while is_shrinking:
        keep = {
            seq: each
            for seq, each in eligible.items()
            if all(holder in eligible for holder in rows_named.get(each.former_key, ()))
            or each.is_noted
        }
        is_shrinking = len(keep) < len(eligible)
        eligible = keep
    # A user of whom it is not certain may also be at the address that was tried.
    by_former_key = {key: seq for seq, each in eligible.items() for key in each.possible_keys}
    needs = {
        seq: by_former_key[each.user_key]
        for seq, each in eligible.items()
        if by_former_key.get(each.user_key, seq) != seq
    }
    in_circle = {seq for seq in eligible if _leads_into_circle(seq, needs)}
    kept_keys = {key for each in changes if each.seq not in eligible for key in each.possible_keys}
    blocked = {seq for seq, each in eligible.items() if each.user_key in kept_keys}
    while more := {seq for seq, needed in needs.items() if needed in blocked} - blocked:
        blocked |= more
    moved = [seq for seq in eligible if seq not in in_circle | blocked]
    return MovePlan(
        tuple(eligible[seq] for seq in moved),
        {seq: needs[seq] for seq in moved if seq in needs},
        tuple(eligible[seq] for seq in sorted(in_circle)),
        tuple(eligible[seq] for seq in sorted(blocked)),
    )


def _leads_into_circle(seq: int, needs: Mapping[int, int]) -> bool:
    seen = {seq}
    while (needed := needs.get(seq)) is not None:
        if needed in seen:
            return True
        seen.add(needed)
        seq = needed
    return False


@dataclass
class EmailChangeReport:
    """The counts of a run, for results and summary."""

    moved: int = 0
    already_there: int = 0
    failed: int = 0
    would_be_moved: int = 0  # in a dry run

    def to_json(self) -> JSON:
        """Return the counts, as they stand in the head of the results file."""
        return {"moved": self.moved, "already_there": self.already_there, "failed": self.failed}

    def lines(self) -> list[str]:
        """Return the lines of the summary; none where no address has changed."""
        parts = [f"{self.moved:,} moved"] if self.moved else []
        if self.already_there:
            parts.append(f"{self.already_there:,} not moved, as Iterable has the new address, too")
        parts += [f"{self.failed:,} failed"] if self.failed else []
        if self.would_be_moved:
            parts.append(f"{self.would_be_moved:,} would be moved")
        return [f"Changed e-mail addresses: {', '.join(parts)}"] if parts else []


def warn_of_second_users(report: EmailChangeReport) -> None:
    """Log how many users Iterable has under both addresses; call it after the delivery."""
    if report.already_there:
        logger.warning(
            "Iterable already has the new address of %s: nothing was merged, and the user with the "
            "former address stays.",
            counted(report.already_there, "user"),
        )


class Moved(NamedTuple):
    """The result of a move's call, and when its last attempt was made (unix seconds)."""

    change: EmailChange
    call: CallResult
    outcome: MoveOutcome
    attempted_at: float
    is_noted: bool  # whether an earlier attempt may have made the move
    was_attempted: bool = True


class EmailMover:
    """The moves of a run; `send` runs in worker threads, all else in the main thread."""

    def __init__(
        self,
        plan: MovePlan,
        outbox: Outbox,
        client: IterableClient,
        report: EmailChangeReport,
        *,
        settle_seconds: float = SETTLE_SECONDS,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._outbox = outbox
        self._client = client
        self._report = report
        self._settle_seconds = settle_seconds
        self._now = now
        self._needs = dict(plan.needs)
        self._to_start = {each.seq: each for each in plan.moves}
        self._settled: dict[int, MoveOutcome | None] = {}  # None: it got no result in this run
        self._reasons: dict[int, CallResult] = {}
        self._in_flight = 0
        self.waiting = [
            (seq, min(settle_seconds, max(0.0, at + settle_seconds - now())))
            for seq, at in plan.waiting
        ]  # (seq, seconds from now) of rows that need no move any more
        # Rows that are due within so many seconds are sent together, in bulk mode in one batch.
        self.together_seconds = settle_seconds / 12

    @property
    def seqs(self) -> list[int]:
        """The rows that are to be moved."""
        return list(self._to_start)

    @property
    def is_over(self) -> bool:
        """Whether every move has its result."""
        return not self._to_start and not self._in_flight

    def next_moves(self, *, is_alone: bool) -> list[EmailChange]:
        """Return the moves to start now, which are noted in the state file; `is_alone`: one."""
        free = (1 if is_alone else MAX_MOVES_IN_FLIGHT) - self._in_flight
        ready = [
            each
            for seq, each in self._to_start.items()
            if self._needs.get(seq) is None or self._needs[seq] in self._settled
        ][: max(0, free)]
        if ready:
            attempted = [each for each in ready if self.why_blocked(each) is None]
            self._outbox.note_moves(attempted, self._now())
            for each in ready:
                del self._to_start[each.seq]
            self._in_flight += len(ready)
        return ready

    def why_blocked(self, change: EmailChange) -> CallResult | None:
        """Return the result of the move that should have freed the new address, and did not."""
        needed = self._needs.get(change.seq)
        if needed is None or self._settled.get(needed) in (
            MoveOutcome.MOVED,
            MoveOutcome.NOT_IN_ITERABLE,
        ):
            return None
        return self._reasons.get(needed)

    def rows_of(self, seqs: Sequence[int]) -> list[PendingRow]:
        """Return these rows, now that they may start, with the requests that they need."""
        return self._outbox.rows_of(seqs)

    def send(self, change: EmailChange) -> Moved:
        """Make the call; where the address is unknown, from those that were tried before."""
        subject = f"user {change.user_id}"
        call = self._client.move_user(change.former_email, change.email, subject)
        outcome = outcome_of(call)
        # An attempt before the last one may have been applied, and its response lost.
        is_noted = change.is_noted or call.attempts > 1
        for tried in change.tried:
            if outcome is not MoveOutcome.NOT_IN_ITERABLE:
                break
            call = self._client.move_user(tried.email, change.email, subject)
            outcome = outcome_of(call)
        return Moved(change, call, outcome, self._now(), is_noted)

    def blocked(self, change: EmailChange, why: CallResult) -> Moved:
        """Return the result of a move that is not made."""
        outcome = MoveOutcome.FAILED
        return Moved(change, why, outcome, self._now(), change.is_noted, was_attempted=False)

    def settle(self, moved: Moved) -> float | None:
        """Record a result; return the seconds after which the row's requests may start.

        None: nothing follows for the row, in this run.
        """
        self._in_flight -= 1
        change, call, outcome, attempted_at, is_noted, was_attempted = moved
        if not call.has_verdict and outcome is MoveOutcome.FAILED:
            self._settled[change.seq] = None
            self._reasons[change.seq] = call
            if was_attempted and not call.attempts and not is_noted:
                self._outbox.forget_move(change)
            return None
        is_counted_as_moved = outcome is MoveOutcome.NOT_IN_ITERABLE and is_noted
        if is_counted_as_moved:
            outcome = MoveOutcome.MOVED
        self._settled[change.seq] = outcome
        self._reasons[change.seq] = call
        self._report.moved += outcome is MoveOutcome.MOVED
        self._report.already_there += outcome is MoveOutcome.ALREADY_THERE
        self._report.failed += outcome is MoveOutcome.FAILED
        needs_requests = self._outbox.settle_move(
            change,
            outcome.value,
            call,
            attempted_at,
            was_attempted=was_attempted,
            # The profile may be new: somebody may have deleted the user.
            may_be_new=is_counted_as_moved,
        )
        if outcome is MoveOutcome.FAILED or not needs_requests:
            return None
        return max(0.0, attempted_at + self._settle_seconds - self._now())


def outcome_of(call: CallResult) -> MoveOutcome:
    """Return what a call's result says. An unknown address is an error in one of two forms."""
    if call.delivered:
        return MoveOutcome.MOVED
    message = call.message.lower()
    says_unknown = call.code == "BadParams" and any(
        words in message for words in ("no user", "not exist", "not found", "unknown")
    )
    if call.verdict is Verdict.REJECTED and (call.code in _UNKNOWN_CODES or says_unknown):
        return MoveOutcome.NOT_IN_ITERABLE
    # A forgotten address was reported with the same code, and must not be sent to.
    if call.code == "EmailAlreadyExists" and "forgotten" not in message:
        return MoveOutcome.ALREADY_THERE
    return MoveOutcome.FAILED


def find_plan(outbox: Outbox, now: float) -> MovePlan:
    """Return what to do with the changes of a complete read; `now` is in unix seconds."""
    changes = outbox.email_changes.found()
    plan = plan_moves(
        changes,
        outbox.email_changes.shared_user_ids([each.user_id for each in changes]),
        outbox.email_changes.rows_named([each.former_key for each in changes]),
    )
    changed = {each.seq for each in changes}
    recent = outbox.email_changes.recent(now - SETTLE_SECONDS)
    return replace(plan, waiting=[(seq, at) for seq, at in recent if seq not in changed])


def find_partial_plan(outbox: Outbox, now: float) -> MovePlan:
    """Return the same for a partial read, in which nobody is moved."""
    return MovePlan(waiting=outbox.email_changes.recent(now - SETTLE_SECONDS))


def leave_out_rows(outbox: Outbox, plan: MovePlan, *, is_complete_read: bool) -> None:
    """Mark the rows that must not be sent in this run as not attempted.

    An earlier move without a response may have been applied or not, so the user may have either
    address. A row of somebody else with one of these would change that user's profile.
    """
    if not is_complete_read:
        _leave_out(outbox, [each.seq for each in outbox.email_changes.found()], _PARTIAL_READ)
        _leave_out(outbox, outbox.email_changes.rows_at_uncertain_addresses(), _UNCERTAIN)
        return
    changes = (*plan.moves, *plan.circles, *plan.blocked)
    keys = [key for each in changes if each.is_noted for key in each.possible_keys]
    others = set(outbox.email_changes.rows_to_send_at(keys)) - {each.seq for each in changes}
    _leave_out(outbox, sorted(others), _UNCERTAIN)


def _leave_out(outbox: Outbox, seqs: Sequence[int], reason: str) -> None:
    """Let these rows end without a request; that ends the run with exit status 3."""
    outbox.leave_out(seqs, reason)
    if seqs:
        logger.warning("Rows that are not sent (%s): %s", reason, f"{len(seqs):,}")


def prepare_moves(outbox: Outbox, report: EmailChangeReport, *, is_complete_read: bool) -> MovePlan:
    """Find the changes of a read, mark their rows in the outbox, and return what to do."""
    find = find_plan if is_complete_read else find_partial_plan
    plan = find(outbox, time.time())
    leave_out_rows(outbox, plan, is_complete_read=is_complete_read)
    outbox.hold_for_moves([each.seq for each in plan.moves], [seq for seq, _at in plan.waiting])
    for change in plan.circles:
        outbox.fail_change(change.seq, _CIRCLE, _CIRCLE_REASON)
    for change in plan.blocked:
        outbox.fail_change(change.seq, _IN_USE, _IN_USE_REASON)
    report.failed += len(plan.circles) + len(plan.blocked)
    if plan.circles:
        logger.warning(
            "The addresses of %s were exchanged in a circle (for example user %s), so none of "
            "them is moved or sent: give one of them another address first.",
            counted(len(plan.circles), "user"),
            plan.circles[0].user_id,
        )
    if plan.moves:
        logger.info(
            "%s with another e-mail address than before: moved in Iterable, before their rows are "
            "sent",
            counted(len(plan.moves), "user"),
        )
    return plan


def leave_out_unsent_rows(outbox: Outbox, *, is_complete_read: bool) -> int:
    """Leave out, in a dry run, the rows that a run would not send, or only after a move.

    Returns how many users would be moved.
    """
    plan = find_plan(outbox, time.time()) if is_complete_read else MovePlan()
    leave_out_rows(outbox, plan, is_complete_read=is_complete_read)
    outbox.leave_out([each.seq for each in plan.moves], "dry run: its user would be moved")
    outbox.leave_out([each.seq for each in plan.circles], _CIRCLE_REASON)
    outbox.leave_out([each.seq for each in plan.blocked], _IN_USE_REASON)
    return len(plan.moves)
