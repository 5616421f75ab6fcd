"""Results files of rows with given outcomes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson

from records.outcomes import JSON, Outcome
from records.rows import SettledRow
from reporting.results_file import ResultsFile
from reporting.summary import RunSummary, RunTally
from tests.support.run_summaries import STARTED_AT, STATE_OF, counts_of, summary_of


def rows_of(*outcomes: Outcome) -> list[SettledRow]:
    """Return a row for each outcome, without the results of its requests."""
    return [
        SettledRow(STATE_OF[outcome], seq, seq, "a@b.com", None, None, None, None)
        for seq, outcome in enumerate(outcomes)
    ]


def write_results(folder: Path, summary: RunSummary, rows: Iterable[SettledRow] = ()) -> Path:
    """Write a results file as a run does, in several parts."""
    results = ResultsFile(folder, STARTED_AT)
    found = list(rows)
    for start in range(0, len(found), size := len(found) // 3 + 1):
        results.append(found[start : start + size], "the run ended")
    return results.finish(summary)


def entries_of(rows: Iterable[SettledRow]) -> list[JSON]:
    """Return the entries of rows, as read back from a results file."""
    found = list(rows)
    tally = RunTally()
    tally.add(found)
    with TemporaryDirectory() as folder:
        summary = summary_of(*(row.state.outcome for row in found))
        assert tally.counts == counts_of(*(row.state.outcome for row in found))
        content = write_results(Path(folder), summary, found).read_bytes()
    records: list[JSON] = orjson.loads(content)["records"]
    return records
