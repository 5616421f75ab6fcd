"""`--history`: print the past runs, one on each line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path

from commands.console import print_as_json, print_error, print_line
from config.settings import read_setting
from errors import ExitStatus
from records.outcomes import JSON
from state.confirmations import Confirmations, ConfirmationsError
from state.database import state_errors
from state.history import KILLED, PRINTED_COUNTS, RUNNING, UNFINISHED, PastRun
from state.lock import owner_of_lock
from state.outbox import Outbox
from sync.confirmations import Confirmed, confirmed_events

_READ_BYTES = 1_000_000
_RUNS_WITH_CONFIRMATIONS = 20


def print_history(environment: Mapping[str, str], *, as_json: bool = False) -> ExitStatus:
    """Print the past runs of the state file, the newest first."""
    path = read_setting(environment, "STATE_FILE")
    _read_ahead(path)
    confirmations = Confirmations(read_setting(environment, "CONFIRMATIONS_FILE"))
    with closing(Outbox(path, read_only=True)) as outbox:
        runs = _runs(outbox, path)
        confirmed: Mapping[str, Confirmed] = {}
        webhook_counts: Mapping[str, int] = {}
        try:
            confirmed = confirmed_events(runs[:_RUNS_WITH_CONFIRMATIONS], outbox, confirmations)
            webhook_counts = confirmations.counts()
        except ConfirmationsError as error:
            print_error(str(error))
    if as_json:
        print_as_json({"runs": [_to_json(run, confirmed.get(run.run_id)) for run in runs]})
        return ExitStatus.OK
    for line in history_lines(runs, confirmed):
        print_line(line)
    if webhook_counts:
        texts = ", ".join(f"{count:,} {kind}" for kind, count in webhook_counts.items())
        print_line(f"Webhooks of the last 30 days: {texts}")
    return ExitStatus.OK


def _to_json(run: PastRun, confirmed: Confirmed | None) -> JSON:
    """Return a run that has ended like the head of its results file, another one without counts."""
    entry: JSON = run._asdict()
    del entry["counts"]
    added = {} if confirmed is None else {"confirmed": confirmed._asdict()}
    return {**entry, **run.counts, **added}


def _runs(outbox: Outbox, path: Path) -> Sequence[PastRun]:
    """Return the past runs; one that is marked as running although it has ended was killed.

    A run holds the lock from before its first mark to after its last one. So where the lock is
    free, a run that was marked as running before and still is has been killed.
    """
    runs = outbox.history.runs()
    running = {run.run_id for run in runs if run.status == RUNNING}
    if not running:
        return runs
    with state_errors(path):
        if owner_of_lock(path) is not None:
            return runs
    return [
        run._replace(status=KILLED, reason=UNFINISHED)
        if run.status == RUNNING and run.run_id in running
        else run
        for run in outbox.history.runs()
    ]


def _read_ahead(path: Path) -> None:
    """Read the whole file, so that the operating system has it in memory; ignores errors.

    Opening checks the whole file for damage, page by page in the order of its tables. From a disk
    that takes 1 s for a million users, and 0.1 s from start to end.
    """
    with suppress(OSError):
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                while file.read(_READ_BYTES):
                    pass


def history_lines(
    runs: Sequence[PastRun], confirmed: Mapping[str, Confirmed] | None = None
) -> list[str]:
    """Format each run as one line; counts of zero are left out, except that of all rows."""
    lines = []
    for run in runs:
        seconds = run.counts.get("duration_seconds")
        counts = [
            f"{run.counts[name]:,} {name.replace('_', ' ')}"
            for name in PRINTED_COUNTS
            if run.counts.get(name) or (name == "total_users" and name in run.counts)
        ]
        if (found := (confirmed or {}).get(run.run_id)) is not None:
            counts.append(str(found))
        lines.append(
            f"{run.started_at[:19].replace('T', ' ')} UTC  {run.mode:<8}  {run.status:<23}"
            + ("" if seconds is None else f"  {seconds:,.1f} s  ")
            + ", ".join(counts)
            + (f"  ({run.reason})".replace("\n", " ") if run.reason else "")
        )
    return lines or ["No run yet."]
