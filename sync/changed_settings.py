"""What an operator is told before changed settings change what is sent. `%s` is a number."""

CHANGED_PROFILES = (
    "USER_FIELDS, SEND_NULLS or DB_TIMEZONE changed since the last run. Profiles that became "
    "different and are sent again: %s"
)
KEPT_EVENTS = (
    "EVENT_FIELDS or DB_TIMEZONE changed since the last run. Delivered events are not sent again "
    "for that, except with --full-refresh. Events that are different now: %s"
)
