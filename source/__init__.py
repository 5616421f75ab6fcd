"""MySQL specifics used by `db_connection`. Start with `session`."""

import sys

# The connector imports dnspython where it is installed, for DNS SRV records, which this program
# does not use: a sixth of the time that a start takes. None lets that import fail.
if "dns" not in sys.modules:
    sys.modules["dns"] = None  # type: ignore[assignment]
    try:
        import mysql.connector  # noqa: F401
    finally:
        del sys.modules["dns"]
