"""HTML report of a run: one self-contained page beside the results file.

`report.html.j2` is the page; every text is escaped by jinja2 and passes `safe_text`. The page is
also well-formed XML.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from config.settings import Settings
from logger_config import FILE_ONLY
from records.outcomes import COUNT_NAMES, Outcome
from records.rows import Failure
from reporting import charts
from reporting.atomic_file import replace_file
from reporting.formatting import (
    duration,
    percentage,
    rounded_duration,
    safe_text,
    setting_text,
    utc_time,
)
from reporting.measurements import Measurements, percentile_seconds
from reporting.summary import RunSummary

logger = logging.getLogger(__name__)

MAX_SHOWN_FAILURES = 50  # reasons; the page does not grow with the rows
_MIN_RATE_SECONDS = 2.0  # of sending; a shorter time gives no meaningful rate

_STATUS: Mapping[str, tuple[str, str]] = {  # CSS class and text of the badge
    "completed": ("good", "✓ completed"),
    "completed_with_failures": ("warn", "! completed with failures"),
    "interrupted": ("warn", "‖ interrupted"),
    "aborted": ("bad", "✕ aborted"),
}
_OUTCOMES: Mapping[Outcome, str] = {
    Outcome.SUCCESSFUL: "every request it needed was delivered",
    Outcome.UNCHANGED: "delivered by an earlier run, no request needed",
    Outcome.PARTIAL_FAILURE: "one of its two requests is in place in Iterable, the other is not",
    Outcome.TOTAL_FAILURE: "nothing that it needs is in place in Iterable",
    Outcome.INVALID: "the row cannot be sent as it is",
    Outcome.DUPLICATE: "same user as another row, which is used instead",
    Outcome.NOT_ATTEMPTED: "left for the next run",
}
_VERDICTS = {
    "rejected": "Iterable does not accept this row: correct the value.",
    "unavailable": "No usable response after all attempts: the next run retries it.",
    "refused": "Iterable refused everything: the key, the data centre or the URL is wrong.",
    "invalid": "Never sent: correct the row in the database.",
}
_FORGOTTEN = "Deleted at the user's request (GDPR): Iterable accepts nothing for this user."
_BAD_ADDRESS = "Iterable does not accept this e-mail address: correct it in the database."
_BAD_USER_ID = "Iterable does not accept this user id: correct it in the database."
_CONFLICT = "Another user in Iterable has this e-mail or user id: find out which row is right."
_CODES = {  # more specific than the verdict
    "ForgottenUserError": _FORGOTTEN,
    "failedUpdates.forgottenEmails": _FORGOTTEN,
    "InvalidEmailAddressError": _BAD_ADDRESS,
    "failedUpdates.invalidEmails": _BAD_ADDRESS,
    "failedUpdates.forgottenUserIds": _FORGOTTEN,
    "InvalidUserIdError": _BAD_USER_ID,
    "failedUpdates.invalidUserIds": _BAD_USER_ID,
    **dict.fromkeys(
        (
            *("EmailAlreadyExists", "UserIdAlreadyExists", "ExternalKeyConflict", "Conflict"),
            *("failedUpdates.conflictEmails", "failedUpdates.conflictUserIds"),
        ),
        _CONFLICT,
    ),
    "RequestFieldsTypesMismatched": "The value's type differs from the type of the project's "
    "field: correct the mapping or the value.",
}


def write_report(
    path: Path,
    summary: RunSummary,
    failures: Sequence[Failure],
    measured: Measurements,
    settings: Settings,
    notes: Sequence[str] = (),
) -> bool:
    """Write the page, mode 0600, and return whether that worked.

    `path` is the results file's with the suffix `.html`. Never raises: the results file has
    everything that the page shows, so a failure is only logged.
    """
    try:
        results_name = path.with_suffix(".json").name
        page = to_page(summary, failures, measured, settings, results_name, notes)
        with replace_file(path) as file:
            file.write(page.encode())
    except Exception as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        if isinstance(error, ModuleNotFoundError):
            reason = f"{error.name} is not installed; run pip install -r requirements.txt"
        logger.warning("The report %s cannot be written: %s", path, reason)
        logger.debug("Traceback of the report", exc_info=error, extra=FILE_ONLY)
        return False
    return True


def to_page(
    summary: RunSummary,
    failures: Sequence[Failure],
    measured: Measurements,
    settings: Settings,
    results_name: str,
    notes: Sequence[str] = (),
) -> str:
    """Return the page.

    `notes` say what else happened; `failures` are sorted, the most frequent first.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_to_text,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "duration": duration,
        "number": "{:,}".format,
        "percentage": percentage,
        "rounded_duration": rounded_duration,
        "utc_time": utc_time,
        "whole": "{:,.0f}".format,
        "with_decimal": "{:,.1f}".format,
    }
    status_class, badge = _STATUS[summary.status]
    return environment.get_template("report.html.j2").render(
        summary=summary,
        results_name=results_name,
        notes=notes,
        status_class=status_class,
        badge=badge,
        up_to_date=summary.counts[Outcome.SUCCESSFUL] + summary.counts[Outcome.UNCHANGED],
        to_send=summary.counts[Outcome.NOT_ATTEMPTED],
        outcomes=[
            (COUNT_NAMES[outcome], summary.counts[outcome], meaning)
            for outcome, meaning in _OUTCOMES.items()
        ],
        failures=[(failure, _meaning(failure)) for failure in failures[:MAX_SHOWN_FAILURES]],
        other_failures=failures[MAX_SHOWN_FAILURES:],
        settings=[
            (field.name.upper(), setting_text(getattr(settings, field.name)))
            for field in fields(settings)
            if field.repr
        ],
        charts=charts,
        **_sending(measured),
    )


def _sending(measured: Measurements) -> dict[str, Any]:
    """Return what the template needs of the measurements."""
    samples = measured.samples
    seconds = sum(sample.seconds for sample in samples)
    return {
        "measured": measured,
        "sending_seconds": seconds,
        "has_rate": seconds >= _MIN_RATE_SECONDS,
        "rows_per_second": sum(sample.rows for sample in samples) / seconds if seconds else 0.0,
        "most_retries": max((each.retries / each.seconds for each in samples), default=0.0),
        "percentiles": [
            (percent, percentile_seconds(measured, percent / 100)) for percent in (50, 90, 99)
        ],
    }


def _meaning(failure: Failure) -> str:
    return _CODES.get(failure.code or "") or _VERDICTS.get(failure.verdict) or failure.verdict


def _to_text(value: object) -> object:
    """Make every value that the template prints safe, but leave markup as it is."""
    return value if hasattr(value, "__html__") else safe_text(value)
