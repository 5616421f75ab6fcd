"""A run to look at: one self-contained HTML page beside the results file.

Owns its safe writing. A page that cannot be written is a line in the log, no more: everything
it shows is in the results file too. Knows not what is on it (`report_page`, `report_charts`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from config.settings import Settings
from logger_config import FILE_ONLY
from records.outcomes import Failure
from reporting.atomic_file import replace_file
from reporting.measurements import Measurements
from reporting.report_page import page
from reporting.summary import RunSummary

logger = logging.getLogger(__name__)


def write_report(
    path: Path,
    summary: RunSummary,
    failures: Sequence[Failure],
    measured: Measurements,
    settings: Settings,
) -> bool:
    """Write the page and say whether that went well: mode 0600, whole or not at all.

    `path` is that of the results file with the suffix `.html`. Never raises.
    """
    try:
        content = page(summary, failures, measured, settings, path.with_suffix(".json").name)
        with replace_file(path) as file:
            file.write(content.encode())
    except Exception as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        logger.warning("The report %s cannot be written: %s", path, reason)
        logger.debug("while writing the report", exc_info=error, extra=FILE_ONLY)
        return False
    return True
