"""A private MariaDB server, from the programs that the system's packages install.

The part of `tests/support/private_server.py` that only MariaDB has: programs and options.
"""

from __future__ import annotations

import os
import shutil

from tests.support.private_server import PrivateServer, ServerUnavailable, account, free_port

__all__ = ["MariaDBUnavailable", "PrivateMariaDB", "free_port"]

MariaDBUnavailable = ServerUnavailable


class PrivateMariaDB(PrivateServer):
    """A running `mariadbd`, as a context manager; see `PrivateServer` for the arguments."""

    def program(self) -> str:
        return _program("mariadbd", "mysqld")

    def install_command(self) -> list[str]:
        return [
            _program("mariadb-install-db", "mysql_install_db"),
            "--no-defaults",
            f"--user={account()}",
            f"--datadir={self.data_folder}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--skip-name-resolve",
            "--innodb-log-file-size=8M",
        ]

    def own_options(self) -> list[str]:
        return [
            "--character-set-server=utf8mb4",
            "--collation-server=utf8mb4_general_ci",
            "--innodb-log-file-size=8M",
            "--aria-pagecache-buffer-size=8M",
        ]


def _program(*names: str) -> str:
    # /usr/sbin is not on everyone's PATH.
    search = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    for name in names:
        found = shutil.which(name, path=search)
        if found:
            return found
    raise MariaDBUnavailable(f"no {names[0]} on this machine (see scripts/test for the packages)")
