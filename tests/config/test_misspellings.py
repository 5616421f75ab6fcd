"""Names in `.env` that are no settings: misspelt ones are problems, others a warning."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands.check.run import run_check
from commands.history import print_history
from config.misspellings import resembled_setting
from config.settings import NAMES, Settings, read_environment, read_setting
from errors import ConfigError, ExitStatus
from tests.config.test_settings import REQUIRED_ONES


@pytest.mark.parametrize(
    "name",
    [
        *("logpayloads", "LOGPAYLOADS", "log_payloads", "Log_Payloads", "LOG__PAYLOADS_"),
        *("LOG_PAYLOAD", "OG_PAYLOADS", "LOG_PAYLADS"),  # left out
        *("LOG_PAYLOADSS", "XLOG_PAYLOADS", "LOG_PAYYLOADS"),  # inserted
        *("LOG_PAYLOADZ", "KOG_PAYLOADS", "LOG_PAYL0ADS", "LOG-PAYLOADS"),  # replaced
        *("LGO_PAYLOADS", "LOG_PAYLOASD", "OLG_PAYLOADS", "LOGP_AYLOADS"),  # swapped
    ],
)
def test_a_name_that_is_nearly_a_setting_resembles_it(name: str) -> None:
    assert resembled_setting(name, NAMES) == "LOG_PAYLOADS"


@pytest.mark.parametrize(
    "name",
    [
        *("LOG_PAYLOA", "LOG_PAYLOADSXX", "LO_PAYLOAD", "LOG_PAYLDOSA", "OGL_PAYLOADS"),
        *("LOG", "PAYLOADS", "X", "", "SOMETHING_ELSE", "log_payload", "DATABASE_HOST"),
    ],
)
def test_two_letters_are_too_many(name: str) -> None:
    assert resembled_setting(name, NAMES) is None


def test_no_setting_resembles_another() -> None:
    for name in NAMES:
        assert resembled_setting(name, [other for other in NAMES if other != name]) is None


class EnvFile:
    """A `.env` file and an environment with no settings but those of the test."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.set_variable = monkeypatch.setenv
        for name in NAMES:
            monkeypatch.delenv(name, raising=False)

    def problems(self, **settings: str) -> list[str]:
        """Write the file, and return the problems of its settings."""
        lines = {**REQUIRED_ONES, **settings}
        text = "".join(f"{name}='{value}'\n" for name, value in lines.items())
        self.path.write_text(text, encoding="utf-8")
        try:
            Settings.from_environment(read_environment(self.path))
        except ConfigError as error:
            return error.problems
        return []


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EnvFile:
    return EnvFile(tmp_path / "test.env", monkeypatch)


def test_a_misspelt_setting_was_ignored(env_file: EnvFile) -> None:
    """`LOG_PAYLOAD=false`: e-mail addresses were in the log, and `--check` was content."""
    assert env_file.problems(LOG_PAYLOAD="false") == [
        f"LOG_PAYLOADS is not set, but {env_file.path} has LOG_PAYLOAD: did you mean LOG_PAYLOADS?"
    ]


def test_misspelt_settings_are_reported_with_all_other_problems(env_file: EnvFile) -> None:
    problems = env_file.problems(DB_HSOT="x", DB_HOST="", DB_PORT="many", Results_Keep="7")
    assert [problem.split()[0] for problem in problems] == ["DB_HOST", "DB_PORT", "RESULTS_KEEP"]
    assert problems[0].endswith("has DB_HSOT: did you mean DB_HOST?")  # and not: is missing


def test_a_name_that_resembles_a_setting_that_is_set_is_no_problem(env_file: EnvFile) -> None:
    assert env_file.problems(LOG_PAYLOAD="false", LOG_PAYLOADS="true") == []
    env_file.set_variable("DB_PORT", "3307")
    assert env_file.problems(DB_PROT="1") == []
    assert env_file.problems(DB_HOST2="another server", SYNC_NAME="", SYNCNAME="x") == []
    assert read_environment(env_file.path).unknown_names == ["DB_HOST2", "SYNCNAME"]


def test_an_empty_setting_that_has_to_have_a_value_is_not_set(env_file: EnvFile) -> None:
    (problem,) = env_file.problems(DB_PORT="", DB_PRT="3307")
    assert problem.endswith("did you mean DB_PORT?")


def test_the_history_of_another_state_file_is_not_shown(env_file: EnvFile) -> None:
    (problem,) = env_file.problems(STATE_FIEL="/var/lib/state")
    environment = read_environment(env_file.path)
    assert read_setting(environment, "DB_PORT") == 3306
    with pytest.raises(ConfigError) as raised:
        print_history(environment)
    assert raised.value.problems == [problem]


def test_other_unknown_names_are_one_warning_of_the_check(
    env_file: EnvFile, capsys: pytest.CaptureFixture[str]
) -> None:
    env_file.problems(MAILTO="root", TZ="UTC", DB_PORT="closed")
    assert run_check(read_environment(env_file.path), str(env_file.path)) == (
        ExitStatus.BAD_SETTINGS
    )
    warning, problem = capsys.readouterr().out.splitlines()
    assert warning == (
        f"warning  settings       {env_file.path} has names that are no settings and are ignored: "
        "MAILTO, TZ. --help-settings lists all settings."
    )
    assert problem.startswith("FAILED   settings       DB_PORT ")


def test_many_unknown_names_are_still_one_line(
    env_file: EnvFile, capsys: pytest.CaptureFixture[str]
) -> None:
    env_file.problems(**{f"UNKNOWN_{number}": "1" for number in range(30)}, DB_PORT="closed")
    run_check(read_environment(env_file.path), str(env_file.path))
    (warning,) = [line for line in capsys.readouterr().out.splitlines() if "UNKNOWN" in line]
    assert "UNKNOWN_9, ..." in warning
    assert "UNKNOWN_10" not in warning


def test_a_line_without_a_value_is_no_name(env_file: EnvFile) -> None:
    """The rest of a password of two lines was a name."""
    env_file.path.write_text("rest-of-a-secret\nDB_HSOT\nAB+/CD==\n", encoding="utf-8")
    environment = read_environment(env_file.path)
    assert environment.unknown_names == []
    assert environment.problems == {}


def test_unknown_variables_of_the_environment_are_no_business_of_ours(env_file: EnvFile) -> None:
    env_file.set_variable("DB_PRT", "3307")
    assert env_file.problems() == []
    assert read_environment(env_file.path).unknown_names == []
