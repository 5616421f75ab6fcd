"""Other ways to send the same rows: simple scripts (`baselines`), dlt and drt, beside the program.

Each gets a fresh sandbox that enforces the rate limits, rejects one address in a hundred and
answers one call in a hundred with a 5xx. What arrived is counted in the sandbox; what the tool
said of failures is taken from its output. dlt and drt are installed with pip into a virtual
environment of their own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import baselines, peer_drt
from benchmarks.certificates import Certificates
from benchmarks.delivery import MODES, default_limits
from benchmarks.figures import MEGABYTE, Table
from benchmarks.processes import (
    PROJECT_FOLDER,
    BenchmarkError,
    EndedProcess,
    MeasuredProcess,
    Program,
    Sandbox,
    sandbox,
)
from benchmarks.sources import SOURCES, Source, query_text
from benchmarks.users import email_of

ENVIRONMENT = PROJECT_FOLDER / "build" / "benchmark-peers"  # ignored by git
PACKAGES = ("dlt==1.31.0", "drt-core==1.2.1", "PyMySQL==1.2.4")
_PIP_SECONDS = 600.0
_REJECTED_EVERY = 100
_FAILURE_RATE = 0.01
_HEADER = (
    *("", "rows", "users/s", "CPU per user", "peak memory", "users", "events"),
    *("requests missing", "told", "429", "5xx", "exit status"),
)


@dataclass(frozen=True)
class Peer:
    """A way to send the rows; `start` runs it, `told` reads how many requests it calls failed."""

    name: str
    start: Callable[[Path, Source, Sandbox, int], MeasuredProcess]
    told: Callable[[EndedProcess, Path], int]
    is_slow: bool = False  # one call after another
    in_environment: bool = False  # needs the virtual environment


def measure_peers(
    rows: int,
    slow_rows: int,
    latency_ms: float,
    source: Source,
    tls: Certificates | None,
    *,
    with_pip: bool = True,
) -> list[Table]:
    """Let each of them send the rows, and return one table."""
    problem = install() if with_pip else "--without-pip"
    with SOURCES[source.kind](slow_rows) as slow_source:

        def measure(peer: Peer) -> tuple[str, ...] | str:
            if peer.in_environment and problem:
                return f"{peer.name}: skipped, {problem}"
            of_peer = (slow_rows, slow_source) if peer.is_slow else (rows, source)
            try:
                return _measure(peer, *of_peer, latency_ms, tls)
            except BenchmarkError as error:
                return f"{peer.name}: {error}"

        slow = [peer for peer in PEERS if peer.is_slow]
        with ThreadPoolExecutor(len(slow)) as pool:  # side by side: they mostly wait
            found = dict(zip(slow, pool.map(measure, slow), strict=True))
        found |= {peer: measure(peer) for peer in PEERS if not peer.is_slow}
    ordered = [found[peer] for peer in PEERS]
    table_rows = [row for row in ordered if isinstance(row, tuple)]
    notes = [note for note in ordered if isinstance(note, str)]
    notes += [
        "users, events: what Iterable has afterwards. One address in "
        f"{_REJECTED_EVERY} is rejected, so that its two requests cannot arrive.",
        "CPU and memory of the whole process, the start of Python and of the tool included.",
        "The simple scripts make up their rows and need no database; the others read them from it.",
    ]
    scheme = "plain http" if tls is None else "TLS"
    title = (
        f"{rows:,} rows, {slow_rows:,} for those that make one call after another, at "
        f"{latency_ms:g} ms per call, {_FAILURE_RATE:.0%} of calls fail, limits enforced, {scheme}"
    )
    return [Table("peers", title, _HEADER, table_rows, notes)]


def install() -> str:
    """Make the virtual environment if it is not there; return why it cannot be made, or ''."""
    marker = ENVIRONMENT / "installed.txt"
    wanted = "\n".join(PACKAGES)
    if marker.exists() and marker.read_text(encoding="utf-8") == wanted:
        return ""
    python = ENVIRONMENT / "bin" / "python"
    try:
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)],
            [str(python), "-m", "pip", "install", "--quiet", *PACKAGES],
        ):
            subprocess.run(  # noqa: S603 - our own command
                command, check=True, capture_output=True, text=True, timeout=_PIP_SECONDS
            )
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines()
        return f"pip cannot install {', '.join(PACKAGES)}: {lines[-1] if lines else error}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"no virtual environment: {error}"
    marker.write_text(wanted, encoding="utf-8")
    return ""


def _measure(
    peer: Peer, rows: int, source: Source, latency_ms: float, tls: Certificates | None
) -> tuple[str, ...]:
    rejected = [email_of(number) for number in range(_REJECTED_EVERY, rows + 1, _REJECTED_EVERY)]
    flags = ["--failure-rate", f"{_FAILURE_RATE:g}"]
    flags += ["--invalid-email", *rejected] if rejected else []
    limits = default_limits(MODES["per-user"]) | default_limits(MODES["bulk"])
    with (
        TemporaryDirectory() as name,
        sandbox(latency_ms, tls, limits=limits, flags=flags) as api,
    ):
        folder = Path(name)
        with peer.start(folder, source, api, rows) as process:
            ended = process.wait()
        told = peer.told(ended, folder)
        state = api.state()
    answers: dict[str, int] = {}
    for endpoint in state["endpoints"].values():
        for status, count in endpoint["answers"].items():
            answers[status] = answers.get(status, 0) + count
    return (
        peer.name,
        f"{rows:,}",
        f"{rows / ended.wall_seconds:,.1f}",
        f"{ended.cpu_seconds / rows * 1e3:.3f} ms",
        f"{ended.peak_bytes / MEGABYTE:.1f} MB",
        f"{state['users']:,}",
        f"{state['events']:,}",
        f"{2 * rows - state['users'] - state['events']:,}",
        f"{told:,}",
        f"{answers.get('429', 0):,}",
        f"{sum(count for status, count in answers.items() if status.startswith('5')):,}",
        str(ended.exit_status),
    )


def _start_program(mode: str) -> Callable[[Path, Source, Sandbox, int], MeasuredProcess]:
    return lambda folder, source, api, _rows: Program(folder, source.settings, api).start(
        "--mode", mode
    )


def _told_by_program(ended: EndedProcess, folder: Path) -> int:
    if ended.exit_status not in (0, 3):
        raise BenchmarkError(f"exit status {ended.exit_status}: {ended.output[-500:]}")
    counts = Program(folder, {}).results().counts
    neither = counts["total_failures"] + counts["invalid"] + counts["not_attempted"]
    return int(2 * neither + counts["partial_failures"])


def _start_baseline(kind: str) -> Callable[[Path, Source, Sandbox, int], MeasuredProcess]:
    command = [sys.executable, "-m", "benchmarks.baselines", kind]
    return lambda _folder, _source, api, rows: MeasuredProcess(
        [*command, api.url, str(rows)], api.variables
    )


def _start_dlt(folder: Path, source: Source, api: Sandbox, rows: int) -> MeasuredProcess:
    settings = source.settings
    database = {
        "host": settings["DB_HOST"],
        "port": int(settings["DB_PORT"]),
        "user": settings["DB_USER"],
        "password": settings["DB_PASSWORD"],
        "database": settings["DB_NAME"],
        "init_command": "SET time_zone = '+00:00'",
    }
    workers = baselines.POOL_THREADS
    variables = {
        "BENCHMARK_DATABASE": json.dumps(database),
        "BENCHMARK_QUERY": query_text(settings),
        "DLT_DATA_DIR": str(folder),
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "LOAD__WORKERS": str(workers),
        # A file is a job, and only jobs run side by side: as many files as workers.
        "NORMALIZE__DATA_WRITER__FILE_MAX_ITEMS": str(max(1, -(-rows // workers))),
    }
    return _in_environment("python", ["-m", "benchmarks.peer_dlt", api.url], api, variables)


def _start_drt(kind: str) -> Callable[[Path, Source, Sandbox, int], MeasuredProcess]:
    def start(folder: Path, source: Source, api: Sandbox, _rows: int) -> MeasuredProcess:
        peer_drt.write_project(folder, kind, api.url, source.settings)
        variables = {"HOME": str(folder), "DO_NOT_TRACK": "1"}
        return _in_environment("drt", ["run", "--output", "json"], api, variables, folder)

    return start


def _in_environment(
    program: str,
    arguments: Sequence[str],
    api: Sandbox,
    variables: Mapping[str, str],
    folder: Path = PROJECT_FOLDER,
) -> MeasuredProcess:
    command = [str(ENVIRONMENT / "bin" / program), *arguments]
    return MeasuredProcess(command, {**api.variables, **variables}, folder)


def _told_by_script(ended: EndedProcess, _folder: Path) -> int:
    _before, found, count = ended.output.rpartition(baselines.TOLD)
    if not found:
        raise BenchmarkError(f"exit status {ended.exit_status}: {ended.output[-500:]}")
    return int(count.split()[0])


def _told_by_drt(ended: EndedProcess, _folder: Path) -> int:
    if '"rows_failed"' not in ended.output:
        raise BenchmarkError(f"exit status {ended.exit_status}: {ended.output[-500:]}")
    return peer_drt.told_failures(ended.output)


PEERS = (
    Peer("this program, per-user", _start_program("per-user"), _told_by_program),
    Peer("this program, bulk", _start_program("bulk"), _told_by_program),
    Peer("plain loop", _start_baseline("plain"), _told_by_script, is_slow=True),
    Peer("loop with session", _start_baseline("session"), _told_by_script, is_slow=True),
    Peer("pool of 250 threads", _start_baseline("pool"), _told_by_script),
    Peer("dlt, 250 workers", _start_dlt, _told_by_script, in_environment=True),
    Peer(
        "drt, a request per row",
        _start_drt("record"),
        _told_by_drt,
        is_slow=True,
        in_environment=True,
    ),
    Peer("drt, batches of 1,000", _start_drt("batch"), _told_by_drt, in_environment=True),
)
