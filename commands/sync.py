"""The sync: one run, its printed summary, health check and metrics file."""

from __future__ import annotations

import sys
from functools import partial

from commands.colour import SUMMARY_COLOURS
from commands.console import print_json, print_line, print_payload
from commands.news import RunNews
from commands.prepare import allow_open_files, tune_garbage_collection
from config.settings import Settings
from errors import ExitStatus, SyncError
from logger_config import redact
from reporting.healthcheck import Healthcheck
from reporting.metrics import write_metrics
from sync.run import Options, RunReport, SyncRun
from sync.signals import Interrupted, StopSignal, stop_signals


def run_sync(
    settings: Settings, options: Options, *, quiet: bool = False, as_json: bool = False
) -> ExitStatus:
    """Run one sync and print its summary, with `quiet` its news; return OK or SOME_FAILED.

    Raises what ended the run early, after it is reported: a SyncError or Interrupted. `as_json`
    prints the head of the results file on standard output, and the summary on standard error.
    """
    out = sys.stderr if as_json else sys.stdout
    health = Healthcheck(
        "" if options.dry_run else settings.healthcheck_url, sync=settings.sync_name
    )
    allow_open_files()
    tune_garbage_collection()
    with RunNews(settings, options, prints=quiet) as news:
        with stop_signals() as stop:
            health.started()
            try:
                run = SyncRun(settings, options, stop, show_payload=partial(print_payload, out))
                report = run.execute()
            except Interrupted:
                health.failed("interrupted before anything was sent", is_hurried=True)
                raise
            except Exception as error:
                health.failed(redact(str(error)))
                raise
            if settings.metrics_file is not None:
                write_metrics(settings.metrics_file, report.summary)
        news.report = report
        if not quiet:
            for line in report.lines():
                print_line(line, out, colours=SUMMARY_COLOURS)
        if as_json:
            print_json(report.summary.to_text())
        _ping(health, report, stop)
        return status_of_run(report, stop)


def _ping(health: Healthcheck, report: RunReport, stop: StopSignal) -> None:
    # The summary alone does not say why a run ended early: that is printed on standard error.
    reason = [report.summary.reason] if report.summary.reason else []
    if isinstance(report.error, SyncError):
        reason = report.error.lines
    lines = [*reason, "", *report.lines()] if reason else report.lines()
    summary = "\n".join(map(redact, lines))
    if report.summary.status.startswith("completed"):  # with or without failed rows
        health.succeeded(summary)
    else:
        health.failed(summary, is_hurried=stop.number is not None)


def status_of_run(report: RunReport, stop: StopSignal) -> ExitStatus:
    """Return OK or SOME_FAILED; raises what ended the run early."""
    if report.error is not None:
        raise report.error
    if stop.number is not None:
        raise Interrupted(stop.number, f"Stopped by {stop.name}. Run again to continue.")
    return ExitStatus.OK if report.summary.status == "completed" else ExitStatus.SOME_FAILED
