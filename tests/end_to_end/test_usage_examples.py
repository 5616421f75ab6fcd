"""The usage examples of the Python interface, typed at a Python prompt as they are written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from sandbox.iterable_api import IterableSandbox
from tests.conftest import SAMPLE_DATA, SCHEMA, SourceDatabase
from tests.support.mariadb import PrivateMariaDB
from tests.support.program import Program
from tests.support.program_files import PROJECT_FOLDER
from tests.support.users import add_users, check_project


def at_the_prompt(
    code: str, folder: Path, settings: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Type `code` at a Python prompt that is started in `folder` and can import the project."""
    return subprocess.run(
        [sys.executable, "-q", "-i"],
        input=textwrap.dedent(code),
        capture_output=True,
        text=True,
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(PROJECT_FOLDER),
            **(settings or {}),
        },
        timeout=60,
        check=False,
    )


@pytest.fixture
def iterable_challenge(mariadb_server: PrivateMariaDB) -> Iterator[PrivateMariaDB]:
    """The private MariaDB with the database, user and password that the usage example names."""
    mariadb_server.create_database("iterable_challenge", SCHEMA, SAMPLE_DATA)
    mariadb_server.run_sql("ALTER USER root@'127.0.0.1' IDENTIFIED BY 'password'")
    yield mariadb_server
    mariadb_server.run_sql("ALTER USER root@'127.0.0.1' IDENTIFIED BY ''")
    mariadb_server.run_sql("DROP DATABASE iterable_challenge")


def test_a_database_connection_returns_the_users_of_the_query(
    iterable_challenge: PrivateMariaDB, tmp_path: Path
) -> None:
    # As written, except for the port, because the server of the tests has a free one.
    done = at_the_prompt(
        f"""
        from functools import partial
        from db_connection import DatabaseConnection
        DatabaseConnection = partial(DatabaseConnection, port={iterable_challenge.port})
        db = DatabaseConnection('localhost', 'root', 'password', 'iterable_challenge')
        db.connect()
        users = db.get_pro_users_recent_engagement()
        len(users), users[0]['email'], users[0]['page'], list(users[0])
        db.execute_query("SELECT COUNT(*) AS how_many FROM customers")
        db.disconnect()
        db
        """,
        tmp_path,
    )
    assert "Traceback" not in done.stderr, done.stderr
    connected, first, counted, representation = done.stdout.splitlines()
    assert connected == "True"
    assert first == (
        "(26, 'sarah.johnson@email.com', 'pricing', ['id', 'email', 'first_name', 'last_name',"
        " 'plan_type', 'candidate', 'page', 'device', 'browser', 'location', 'event_time'])"
    )
    assert counted == "[{'how_many': 32}]"
    assert "password" not in representation


@pytest.mark.slow
def test_connect_with_a_wrong_password_returns_false_and_logs_the_reason(
    iterable_challenge: PrivateMariaDB, tmp_path: Path
) -> None:
    done = at_the_prompt(
        f"""
        from db_connection import DatabaseConnection
        db = DatabaseConnection('localhost', 'root', 'sesame', 'iterable_challenge',
                                port={iterable_challenge.port})

        db.connect()
        db.disconnect()
        """,
        tmp_path,
    )
    assert done.stdout == "False\n"
    assert "check DB_USER and DB_PASSWORD" in done.stderr
    assert "sesame" not in done.stderr


def test_a_client_updates_a_user_and_tracks_an_event(
    iterable: IterableSandbox, tmp_path: Path
) -> None:
    done = at_the_prompt(
        f"""
        from iterable_client import IterableClient
        client = IterableClient(api_key='my-very-secret-key', base_url={iterable.url!r})
        client.update_user('sarah.johnson@email.com', {{'plan_type': 'pro'}})
        client.track_event('sarah.johnson@email.com', 'page_view', {{'page': 'pricing'}})
        success, response = client.update_user('nonsense', {{}})
        success, response['code'], response['http_status']
        client.process_user_record({{'id': 1, 'email': 'a@example.com', 'first_name': 'A',
            'event_time': '2026-01-13 14:30:45', 'page': 'pricing'}})['outcome']
        client
        """,
        tmp_path,
    )
    assert "Traceback" not in done.stderr, done.stderr
    updated, tracked, rejected, outcome, representation = done.stdout.splitlines()
    assert updated.startswith("(True, {'code': 'Success', 'msg': 'User successfully created")
    assert tracked.startswith("(True, {'code': 'Success', 'msg': 'Event with id: ")
    assert rejected == "(False, 'InvalidEmailAddressError', 400)"
    assert outcome == "'successful'"
    assert "secret" not in representation
    sarah = iterable.project.users["sarah.johnson@email.com"]
    assert sarah.data_fields == {"plan_type": "pro"}
    assert len(iterable.project.events) == 2


def test_a_logger_writes_to_the_console_by_level_and_everything_to_the_file(tmp_path: Path) -> None:
    done = at_the_prompt(
        """
        from logger_config import get_logger, setup_logger
        logger = setup_logger(__name__, 'integration.log', 'INFO')
        logger.info('Starting')
        logger.debug('Only in the file')
        get_logger(__name__) is logger
        """,
        tmp_path,
    )
    assert done.stdout == "True\n"
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d - __main__ - INFO - Starting", done.stderr)
    assert "Only in the file" not in done.stderr
    first, second = (tmp_path / "integration.log").read_text().splitlines()
    assert first.endswith(" - __main__ - INFO - Starting")
    assert second.endswith(" - __main__ - DEBUG - Only in the file")


def test_run_integration_runs_one_sync(
    embedded: SourceDatabase, iterable: IterableSandbox, tmp_path: Path
) -> None:
    add_users(embedded.run_sql, [1, 2])
    program = Program.between(tmp_path / "run", embedded, iterable)
    done = at_the_prompt(
        """
        from main import load_environment_variables, run_integration
        settings = load_environment_variables()
        settings['DB_NAME'], type(settings), {type(value) for value in settings.values()}
        run_integration()
        """,
        tmp_path,
        program.settings,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stdout.startswith("('sandbox', <class 'dict'>, {<class 'str'>})\nRun completed\n")
    check_project(iterable.project, [1, 2])
    assert program.results["successful"] == 2


def test_load_environment_variables_raises_one_error_for_all_missing_settings(
    tmp_path: Path,
) -> None:
    done = at_the_prompt(
        """
        from main import load_environment_variables
        from errors import ConfigError
        try:
            load_environment_variables('empty.env')
        except ConfigError as error:
            len(error.problems), error.problems[0]

        """,
        tmp_path,
    )
    assert "is not an existing file" in done.stdout
    (tmp_path / "empty.env").touch()
    again = at_the_prompt(
        """
        from main import load_environment_variables
        load_environment_variables('empty.env')
        """,
        tmp_path,
    )
    for name in ("DB_HOST", "DB_USER", "DB_PASSWORD", "DB_NAME", "ITERABLE_API_KEY"):
        assert f"{name} is missing: set it in .env (see .env.example)" in again.stderr
