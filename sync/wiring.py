"""What the settings say, as the objects that act on it.

Owns which setting goes into which argument. Opens nothing and sends nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from config.settings import Settings
from db_connection import DatabaseConnection
from errors import ConfigError
from records.mapping import RowMapping


def to_database(settings: Settings) -> DatabaseConnection:
    """Return the connection to the source, not open yet."""
    return DatabaseConnection(
        settings.db_host,
        settings.db_user,
        settings.db_password,
        settings.db_name,
        port=settings.db_port,
        unix_socket=settings.db_unix_socket or None,
        ssl_ca=settings.db_ssl_ca or None,
        time_zone=str(settings.db_timezone),
        window_days=settings.engagement_window_days,
        query_file=settings.query_file,
    )


def to_mapping(settings: Settings, columns: Sequence[str]) -> RowMapping:
    """Return the mapping of a result with these columns; raises ConfigError where some lack."""
    mapping = RowMapping(
        columns,
        user_fields=settings.user_fields,
        event_fields=settings.event_fields,
        zone=settings.db_timezone,
        send_nulls=settings.send_nulls,
    )
    if mapping.missing_columns:
        names = ", ".join(map(repr, mapping.missing_columns))
        raise ConfigError(
            [
                f"{settings.query_file} returns no column {names}: add it to the query, or take it "
                "out of USER_FIELDS and EVENT_FIELDS"
            ]
        )
    return mapping
