"""Users who left the query's result: their profile flag is set to false (`ON_LEAVE=clear`).

Otherwise `recent_page_view: true` would stay for ever on everybody who ever viewed a page.
A leaver is a member (see `state.members`) whom no row of a complete read names. First the profile
is read, since users/update would create a user whom Iterable does not have.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timezone

from config.identity import IdentifyBy
from config.settings import Settings
from iterable_api.comparison import is_unknown_user
from iterable_api.responses import ApiResponse
from iterable_client import IterableClient
from records.outcomes import JSON, CallResult, iso_time
from records.rows import Failure, RequestKind
from reporting.formatting import counted
from state.leavers import ClearingQueue
from state.members import Leaver
from state.outbox import Outbox
from sync.dispatcher import Dispatcher, Sender
from sync.email_changes import SETTLE_SECONDS
from sync.read_back import ReadBack
from sync.source_rows import profile_options

logger = logging.getLogger(__name__)

# More leavers than both are held back: a query that lost half of its rows looks like that.
MAX_SHARE_PERCENT, MAX_WITHOUT_QUESTION = 30, 20
# Iterable may still have to apply a first update of this age, so an unknown user may be one soon.
RECENT_SECONDS = 3_600
ENDPOINT = "users/update of users who left"  # in the failures by reason
_NOT_READ, _NOT_SENT = "NotReadBack", "NotSent"  # codes of clearings that were not tried
_CHUNK = 1_000  # are read, then cleared: about 11 s of reading


def why_held_back(leavers: int, members: int, rows: int) -> str | None:
    """Return why so many leavers are not cleared without a question; None if they are."""
    if not leavers:
        return None
    if not rows:
        return f"the query returned no rows, so all {leavers:,} users would count as having left"
    if leavers > MAX_WITHOUT_QUESTION and leavers * 100 > members * MAX_SHARE_PERCENT:
        return (
            f"{leavers:,} of {members:,} users are in no row any more, which is more than "
            f"{MAX_SHARE_PERCENT} %"
        )
    return None


@dataclass
class LeaverReport:
    """What became of the users who left, for results and summary.

    `found` is the number of those who left; each was `cleared`, is `gone` from Iterable, `failed`
    or is held back (`held_back`), or was not reached: the next run tries those again.
    """

    found: int = 0
    cleared: int = 0
    gone: int = 0
    failed: int = 0
    held_back: int = 0
    why_held_back: str | None = None
    entries: list[JSON] = field(default_factory=list)  # `left[]` of the results file
    failures: dict[str, list[Leaver]] = field(default_factory=dict)  # by code

    @property
    def has_problems(self) -> bool:
        """Whether the exit status must say so."""
        return bool(self.failed or self.held_back)

    def to_json(self) -> JSON:
        """Return the counts, as they stand in the head of the results file."""
        names = ("found", "cleared", "gone", "failed", "held_back")
        return {name: getattr(self, name) for name in names}

    def lines(self) -> list[str]:
        """Return the lines of the summary; none where nobody has left."""
        if not self.found:
            return []
        if self.why_held_back:
            return [
                f"Users who left: not cleared, because {self.why_held_back}.",
                "If that is right, run once with --ignore-guards.",
            ]
        parts = [f"{self.cleared:,} of {self.found:,} cleared"]
        parts += [f"{self.gone:,} no longer in Iterable"] if self.gone else []
        parts += [f"{self.failed:,} failed"] if self.failed else []
        waiting = self.found - self.cleared - self.gone - self.failed
        parts += [f"{waiting:,} left to the next run"] if waiting else []
        return [f"Users who left: {', '.join(parts)}"]

    def reasons(self, *, only_new: bool = False) -> list[Failure]:
        """Return why clearings failed; `only_new`: without those that failed so before."""
        found = []
        for code, leavers in self.failures.items():
            counting = [
                each for each in leavers if not (only_new and each.failure_code == (code or ""))
            ]
            if counting:
                example = counting[0].user_id
                found.append(Failure(ENDPOINT, "rejected", code, len(counting), example))
        return found

    @property
    def new_count(self) -> int:
        """How many clearings failed that did not fail so before."""
        return sum(failure.rows for failure in self.reasons(only_new=True))

    @property
    def known_count(self) -> int:
        """How many clearings failed as they did before."""
        return self.failed - self.new_count

    def add(
        self,
        leaver: Leaver,
        outcome: str,
        reason: str | None = None,
        update: CallResult | None = None,
    ) -> None:
        """Add the entry of a user."""
        self.entries.append(
            {
                "user_id": leaver.user_id,
                "identifier": leaver.identifier,
                "timestamp": iso_time(datetime.now(timezone.utc)),
                "outcome": outcome,
                "reason": reason,
                "users_update": update.to_json() if update else None,
            }
        )


class Clearing:
    """Sets the flags of users who left to false, with the mode and the rate of the run."""

    def __init__(
        self,
        outbox: Outbox,
        client: IterableClient,
        to_sender: Callable[[], Sender],
        settings: Settings,
        stop: threading.Event,
        *,
        settle_seconds: float = SETTLE_SECONDS,
    ) -> None:
        self._outbox = outbox
        self._client = client
        self._to_sender = to_sender
        self._settings = settings
        self._stop = stop
        self._settle_seconds = settle_seconds  # between a move and the user's other requests
        self._can_read = True  # whether the profiles of the last chunk could be read

    def run(self, leavers: Sequence[Leaver], report: LeaverReport) -> None:
        """Clear the flags, and add what became of each to the report; ends early when stopped."""
        to_clear = self._without_just_moved(leavers, report)
        for start in range(0, len(to_clear), _CHUNK):
            if self._stop.is_set():
                return
            chunk = to_clear[start : start + _CHUNK]
            if self._can_read:
                self._clear(chunk, report)
            else:
                for leaver in chunk:
                    self._note_failure(leaver, _NOT_READ, report)

    def _without_just_moved(self, leavers: Sequence[Leaver], report: LeaverReport) -> list[Leaver]:
        """Return the others than those whom an earlier run has moved a moment ago."""
        settled = []
        for leaver in leavers:
            # In both directions, as the clock may have been ahead.
            if abs(time.time() - leaver.moved_at) < self._settle_seconds:
                report.add(leaver, "waiting", "Iterable may still be moving the user")
            else:
                settled.append(leaver)
        return settled

    def _clear(self, leavers: Sequence[Leaver], report: LeaverReport) -> None:
        self._outbox.begin_clearing(leavers)
        known = self._find_known(leavers, report)
        if not known or self._stop.is_set():
            return
        by_email = self._settings.identify_by is IdentifyBy.EMAIL
        queue = self._outbox.clearing_queue(
            known, by_email=by_email, options=profile_options(self._settings)
        )
        sender = self._to_sender()
        try:
            Dispatcher(queue, sender, self._stop).run()
        finally:
            self._note_results(known, queue, report, is_complete=not self._stop.is_set())

    def _find_known(self, leavers: Sequence[Leaver], report: LeaverReport) -> list[Leaver]:
        """Return those whom Iterable has; the others are removed from the members, or fail."""
        known: list[Leaver] = []
        unread = {leaver.user_key: leaver for leaver in leavers}
        reader: ReadBack[Leaver] = ReadBack(
            self._client.get,
            lambda leaver: (RequestKind.PROFILE, leaver.identifier),
            self._settings.identify_by,
            self._stop,
        )
        to_read = list(leavers)
        with closing(reader):
            while to_read:
                moved: list[Leaver] = []  # perhaps, by a run that was killed
                for leaver, response in reader.read(to_read):
                    if is_unknown_user(response) and leaver.tried:
                        next_one, *others = leaver.tried
                        moved.append(leaver._replace(identifier=next_one, tried=tuple(others)))
                        continue
                    del unread[leaver.user_key]
                    if is_unknown_user(response):
                        self._note_unknown(leaver, report)
                    elif _has_user(response):
                        known.append(leaver)
                    else:
                        self._note_failure(leaver, _problem(response), report)
                to_read = moved
        if not self._stop.is_set():
            self._can_read = not unread
            for leaver in unread.values():
                self._note_failure(leaver, _NOT_READ, report)
        return known

    def _note_unknown(self, leaver: Leaver, report: LeaverReport) -> None:
        user = self._outbox.delivered.find([leaver.user_key]).get(leaver.user_key)
        delivered_at = user.profile_at if user else None
        if time.time() - (delivered_at or 0) < RECENT_SECONDS:
            report.add(leaver, "waiting", "Iterable may not have applied its profile yet")
            return
        report.gone += 1
        report.add(leaver, "gone", "Iterable does not have this user")
        self._outbox.remove_member(leaver)

    def _note_failure(self, leaver: Leaver, code: str, report: LeaverReport) -> None:
        report.failed += 1
        report.failures.setdefault(code, []).append(leaver)
        report.add(leaver, "failed", f"the profile could not be read: {code}")
        self._outbox.note_clearing_failure(leaver, code)

    def _note_results(
        self,
        leavers: Sequence[Leaver],
        queue: ClearingQueue,
        report: LeaverReport,
        *,
        is_complete: bool,
    ) -> None:
        for leaver in leavers:
            result: CallResult | None = queue.results.cleared.get(leaver.user_key)
            if result is not None:
                report.cleared += 1
                report.add(leaver, "cleared", update=result)
                continue
            result = queue.results.failed.get(leaver.user_key)
            if result is None and not is_complete:
                continue  # the next run tries again
            code = (result.code if result else None) or _NOT_SENT
            if result is None:  # Iterable rejected most of the others
                self._outbox.note_clearing_failure(leaver, code)
            report.failed += 1
            report.failures.setdefault(code, []).append(leaver)
            report.add(leaver, "failed", update=result)


def _has_user(response: ApiResponse) -> bool:
    """Return whether a profile was read: a 200 can also be the page of a proxy, or an error."""
    return (
        response.status == 200
        and response.is_from_api
        and isinstance(response.body.get("user"), dict)
    )


def _problem(response: ApiResponse) -> str:
    return response.code or response.problem or f"HTTP {response.status}"


def announce(report: LeaverReport) -> None:
    """Log how many users left, and whether they are held back."""
    if report.why_held_back:
        logger.warning(
            "Users who left are not cleared: %s. If that is right, run once with --ignore-guards.",
            report.why_held_back,
        )
    elif report.found:
        logger.info("%s left: the profile flag is set to false", counted(report.found, "user"))
