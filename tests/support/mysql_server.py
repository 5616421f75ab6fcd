"""A private MySQL server, from the program that the environment variable MYSQLD names.

The part of `tests/support/private_server.py` that only MySQL has. It keeps MySQL's defaults: TLS
with certificates that the server makes, `caching_sha2_password`, `utf8mb4_0900_ai_ci`.
`tests/README.md` explains how to get a `mysqld` without installing it.
"""

from __future__ import annotations

import os

from tests.support.private_server import PrivateServer, ServerUnavailable, account

_SMALL_REDO_LOG = "--innodb-redo-log-capacity=8M"


class PrivateMySQL(PrivateServer):
    """A running `mysqld` of MySQL 8.4 or later; see `PrivateServer` for the arguments."""

    def program(self) -> str:
        path = os.environ.get("MYSQLD")
        if not path:
            raise ServerUnavailable("MYSQLD names no mysqld (see tests/README.md)")
        return path

    def install_command(self) -> list[str]:
        return [
            self.program(),
            "--no-defaults",
            "--initialize-insecure",
            f"--user={account()}",
            f"--datadir={self.data_folder}",
            _SMALL_REDO_LOG,
            # Some have to be the same as long as the data lives: lower_case_table_names.
            *self._options,
        ]

    def own_options(self) -> list[str]:
        return [
            # The X protocol would listen on a port and a socket of its own.
            "--mysqlx=OFF",
            # Packages set a folder that only their installation makes; without it none starts.
            "--secure-file-priv=NULL",
            _SMALL_REDO_LOG,
        ]
