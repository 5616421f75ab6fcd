"""The questions of `--init`: what is proposed, what is refused, and what becomes of the answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from commands.init.dialogue import ask_all
from commands.init.terminal import EndOfInputError, Terminal
from errors import ConfigError
from tests.support.private_server import PrivateServer
from tests.support.program import API_KEY
from tests.support.shop import (
    EVENTS,
    ITERABLE,
    PASSWORD,
    TABLES,
    login_to,
    shop_database,
)


class Typist:
    """Types an answer to each question, and checks that it is the expected one."""

    def __init__(self, capsys: pytest.CaptureFixture[str], answers: Sequence[tuple[str, str]]):
        self._capsys = capsys
        self._answers = list(answers)
        self.shown = ""
        self.terminal = Terminal(self._read_line, self._read_secret)

    def _answer_to(self, question: str = "") -> str:
        shown = self._capsys.readouterr()
        text = shown.out + shown.err + question
        self.shown += text
        expected, answer = self._answers.pop(0)
        assert expected in text
        return answer

    def _read_line(self) -> bytes:
        return f"{self._answer_to()}\n".encode() if self._answers else b""

    def _read_secret(self, question: str) -> str:
        if not self._answers:
            raise EOFError
        return self._answer_to(question)


@pytest.fixture
def server(real_server: PrivateServer) -> Iterator[PrivateServer]:
    with shop_database(real_server):
        yield real_server


def test_the_answers_become_settings_and_a_query(
    server: PrivateServer, capsys: pytest.CaptureFixture[str]
) -> None:
    typist = Typist(capsys, [*login_to(server), *TABLES, *EVENTS, *ITERABLE])
    settings, query = ask_all(typist.terminal)
    assert settings == {
        "DB_HOST": "127.0.0.1",
        "DB_PORT": str(server.port),
        "DB_USER": "leser",
        "DB_PASSWORD": PASSWORD,
        "DB_NAME": "laden",
        "DB_TIMEZONE": "UTC",
        "ENGAGEMENT_WINDOW_DAYS": "30",
        "EVENT_NAME": "order",
        "PROFILE_FLAG": "",
        "QUERY_FILE": "sql/first_query.sql",
        "USER_FIELDS": "vorname,Straße_und_Nr,newsletter:bool",
        "EVENT_FIELDS": "summe",
        "ITERABLE_API_KEY": API_KEY,
    }
    assert "FROM `bestellungen` AS events" in query
    assert PASSWORD not in typist.shown


def test_profiles_alone_have_no_window_and_no_event(
    server: PrivateServer, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = [*TABLES[:4], ("to send profiles only [bestellungen]", "none")]
    iterable = [("API key", API_KEY), ("[US]", "EU"), ("[userid]", "email")]
    typist = Typist(capsys, [*login_to(server), *tables, *iterable])
    settings, query = ask_all(typist.terminal)
    assert settings["SEND"] == "profiles"
    assert settings["ITERABLE_API_BASE_URL"] == "https://api.eu.iterable.com"
    assert not {"EVENT_NAME", "ENGAGEMENT_WINDOW_DAYS", "DB_TIMEZONE", "IDENTIFY_BY"} & {*settings}
    assert "window_start" not in query


def test_unusable_answers_are_asked_for_again(
    server: PrivateServer, capsys: pytest.CaptureFixture[str]
) -> None:
    socket = server.unix_socket
    port = str(server.port)
    answers = [
        *(("Host", ""), ("Port", "70000"), ("DB_PORT must be between", "x" * 2_001)),
        *(("is longer than 2,000 characters", "3\0"), ("that no setting can hold", port)),
        *(("User: ", ""), ("needs an answer", "leser"), ("Password", "your_password_here")),
        *(
            ("the template's placeholder", "nobody-has-this-password"),
            ("refused the user leser", socket),
        ),
        *(("User [leser]", ""), ("Password", PASSWORD), ("Database [laden]", "7")),
        *(("7 is neither a number of the list nor a name.", "1"), *TABLES[1:], *EVENTS[:1]),
        *(("how many days", "-1"), ("must be between 0 and", "7"), EVENTS[2]),
        *(
            ("API key", "nobody has this key"),
            ("ITERABLE_API_KEY contains characters", ""),
        ),
        *(("needs an answer", API_KEY), *ITERABLE[1:]),
    ]
    settings, _query = ask_all(Typist(capsys, answers).terminal)
    assert (settings["DB_HOST"], settings["DB_UNIX_SOCKET"]) == ("localhost", socket)
    assert "DB_PORT" not in settings


@pytest.mark.parametrize("count", range(14))
def test_the_end_of_the_input_ends_the_questions(
    server: PrivateServer, capsys: pytest.CaptureFixture[str], count: int
) -> None:
    answers = [*login_to(server), *TABLES, *EVENTS, *ITERABLE]
    with pytest.raises(EndOfInputError, match="Nothing was written"):
        ask_all(Typist(capsys, answers[:count]).terminal)


def test_a_user_who_can_see_nothing_is_told_so(
    server: PrivateServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.run_sql("CREATE DATABASE leer; GRANT SELECT ON leer.* TO leser@'%'")
    try:
        answers = [*login_to(server), ("Database:", "leer"), ("no table of leer", "laden")]
        typist = Typist(capsys, answers)
        with pytest.raises(EndOfInputError):
            ask_all(typist.terminal)
        server.run_sql("REVOKE SELECT ON leer.* FROM leser@'%'")
        server.run_sql("REVOKE SELECT ON laden.* FROM leser@'%'")
        with pytest.raises(ConfigError, match="leser can see no database"):
            ask_all(Typist(capsys, login_to(server)).terminal)
    finally:
        server.run_sql("DROP DATABASE leer")


def test_of_many_tables_the_most_likely_are_listed_and_each_can_be_typed(
    server: PrivateServer, capsys: pytest.CaptureFixture[str]
) -> None:
    statements = [f"CREATE TABLE t{number} (a INT, at TIMESTAMP)" for number in range(30)]
    server.run_sql(";".join(statements), "laden")
    answers = [*login_to(server), TABLES[0], ("21 more: type a name", "t29")]
    typist = Typist(capsys, [*answers, ("Column of the e-mail address: ", "a")])
    with pytest.raises(EndOfInputError):
        ask_all(typist.terminal)
