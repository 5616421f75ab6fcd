"""File checks of `--check`: permissions of `.env`, writable folders, state file, free space.

They leave no file behind, and are safe during a run.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

from commands.check.line import CheckLine, failed, passed, warned
from config.settings import Settings
from logger_config import follow_own_links
from reporting.formatting import counted
from reporting.results_file import KeptFile, kept_files
from state.database import StateError, state_errors
from state.lock import owner_of_lock
from state.outbox import Outbox

# For 100,000 rows: 100 MB of outbox and 100 MB of results, plus 60 MB of log.
MIN_FREE_BYTES = 260_000_000


def free_bytes_of(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def check_files(
    settings: Settings,
    env_file: Path | None,
    *,
    free_bytes: Callable[[Path], int] = free_bytes_of,
) -> Iterator[CheckLine]:
    """Check each file and folder of the settings; `env_file` is None where there is none."""
    if env_file is not None:
        yield _env_file_line(env_file)
    yield _state_file_line(settings.state_file)
    yield _results_line(settings)
    yield _log_line(settings)
    if settings.metrics_file is not None:
        yield _folder_line("metrics", settings.metrics_file.parent, "METRICS_FILE")
    yield _space_line(settings, free_bytes)


def _env_file_line(path: Path) -> CheckLine:
    try:
        found = path.stat()
    except OSError as error:
        return failed("env file", f"{path} cannot be checked: {error.strerror}")
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISFIFO(found.st_mode)):
        return passed("env file", f"{path} is a device, whose mode is not checked")
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o006:
        return failed(
            "env file",
            f"{path} with the password and the API key is open to every user of this machine "
            f"(mode {mode:04o}): chmod 600 {path}",
        )
    # With another owner, the group is how the service gets access: no warning.
    if mode & 0o060 and found.st_uid == os.geteuid():
        return warned(
            "env file",
            f"{path} with the password and the API key is open to its group (mode {mode:04o}): "
            f"chmod 600 {path}, unless this is intended",
        )
    return passed("env file", f"{path} is private (mode {mode:04o})")


def secret_file_lines(paths: Sequence[Path]) -> Iterator[CheckLine]:
    """Warn of each file with a secret that other users of the machine can read."""
    for path in paths:
        with suppress(OSError):
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & 0o004:
                yield warned(
                    "secret file",
                    f"{path} can be read by every user of this machine (mode {mode:04o}): "
                    f"chmod 600 {path}",
                )


def _state_file_line(path: Path) -> CheckLine:
    name = "state file"
    problem = _why_not_writable(path.parent)
    if problem:
        return failed(
            name,
            f"the folder of {path} cannot be written ({problem}): check its owner and mode, or "
            "choose another STATE_FILE",
        )
    try:
        with state_errors(path):
            exists = _can_be_opened(path, os.O_RDWR)
            if exists and not path.stat().st_mode & stat.S_IWUSR:
                raise PermissionError("Permission denied")  # a run raises it, too, even for root
            user_count = _count_users(path)
            owner = owner_of_lock(path)
    except StateError as error:
        return failed(name, str(error))
    if not exists:
        return passed(name, f"{path} does not exist yet: the first run creates it")
    text = f"{path} remembers {user_count:,} users"
    return passed(name, text if owner is None else f"{text}; a run is in progress ({owner})")


def _count_users(path: Path) -> int:
    """Count the users in the state file; raises StateError where the file is damaged."""
    with closing(Outbox(path, read_only=True)) as outbox:
        return outbox.delivered.count()


def _folder_line(name: str, folder: Path, setting: str) -> CheckLine:
    problem = _why_not_writable(folder)
    if problem:
        return failed(
            name,
            f"{folder} cannot be written ({problem}): check its owner and mode, or choose another "
            f"{setting}",
        )
    return passed(name, f"{folder} can be written")


def _results_line(settings: Settings) -> CheckLine:
    """Check the folder of the results, and say how many are there and will be kept."""
    line = _folder_line("results", settings.results_dir, "RESULTS_DIR")
    if not line.ok:
        return line
    files = _existing_results(settings)
    limits = [f"{settings.results_keep:,} files"] if settings.results_keep else []
    limits += [f"{settings.results_keep_mb:,} MB"] if settings.results_keep_mb else []
    kept = f"at most {' or '.join(limits)} are kept" if limits else "all are kept"
    count = counted(len(files), "file")
    megabytes = sum(file.size_bytes for file in files) / 1e6
    return passed(line.name, f"{line.text}; {count} ({megabytes:,.1f} MB), {kept}")


def _existing_results(settings: Settings) -> list[KeptFile]:
    try:
        return kept_files(settings.results_dir)
    except OSError:
        return []


def bytes_of_results_to_come(settings: Settings) -> int:
    """Estimate by how much the kept results will grow, from the size of the existing ones.

    0 where it is unknown: there are none yet, or all are kept.
    """
    sizes = [file.size_bytes for file in _existing_results(settings)]
    if not sizes:
        return 0
    limits = [settings.results_keep_mb * 1_000_000] if settings.results_keep_mb else []
    if settings.results_keep:
        limits.append(settings.results_keep * sum(sizes) // len(sizes))
    return max(0, min(limits, default=0) - sum(sizes))


def _log_line(settings: Settings) -> CheckLine:
    """Check that the log can be written and, by its folder's permissions, rotated."""
    path = settings.log_file
    if path is None:
        return passed(
            "log", f"no file (LOG_FILE=-): standard error gets {settings.log_level} and up"
        )
    try:
        target = follow_own_links(path)
        _can_be_opened(target, os.O_WRONLY | os.O_APPEND)
        problem = _why_not_writable(target.parent)
    except OSError as error:
        problem = error.strerror
    if problem:
        return failed(
            "log",
            f"{path} cannot be written ({problem}): check owner and mode of the file and its "
            "folder, or choose another LOG_FILE",
        )
    return passed("log", f"{path} can be written")


def _space_line(settings: Settings, free_bytes: Callable[[Path], int]) -> CheckLine:
    """Check the disk with the least space left of those that a run writes to."""
    needed = {settings.state_file.parent: MIN_FREE_BYTES}
    if settings.log_file is not None:
        needed[settings.log_file.parent] = MIN_FREE_BYTES
    needed[settings.results_dir] = MIN_FREE_BYTES + bytes_of_results_to_come(settings)
    try:
        free, folder = min(
            ((free_bytes(folder), folder) for folder in needed),
            key=lambda found: found[0] - needed[found[1]],
        )
    except OSError as error:
        return warned("disk", f"the free space is unknown: {error.strerror}")
    if free < MIN_FREE_BYTES:
        return warned(
            "disk",
            f"only {free / 1e6:,.0f} MB free in {folder}: free some space, as a run of 100,000 "
            f"rows takes about {MIN_FREE_BYTES / 1e6:,.0f} MB",
        )
    if free < needed[folder]:
        to_come = (needed[folder] - MIN_FREE_BYTES) / 1e6
        return warned(
            "disk",
            f"{free / 1e6:,.0f} MB free in {folder}, where results files will take {to_come:,.0f} "
            "MB more: free some space, or lower RESULTS_KEEP_MB",
        )
    return passed("disk", f"{free / 1e9:,.1f} GB free in {folder}")


def _can_be_opened(path: Path, flags: int) -> bool:
    """Open and close an existing file; return False where there is none. Raises OSError.

    A pipe without a reader is an error; the check does not wait for one.
    """
    try:
        os.close(os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK))
    except FileNotFoundError:
        return False
    return True


def _why_not_writable(folder: Path) -> str | None:
    """Create a temporary file without a name in the folder; return the error, None if it worked."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error.strerror or type(error).__name__
