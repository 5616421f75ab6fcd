"""Error messages for the source database: MySQL's error numbers, and what the operator does next.

Sources: the connector's `errorcode` module; MariaDB's "MariaDB Error Code Reference" for 1927 and
1969. The server's own message is quoted only where it can hold nothing but names (tables, columns,
users, hosts) and syntax. Passwords and values from rows are never quoted.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping

import mysql.connector
from mysql.connector import errorcode

from errors import SyncError


class SourceError(SyncError):
    """The source database cannot be read. The message is one line and says what to do next.

    `transient` is True if the same query may succeed a little later (lost connection, restart of
    the server, deadlock, time-out), False if something has to be changed first.
    """

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


TRANSIENT = True
PERMANENT = False

_UNREACHABLE = (
    "Cannot reach MySQL at {place}: is it running, and does it accept connections from this "
    "machine? Check {place_settings}."
)
_UNKNOWN_HOST = "Cannot find the host {host}: check DB_HOST (and the DNS of this machine)."
_LOST = (
    "The connection to MySQL at {place} was lost (the server stopped, or the network failed). Run "
    "again; nothing is lost."
)
_TOO_SLOW = (
    "The query is too slow: MySQL at {place} returned no row for {waited_seconds:.0f} seconds, and "
    "it was ended. --check names a missing index; a smaller ENGAGEMENT_WINDOW_DAYS helps too."
)
_LOCKED = (
    "The query waited {waited_seconds:.0f} seconds for a lock that another session holds "
    "({state}), and was ended. Run again when the lock is gone; SHOW PROCESSLIST shows who has it."
)
_LOCK_TIMEOUT = (
    "The query waited too long for a lock that another session holds ({detail}). Run again when "
    "the lock is gone; SHOW PROCESSLIST shows who has it."
)
_SILENT = (
    "MySQL at {place} sent nothing for {waited_seconds:.0f} seconds and cannot be asked why: the "
    "query is too slow, or the network failed. If it recurs, try the query in a MySQL client."
)
_DENIED = (
    "MySQL at {place} refused the user {user} ({detail}): check DB_USER and DB_PASSWORD, and "
    "whether the user is allowed to log in from this machine."
)
_DEFINER = (
    "MySQL at {place} refused a view or routine of the query, not the login ({detail}): its "
    "definer does not exist any more, or has no rights on its tables. Ask the administrator to "
    "create it again, or with SQL SECURITY INVOKER."
)
_EXPIRED = (
    "The password of the user {user} has expired on MySQL at {place}: renew it (ALTER USER), then "
    "set DB_PASSWORD."
)
_NOT_THIS_DATABASE = (
    "The user {user} has no access to the database {database} at {place}: check DB_NAME, or ask "
    "the administrator for GRANT SELECT ON {database}.*."
)
_FULL = "MySQL at {place} has no free connections. Run again a little later."
_TLS = (
    "No trusted TLS connection to MySQL at {place}: its certificate was not issued by the CA in "
    "{ssl_ca}, or not for the name {host}. Check DB_SSL_CA and DB_HOST."
)
_PLUGIN = (
    "MySQL at {place} requires a login method for the user {user} that the connector does not "
    "support: use an account with caching_sha2_password or mysql_native_password."
)
_LOGIN_FAILED = (
    "The login of the user {user} to MySQL at {place} failed ({detail}). An account with "
    "caching_sha2_password needs TLS on the server, or DB_UNIX_SOCKET."
)
_VIEW = (
    "MySQL at {place} cannot use a view of the query: {detail}. Ask the administrator to create "
    "it again (SHOW CREATE VIEW shows what it needs)."
)
_NO_EXPLAIN = (
    "The user {user} may not see the plan of a view of the query: {detail}. Ask the administrator "
    "for GRANT SHOW VIEW on the view and GRANT SELECT on its tables."
)
_STOPPED = "MySQL at {place} stopped the query ({detail}). Run again a little later."
_TIME_LIMIT = (
    "The query is too slow: MySQL at {place} ended it after the server's own time limit "
    "({detail}). --check names a missing index; the administrator can raise the limit."
)
_BAD_QUERY = "MySQL refused the query: {detail}. Check the query file (QUERY_FILE) and DB_NAME."
_NO_RIGHT = "The user {user} lacks a right for the query: {detail}. {grant}"
# MySQL names the missing right first: "SELECT command denied to user ... for table ...".
_GRANTS = {
    "SELECT": "Ask the administrator for GRANT SELECT on it.",
    "EXECUTE": "Check its name, as it may not exist, or ask the administrator for GRANT EXECUTE.",
    "SHOW VIEW": "Ask the administrator for GRANT SHOW VIEW on it.",
}
_ONLY_READ = "The query must only read: remove what writes or locks, such as FOR UPDATE."
_NO_SPACE = (
    "MySQL at {place} has no disk or memory left for the query ({detail}). Ask its administrator."
)
_READ_ONLY = (
    "The query tries to write, but the session is read only: {detail}. Use one SELECT statement, "
    "without FOR UPDATE."
)

# The messages of other errors are not quoted: they may hold data, as "Truncated incorrect DOUBLE
# value: '...'" does.
_UNEXPECTED = "MySQL at {place} reported error {errno} ({name}): try the query in a MySQL client."

_UNREADABLE = (
    "The connector cannot read the response from {place} ({name}): is that server MySQL? Run "
    "again; if the error persists, try the query in a MySQL client."
)

# Errors of the query whose messages hold only names and syntax.
_NAMES_AND_SYNTAX = (
    *(errorcode.ER_NO_SUCH_TABLE, errorcode.ER_BAD_TABLE_ERROR, errorcode.ER_UNKNOWN_TABLE),
    *(errorcode.ER_BAD_FIELD_ERROR, errorcode.ER_PARTITION_CLAUSE_ON_NONPARTITIONED),
    *(errorcode.ER_NON_UNIQ_ERROR, errorcode.ER_NONUNIQ_TABLE, errorcode.ER_DUP_FIELDNAME),
    *(errorcode.ER_PARSE_ERROR, errorcode.ER_SYNTAX_ERROR, errorcode.ER_NOT_SUPPORTED_YET),
    *(errorcode.ER_SP_DOES_NOT_EXIST, errorcode.ER_FUNC_INEXISTENT_NAME_COLLISION),
    *(errorcode.ER_WRONG_PARAMCOUNT_TO_NATIVE_FCT, errorcode.ER_WRONG_PARAMETERS_TO_NATIVE_FCT),
    errorcode.ER_SP_WRONG_NO_OF_ARGS,
    *(errorcode.ER_WRONG_FIELD_WITH_GROUP, errorcode.ER_MIX_OF_GROUP_FUNC_AND_FIELDS),
    *(errorcode.ER_INVALID_GROUP_FUNC_USE, errorcode.ER_NON_GROUPING_FIELD_USED),
    *(errorcode.ER_WRONG_NUMBER_OF_COLUMNS_IN_SELECT, errorcode.ER_OPERAND_COLUMNS),
    *(errorcode.ER_SUBQUERY_NO_1_ROW, errorcode.ER_ILLEGAL_REFERENCE),
    *(errorcode.ER_DERIVED_MUST_HAVE_ALIAS, errorcode.ER_TABLENAME_NOT_ALLOWED_HERE),
    *(errorcode.ER_CANT_AGGREGATE_2COLLATIONS, errorcode.ER_CANT_AGGREGATE_3COLLATIONS),
    *(errorcode.ER_CANT_AGGREGATE_NCOLLATIONS, errorcode.ER_COLLATION_CHARSET_MISMATCH),
    *(errorcode.ER_UNKNOWN_COLLATION, errorcode.ER_UNKNOWN_CHARACTER_SET),
    *(errorcode.ER_UNKNOWN_SYSTEM_VARIABLE, errorcode.ER_FT_MATCHING_KEY_NOT_FOUND),
    errorcode.ER_KEY_DOES_NOT_EXITS,
    *(errorcode.ER_WINDOW_NO_SUCH_WINDOW, errorcode.ER_WINDOW_INVALID_WINDOW_FUNC_USE),
    *(4009, 4015),  # MariaDB: the same
    errorcode.ER_CTE_MAX_RECURSION_DEPTH,
    errorcode.ER_TOO_BIG_SELECT,  # the server's max_join_size
)

_MEANING: dict[int, tuple[str, bool]] = {
    # Numbers of the client library.
    errorcode.CR_CONNECTION_ERROR: (_UNREACHABLE, TRANSIENT),
    errorcode.CR_CONN_HOST_ERROR: (_UNREACHABLE, TRANSIENT),
    errorcode.CR_IPSOCK_ERROR: (_UNREACHABLE, TRANSIENT),
    errorcode.CR_UNKNOWN_HOST: (_UNKNOWN_HOST, TRANSIENT),
    errorcode.CR_SERVER_GONE_ERROR: (_LOST, TRANSIENT),
    errorcode.CR_SERVER_LOST: (_LOST, TRANSIENT),
    errorcode.CR_SERVER_LOST_EXTENDED: (_LOST, TRANSIENT),
    errorcode.CR_SERVER_HANDSHAKE_ERR: (_LOST, TRANSIENT),
    errorcode.CR_MALFORMED_PACKET: (_LOST, TRANSIENT),
    errorcode.CR_SSL_CONNECTION_ERROR: (_TLS, PERMANENT),
    errorcode.CR_AUTH_PLUGIN_CANNOT_LOAD: (_PLUGIN, PERMANENT),
    errorcode.CR_AUTH_PLUGIN_ERR: (_LOGIN_FAILED, PERMANENT),
    # Login.
    errorcode.ER_ACCESS_DENIED_ERROR: (_DENIED, PERMANENT),
    errorcode.ER_ACCESS_DENIED_NO_PASSWORD_ERROR: (_DENIED, PERMANENT),
    errorcode.ER_HOST_NOT_PRIVILEGED: (_DENIED, PERMANENT),
    errorcode.ER_HOST_IS_BLOCKED: (_DENIED, PERMANENT),
    errorcode.ER_MUST_CHANGE_PASSWORD: (_EXPIRED, PERMANENT),
    errorcode.ER_MUST_CHANGE_PASSWORD_LOGIN: (_EXPIRED, PERMANENT),
    errorcode.ER_ACCOUNT_HAS_BEEN_LOCKED: (_DENIED, PERMANENT),
    errorcode.ER_NOT_SUPPORTED_AUTH_MODE: (_PLUGIN, PERMANENT),
    errorcode.ER_SECURE_TRANSPORT_REQUIRED: (
        "MySQL at {place} requires TLS: set DB_SSL_CA to the CA file of the server.",
        PERMANENT,
    ),
    errorcode.ER_DBACCESS_DENIED_ERROR: (_NOT_THIS_DATABASE, PERMANENT),
    errorcode.ER_BAD_DB_ERROR: (
        "There is no database {database} on MySQL at {place}: check DB_NAME.",
        PERMANENT,
    ),
    errorcode.ER_CON_COUNT_ERROR: (_FULL, TRANSIENT),
    errorcode.ER_TOO_MANY_USER_CONNECTIONS: (_FULL, TRANSIENT),
    errorcode.ER_USER_LIMIT_REACHED: (_FULL, TRANSIENT),
    # The connection ended during the query.
    errorcode.ER_SERVER_SHUTDOWN: (_LOST, TRANSIENT),
    errorcode.ER_NET_READ_ERROR: (_LOST, TRANSIENT),
    errorcode.ER_NET_READ_INTERRUPTED: (_LOST, TRANSIENT),
    errorcode.ER_NET_ERROR_ON_WRITE: (_LOST, TRANSIENT),
    errorcode.ER_NET_WRITE_INTERRUPTED: (_LOST, TRANSIENT),
    errorcode.ER_CLIENT_INTERACTION_TIMEOUT: (_LOST, TRANSIENT),
    errorcode.ER_SESSION_WAS_KILLED: (_LOST, TRANSIENT),
    1927: (_LOST, TRANSIENT),  # MariaDB: ER_CONNECTION_KILLED
    # The server ended the query.
    errorcode.ER_LOCK_WAIT_TIMEOUT: (_LOCK_TIMEOUT, TRANSIENT),
    errorcode.ER_LOCK_DEADLOCK: (_STOPPED, TRANSIENT),
    errorcode.ER_QUERY_INTERRUPTED: (_STOPPED, TRANSIENT),
    # Also the number of the pure Python driver's read time-out.
    errorcode.ER_QUERY_TIMEOUT: (_TIME_LIMIT, TRANSIENT),
    1969: (_TIME_LIMIT, TRANSIENT),  # MariaDB: ER_STATEMENT_TIMEOUT
    1021: (_NO_SPACE, TRANSIENT),  # ER_DISK_FULL, which the connector no longer lists
    errorcode.ER_RECORD_FILE_FULL: (_NO_SPACE, TRANSIENT),
    errorcode.ER_OUT_OF_SORTMEMORY: (_NO_SPACE, TRANSIENT),
    # The query itself.
    **dict.fromkeys(_NAMES_AND_SYNTAX, (_BAD_QUERY, PERMANENT)),
    errorcode.ER_NO_SUCH_USER: (_DEFINER, PERMANENT),
    errorcode.ER_VIEW_INVALID: (_VIEW, PERMANENT),
    errorcode.ER_VIEW_NO_EXPLAIN: (_NO_EXPLAIN, PERMANENT),
    errorcode.ER_TABLEACCESS_DENIED_ERROR: (_NO_RIGHT, PERMANENT),
    errorcode.ER_COLUMNACCESS_DENIED_ERROR: (_NO_RIGHT, PERMANENT),
    errorcode.ER_PROCACCESS_DENIED_ERROR: (_NO_RIGHT, PERMANENT),
    errorcode.ER_SPECIFIC_ACCESS_DENIED_ERROR: (_NO_RIGHT, PERMANENT),  # INTO OUTFILE
    errorcode.ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION: (_READ_ONLY, PERMANENT),
}

_NAMES = {
    number: name
    for name, number in vars(errorcode).items()
    # From 4000 on MariaDB has other errors with the numbers of MySQL's.
    if isinstance(number, int) and number < 4000 and name.startswith(("ER_", "CR_"))
}
_MAX_DETAIL_CHARACTERS = 300
_TIME_OUTS = (
    *(errorcode.CR_SERVER_LOST, errorcode.CR_SERVER_LOST_EXTENDED, errorcode.CR_SERVER_GONE_ERROR),
    errorcode.ER_QUERY_TIMEOUT,  # of the pure Python driver
)


def to_source_error(
    error: Exception, facts: Mapping[str, object], *, logged_in: bool = False
) -> SourceError:
    """Convert an exception of the connector; `facts` are the values that the messages insert."""
    errno = _errno(error)
    template, transient = _MEANING.get(errno, (_UNEXPECTED, PERMANENT))
    if logged_in and errno == errorcode.ER_ACCESS_DENIED_ERROR:
        template = _DEFINER  # to a user who may not see the definer's name
    if not errno and not isinstance(error, mysql.connector.Error | OSError):
        # The pure Python driver raises IndexError, struct.error, decimal.InvalidOperation ...
        template, transient = _UNREADABLE, TRANSIENT
    detail = _one_line(getattr(error, "msg", None) or type(error).__name__)
    text = template.format(
        **facts,
        detail=detail,
        grant=_GRANTS.get(detail.partition(" command denied")[0].upper(), _ONLY_READ),
        errno=errno,
        name=_NAMES.get(errno, type(error).__name__),
    )
    return SourceError(text, transient=transient)


def may_be_time_out(error: Exception) -> bool:
    """Return whether the connector may have stopped waiting for the server."""
    return _errno(error) in _TIME_OUTS


def no_response_in_time(
    facts: Mapping[str, object], waited_seconds: float, states: list[str] | None
) -> SourceError:
    """Return the error of a query without a response within the read time-out.

    `states` are those that the list of processes showed for it: empty if the server was no longer
    running it, None if the server could not be asked.
    """
    locks = [state for state in states or () if state.startswith("Waiting") and "lock" in state]
    if locks:
        template, transient = _LOCKED, TRANSIENT
    elif states:
        template, transient = _TOO_SLOW, PERMANENT
    else:
        template, transient = (_SILENT if states is None else _LOST), TRANSIENT
    text = template.format(**facts, waited_seconds=waited_seconds, state="".join(locks[:1]))
    return SourceError(text, transient=transient)


def _errno(error: Exception) -> int:
    """Return MySQL's number for an error, even if the pure Python driver gives another one."""
    errno: int = getattr(error, "errno", None) or 0
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            errno = errorcode.CR_UNKNOWN_HOST
        if isinstance(cause, ssl.SSLCertVerificationError):
            errno = errorcode.CR_SSL_CONNECTION_ERROR
        cause = cause.__cause__ or cause.__context__
    if errno <= 0 and isinstance(error, mysql.connector.OperationalError | ReferenceError):
        # "MySQL Connection not available": raised without a number after a session has ended.
        errno = errorcode.CR_SERVER_LOST
    return errno


def _one_line(text: str) -> str:
    line = " ".join(text.split()).rstrip(".")
    return line if len(line) <= _MAX_DETAIL_CHARACTERS else line[:_MAX_DETAIL_CHARACTERS] + "..."
