"""Which column goes into which field of Iterable's: `USER_FIELDS` and `EVENT_FIELDS`.

Owns the little language of those two settings, their defaults, and the names that Iterable
keeps for itself. Knows no rows.
"""

from __future__ import annotations

from typing import NamedTuple

DEFAULT_USER_FIELDS = "first_name,last_name,plan_type,candidate"
DEFAULT_EVENT_FIELDS = "page,browser=device,location,candidate"

# Profile fields that Iterable keeps itself (support.iterable.com, "User profile fields used by
# Iterable"), and those that this program sets.
RESERVED_USER_FIELDS = frozenset(
    {
        *("email", "userId", "emailListIds", "itblInternal", "itblDS", "itblUserId", "devices"),
        *("profileUpdatedAt", "signupDate", "signupSource", "phoneNumberDetails"),
        *("subscribedMessageTypeIds", "unsubscribedMessageTypeIds", "unsubscribedChannelIds"),
        "recent_page_view",
    }
)
RESERVED_EVENT_FIELDS = frozenset(
    {"email", "userId", "eventName", "createdAt", "itblInternal", "timestamp"}
)


class Field(NamedTuple):
    """One entry of `USER_FIELDS` or `EVENT_FIELDS`: `target=column:cast`."""

    target: str
    column: str
    cast: str = ""  # "", "bool" or "json"


def parse_fields(text: str, reserved: frozenset[str]) -> tuple[Field, ...]:
    """Read `name,target=column,target=column:bool`.

    Raises ValueError with every problem, one a line.
    """
    fields: list[Field] = []
    problems: list[str] = []
    for entry in (part.strip() for part in text.split(",")):
        if not entry:
            continue
        target, has_column, column = (part.strip() for part in entry.partition("="))
        column, _, cast = (
            part.strip() for part in (column if has_column else target).partition(":")
        )
        if not has_column:
            target = column
        if not target or not column or "." in target:
            problems.append(f"{entry!r} is not field=column (a field's name holds no dot)")
        elif cast not in ("", "bool", "json"):
            problems.append(f"{entry!r}: ':{cast}' is unknown, use :bool or :json")
        elif target in reserved:
            problems.append(f"field {target!r} is set by Iterable or by this program")
        elif any(field.target == target for field in fields):
            problems.append(f"field {target!r} is named twice")
        else:
            fields.append(Field(target, column, cast))
    if problems:
        raise ValueError("\n".join(problems))
    return tuple(fields)


USER_FIELDS = parse_fields(DEFAULT_USER_FIELDS, RESERVED_USER_FIELDS)
EVENT_FIELDS = parse_fields(DEFAULT_EVENT_FIELDS, RESERVED_EVENT_FIELDS)
