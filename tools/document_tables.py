"""Generator of `.env.example` and of the tables in `docs/`: `python -m tools.document_tables`.

A table stands between `<!-- table: NAME -->` and `<!-- end of table -->`. The settings come from
`config/settings.py`; the meanings of the fields of the results file are written below.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path

from config.settings import SETTINGS, Setting
from records.outcomes import CallResult, Outcome, Verdict, row_entry
from reporting.summary import HEAD_KEYS

PROJECT_FOLDER = Path(__file__).resolve().parent.parent
ENV_EXAMPLE = PROJECT_FOLDER / ".env.example"
DOCUMENTS = (PROJECT_FOLDER / "docs/settings.md", PROJECT_FOLDER / "docs/results-file.md")

_BY_OUTCOME = "rows with this outcome, see below"
HEAD: Mapping[str, str] = {
    "schema_version": "version of this format, 1",
    "run_id": "start time and a random part; the log names it, too",
    "status": "`completed`, `completed_with_failures`, `interrupted` or `aborted`",
    "reason": "why the run was interrupted or aborted, else null",
    "dry_run": "true if nothing was sent on purpose",
    "mode": "`per-user` or `bulk`",
    "started_at": "ISO 8601 in UTC",
    "finished_at": "ISO 8601 in UTC",
    "total_users": "rows that the query returned",
    "successful": _BY_OUTCOME,
    "partial_failures": _BY_OUTCOME,
    "total_failures": _BY_OUTCOME,
    "unchanged": _BY_OUTCOME,
    "invalid": _BY_OUTCOME,
    "duplicates": _BY_OUTCOME,
    "not_attempted": _BY_OUTCOME,
    "api_calls": "attempts made, retries included",
    "retries": "how many of them were repeated attempts",
    "duration_seconds": "of the whole run",
    "users_per_second": "users for whom something was sent, divided by the time of sending",
    "sync": "`SYNC_NAME`, or null",
    "failures": "failed and invalid rows: `new` ones, `known` ones that failed in the same way "
    "when they were last tried, and `resolved` ones that failed before and no longer do",
    "records": "one entry for each row",
}
# Only with a setting.
ADDED_TO_HEAD: Mapping[str, str] = {
    "email_changes": "with `EMAIL_CHANGES=move`: users whose address changed: `moved`, "
    "`already_there` (Iterable has another user with the new address) and `failed`",
    "leavers": "with `ON_LEAVE=clear`: users who left the query's result: `found`, `cleared`, "
    "`gone` (not in Iterable), `failed` and `held_back`",
    "verified": "with `VERIFY_SAMPLE`: users of the last run that were read back: `asked`, "
    "`as_sent`, `different`, `missing`, `pending` (delivered less than ten minutes ago) and "
    "`unanswered`",
    "dropped_fields": "fields that Iterable does not have and dropped, of `profiles` and of "
    "`events`, null where it does not say; there where something was dropped, or "
    "`CREATE_NEW_FIELDS` is true or false",
    "left": "with `ON_LEAVE=clear`: one entry for each of them but those held back: `user_id`, "
    "`identifier` (e-mail or userId), `timestamp`, `outcome`, `reason`, `users_update`",
}
OUTCOMES: Mapping[Outcome, str] = {
    Outcome.SUCCESSFUL: "profile and event are in Iterable, at least one of them since this run",
    Outcome.PARTIAL_FAILURE: "one of profile and event is in Iterable, the other is not",
    Outcome.TOTAL_FAILURE: "none of its requests is in place in Iterable",
    Outcome.UNCHANGED: "everything was delivered before with the same content; no call was made",
    Outcome.INVALID: "the row cannot be sent, for the given reason; no call was made",
    Outcome.DUPLICATE: "another row has the same e-mail address (with `IDENTIFY_BY=userid` the "
    "same user id) and a later event",
    Outcome.NOT_ATTEMPTED: "the run ended before this row, or while Iterable did not answer, or it "
    "was a dry run, or [a changed address](users-over-time.md) has to be settled first",
}
RECORD: Mapping[str, str] = {
    "user_id": "the column `id`, or the one that `USER_ID_COLUMN` names",
    "email": "null if the row has none",
    "timestamp": "when the row was settled, ISO 8601 in UTC",
    "outcome": "see above",
    "overall_success": "true for `successful` and `unchanged`",
    "reason": "why the row is invalid, a duplicate or not attempted, or why no event was sent",
    "first_failed_at": "since when it has failed for the same reason, ISO 8601 in UTC; null if it "
    "did not fail",
    "runs_failed": "in how many runs since then, this one included; null if it did not fail",
    "users_update": "the profile request, or null",
    "events_track": "the event request, or null",
}
ADDED_TO_RECORD: Mapping[str, str] = {
    "email_change": "with `EMAIL_CHANGES=move`, null where the address is the same: the former "
    "address (`from`), the `outcome` (`moved`, `already_there`, `not_in_iterable`, `failed`), "
    "Iterable's `code` and `http_status`",
}
REQUEST: Mapping[str, str] = {
    "success": "true if the verdict is `delivered`",
    "verdict": "`delivered`, `rejected`, `unavailable` or `refused`: "
    "[responses and verdicts](responses-and-verdicts.md)",
    "http_status": "of the last attempt, null if there was no response",
    "attempts": "how often it was tried in this run; 0 if Iterable rejected the same content "
    "before, and it was not sent again (`response` then has the `code` only)",
    "request_id": "`Iterable-Request-Id` of the last response, for Iterable's support; null if "
    "there was none",
    "response": "Iterable's `code`, `msg` and `params`; in bulk mode what the response said of "
    "this row",
}


ENV_EXAMPLE_HEAD = """\
# Settings of the sync. Copy this file to .env beside main.py, put your own values into the first
# five settings, and try them with: .venv/bin/python main.py --check
# The others show their defaults. Real environment variables win over this file. Relative paths
# start at the project folder. Put quotes around a value with spaces, # or quotes: 'like #this'.
# A password or key can be in a file: set NAME_FILE instead, as in DB_PASSWORD_FILE=/run/secrets/db
"""


def env_example() -> str:
    """Return the content of `.env.example`."""
    lines = [ENV_EXAMPLE_HEAD]
    for group, settings in _settings_by_group():
        lines.append(f"\n# --- {group} ---\n")
        for setting in settings:
            value = _placeholder(setting.name) if setting.default is None else setting.default
            lines.append(f"# {setting.help}\n{setting.name}={value}\n")
    return "".join(lines)


def _placeholder(name: str) -> str:
    return f"your_{name.lower().replace('db_', 'database_')}_here"


def settings_table() -> str:
    """Return one table for each group of settings."""
    tables = []
    for group, settings in _settings_by_group():
        rows = [
            (
                _code(setting.name),
                "required" if setting.default is None else _code(setting.default),
                setting.help.replace("|", r"\|"),
            )
            for setting in settings
        ]
        tables.append(f"### {group}\n\n{_table(('setting', 'default', 'meaning'), rows)}")
    return "\n".join(tables)


def _settings_by_group() -> Iterator[tuple[str, Iterator[Setting]]]:
    return groupby(SETTINGS, key=lambda setting: setting.group)


def head_table() -> str:
    """Return the table of the results file's head."""
    names = [*HEAD_KEYS, *ADDED_TO_HEAD, "records"]
    return _table(("field", "meaning"), _explained(names, {**HEAD, **ADDED_TO_HEAD}))


def outcomes_table() -> str:
    """Return the table of outcomes."""
    rows = [(_code(outcome.value), OUTCOMES[outcome]) for outcome in Outcome]
    return _table(("outcome", "meaning"), rows)


def record_table() -> str:
    """Return the table of an entry of `records`."""
    names = row_entry(None, None, Outcome.UNCHANGED)
    meanings = {**RECORD, **ADDED_TO_RECORD}
    return _table(
        ("field of a record", "meaning"), _explained([*names, *ADDED_TO_RECORD], meanings)
    )


def request_table() -> str:
    """Return the table of a request in a record."""
    names = CallResult(Verdict.DELIVERED, 200, "Success", "").to_json()
    return _table(("field of a request", "meaning"), _explained(names, REQUEST))


TABLES: Mapping[str, Callable[[], str]] = {
    "settings": settings_table,
    "head": head_table,
    "outcomes": outcomes_table,
    "record": record_table,
    "request": request_table,
}


def with_tables(text: str) -> str:
    """Return the text of a document with its tables made anew."""
    return re.sub(
        r"(<!-- table: (\w+) -->\n).*?(<!-- end of table -->)",
        lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n{found[3]}",
        text,
        flags=re.DOTALL,
    )


def _explained(names: Iterable[str], meanings: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Pair each name with its meaning; raises KeyError for a name that has none."""
    return [(_code(name), meanings[name]) for name in names]


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [" | ".join(cells).rstrip() for cells in (head, *rows)]
    lines.insert(1, "|".join("---" for _ in head))
    marked = [f"| {line} |" for line in lines]
    marked[1] = f"|{lines[1]}|"
    return "\n".join(marked) + "\n"


def main() -> int:
    """Rewrite `.env.example` and the documents that have tables."""
    ENV_EXAMPLE.write_text(env_example(), "utf-8")
    for path in DOCUMENTS:
        path.write_text(with_tables(path.read_text("utf-8")), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
