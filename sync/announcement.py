"""What a run logs between reading and sending: how many rows it sends, and what is unusual."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from config.settings import Settings
from reporting.formatting import counted
from state.outbox import FillSummary
from sync.changed_settings import changed_profiles_text, kept_events_text, renamed_events_text


def announcements(
    settings: Settings,
    filled: FillSummary,
    run_id: str,
    *,
    is_dry_run: bool,
    changed_emails: int = 0,
) -> Iterator[tuple[int, str]]:
    """Yield the level and the text of each line.

    `changed_emails` is the number of users who have another address than in an earlier run.
    """
    mode = "dry run" if is_dry_run else f"{settings.sync_mode} mode"
    name = f"{settings.sync_name}, " if settings.sync_name else ""
    rows_read = filled.rows_read or filled.total
    chosen = f"{filled.total:,} chosen (--only), " if rows_read > filled.total else ""
    yield (
        logging.INFO,
        f"{rows_read:,} rows read, {chosen}{filled.to_send:,} to send ({mode}, {name}run {run_id})",
    )
    if not filled.total and not settings.sends_events:
        yield (
            logging.WARNING,
            f"The query returned nothing: check the filter in {settings.query_file.name}.",
        )
    elif not filled.total:
        yield (
            logging.WARNING,
            f"The query returned nothing for the last {settings.engagement_window_days:g} days: "
            f"check the plan and the pages in {settings.query_file.name}, and "
            "ENGAGEMENT_WINDOW_DAYS.",
        )
    if changed_emails:
        yield (
            logging.WARNING,
            f"{counted(changed_emails, 'user')} with another e-mail address than before: each "
            "becomes a second user in Iterable, and the former one stays. EMAIL_CHANGES=move would "
            "give the former one the new address.",
        )
    if filled.changed_by_settings:
        yield logging.WARNING, changed_profiles_text(filled)
    if filled.kept_events:
        yield logging.INFO, kept_events_text(filled)
    if filled.renamed_events:
        yield logging.WARNING, renamed_events_text(filled)
    if filled.held_back:
        yield (
            logging.INFO,
            "Rows that are not sent again, because Iterable rejected the same content less than "
            f"{settings.rejected_retry_hours} hours ago (REJECTED_RETRY_HOURS): "
            f"{filled.held_back:,}",
        )
    if filled.in_the_future:
        yield (
            logging.WARNING,
            f"{filled.in_the_future:,} events lie in the future: is "
            f"DB_TIMEZONE={settings.db_timezone} right?",
        )
