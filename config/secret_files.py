"""Secrets in files: `DB_PASSWORD_FILE` names a file that holds the value of `DB_PASSWORD`.

So a secret need not be in `.env` or in the environment: containers and systemd hand it over as a
file.
"""

from __future__ import annotations

from pathlib import Path

SUFFIX = "_FILE"
MAX_SECRET_BYTES = 4_096


def read_secret(path: Path) -> str:
    """Return the content of a file without one trailing newline.

    Raises ValueError whose text completes "NAME_FILE ...".
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SECRET_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"names {path}, which cannot be read: {reason}") from None
    if len(content) > MAX_SECRET_BYTES:
        raise ValueError(f"names {path}, which has more than {MAX_SECRET_BYTES:,} bytes")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise ValueError(f"names {path}, which is not UTF-8 text") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise ValueError(f"names {path}, which is empty")
    return text
