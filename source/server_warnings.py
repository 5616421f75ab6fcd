"""What the server warned of while it ran a query: a text that was cut, a division by zero, ...

Messages are not quoted: they may hold data, as "Truncated incorrect DOUBLE value: '...'" does.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from mysql.connector import errorcode

_MEANING = {
    errorcode.ER_CUT_VALUE_GROUP_CONCAT: "GROUP_CONCAT cut a text: raise group_concat_max_len",
    errorcode.ER_DIVISION_BY_ZERO: "division by zero gave NULL",
    errorcode.ER_TRUNCATED_WRONG_VALUE: "a value was not a number or a date, and was cut",
    errorcode.ER_WARN_DATA_OUT_OF_RANGE: "a value was out of range",
    errorcode.WARN_DATA_TRUNCATED: "a value was cut",
    errorcode.ER_WARN_ALLOWED_PACKET_OVERFLOWED: (
        "a text was longer than max_allowed_packet and became NULL"
    ),
    errorcode.ER_WARN_DEPRECATED_SYNTAX: "a deprecated form of SQL",
    errorcode.ER_WARN_DEPRECATED_SYNTAX_NO_REPLACEMENT: "a deprecated form of SQL",
}
_NAMES = {
    number: name
    for name, number in vars(errorcode).items()
    if isinstance(number, int) and name.startswith(("ER_", "WARN_"))
}


def read_warnings(connection: Any) -> str | None:
    """Return one sentence about the warnings of the last query; None if there were only notes."""
    cursor = connection.cursor()
    cursor.execute("SHOW COUNT(*) WARNINGS")
    total = int(cursor.fetchall()[0][0])
    cursor.execute("SHOW WARNINGS")
    listed = cursor.fetchall()
    counts = Counter(int(code) for level, code, _message in listed if level != "Note")
    if not counts:
        return None
    unlisted = total - len(listed)
    kinds = [
        f"{count:,} x {code} ({_MEANING.get(code) or _NAMES.get(code, 'see SHOW WARNINGS')})"
        for code, count in counts.most_common()
    ]
    if unlisted > 0:
        kinds.append(f"{unlisted:,} more that it does not list")
    return (
        f"MySQL warned about values of the query: {', '.join(kinds)}. Run the query in a MySQL "
        "client, then SHOW WARNINGS."
    )
