"""One run: fill the outbox from MySQL, deliver it to Iterable, report.

A run that an expected error or a stop signal ends early still writes a results file, which accounts
for all rows, and an entry in the history. The exceptions are the errors that `execute` raises.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path

from config.identity import IdentifyBy
from config.settings import Settings
from db_connection import SourceError
from errors import ConfigError
from iterable_api.responses import EVENTS_TRACK, EVENTS_TRACK_BULK, USERS_BULK_UPDATE, USERS_UPDATE
from iterable_client import IterableClient
from logger_config import FILE_ONLY, redact, show_failure_counts
from records.outcomes import JSON
from records.rows import Failure, RequestKind, SettledRow
from reporting.results_file import ResultsError, ResultsFile, remove_old_results
from reporting.summary import RunSummary, RunTally, summarize, summary_lines
from state.confirmations import Confirmations, ConfirmationsError
from state.database import StateError
from state.lock import RunLock
from state.members import Leaver
from state.outbox import FillSummary, Outbox
from state.project import Match
from sync.announcement import announcements
from sync.bulk import BulkSender
from sync.confirmations import Confirmed, confirmed_events
from sync.dispatcher import Dispatcher, RunAborted, Sender
from sync.dropped_fields import DroppedFields, drops_fields_silently
from sync.dry_run import plan_lines, request_bodies
from sync.email_changes import (
    SETTLE_SECONDS,
    EmailChangeReport,
    EmailMover,
    leave_out_unsent_rows,
    prepare_moves,
    warn_of_second_users,
)
from sync.field_types import FieldTypesError, FieldTypesRequest, compare, report
from sync.guards import RowCountError, RowCountGuard
from sync.leavers import Clearing, LeaverReport, announce, why_held_back
from sync.mass_rejection import MassRejection, RejectionGuard
from sync.per_user import MAX_ROWS_IN_FLIGHT, PerUserSender
from sync.progress import Progress, ceiling_rows_per_second, pace_at_the_limits
from sync.project_check import OtherProjectError, is_key_proven, match_project, to_project
from sync.signals import Interrupted, StopSignal
from sync.source_rows import SourceRows
from sync.verification import VerificationReport, verify_rows

logger = logging.getLogger(__name__)

MAX_READS = 3  # a read that a transient error interrupts is repeated from the first row
_GUARDS = (RowCountError, FieldTypesError, OtherProjectError)  # nothing was sent
_ROWS_AT_ONCE = 5_000  # are written to the results file while the sending waits: 50 ms


class MassRejectionError(RunAborted):
    """Iterable rejected most requests of a kind, so the others of that kind were left out."""

    def __init__(self, ended: Sequence[MassRejection]) -> None:
        super().__init__("\n".join(map(str, ended)))
        self._ended = ended

    @property
    def lines(self) -> list[str]:
        """The message for each kind of request."""
        return [str(each) for each in self._ended]


@dataclass(frozen=True)
class Options:
    """The flags of one run."""

    dry_run: bool = False
    limit: int | None = None
    only: tuple[str, ...] = ()  # ids or e-mails: nothing else is sent
    full_refresh: bool = False
    ignore_guards: bool = False
    shows_progress: bool = True

    @property
    def is_complete_read(self) -> bool:
        """Whether the run judges all rows of the query."""
        return self.limit is None and not self.only


@dataclass(frozen=True)
class RunReport:
    """How a run ended."""

    summary: RunSummary
    failures: Sequence[Failure]
    files: Sequence[Path]  # the results file first, if it could be written
    error: Exception | None  # what ended the run early
    # That were not known before this run; none where a guard stops it, since none are noted then.
    new_failures: Sequence[Failure] = ()
    left_out: Sequence[str] = ()  # which requests were not sent because most were rejected
    plan: Sequence[str] = ()  # of a dry run: how much a run would send, what it would ask first
    notes: Sequence[str] = ()  # what else happened, for the summary

    @property
    def results_path(self) -> Path | None:
        return self.files[0] if self.files else None

    @property
    def is_held_back(self) -> bool:
        """Whether a guard ended the run before it sent anything."""
        return isinstance(self.error, _GUARDS)

    def lines(self) -> list[str]:
        """Return the summary for the operator."""
        headline, *lines = summary_lines(
            self.summary,
            self.failures,
            self.files,
            self.left_out,
            notes=self.notes,
            is_held_back=self.is_held_back,
        )
        return [": ".join([headline, *self.plan[:1]]), *self.plan[1:], *lines]


@dataclass
class _Ending:
    """Status, reason and error of the run so far; the first error stays."""

    status: str = "completed"
    reason: str | None = None
    error: Exception | None = None

    def abort(self, error: Exception) -> None:
        if self.error is None:
            self.status, self.error = "aborted", error
            self.reason = "\n".join(map(redact, str(error).split("\n")))


class SyncRun:
    """One run with these settings. Call `execute` once."""

    def __init__(
        self,
        settings: Settings,
        options: Options,
        stop: StopSignal,
        *,
        show_payload: Callable[[str, bytes], None] = lambda _endpoint, _body: None,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
        clock: Callable[[], float] = time.monotonic,
        to_client: Callable[..., IterableClient] = IterableClient,
        settle_seconds: float = SETTLE_SECONDS,
    ) -> None:
        self._settings = settings
        self._options = options
        self._stop = stop
        self._show_payload = show_payload
        self._now, self._clock = now, clock
        self._started_at, self._began_at = now(), clock()
        # Replaced when the delivery starts.
        self._progress = Progress(0, ceiling_rows_per_second(settings))
        self._rows_read = 0
        self._sending_seconds = 0.0
        self._has_noted_failures = False  # with the beginning of the delivery
        self._plan: list[str] = []
        self._tally = RunTally()
        self._leavers = LeaverReport()
        self._email_changes = EmailChangeReport()
        self._verification = VerificationReport()
        self._confirmed: Confirmed | None = None  # events of the last run
        self._settle_seconds = settle_seconds  # between a move and the user's other requests
        self._results = ResultsFile(
            settings.results_dir, self._started_at, with_email_changes=self._moves_users
        )
        self._project = to_project(settings)
        self._rejection_guard = RejectionGuard(settings.max_rejected_percent)
        self._row_count_guard = RowCountGuard(
            settings.rows_guard_factor,
            is_complete_read=options.is_complete_read,
            is_ignored=options.ignore_guards,
            is_dry_run=options.dry_run,
        )
        self._run_id = f"{self._started_at:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        self._client = to_client(
            settings.iterable_api_key,
            settings.iterable_api_base_url,
            requests_per_second={
                USERS_UPDATE: settings.users_update_rps,
                EVENTS_TRACK: settings.events_track_rps,
                USERS_BULK_UPDATE: settings.bulk_update_rps,
                EVENTS_TRACK_BULK: settings.track_bulk_rps,
            },
            max_attempts=settings.max_attempts,
            log_payloads=settings.log_payloads,
            outage_patience_seconds=settings.outage_patience_seconds,
            create_new_fields=settings.creates_new_fields,
            connections=MAX_ROWS_IN_FLIGHT,
            stop=stop.event,
        )
        self._field_types = FieldTypesRequest(self._client.get)
        self._dropped_fields = DroppedFields()
        self._new_fields: Sequence[str] = ()  # of the profiles, which Iterable would drop
        if drops_fields_silently(settings) and settings.sends_events:
            self._dropped_fields.mark_unknown(RequestKind.EVENT)
        self._is_new_mapping = False  # whether these settings have not delivered any profile yet

    @property
    def _moves_users(self) -> bool:
        return self._settings.email_changes == "move"

    def execute(self) -> RunReport:
        """Run all phases and return how the run ended.

        Raises ConfigError if the query lacks columns, and StateError if the state file cannot be
        used or another run has locked it. Nothing has been sent then.
        """
        dry_run = self._options.dry_run
        with contextlib.ExitStack() as stack:
            if not dry_run:
                stack.enter_context(RunLock(self._settings.state_file))
            outbox = Outbox(self._settings.state_file, read_only=dry_run, run_id=self._run_id)
            stack.callback(outbox.close)
            stack.callback(self._client.close)
            stack.callback(self._results.discard)
            if not dry_run:
                mode = self._settings.sync_mode
                killed_at = outbox.history.begin(self._run_id, mode, self._started_at)
                if killed_at is not None:
                    outbox.failures.make_new_again(killed_at)
            ending = _Ending()
            try:
                self._run_phases(outbox, ending)
            except ConfigError as error:
                if not dry_run:
                    outbox.history.end(self._run_id, self._now(), "aborted", str(error), {})
                raise
            return self._report(outbox, ending)

    def _run_phases(self, outbox: Outbox, ending: _Ending) -> None:
        try:
            match = match_project(
                outbox.project,
                self._project,
                self._settings.state_file,
                is_dry_run=self._options.dry_run,
            )
            filled = self._fill(outbox, takes_samples=match is Match.OTHER_KEY)
            self._rows_read = filled.total
            self._confirmed = self._confirmed_of_last_run(outbox)
            self._row_count_guard.check(filled.total, outbox.history, self._started_at)
            self._announce(outbox, filled)
            if self._options.dry_run:
                self._show_plan(outbox, filled)
            else:
                self._check_and_deliver(outbox, filled, match)
        except (*_GUARDS, SourceError, RunAborted, StateError) as error:
            ending.abort(error)
        except Interrupted:
            pass  # handled below, by `self._stop.number`
        finally:
            self._stop.ends_at_once = False
        if self._stop.number is not None and ending.error is None:
            ending.status, ending.reason = "interrupted", f"{self._stop.name} received"

    def _show_plan(self, outbox: Outbox, filled: FillSummary) -> None:
        """Note what a run would send; with a limit, print the bodies, too."""
        self._stop.ends_at_once = False
        if self._moves_users:
            self._email_changes.would_be_moved = leave_out_unsent_rows(
                outbox, is_complete_read=self._options.is_complete_read
            )
        self._plan = plan_lines(
            self._settings,
            *outbox.count_requests(),
            samples=filled.samples,
            is_new_mapping=self._is_new_mapping,
            is_held_back=self._row_count_guard.would_hold_back,
            moves=self._email_changes.would_be_moved,
        )
        if not self._options.is_complete_read:
            for endpoint, body in request_bodies(self._settings, outbox.pending()):
                self._show_payload(endpoint, body)

    def _check_and_deliver(self, outbox: Outbox, filled: FillSummary, match: Match) -> None:
        """Deliver the outbox, after the checks that ask Iterable."""
        is_proven = match is not Match.OTHER_KEY or is_key_proven(
            self._client.get,
            self._settings,
            filled.samples,
            self._stop.event,
            is_accepted=self._options.ignore_guards,
        )
        checks_types = self._is_new_mapping or not is_proven
        if checks_types or drops_fields_silently(self._settings):
            self._compare_field_types(outbox, checks_types=checks_types)
        self._stop.ends_at_once = False
        if not self._stop.event.is_set():
            leavers = self._find_leavers(outbox, filled.total)
            moves = self._prepare_moves(outbox)
            outbox.begin_delivery(
                self._project,
                is_project_proven=is_proven,
                is_complete_read=self._options.is_complete_read,
                keeps_members=self._settings.keeps_members,
                moves_users=self._moves_users,
            )
            self._has_noted_failures = True
            try:
                self._deliver(outbox, filled.to_send, moves)
            finally:
                warn_of_second_users(self._email_changes)
            self._clear(outbox, leavers)
            self._verify(filled)

    def _prepare_moves(self, outbox: Outbox) -> EmailMover | None:
        """Return the moves of users whose address has changed; None where there are none."""
        if not self._moves_users:
            return None
        plan = prepare_moves(
            outbox, self._email_changes, is_complete_read=self._options.is_complete_read
        )
        if not plan.moves and not plan.waiting:
            return None
        return EmailMover(
            plan,
            outbox,
            self._client,
            self._email_changes,
            settle_seconds=self._settle_seconds,
        )

    def _find_leavers(self, outbox: Outbox, row_count: int) -> list[Leaver]:
        """Return the users who left and are to be cleared; only a complete read shows them."""
        if self._settings.on_leave != "clear" or not self._options.is_complete_read:
            return []
        report = self._leavers
        report.found = outbox.count_leavers()
        if report.found and not self._options.ignore_guards:
            members = outbox.members.count()
            report.why_held_back = why_held_back(report.found, members, row_count)
        if report.why_held_back:
            report.held_back = report.found
        announce(report)
        is_clearing = report.found and not report.why_held_back
        return outbox.find_leavers() if is_clearing else []

    def _clear(self, outbox: Outbox, leavers: Sequence[Leaver]) -> None:
        """Set the flags of users who left to false, after all rows were sent."""
        if leavers and not self._stop.event.is_set():
            clearing = Clearing(
                outbox,
                self._client,
                lambda: self._to_sender(RejectionGuard(self._settings.max_rejected_percent)),
                self._settings,
                self._stop.event,
                settle_seconds=self._settle_seconds,
            )
            clearing.run(leavers, self._leavers)

    def _verify(self, filled: FillSummary) -> None:
        """Read back some of what the last run has delivered."""
        if filled.of_last_run and not self._stop.event.is_set():
            self._verification = verify_rows(
                filled.of_last_run,
                self._client.get,
                self._settings.identify_by,
                self._stop.event,
                logs_values=self._settings.log_payloads,
            )

    def _to_sender(self, guard: RejectionGuard) -> Sender:
        settings = self._settings
        delays_events = settings.event_delay_seconds > 0
        if settings.sync_mode == "bulk":
            return BulkSender(
                self._client,
                guard=guard,
                batch_size=settings.bulk_batch_size,
                delays_events=delays_events,
                dropped_fields=self._dropped_fields,
            )
        return PerUserSender(self._client, delays_events=delays_events, guard=guard)

    def _fill(self, outbox: Outbox, *, takes_samples: bool) -> FillSummary:
        """Read all rows into the outbox; after a transient error start again with the first row."""
        reads = 0
        while True:
            try:
                return self._fill_once(outbox, takes_samples)
            except SourceError as error:
                reads += 1
                if not error.transient or reads == MAX_READS:
                    raise
                logger.warning("%s Reading again from the first row.", error)
                self._stop.event.wait(2.0**reads)

    def _fill_once(self, outbox: Outbox, takes_samples: bool) -> FillSummary:
        limit = self._options.limit
        has_judged = outbox.project.has_judged(self._project)
        with SourceRows(self._settings, now=self._started_at, limit=limit) as rows:
            mapping = rows.mapping
            self._is_new_mapping = (
                mapping.sends_profiles and not outbox.mapping_settings.has_delivered(mapping)
            )
            filled = outbox.fill(
                rows,
                mapping,
                only=self._options.only,
                full_refresh=self._options.full_refresh,
                takes_samples=takes_samples,
                rows_of_last_run=0 if self._options.dry_run else self._settings.verify_sample,
                rejected_retry_hours=self._settings.rejected_retry_hours if has_judged else 0,
                on_first_to_send=lambda: self._connect_ahead(outbox),
                now=self._now(),
            )
            if rows.warning:
                logger.warning("%s", rows.warning)
            return filled

    def _connect_ahead(self, outbox: Outbox) -> None:
        """Open the connection of the first request while the other rows are read.

        The first request of a first run asks for the field types: it is sent at once, unless the
        row-count guard might still stop the run.
        """
        if self._options.dry_run:
            return
        is_first_run = self._is_new_mapping and not outbox.delivered.has_users()
        if is_first_run and not self._row_count_guard.may_stop(outbox.history, self._started_at):
            self._field_types.start()
        else:
            self._client.open_connections(1)

    def _compare_field_types(self, outbox: Outbox, *, checks_types: bool) -> None:
        """Compare the profiles to send with the project.

        With `checks_types` raises FieldTypesError. Without, only the names of fields are compared.
        """
        if not any(outbox.waiting_profiles()):
            return
        types = self._field_types.fields()
        drops_fields = drops_fields_silently(self._settings)
        if types is not None:
            found = compare(outbox.waiting_profiles(), types)
            if checks_types:
                report(found, self._settings, is_ignored=self._options.ignore_guards)
            self._new_fields = found.new_fields if drops_fields else ()
        elif drops_fields:
            self._dropped_fields.mark_unknown(RequestKind.PROFILE)
            logger.warning(
                "Which profile fields Iterable drops is not known (CREATE_NEW_FIELDS=false)."
            )

    def _note_dropped_fields(self, outbox: Outbox) -> None:
        """Note the fields that Iterable has dropped without saying so."""
        if self._new_fields and outbox.has_delivered_profile:
            self._dropped_fields.add(RequestKind.PROFILE, self._new_fields)
            logger.warning(
                "Iterable dropped unknown fields of the profiles: %s", ", ".join(self._new_fields)
            )

    def _announce(self, outbox: Outbox, filled: FillSummary) -> None:
        changed_emails = 0
        by_email = self._settings.identify_by is IdentifyBy.EMAIL
        if by_email and not self._moves_users and self._options.is_complete_read:
            changed_emails = outbox.delivered.count_changed_emails()
        lines = announcements(
            self._settings,
            filled,
            self._run_id,
            is_dry_run=self._options.dry_run,
            changed_emails=changed_emails,
        )
        for level, text in lines:
            logger.log(level, "%s", text)

    def _deliver(self, outbox: Outbox, rows_to_send: int, moves: EmailMover | None) -> None:
        settings = self._settings
        sender = self._to_sender(self._rejection_guard)
        self._progress = Progress(
            rows_to_send,
            ceiling_rows_per_second(settings),
            live=self._options.shows_progress,
        )
        began_at = self._clock()
        try:
            with self._progress, contextlib.ExitStack() as stack:
                stack.callback(show_failure_counts)
                Dispatcher(
                    outbox,
                    sender,
                    self._stop.event,
                    event_delay_seconds=settings.event_delay_seconds,
                    moves=moves,
                    on_progress=self._progress.advance,
                    on_recorded=lambda seq: self._note(
                        outbox.take_settled(seq, _ROWS_AT_ONCE), self._why_left_out
                    ),
                ).run()
        finally:
            self._sending_seconds = self._clock() - began_at
        if self._rejection_guard.ended and not self._stop.event.is_set():
            raise MassRejectionError(self._rejection_guard.ended)

    @property
    def _why_left_out(self) -> str:
        """The reason of rows whose request was left out."""
        return "; ".join(ended.reason for ended in self._rejection_guard.ended)

    def _note(self, rows: Sequence[SettledRow], why_not_attempted: str = "") -> None:
        """Count rows that are done, and write them to the results file."""
        self._tally.add(rows)
        self._results.append(rows, why_not_attempted)

    def _note_the_rest(self, outbox: Outbox, ending: _Ending) -> None:
        # Short, because up to a million rows repeat it; the whole reason stands once in the file.
        reason = "dry run" if self._options.dry_run else f"the run was {ending.status}"
        if isinstance(ending.error, MassRejectionError):
            reason = self._why_left_out
        elif self._rejection_guard.ended:
            reason = f"{self._why_left_out}; {reason}"
        rows = outbox.settled()
        while chunk := list(islice(rows, _ROWS_AT_ONCE)):
            self._note(chunk, reason)
        counted = sum(self._tally.counts.values())
        if counted != self._rows_read:
            raise AssertionError(f"{counted} rows were counted, {self._rows_read} were read")

    def _report(self, outbox: Outbox, ending: _Ending) -> RunReport:
        """Complete the results file, write the report and the history."""
        self._note_dropped_fields(outbox)
        try:
            if self._rows_read:
                self._note_the_rest(outbox, ending)
        except StateError as error:
            ending.abort(error)
        finished_at = self._now()
        summary = self._summarize(outbox, ending, finished_at)
        failures = [*self._tally.failures(), *self._leavers.reasons()]
        files: list[Path] = []
        try:
            clears = self._settings.on_leave == "clear"
            files.append(self._results.finish(summary, self._leavers.entries if clears else None))
            if self._settings.report:
                files += self._write_report(files[0], summary, failures)
            remove_old_results(
                self._settings.results_dir,
                self._settings.results_keep,
                files[0],
                keep_bytes=self._settings.results_keep_mb * 1_000_000,
            )
        except ResultsError as error:
            ending.abort(error)
            summary = replace(summary, status=ending.status, reason=ending.reason)
        if not self._options.dry_run:
            try:
                entry = {**summary.to_json(), **self._row_count_guard.history_entry()}
                outbox.history.end(self._run_id, finished_at, summary.status, summary.reason, entry)
            except StateError as error:
                ending.abort(error)
                summary = replace(summary, status=ending.status, reason=ending.reason)
        name = f" of {summary.sync}" if summary.sync else ""
        logger.info("Run%s %s: %s", name, summary.status, summary.to_line(), extra=FILE_ONLY)
        tells_new = self._has_noted_failures or self._options.dry_run
        return RunReport(
            *(summary, failures, files, ending.error),
            new_failures=self._new_failures() if tells_new else (),
            left_out=[ended.summary_line for ended in self._rejection_guard.ended],
            plan=self._plan,
            notes=self._notes(),
        )

    def _notes(self) -> list[str]:
        """Return what else happened, for summary and report."""
        lines = [
            *self._email_changes.lines(),
            *self._leavers.lines(),
            *self._verification.lines(),
            *self._dropped_fields.lines(),
        ]
        if self._confirmed is not None:
            lines.append(f"Webhooks of the last run: {self._confirmed}")
        return lines

    def _confirmed_of_last_run(self, outbox: Outbox) -> Confirmed | None:
        confirmations = Confirmations(self._settings.confirmations_file)
        if not confirmations.exist:
            return None
        runs = [run for run in outbox.history.runs() if run.run_id != self._run_id]
        try:
            found = confirmed_events(runs[:1], outbox, confirmations)
            return next(iter(found.values()), None)
        except ConfirmationsError as error:
            logger.warning("%s The run goes on.", error)
            return None

    def _new_failures(self) -> list[Failure]:
        return [*self._tally.new_failures(), *self._leavers.reasons(only_new=True)]

    def _added_counts(self) -> dict[str, JSON]:
        """Return the counts of what a setting turns on."""
        counts = {}
        if self._moves_users:
            counts["email_changes"] = self._email_changes.to_json()
        if self._settings.on_leave == "clear":
            counts["leavers"] = self._leavers.to_json()
        if self._settings.verify_sample:
            counts["verified"] = self._verification.to_json()
        if self._settings.creates_new_fields is not None or self._dropped_fields:
            counts["dropped_fields"] = self._dropped_fields.to_json()
        return counts

    def _summarize(self, outbox: Outbox, ending: _Ending, finished_at: datetime) -> RunSummary:
        sent = self._tally.sent
        # A few requests at once, after a pause, are no faster than the limits of a whole second.
        at_the_limits = pace_at_the_limits(self._settings, sent.profiles, sent.events)
        return summarize(
            run_id=self._run_id,
            status=ending.status,
            reason=ending.reason,
            dry_run=self._options.dry_run,
            mode=self._settings.sync_mode,
            started_at=self._started_at,
            finished_at=finished_at,
            elapsed_seconds=self._clock() - self._began_at,
            counts=self._tally.counts,
            api_calls=self._client.call_count,
            retries=self._client.retry_count,
            new_failures=self._tally.new_count + self._leavers.new_count,
            known_failures=self._tally.known_count + self._leavers.known_count,
            resolved_failures=outbox.resolved_failures,
            users_sent=sent.users,
            sending_seconds=max(self._sending_seconds, at_the_limits.seconds),
            sync=self._settings.sync_name or None,
            added=self._added_counts(),
            has_other_failures=self._has_other_failures,
        )

    @property
    def _has_other_failures(self) -> bool:
        """Whether something failed that is no row of the query."""
        drops_fields = self._settings.creates_new_fields is False and bool(self._dropped_fields)
        return drops_fields or self._leavers.has_problems or self._verification.has_differences

    def _write_report(
        self, results_path: Path, summary: RunSummary, failures: Sequence[Failure]
    ) -> list[Path]:
        from reporting.html_report import write_report

        path = results_path.with_suffix(".html")
        measurements = self._progress.measurements
        is_written = write_report(
            path, summary, failures, measurements, self._settings, self._notes()
        )
        return [path] if is_written else []
