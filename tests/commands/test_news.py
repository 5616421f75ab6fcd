"""`--quiet`: what a run prints depends on what earlier runs have printed."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from commands.news import PRINT_AGAIN_SECONDS, RunNews
from config.settings import Settings
from errors import ConfigError, SyncError, was_printed
from records.outcomes import Outcome
from records.rows import Failure, RequestKind
from reporting.news import WarningCollector, collect_warnings
from state.database import StateError
from state.lock import RunInProgressError
from state.outbox import Outbox
from state.project import OtherAddressError
from sync.field_types import FieldTypesError
from sync.mass_rejection import MassRejection
from sync.run import MassRejectionError, Options, RunReport
from sync.signals import Interrupted
from tests.support.run_summaries import summary_of

OUTAGE = SyncError("Iterable seems to be down (20 calls): run again later.")
TEN_MINUTES = 600.0


@dataclass
class Runs:
    """Runs that follow each other every ten minutes, and what they print."""

    settings: Settings
    capsys: pytest.CaptureFixture[str]
    now_seconds: float = 1_768_314_645.0
    errors: list[BaseException] = field(default_factory=list)

    def run(
        self,
        *warnings: str,
        error: BaseException | None = None,
        failures: Sequence[Failure] = (),
        resolved: int = 0,
        failing: int = 0,
        prints: bool = True,
        **options: bool | int,
    ) -> list[str]:
        """Return the lines that a run prints which warns of this, fails in this way and so on."""
        collect_warnings()
        try:
            with RunNews(
                self.settings,
                Options(**options),  # type: ignore[arg-type]
                prints=prints,
                now=lambda: self.now_seconds,
            ) as news:
                for text in warnings:
                    logging.getLogger("sync.run").warning("%s", text)
                outcomes = [Outcome.SUCCESSFUL, *[Outcome.INVALID] * failing]
                news.report = RunReport(
                    summary_of(*outcomes, resolved_failures=resolved),
                    failures,
                    [Path("/a/results.json")],
                    None,
                    new_failures=failures,
                )
                if error is not None:
                    raise error
        except BaseException as raised:  # noqa: BLE001 - what `main` would get
            self.errors.append(raised)
        finally:
            _remove_collectors()
            self.now_seconds += TEN_MINUTES
        printed = self.capsys.readouterr()
        assert printed.out == ""
        return printed.err.splitlines()

    def is_printed(self, error: BaseException, **options: bool | int) -> bool:
        """Run, and return whether `main` prints the error that ended the run."""
        vars(error).pop("was_printed", None)
        assert self.run(error=error, **options) == []  # type: ignore[arg-type]
        assert self.errors[-1] is error
        return not was_printed(error)


def _remove_collectors() -> None:
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, WarningCollector):
            root.removeHandler(handler)


@pytest.fixture
def runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Runs]:
    root = logging.getLogger()
    level = root.level
    names = ("DB_HOST", "DB_USER", "DB_PASSWORD", "DB_NAME", "ITERABLE_API_KEY")
    paths = {"STATE_FILE": str(tmp_path / "state.sqlite3"), "RESULTS_DIR": str(tmp_path)}
    settings = Settings.from_environment({**dict.fromkeys(names, "x"), **paths})
    Outbox(settings.state_file).close()
    yield Runs(settings, capsys)
    root.setLevel(level)


def test_a_run_without_news_prints_nothing(runs: Runs) -> None:
    assert runs.run() == runs.run(failing=3) == []


def test_new_failures_are_printed_and_known_ones_are_not(runs: Runs) -> None:
    failure = Failure("users/update", "rejected", "BadParams", 2, 7)
    assert runs.run(failures=[failure], failing=2) == [
        "New failures by reason:",
        "          2 x users/update: BadParams (for example user 7)",
        "Each of these rows is in /a/results.json",
    ]
    assert runs.run(failing=2) == []
    assert runs.run(resolved=2) == ["All is well again: 2 failures are resolved."]


@pytest.mark.parametrize("options", [{"limit": 5}, {"error": OUTAGE}], ids=["limited", "aborted"])
def test_a_run_that_did_not_do_everything_said_that_all_is_well(
    runs: Runs, options: dict[str, object]
) -> None:
    assert runs.run(resolved=2, **options) == ["2 failures are resolved."]  # type: ignore[arg-type]


# Warnings


def test_a_warning_is_printed_again_only_after_a_run_without_it(runs: Runs) -> None:
    assert runs.run("the disk is full") == ["Warning: the disk is full"]
    assert runs.run("the disk is full") == []
    assert runs.run("the disk is full", "a pool is low") == ["Warning: a pool is low"]
    assert runs.run("a pool is low") == []
    assert runs.run("the disk is full") == ["Warning: the disk is full"]


def test_a_warning_with_other_numbers_is_the_same(runs: Runs) -> None:
    assert runs.run("3 events lie in the future") == ["Warning: 3 events lie in the future"]
    assert runs.run("4,712 events lie in the future") == []


@pytest.mark.parametrize("options", [{"limit": 5}, {"error": OUTAGE}], ids=["limited", "aborted"])
def test_a_run_that_did_not_do_everything_keeps_the_warnings_before_it(
    runs: Runs, options: dict[str, object]
) -> None:
    runs.run("only for the rows at the end")
    assert runs.run("another", **options) == ["Warning: another"]  # type: ignore[arg-type]
    printed = runs.run("only for the rows at the end", "another")
    assert [line for line in printed if "Warning" in line] == []


def test_warnings_of_a_run_by_hand_are_known(runs: Runs) -> None:
    """They stood on its console, each in its place."""
    assert runs.run("about a field", prints=False) == []
    assert runs.run("about a field") == []


def test_a_dry_run_prints_news_and_remembers_nothing(runs: Runs) -> None:
    before = runs.settings.state_file.read_bytes()
    for _ in range(2):
        assert runs.run("about a field", dry_run=True) == ["Warning: about a field"]
        assert runs.is_printed(OUTAGE, dry_run=True)
    assert runs.settings.state_file.read_bytes() == before


# What ended a run


def test_the_same_ending_is_printed_at_most_once_an_hour(runs: Runs) -> None:
    started_at = runs.now_seconds
    printed = [runs.is_printed(OUTAGE) for _ in range(13)]
    assert printed == [True, *[False] * 5, True, *[False] * 5, True]
    assert runs.now_seconds - started_at == 13 * TEN_MINUTES
    assert PRINT_AGAIN_SECONDS == 6 * TEN_MINUTES


def test_an_ending_with_other_numbers_is_the_same_and_one_with_other_words_is_not(
    runs: Runs,
) -> None:
    def in_progress(process: str, host: str = "host") -> RunInProgressError:
        return RunInProgressError(f"Another run is in progress (process {process} on {host}).")

    assert runs.is_printed(in_progress("17"))
    assert not runs.is_printed(in_progress("4,712"))
    assert runs.is_printed(in_progress("17", "other"))
    assert not runs.is_printed(in_progress("18"))


def test_two_mass_rejections_were_one_line_with_an_escape_and_a_warning_besides(
    runs: Runs,
) -> None:
    ended = [MassRejection(kind, "BadParams", None, 7, 50) for kind in RequestKind]
    error = MassRejectionError(ended)
    assert error.lines == [str(each) for each in ended]
    assert runs.run(f"Mass rejection: {ended[0]}", error=error) == []


def test_a_bug_is_known_by_its_type(runs: Runs) -> None:
    assert runs.is_printed(ZeroDivisionError("with 1"))
    assert not runs.is_printed(ZeroDivisionError("with something else"))
    assert runs.is_printed(KeyError("with 1"))


def test_a_stop_signal_is_an_ending_too_but_nothing_has_to_become_well_again(runs: Runs) -> None:
    assert runs.is_printed(Interrupted(15, "Stopped by SIGTERM. Run again to continue."))
    assert not runs.is_printed(Interrupted(15, "Stopped by SIGTERM. Run again to continue."))
    assert runs.run() == []


def test_problems_of_the_settings_are_always_printed(runs: Runs) -> None:
    for _ in range(3):
        assert runs.is_printed(ConfigError(["query.sql returns no column 'id': add it"]))
    assert runs.run() == []


def test_the_guard_of_field_types_was_a_mail_at_every_run(runs: Runs) -> None:
    clash = FieldTypesError(["score is long in Iterable, but every value to send is string"])
    assert runs.is_printed(clash)
    assert not runs.is_printed(clash)
    assert runs.run() == ["All is well again: a run reached its end again."]


def test_a_clock_set_back_does_not_silence_an_ending(runs: Runs) -> None:
    assert runs.is_printed(OUTAGE)
    runs.now_seconds -= 10 * PRINT_AGAIN_SECONDS
    assert runs.is_printed(OUTAGE)


def test_the_first_run_that_completes_after_an_ending_says_so_once(runs: Runs) -> None:
    runs.is_printed(OUTAGE)
    runs.is_printed(OUTAGE)
    assert runs.run() == ["All is well again: a run reached its end again."]
    assert runs.run() == []


def test_failures_that_are_left_are_named_when_runs_complete_again(runs: Runs) -> None:
    runs.is_printed(OUTAGE)
    assert runs.run(resolved=1, failing=4) == [
        "A run reached its end again and 1 failure is resolved; 4 rows still fail."
    ]


def test_an_hour_is_an_hour_even_if_runs_completed_in_between(runs: Runs) -> None:
    """A database that comes and goes would be a mail at every second run."""
    assert runs.is_printed(OUTAGE)
    assert runs.run() == ["All is well again: a run reached its end again."]
    assert not runs.is_printed(OUTAGE)
    assert runs.run() == []


def test_an_ending_printed_by_hand_is_still_news(runs: Runs) -> None:
    assert runs.run(error=OUTAGE, prints=False) == []
    assert runs.is_printed(OUTAGE)


# The state file


def test_without_a_usable_state_file_everything_is_news(runs: Runs) -> None:
    runs.settings.state_file.write_bytes(b"damaged")
    for _ in range(2):
        assert runs.run("about a field") == ["Warning: about a field"]
        assert runs.is_printed(OUTAGE)
    assert runs.settings.state_file.read_bytes() == b"damaged"


def test_a_state_file_of_another_address_was_told_at_every_run(runs: Runs) -> None:
    error = OtherAddressError("The state file remembers what was delivered to another address.")
    assert [runs.is_printed(error) for _ in range(7)] == [True, *[False] * 5, True]


def test_a_state_file_that_the_run_found_damaged_is_left_alone(runs: Runs) -> None:
    """A trigger that somebody added, for example: whoever only reads the news does not see it."""
    before = runs.settings.state_file.read_bytes()
    for _ in range(2):
        assert runs.is_printed(StateError("The state file is damaged: move it away."))
    assert runs.settings.state_file.read_bytes() == before


def test_a_run_stopped_before_it_read_the_state_file_leaves_it_alone(runs: Runs) -> None:
    before = runs.settings.state_file.read_bytes()
    collect_warnings()
    logging.getLogger("commands.prepare").warning("a variable is empty")
    with pytest.raises(Interrupted), RunNews(runs.settings, Options(), prints=True):
        raise Interrupted(15)
    _remove_collectors()
    assert runs.settings.state_file.read_bytes() == before


def test_news_that_cannot_be_remembered_are_printed_again(runs: Runs) -> None:
    with closing(sqlite3.connect(runs.settings.state_file, isolation_level=None)) as busy:
        busy.execute("BEGIN IMMEDIATE")
        assert runs.is_printed(OUTAGE)
    assert runs.is_printed(OUTAGE)
    assert not runs.is_printed(OUTAGE)
