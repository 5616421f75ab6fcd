"""Settings from the environment, or all problems with them at once."""

from __future__ import annotations

import dataclasses
import itertools
from datetime import timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from config.fields import EVENT_FIELDS, USER_FIELDS, Field
from config.identity import IdentifyBy
from config.settings import DEFAULTS, NAMES, REQUIRED, Settings
from errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent.parent
FIELDS = {"USER_FIELDS": USER_FIELDS, "EVENT_FIELDS": EVENT_FIELDS}
REQUIRED_ONES = {
    "DB_HOST": "db.example.com",
    "DB_USER": "reader",
    "DB_PASSWORD": "correct horse",
    "DB_NAME": "shop",
    "ITERABLE_API_KEY": "0123456789abcdef",
}


def problems_of(**changes: str) -> list[str]:
    """Return the problems of settings that are refused."""
    with pytest.raises(ConfigError) as raised:
        settings_with(**changes)
    return list(raised.value.problems)


MAY_BE_EMPTY = {"USER_FIELDS", "EVENT_FIELDS", "PROFILE_FLAG"}  # and that differs from unset


def settings_with(**changes: str) -> Settings:
    return Settings.from_environment({**REQUIRED_ONES, **changes})


def problems_with(**changes: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        settings_with(**changes)
    assert str(raised.value) == "\n".join(raised.value.problems)
    return raised.value.problems


def problem_with(**changes: str) -> str:
    (problem,) = problems_with(**changes)
    return problem


# Defaults


def test_unset_settings_have_the_documented_defaults() -> None:
    settings = settings_with()
    assert dataclasses.asdict(settings) | {"user_fields": 0, "event_fields": 0} == {
        "db_host": "db.example.com",
        "db_user": "reader",
        "db_password": "correct horse",
        "db_name": "shop",
        "iterable_api_key": "0123456789abcdef",
        "db_port": 3306,
        "db_unix_socket": "",
        "db_ssl_ca": "",
        "db_timezone": timezone.utc,
        "engagement_window_days": 7.0,
        "query_file": ROOT / "sql" / "pro_users_recent_engagement.sql",
        "user_fields": 0,
        "event_fields": 0,
        "send": ("profiles", "events"),
        "event_name": "page_view",
        "profile_flag": "recent_page_view",
        "create_new_fields": "project",
        "merge_nested_objects": False,
        "iterable_api_base_url": "https://api.iterable.com",
        "sync_mode": "per-user",
        "users_update_rps": 500.0,
        "events_track_rps": 2000.0,
        "bulk_update_rps": 5.0,
        "track_bulk_rps": 10.0,
        "bulk_batch_size": 1000,
        "max_attempts": 5,
        "max_rejected_percent": 50.0,
        "rejected_retry_hours": 24,
        "state_file": ROOT / "sync_state.sqlite3",
        "rows_guard_factor": 3.0,
        "results_dir": ROOT,
        "log_level": "INFO",
        "log_file": ROOT / "iterable_integration.log",
        "log_file_level": "DEBUG",
        "log_payloads": True,
        "send_nulls": False,
        "identify_by": IdentifyBy.EMAIL,
        "user_id_column": "id",
        "email_changes": "new",
        "on_leave": "keep",
        "verify_sample": 0,
        "webhook_token": "",
        "confirmations_file": ROOT / "confirmations.sqlite3",
        "event_delay_seconds": 0.0,
        "outage_patience_seconds": 300.0,
        "sync_name": "",
        "results_keep": 1000,
        "results_keep_mb": 1000,
        "report": False,
        "healthcheck_url": "",
        "metrics_file": None,
    }
    assert (settings.user_fields, settings.event_fields) == (USER_FIELDS, EVENT_FIELDS)


@pytest.mark.parametrize(
    "name", sorted(set(DEFAULTS) - {"USER_FIELDS", "EVENT_FIELDS", "PROFILE_FLAG"})
)
@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_optional_setting_has_its_default(name: str, empty: str) -> None:
    assert settings_with(**{name: empty}) == settings_with()


@pytest.mark.parametrize("name", ["USER_FIELDS", "EVENT_FIELDS"])
@pytest.mark.parametrize("empty", ["", "  ", " , "])
def test_an_empty_list_of_fields_sent_the_default_fields(name: str, empty: str) -> None:
    settings = settings_with(**{name: empty})
    assert getattr(settings, name.lower()) == ()
    others = set(FIELDS) - {name}
    assert [getattr(settings, other.lower()) for other in others] == [FIELDS[o] for o in others]


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings_with().db_port = 1  # type: ignore[misc]


# Required settings


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_required_setting_is_reported(name: str) -> None:
    environment = {key: value for key, value in REQUIRED_ONES.items() if key != name}
    with pytest.raises(ConfigError) as raised:
        Settings.from_environment(environment)
    assert raised.value.problems == [f"{name} is missing: set it in .env (see .env.example)"]


@pytest.mark.parametrize("name", sorted(set(REQUIRED) - {"DB_PASSWORD"}))
def test_a_required_setting_cannot_be_empty(name: str) -> None:
    assert problem_with(**{name: " "}) == f"{name} is missing: set it in .env (see .env.example)"


@pytest.mark.parametrize("password", ["", " ", " leading and trailing ", "#$\\'\"", "pä\tss"])
def test_the_password_is_not_trimmed_and_may_be_empty(password: str) -> None:
    assert settings_with(DB_PASSWORD=password).db_password == password


def test_every_other_setting_is_trimmed() -> None:
    settings = settings_with(DB_HOST=" db \n", ITERABLE_API_KEY=" key\n", SYNC_MODE=" bulk ")
    assert (settings.db_host, settings.iterable_api_key) == ("db", "key")
    assert settings.sync_mode == "bulk"


@pytest.mark.parametrize("name", [*REQUIRED, "DB_SSL_CA", "HEALTHCHECK_URL", "DB_PORT"])
def test_a_placeholder_of_the_template_is_refused_in_any_setting(name: str) -> None:
    assert problem_with(**{name: "your_own_value_here"}) == (
        f"{name} still holds the template's placeholder: put your own value there"
    )


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        Settings.from_environment(
            {
                "DB_USER": "your_database_user_here",
                "DB_PORT": "x",
                "USER_FIELDS": "email,a.b",
                "SYNC_MODE": "fast",
                "QUERY_FILE": "nowhere.sql",
            }
        )
    assert [problem.split()[0] for problem in raised.value.problems] == [
        *("DB_HOST", "DB_USER", "DB_PASSWORD", "DB_NAME", "ITERABLE_API_KEY", "DB_PORT"),
        *("QUERY_FILE", "USER_FIELDS", "USER_FIELDS", "SYNC_MODE"),
    ]


# Secrets


def test_repr_does_not_show_secrets() -> None:
    settings = settings_with(
        DB_PASSWORD="hunter2-hunter2",
        ITERABLE_API_KEY="feedc0ffee",
        HEALTHCHECK_URL="https://hc-ping.com/5ec2e7",
    )
    shown = f"{settings!r} {settings}"
    assert "db.example.com" in shown
    assert not [part for part in ("hunter2", "feedc0ffee", "5ec2e7") if part in shown]


@pytest.mark.parametrize(
    "token", ["short", "x" * 15, "with blanks inside it", "schlüssel-schlüssel"]
)
def test_a_webhook_token_that_is_easily_guessed_or_no_header_can_hold_is_refused(
    token: str,
) -> None:
    assert "at least 16 characters" in problem_with(WEBHOOK_TOKEN=token)


FILES = ("STATE_FILE", "LOG_FILE", "METRICS_FILE", "CONFIRMATIONS_FILE")


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(FILES, 2)))
def test_two_settings_could_name_one_file_that_both_write(
    tmp_path: Path, first: str, second: str
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    names = {first: str(tmp_path / "file"), second: str(tmp_path / "link")}
    assert problem_with(**names) == (
        f"{second} is the file of {first}, too: choose another file for one of them"
    )
    settings_with(**names | {second: str(tmp_path / "other")})


def test_every_secret_has_a_label_for_the_log() -> None:
    settings = settings_with(HEALTHCHECK_URL="https://hc-ping.com/5ec2e7")
    assert list(settings.secrets()) == [
        ("correct horse", "database password"),
        ("0123456789abcdef", "api key"),
        ("https://hc-ping.com/5ec2e7", "health check"),
        ("", "webhook token"),
    ]


@pytest.mark.parametrize(
    "key", ["two words", "tab\tinside", "schlüssel-secret", "line\nsecret", "\x1bsecret"]
)
def test_a_key_that_no_http_header_can_hold_is_refused_without_quoting_it(
    key: str,
) -> None:
    assert problem_with(ITERABLE_API_KEY=key) == (
        "ITERABLE_API_KEY contains characters that an API key cannot contain: copy it again"
    )


# Numbers, flags, choices

WHOLE = {
    "DB_PORT": (1, 65_535),
    "BULK_BATCH_SIZE": (1, 10_000),
    "MAX_ATTEMPTS": (1, 100),
    "RESULTS_KEEP": (0, 1_000_000),
    "RESULTS_KEEP_MB": (0, 1_000_000),
}
RATES = ("USERS_UPDATE_RPS", "EVENTS_TRACK_RPS", "BULK_UPDATE_RPS", "TRACK_BULK_RPS")
NUMBERS = (*RATES, "ENGAGEMENT_WINDOW_DAYS", "EVENT_DELAY_SECONDS")


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("text", ["ten", "1.5", "1e3", "0x10", "--1", "nan", "9" * 5_000])
def test_what_is_not_a_whole_number_is_refused(name: str, text: str) -> None:
    assert problem_with(**{name: text}).startswith(f"{name} must be a whole number, not '")


@pytest.mark.parametrize(("name", "bounds"), WHOLE.items())
def test_a_whole_number_outside_its_bounds_is_refused(name: str, bounds: tuple[int, int]) -> None:
    for value in bounds:
        assert getattr(settings_with(**{name: str(value)}), name.lower()) == value
    for value in (bounds[0] - 1, bounds[1] + 1):
        assert problem_with(**{name: str(value)}) == (
            f"{name} must be between {bounds[0]:,} and {bounds[1]:,}, not {value}"
        )


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("text", ["fast", "1,5", "nan", "1/2", "5 s"])
def test_what_is_not_a_number_is_refused(name: str, text: str) -> None:
    assert problem_with(**{name: text}) == f"{name} must be a number, not {text!r}"


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("text", ["-1", "inf", "-inf", "1e99"])
def test_a_number_outside_its_bounds_is_refused(name: str, text: str) -> None:
    assert problem_with(**{name: text}).startswith(f"{name} must be between ")


@pytest.mark.parametrize("name", RATES)
def test_a_rate_below_one_request_per_second_is_allowed_but_not_zero(name: str) -> None:
    assert problem_with(**{name: "0"}).startswith(f"{name} must be between 0.01 and ")
    assert getattr(settings_with(**{name: "0.5"}), name.lower()) == 0.5
    assert getattr(settings_with(**{name: "0.01"}), name.lower()) == 0.01


@pytest.mark.parametrize("name", ["LOG_PAYLOADS", "SEND_NULLS", "REPORT"])
def test_a_flag_is_true_or_false(name: str) -> None:
    for text in ("true", "True", "YES", "on", "1"):
        assert getattr(settings_with(**{name: text}), name.lower()) is True
    for text in ("false", "FALSE", "no", "Off", "0"):
        assert getattr(settings_with(**{name: text}), name.lower()) is False
    assert problem_with(**{name: "maybe"}) == f"{name} must be true or false, not 'maybe'"


def test_the_name_of_the_sync_is_a_short_text_without_control_characters() -> None:
    assert settings_with(SYNC_NAME=' Köln "EU" ').sync_name == 'Köln "EU"'
    assert settings_with(SYNC_NAME="x" * 64).sync_name == "x" * 64
    for text in ("x" * 65, "two\nlines", "\x1b[31m", "line\u2028separator"):
        assert problem_with(SYNC_NAME=text) == (
            "SYNC_NAME must be at most 64 printable characters"
        )  # fmt: skip


def test_a_choice_is_case_insensitive_and_anything_else_is_refused() -> None:
    assert settings_with(SYNC_MODE="BULK").sync_mode == "bulk"
    assert settings_with(LOG_LEVEL="debug").log_level == "DEBUG"
    assert problem_with(SYNC_MODE="fast") == (
        "SYNC_MODE must be one of per-user, bulk, not 'fast'"
    )  # fmt: skip
    assert problem_with(LOG_LEVEL="loud").startswith("LOG_LEVEL must be one of DEBUG, INFO,")


def test_a_time_zone_is_an_iana_name() -> None:
    assert settings_with(DB_TIMEZONE="Europe/Berlin").db_timezone == ZoneInfo("Europe/Berlin")
    assert settings_with(DB_TIMEZONE="utc").db_timezone is timezone.utc
    assert str(settings_with(DB_TIMEZONE="UTC").db_timezone) == "UTC"
    assert timezone.utc.utcoffset(None) == timedelta(0)


@pytest.mark.parametrize(
    "text", ["Mars/Olympus", "Europe", "+02:00", "../../etc/passwd", "/etc/passwd", "x" * 400]
)
def test_an_unknown_time_zone_is_refused(text: str) -> None:
    assert problem_with(DB_TIMEZONE=text) == (
        f"DB_TIMEZONE is not a time zone: {text!r}; use an IANA name such as Europe/Berlin"
    )


def test_problems_of_field_lists_name_the_setting() -> None:
    assert settings_with(USER_FIELDS="city,vip:bool").user_fields == (
        Field("city", "city"),
        Field("vip", "vip", "bool"),
    )
    assert problem_with(USER_FIELDS="signupDate") == (
        "USER_FIELDS cannot contain the field 'signupDate': Iterable or this program sets it"
    )
    assert problem_with(EVENT_FIELDS="timestamp") == (
        "EVENT_FIELDS cannot contain the field 'timestamp': Iterable or this program sets it"
    )


# Any values


@given(st.dictionaries(st.sampled_from(NAMES), st.text(max_size=40)))
@example({"STATE_FILE": "~nobody-of-that-name/x"})
@example({"LOG_FILE": "x" * 300})
@example({"RESULTS_DIR": "a\0b"})
def test_any_environment_gives_settings_or_a_list_of_problems(environment: dict[str, str]) -> None:
    try:
        settings_with(**environment)
    except ConfigError as error:
        problems = error.problems
    else:
        return
    assert problems
    assert {problem.split()[0] for problem in problems} <= set(environment)
    assert all("\n" not in problem for problem in problems)


# Guards


@pytest.mark.parametrize("text", ["0", "1", "1.5", "3", "1000000"])
def test_the_factor_of_the_row_count_guard_is_0_or_at_least_1(text: str) -> None:
    assert settings_with(ROWS_GUARD_FACTOR=text).rows_guard_factor == float(text)


@pytest.mark.parametrize("text", ["0.5", "-1", "1000001", "three"])
def test_a_factor_below_1_would_hold_every_run_back(text: str) -> None:
    assert problem_with(ROWS_GUARD_FACTOR=text).startswith("ROWS_GUARD_FACTOR must be ")


# What is sent


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("profiles,events", ("profiles", "events")),
        (" Events , PROFILES ", ("profiles", "events")),
        ("events", ("events",)),
        ("profiles,profiles,", ("profiles",)),
    ],
)
def test_send_is_profiles_events_or_both(text: str, sent: tuple[str, ...]) -> None:
    settings = settings_with(SEND=text)
    assert settings.send == sent
    assert (settings.sends_profiles, settings.sends_events) == (
        "profiles" in sent,
        "events" in sent,
    )


@pytest.mark.parametrize("text", ["profile", "users", "profiles;events", ","])
def test_send_has_no_other_values(text: str) -> None:
    assert problems_of(SEND=text) == [f"SEND must be profiles,events or one of them, not {text!r}"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"USER_FIELDS": "a=recent_page_view,recent_page_view=a"}, "recent_page_view"),
        ({"USER_FIELDS": "on_trial", "PROFILE_FLAG": "on_trial"}, "on_trial"),
    ],
)
def test_the_flag_is_no_field_of_its_own(changes: dict[str, str], problem: str) -> None:
    assert problems_of(**changes) == [
        f"USER_FIELDS cannot contain the field {problem!r}, which is the PROFILE_FLAG"
    ]


def test_the_former_flag_is_an_ordinary_field_where_another_one_is_set() -> None:
    settings = settings_with(PROFILE_FLAG="on_trial", USER_FIELDS="recent_page_view=x")
    assert [each.target for each in settings.user_fields] == ["recent_page_view"]
    assert settings_with(PROFILE_FLAG="").profile_flag == ""


@pytest.mark.parametrize("flag", ["email", "userId", "signupDate", "a.b"])
def test_a_flag_that_iterable_manages_is_a_problem(flag: str) -> None:
    (problem,) = problems_of(PROFILE_FLAG=flag)
    assert problem.startswith("PROFILE_FLAG ")


@pytest.mark.parametrize("name", ["x" * 256, "a\tb"])
def test_an_event_name_is_short_and_printable(name: str) -> None:
    assert problems_of(EVENT_NAME=name) == [
        "EVENT_NAME must be at most 255 characters, none of them a control character"
    ]


def test_clearing_needs_a_flag_and_profiles() -> None:
    assert problems_of(ON_LEAVE="clear", PROFILE_FLAG="") == [
        "ON_LEAVE=clear needs a PROFILE_FLAG: it is what is set to false"
    ]
    assert problems_of(ON_LEAVE="clear", SEND="events") == [
        "ON_LEAVE=clear needs SEND=profiles or profiles,events: events have no flag"
    ]
    assert settings_with(ON_LEAVE="clear", SEND="profiles").on_leave == "clear"


def test_moving_needs_profiles() -> None:
    (problem,) = problems_of(EMAIL_CHANGES="move", SEND="events")
    assert problem.startswith("EMAIL_CHANGES=move needs SEND=profiles or profiles,events")


@pytest.mark.parametrize(("text", "value"), [("project", None), ("TRUE", True), ("false", False)])
def test_new_fields_are_the_projects_choice_or_ours(text: str, value: bool | None) -> None:
    assert settings_with(CREATE_NEW_FIELDS=text).creates_new_fields is value
    assert problems_of(CREATE_NEW_FIELDS="yes") == [
        "CREATE_NEW_FIELDS must be one of project, true, false, not 'yes'"
    ]
