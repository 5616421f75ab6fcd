"""The page that a run's report is: what the numbers are called and where they stand.

Owns the words and the sections; every text from outside passes `shown`. Knows neither files nor
how anything was measured. The page is well-formed XML too, which a test reads it as.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from html import escape
from pathlib import Path

from config.settings import Settings
from records.outcomes import COUNT_NAMES, Failure, Outcome
from reporting import charts as report_charts
from reporting.formatting import (
    Shown,
    about,
    as_set,
    length,
    moment,
    percent_of,
    shown_without_secrets_of,
)
from reporting.measurements import Measurements, percentile_seconds
from reporting.summary import RunSummary

_LEAST_SECONDS = 2.0  # of sending, for its rate to say anything
MAX_SHOWN_FAILURES = 50  # reasons that are shown; the page does not grow with the rows

# Nothing is loaded and nothing runs, whatever finds its way into the page.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"
_STYLE = Path(__file__).with_name("report.css")

_STATUS = {
    "completed": ("good", "✓ completed"),
    "completed_with_failures": ("warn", "! completed with failures"),
    "interrupted": ("warn", "‖ interrupted"),
    "aborted": ("bad", "✕ aborted"),
}
_OUTCOMES = {
    Outcome.SUCCESSFUL: "every call that was needed was delivered",
    Outcome.UNCHANGED: "in place since an earlier run, no call needed",
    Outcome.PARTIAL_FAILURE: "one of profile and event is in place, the other is not",
    Outcome.TOTAL_FAILURE: "neither profile nor event is in place",
    Outcome.INVALID: "the row cannot be sent as it is",
    Outcome.DUPLICATE: "the same e-mail as another row, whose event is later",
    Outcome.NOT_ATTEMPTED: "left for the next run",
}
_VERDICTS = {
    "rejected": "Iterable will not take it as it is: correct the value.",
    "unavailable": "No good answer after all attempts: the next run tries again.",
    "refused": "Nothing was accepted: the key, the data centre or the URL is wrong.",
    "invalid": "Never sent: correct the row in the database.",
}
_FORGOTTEN = "Deleted at the person's wish: Iterable takes nothing more for this address."
_ADDRESS = "Not an address for Iterable: correct it in the database."
_CODES = {  # where there is more to say than the verdict does
    "ForgottenUserError": _FORGOTTEN,
    "failedUpdates.forgottenEmails": _FORGOTTEN,
    "InvalidEmailAddressError": _ADDRESS,
    "failedUpdates.invalidEmails": _ADDRESS,
    "RequestFieldsTypesMismatched": "A value of another type than the project's field has: "
    "correct the mapping or the value.",
}


def page(
    summary: RunSummary,
    failures: Sequence[Failure],
    measured: Measurements,
    settings: Settings,
    results_name: str,
) -> str:
    """Return the whole page. `results_name` is the file with every row."""
    shown = shown_without_secrets_of(settings)
    kind, badge = _STATUS[summary.status]
    began = moment(summary.started_at)
    head = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        '<meta name="robots" content="noindex"/>\n<link rel="icon" href="data:,"/>\n'
        f"<title>{shown(badge[2:].capitalize())} - {began}</title>\n"
        f"<style>\n{_STYLE.read_text('utf-8')}</style>\n</head>\n"
    )
    body = "\n".join(
        [
            *_header(summary, kind, badge, shown),
            *_tiles(summary, measured),
            *_outcomes(summary),
            *_failures(failures, results_name, shown),
            *_throughput(measured),
            *_latencies(measured),
            *_settings(settings, shown),
        ]
    )
    return (
        f"{head}<body>\n<main>\n{body}\n</main>\n<footer>\n<p>Every row with its answers stands "
        f"in <code>{shown(results_name)}</code>, in the folder of this page. This page holds user "
        "ids but no e-mail addresses, no key and no password, and loads nothing from anywhere."
        "</p>\n</footer>\n</body>\n</html>\n"
    )


def _header(summary: RunSummary, kind: str, badge: str, shown: Shown) -> Iterator[str]:
    in_place = f"{summary.counts[Outcome.SUCCESSFUL] + summary.counts[Outcome.UNCHANGED]:,}"
    if not summary.total_users:
        gist = "No row was read" if summary.reason else "The query returned no rows"
    elif summary.dry_run:
        to_send = summary.counts[Outcome.NOT_ATTEMPTED]
        gist = f"Dry run: {to_send:,} of {summary.total_users:,} users to be sent"
    else:
        gist = f"{in_place} of {summary.total_users:,} users are in place in Iterable"
    yield f'<header>\n<p><span class="badge {kind}">{badge}</span></p>\n<h1>{gist}</h1>'
    if summary.reason:
        yield f'<p class="reason {kind}">{shown(summary.reason)}</p>'
    yield (
        f'<p class="soft">{moment(summary.started_at)} to {moment(summary.finished_at)}, '
        f"{shown(summary.mode)} mode, run <code>{shown(summary.run_id)}</code></p>\n</header>"
    )


def _tiles(summary: RunSummary, measured: Measurements) -> Iterator[str]:
    per_second = summary.users_per_second
    calls = max(summary.api_calls, 1)
    tiles = [
        ("Duration", length(summary.duration_seconds), "from start to end"),
        ("Users a second", f"{per_second:,.1f}", "reading and reporting included"),
        ("API calls", f"{summary.api_calls:,}", "retries included"),
        ("Retries", f"{summary.retries:,}", f"{percent_of(summary.retries / calls)} of the calls"),
    ]
    rows = sum(sample.rows for sample in measured.samples)
    seconds = sum(sample.seconds for sample in measured.samples)
    if seconds >= _LEAST_SECONDS:
        share = rows / seconds / measured.ceiling_rows_per_second
        tiles.insert(
            2,
            (
                "Share of the limit",
                percent_of(share),
                f"{rows / seconds:,.0f} of {measured.ceiling_rows_per_second:,g} a second "
                "while sending",
            ),
        )
    drawn = "".join(
        f"<div><dt>{name}</dt><dd>{value}</dd><dd>{note}</dd></div>\n"
        for name, value, note in tiles
    )
    yield f'<dl class="tiles">\n{drawn}</dl>'


def _outcomes(summary: RunSummary) -> Iterator[str]:
    counts = {COUNT_NAMES[outcome]: summary.counts[outcome] for outcome in _OUTCOMES}
    total = max(summary.total_users, 1)
    yield '<section class="card" aria-labelledby="users">\n<h2 id="users">Users</h2>'
    yield report_charts.shares(counts, "Users by what became of them")
    yield (
        '<table class="outcomes">\n<caption>What became of the rows of the query</caption>\n'
        '<thead><tr><th scope="col">Outcome</th><th scope="col" class="number">Users</th>'
        '<th scope="col" class="number">Share</th><th scope="col" class="wide">Meaning</th>'
        "</tr></thead>\n<tbody>"
    )
    for outcome, meaning in _OUTCOMES.items():
        name, count = COUNT_NAMES[outcome], summary.counts[outcome]
        yield (
            f'<tr{"" if count else _NONE}><th scope="row">'
            f'<svg class="swatch" aria-hidden="true"><rect class="{name}" width="100%" '
            f'height="100%"/></svg>{name.replace("_", " ")}</th>'
            f'<td class="number">{count:,}</td><td class="number">{percent_of(count / total)}</td>'
            f'<td class="wide small">{meaning}</td></tr>'
        )
    yield (
        f'</tbody>\n<tfoot><tr><th scope="row">all</th><td class="number">'
        f'{summary.total_users:,}</td><td></td><td class="wide"></td></tr></tfoot>\n'
        "</table>\n</section>"
    )


_NONE = ' class="none"'


def _failures(failures: Sequence[Failure], results_name: str, shown: Shown) -> Iterator[str]:
    yield '<section class="card long" aria-labelledby="failures">\n<h2 id="failures">Failures</h2>'
    if not failures:
        yield "<p>None.</p>\n</section>"
        return
    most = max(failure.rows for failure in failures)
    yield (
        '<table class="failures stack">\n<caption>By reason, the commonest first. A user whose '
        "profile and event both failed is counted at each.</caption>\n<thead><tr>"
        '<th scope="col">Reason</th><th scope="col">Where</th><th scope="col">What it means</th>'
        '<th scope="col">Users</th><th scope="col">Example</th></tr></thead>\n<tbody>'
    )
    for failure in failures[:MAX_SHOWN_FAILURES]:
        where = "the row itself" if failure.endpoint == "row" else failure.endpoint
        example = failure.example_user_id
        user = "no id" if example is None else f"user {shown(example)}"
        yield (
            f'<tr><th scope="row"><strong>{shown(failure.code or failure.verdict)}</strong></th>'
            f'<td class="name">{shown(where)}</td>'
            f'<td class="small">{_meaning(failure, shown)}</td>'
            f'<td class="share-of" data-name="users:">{failure.rows:,}'
            f"{report_charts.meter(failure.rows / most)}</td>"
            f'<td class="example" data-name="for example">{user}</td></tr>'
        )
    yield "</tbody>\n</table>"
    rest = failures[MAX_SHOWN_FAILURES:]
    if rest:
        yield (
            f"<p>And {len(rest):,} rarer reasons with "
            f"{sum(failure.rows for failure in rest):,} users.</p>"
        )
    yield (
        '<p class="soft">All of them: <code>records[]</code> of '
        f"<code>{shown(results_name)}</code>, where <code>overall_success</code> is false.</p>\n"
        "</section>"
    )


def _meaning(failure: Failure, shown: Shown) -> str:
    known = _CODES.get(failure.code or "") or _VERDICTS.get(failure.verdict)
    return known or shown(failure.verdict)


def _throughput(measured: Measurements) -> Iterator[str]:
    yield '<section class="card" aria-labelledby="speed">\n<h2 id="speed">Throughput</h2>'
    if not measured.samples:
        yield "<p>Nothing was sent.</p>\n</section>"
        return
    last = measured.samples[-1]
    seconds = last.starts_at_seconds + last.seconds
    if seconds < _LEAST_SECONDS:
        yield f"<p>All was sent in {length(seconds)}, too short a time for a rate.</p>\n</section>"
        return
    most_retries = max(sample.retries / sample.seconds for sample in measured.samples)
    yield (
        '<figure>\n<figcaption class="small"><span class="key"><svg aria-hidden="true">'
        '<rect class="bars" width="100%" height="100%"/></svg>users a second</span>'
        '<span class="key"><svg aria-hidden="true"><line class="limit" x1="0" x2="100%" '
        'y1="50%" y2="50%"/></svg>the limit of the settings, '
        f"{measured.ceiling_rows_per_second:,g}</span>"
    )
    if most_retries:
        yield (
            '<span class="key strip"><svg aria-hidden="true"><rect class="bars" width="100%" '
            f'height="100%"/></svg>retries, at most {most_retries:,.1f} a second</span>'
        )
    yield "</figcaption>"
    yield report_charts.throughput(measured)
    yield (
        '</figure>\n<details>\n<summary>The figures</summary>\n<div class="scroll" tabindex="0">'
        "<table>\n<caption>Throughput, from the first call on</caption>\n<thead><tr>"
        '<th scope="col">From second</th><th scope="col" class="number">Users</th>'
        '<th scope="col" class="number">Users/s</th><th scope="col" class="number">Retries</th>'
        "</tr></thead>\n<tbody>"
    )
    for sample in measured.samples:
        yield (
            f'<tr><th scope="row">{sample.starts_at_seconds:,g}</th><td class="number">'
            f'{sample.rows:,.0f}</td><td class="number">{sample.rows_per_second:,.1f}</td>'
            f'<td class="number">{sample.retries:,.0f}</td></tr>'
        )
    yield "</tbody>\n</table></div>\n</details>\n</section>"


def _latencies(measured: Measurements) -> Iterator[str]:
    if not measured.latencies:
        return
    named = ((0.5, "half"), (0.9, "90 %"), (0.99, "99 %"))
    within = ", ".join(
        f"{name} within <strong>{about(percentile_seconds(measured, share))}</strong>"
        for share, name in named
    )
    yield (
        '<section class="card" aria-labelledby="waits">\n<h2 id="waits">How long calls took</h2>\n'
        f"<p>{within}; the slowest {length(measured.slowest_seconds)}.</p>\n"
        '<figure>\n<figcaption class="small">Calls by the time from their turn to their last '
        "answer: retries, and the waits before them, are part of it.</figcaption>"
    )
    yield report_charts.latencies(measured.latencies, measured.slowest_seconds)
    yield "</figure>\n</section>"


def _settings(settings: Settings, shown: Shown) -> Iterator[str]:
    yield (
        '<section class="card long" aria-labelledby="settings">\n<h2 id="settings">Settings</h2>\n'
        '<table class="settings stack">\n<caption>As they were in this run; secrets are left out'
        '</caption>\n<thead><tr><th scope="col">Name</th><th scope="col">Value</th></tr></thead>\n'
        "<tbody>"
    )
    for field in fields(settings):
        if field.repr:
            yield (
                f'<tr><th scope="row" class="name">{field.name.upper()}</th>'
                f'<td class="name">{shown(as_set(getattr(settings, field.name)))}</td></tr>'
            )
    yield "</tbody>\n</table>\n</section>"
