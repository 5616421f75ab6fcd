"""`IDENTIFY_BY`: which identifier names a user in every request."""

from __future__ import annotations

from enum import Enum


class IdentifyBy(str, Enum):
    """The values of `IDENTIFY_BY`. Which one fits depends on the type of the Iterable project."""

    EMAIL = "email"  # e-mail-based and hybrid projects
    USER_ID = "userid"  # userID-based and hybrid projects
