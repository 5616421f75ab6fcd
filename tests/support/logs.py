"""Fixtures for loggers that exist for one test only."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from logger_config import setup_logger

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d - [\w.]+ - [A-Z]+ - .*")


@pytest.fixture
def log_file(tmp_path: Path) -> Path:
    return tmp_path / "integration.log"


SetUp = Callable[..., logging.Logger]


@pytest.fixture
def set_up(log_file: Path) -> Iterator[SetUp]:
    """A function that sets up a logger; it is removed after the test."""
    names = set()

    def call(
        level: str = "INFO", name: str = "test_of_logging", *, redact_emails: bool = False
    ) -> logging.Logger:
        names.add(name)
        return setup_logger(name, log_file, level, redact_emails=redact_emails)

    yield call
    for name in names:
        logger = logging.getLogger(name)
        for handler in logger.handlers[:]:
            logger.removeHandler(handler)
            handler.close()
        logger.propagate = True
