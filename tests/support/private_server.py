"""A private database server: its own data folder, socket and port; gone when the block ends.

It runs as the current user (also root), needs no service and does not affect other servers on the
machine. What differs between MariaDB and MySQL is in `tests/support/mariadb.py` and
`tests/support/mysql_server.py`; `tests/conftest.py` loads the schema.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import mysql.connector

START_SECONDS = 30.0
STOP_SECONDS = 20.0

_Self = TypeVar("_Self", bound="PrivateServer")


class ServerUnavailable(RuntimeError):
    """The server cannot be started; the text gives the reason."""


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that is not in use."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class PrivateServer(ABC):
    """A running server, as a context manager.

    `folder` is an existing directory that may be filled; without one a temporary directory is
    made and removed. `options` are further options of the server, e.g. TLS files or a bigger
    buffer pool. Raises `ServerUnavailable` when the programs are missing or it does not start.
    """

    host = "127.0.0.1"
    user = "sync_test"
    password = "sync-test-password"

    def __init__(self, folder: Path | str | None = None, options: Sequence[str] = ()) -> None:
        self._own_folder = folder is None
        self.folder = Path(tempfile.mkdtemp(prefix="server-") if folder is None else folder)
        self.port = free_port()
        # A socket's path may have 107 characters at most; pytest's folders come close.
        self._socket_folder = Path(tempfile.mkdtemp(prefix="my-", dir="/tmp"))
        self.unix_socket = str(self._socket_folder / "s")
        self.log_file = self.folder / "server.log"
        self._options = tuple(options)
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def program(self) -> str:
        """Return the path of the server's program."""

    @abstractmethod
    def install_command(self) -> list[str]:
        """Return the command that fills `data_folder`, with a root that has no password."""

    @abstractmethod
    def own_options(self) -> list[str]:
        """Return the options that only this kind of server has."""

    def __enter__(self: _Self) -> _Self:
        try:
            self._install()
            self.start()
            self._make_user()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        shutil.rmtree(self._socket_folder, ignore_errors=True)
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def data_folder(self) -> Path:
        """Where the server keeps its tables."""
        return self.folder / "data"

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the server on the same port and data as before; return when it can be used."""
        command = [
            self.program(),
            "--no-defaults",
            f"--user={account()}",
            f"--datadir={self.data_folder}",
            f"--tmpdir={self._socket_folder}",
            f"--socket={self.unix_socket}",
            f"--pid-file={self._socket_folder / 'pid'}",
            f"--log-error={self.log_file}",
            "--bind-address=127.0.0.1",
            f"--port={self.port}",
            "--skip-name-resolve",
            "--skip-log-bin",
            "--innodb-buffer-pool-size=32M",
            # The data is deleted after the tests, so nothing has to wait for the disk.
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-flush-method=nosync",
            "--innodb-doublewrite=0",
            "--key-buffer-size=1M",
            "--performance-schema=OFF",
            *self.own_options(),
            *self._options,
        ]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # Its own session: Ctrl-C on pytest must not kill it before the tests end.
            start_new_session=True,
        )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise ServerUnavailable(f"{command[0]} ended at once: {self._log_tail()}")
            try:
                self.root_connection().close()
            except mysql.connector.Error:
                time.sleep(0.05)
            else:
                return
        raise ServerUnavailable(f"{command[0]} accepted no connection in time: {self._log_tail()}")

    def stop(self) -> None:
        """Stop the server; harmless when it is not running."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def kill(self) -> None:
        """End the server as a power cut would; `start` brings it back."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def root_connection(self, database: str | None = None) -> Any:
        """Return an open connector connection as root over the socket, autocommit on.

        The caller closes it.
        """
        return mysql.connector.connect(
            unix_socket=self.unix_socket,
            user="root",
            password="",
            database=database,
            autocommit=True,
            collation="utf8mb4_general_ci",
            ssl_disabled=True,
        )

    def run_sql(self, script: str, database: str | None = None) -> None:
        """Run statements, separated by semicolons, as root."""
        connection = self.root_connection(database)
        try:
            cursor = connection.cursor()
            cursor.execute(script)
            while cursor.nextset():
                pass
        finally:
            connection.close()

    def create_database(self, name: str, *sql_files: Path) -> None:
        """Create a database, replacing one of that name, and run the files in it."""
        self.run_sql(f"DROP DATABASE IF EXISTS `{name}`; CREATE DATABASE `{name}`")
        for path in sql_files:
            self.run_sql(path.read_text(encoding="utf-8"), name)

    def _install(self) -> None:
        command = self.install_command()
        # Two installations that share /tmp delete each other's temporary tables.
        environment = {**os.environ, "TMPDIR": str(self.folder)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode != 0:
            reason = (done.stderr or done.stdout).strip().partition("\n")[0]
            raise ServerUnavailable(f"{command[0]} failed: {reason}")

    def _make_user(self) -> None:
        account = f"'{self.user}'@'%'"
        self.run_sql(
            f"CREATE USER {account} IDENTIFIED BY '{self.password}';"
            f"GRANT ALL PRIVILEGES ON *.* TO {account}"
        )

    def _log_tail(self) -> str:
        if not self.log_file.exists():
            return "it wrote no log"
        return self.log_file.read_text(encoding="utf-8", errors="replace")[-2000:]


def account() -> str:
    """Return the name of the system user that runs the tests, and so the server."""
    return pwd.getpwuid(os.geteuid()).pw_name
