"""What a run logs between reading and sending: how many rows it sends, and what is unusual."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from config.fields import DEFAULT_EVENT_NAME
from config.identity import IdentifyBy
from config.settings import Settings
from reporting.formatting import counted
from state.outbox import FillSummary
from sync.changed_settings import changed_profiles_text, kept_events_text, renamed_events_text

BARE_USERS = (
    "SEND=events with IDENTIFY_BY=userid sends events to all ids: for one that Iterable does not "
    "know it creates a user without a profile. SEND=profiles,events makes the profile first."
)


def creates_bare_users(settings: Settings) -> bool:
    """Return whether an event may create a user who has nothing but a userId."""
    return settings.identify_by is IdentifyBy.USER_ID and not settings.sends_profiles


def no_rows_text(settings: Settings) -> str:
    """Return what to look at where the query returns nothing."""
    name = settings.query_file.name
    if not settings.sends_events:
        return f"The query returned nothing: check the filter in {name}."
    what = "the plan and the pages"
    if settings.event_name != DEFAULT_EVENT_NAME:
        what = "the filter"
    return (
        f"The query returned nothing for the last {settings.engagement_window_days:g} days: check "
        f"{what} in {name}, and ENGAGEMENT_WINDOW_DAYS."
    )


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
        f"{counted(rows_read, 'row')} read, {chosen}{filled.to_send:,} to send"
        f" ({mode}, {name}run {run_id})",
    )
    if not filled.total:
        yield logging.WARNING, no_rows_text(settings)
    if filled.to_send and creates_bare_users(settings):
        yield logging.WARNING, BARE_USERS
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
