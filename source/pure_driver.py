"""The pure Python driver, made as careful with a password as the C extension is.

With `caching_sha2_password` (MySQL's default) a server that has not seen the account lately asks
for the password itself. Over TCP without TLS the C extension refuses; the pure driver 9.7.0 sends
it as it is, to whoever poses as the server. Owns the refusal; knows nothing else of a session.
"""

from __future__ import annotations

from typing import Any

import mysql.connector
from mysql.connector import errorcode
from mysql.connector.plugins import caching_sha2_password


class _NeverInTheClear(caching_sha2_password.MySQLCachingSHA2PasswordAuthPlugin):  # type: ignore[misc]
    """The login method, without the one step that shows the password to a network."""

    def auth_response(self, auth_data: bytes, **options: Any) -> bytes | None:
        asks_for_password = auth_data == bytes([self.perform_full_authentication])
        if asks_for_password and not self._ssl_enabled:
            raise mysql.connector.InterfaceError(
                "Authentication requires secure connection", errno=errorcode.CR_AUTH_PLUGIN_ERR
            )
        response: bytes | None = super().auth_response(auth_data, **options)
        return response


# The driver looks for a class beside its own, by name.
setattr(caching_sha2_password, _NeverInTheClear.__name__, _NeverInTheClear)


class CarefulConnection(mysql.connector.MySQLConnection):  # type: ignore[misc]
    """A connection over TCP; the arguments are the driver's own."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._auth_plugin_class = _NeverInTheClear.__name__  # there is no option for it
        self.connect(**options)
