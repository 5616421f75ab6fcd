"""Writing of new files, mode 0600: all of them or none, and never over an existing one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from errors import ConfigError


def refuse_existing(paths: Sequence[Path]) -> None:
    """Raise ConfigError if one of the files exists, or its folder cannot be written."""
    problems = [_problem_with(path) for path in paths]
    if any(problems):
        raise ConfigError([problem for problem in problems if problem])


def _problem_with(path: Path) -> str | None:
    try:
        path.lstat()  # finds a symbolic link that leads nowhere, too
    except FileNotFoundError:
        if not os.path.isdir(path.parent):
            return f"{path} is in a folder that does not exist: create {path.parent}"
    except OSError as error:
        return f"{path} cannot be written: {error.strerror}"
    else:
        return _exists(path)
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return f"{path} cannot be written: check the owner and mode of {path.parent}"
    return None


def _exists(path: Path) -> str:
    return (
        f"{path} exists already, and --init overwrites nothing: edit that file, or move it away "
        "first. Nothing was written."
    )


def write_new_files(contents: Mapping[Path, str]) -> None:
    """Write the files in order; if one fails, remove those before it and raise ConfigError."""
    written: list[Path] = []
    try:
        for path, content in contents.items():
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(path, flags, 0o600)
            written.append(path)
            with open(descriptor, "wb") as file:
                os.fchmod(descriptor, 0o600)
                file.write(content.encode())
                file.flush()
                os.fsync(descriptor)
    except BaseException as error:
        for each in written:
            each.unlink(missing_ok=True)
        if isinstance(error, FileExistsError):
            raise ConfigError([_exists(path)]) from None
        if isinstance(error, OSError):
            raise ConfigError(
                [f"{path} cannot be written: {error.strerror}. Nothing was written."]
            ) from error
        raise
