"""A database with other table names, and the answers with which `--init` finds its way in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.support.private_server import PrivateServer
from tests.support.program import API_KEY

USER = "leser"
PASSWORD = "p#ss 'w\"rd' $x\\ü"
# Table and column names of a German shop; nothing in `elektropost` says that it is an e-mail.
SHOP = """
CREATE TABLE kunden (
    kundennr INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    mailadresse VARCHAR(254) NULL,
    vorname VARCHAR(100) NULL,
    `Straße und Nr.` VARCHAR(100) NULL,
    newsletter TINYINT(1) NOT NULL DEFAULT 0,
    passwort_hash CHAR(60) NULL,
    foto BLOB NULL
);
CREATE TABLE bestellungen (
    bestellnr INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    kundennr INT UNSIGNED NOT NULL,
    summe DECIMAL(10, 2) NOT NULL,
    `bestellt am` DATETIME NOT NULL,
    KEY bestellungen_neu (`bestellt am`, kundennr)
);
CREATE TABLE `versand``log 100%(window_start)s` (nr INT PRIMARY KEY, geaendert TIMESTAMP);
INSERT INTO kunden (mailadresse, vorname, `Straße und Nr.`, newsletter, passwort_hash) VALUES
    ('ann@example.com', 'Ann', 'Am Tor 1', 1, 'geheim'),
    ('bob@example.com', 'Bob', NULL, 0, 'geheim');
INSERT INTO bestellungen (kundennr, summe, `bestellt am`) VALUES
    (1, 10.50, UTC_TIMESTAMP() - INTERVAL 3 HOUR),
    (1, 20.00, UTC_TIMESTAMP() - INTERVAL 1 HOUR),
    (2, 30.00, UTC_TIMESTAMP() - INTERVAL 2 HOUR);
"""


Answers = Sequence[tuple[str, str]]  # a part of each question, and what is typed

TABLES: Answers = (
    *(("Database [laden]", ""), ("Table of users [kunden]", "")),
    *(("e-mail address [mailadresse]", ""), ("user's id [kundennr]", "")),
    *(("to send profiles only [bestellungen]", ""), ("refers to kunden [kundennr]", "")),
    ("event's time [bestellt am]", ""),
)
EVENTS: Answers = (
    *(("stored times [UTC]", ""), ("how many days [7]", "30")),
    ("in Iterable [bestellungen]", "order"),
)
ITERABLE: Answers = (
    *(("API key", API_KEY), ("Data centre of the project [US]", "")),
    ("a user in the project [email]", ""),
)


def login_to(server: PrivateServer) -> Answers:
    return [("Host", ""), ("Port", str(server.port)), ("User", USER), ("Password", PASSWORD)]


@contextmanager
def shop_database(server: PrivateServer) -> Iterator[None]:
    """Create the database `laden`, and a user who may only read it; drop both after the block."""
    quoted = PASSWORD.replace("\\", "\\\\").replace("'", "\\'")
    server.create_database("laden")
    server.run_sql(SHOP, "laden")
    server.run_sql(
        f"CREATE USER {USER}@'%' IDENTIFIED BY '{quoted}'; GRANT SELECT ON laden.* TO {USER}@'%'"
    )
    yield
    server.run_sql(f"DROP DATABASE laden; DROP USER {USER}@'%'")
