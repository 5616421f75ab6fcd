"""TLS settings that all connections to a server share.

urllib3 builds an `SSLContext` for every connection and loads the CA bundle into it: 22 ms and
0.7 MB each.
"""

from __future__ import annotations

import ssl
import sys
from typing import Any

_STRICT = ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN


class SharedContext(ssl.SSLContext):
    """TLS 1.2 or newer, with checks of certificate and host name. Thread-safe.

    `ca_file` and `ca_folder` are the trusted CAs, one of them None. Raises `ssl.SSLError` for a
    file without a certificate.
    """

    def __new__(cls, *_arguments: Any) -> SharedContext:
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, ca_file: str | None, ca_folder: str | None) -> None:
        super().__init__()
        self.minimum_version = ssl.TLSVersion.TLSv1_2
        self.hostname_checks_common_name = False
        if sys.version_info >= (3, 13):  # as `ssl.create_default_context` does
            self.verify_flags |= _STRICT
        self.load_verify_locations(ca_file, ca_folder)
        super().set_alpn_protocols(["http/1.1"])

    def set_alpn_protocols(self, alpn_protocols: Any) -> None:
        """Ignore what urllib3 sets for each connection: another thread may be in a handshake."""
