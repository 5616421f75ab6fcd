"""The files that `--init` writes: settings that are read back as typed, and modes and rollback."""

from __future__ import annotations

import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from commands.init.env_file import env_text, quoted
from commands.init.new_files import refuse_existing, write_new_files
from config.settings import SETTINGS, read_environment
from errors import ConfigError

# What a terminal can send on one line.
TYPED = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"), max_size=40
) | st.text(st.sampled_from("\\'\"$#{} =\tnü"), max_size=12)


@pytest.fixture(autouse=True)
def _no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for declared in SETTINGS:
        monkeypatch.delenv(declared.name, raising=False)


@given(password=TYPED, user=TYPED, key=TYPED)
@example(password="\\", user="\\'", key="'")
@example(password=" # $HOME ${x} ", user='"', key="\ufeff")
def test_what_was_typed_is_read_back(password: str, user: str, key: str) -> None:
    settings = {"DB_PASSWORD": password, "DB_USER": user, "ITERABLE_API_KEY": key}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "settings.env")
        write_new_files({path: env_text(settings)})
        found = read_environment(path)
    assert dict(found) == settings
    assert not found.unknown_names


def test_plain_values_need_no_quotes() -> None:
    assert quoted("first_name,plan:bool") == "first_name,plan:bool"
    assert quoted("") == ""
    assert quoted("#x") == "'#x'"


def test_the_settings_file_has_a_comment_for_each_setting_in_their_order() -> None:
    settings = {"DB_PORT": "3307", "DB_HOST": "db"}
    text = env_text(settings)
    assert text.index("# --- Required ---\n# ") < text.index("\nDB_HOST=db\n\n# --- Database ---\n")
    assert text.endswith("\nDB_PORT=3307\n")


def test_both_files_have_the_mode_0600_whatever_the_umask(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    refuse_existing(paths)
    write_new_files(dict.fromkeys(paths, "text"))
    assert [stat.S_IMODE(path.stat().st_mode) for path in paths] == [0o600, 0o600]
    assert paths[0].read_text() == "text"


def test_if_the_second_file_cannot_be_written_the_first_is_removed(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("mine")
    with pytest.raises(ConfigError, match="b exists already"):
        write_new_files({tmp_path / "a": "text", tmp_path / "b": "text"})
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    assert (tmp_path / "b").read_text() == "mine"
    with pytest.raises(ConfigError, match=r"x/b cannot be written: No such file"):
        write_new_files({tmp_path / "a": "text", tmp_path / "x" / "b": "text"})
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_link_in_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    link = tmp_path / "link"
    link.symlink_to(target)  # it leads nowhere yet
    with pytest.raises(ConfigError, match="link exists already"):
        refuse_existing([link])
    with pytest.raises(ConfigError, match="link exists already"):
        write_new_files({link: "text"})
    assert not target.exists()
    assert link.is_symlink()


def test_every_problem_of_the_files_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    paths = [tmp_path / "a", tmp_path / "x" / "b", tmp_path / ("c" * 300), tmp_path / "free"]
    with pytest.raises(ConfigError) as refused:
        refuse_existing(paths)
    exists, no_folder, too_long = refused.value.problems
    assert exists.startswith(f"{paths[0]} exists already, and --init overwrites nothing")
    assert no_folder.endswith(f"is in a folder that does not exist: create {tmp_path / 'x'}")
    assert too_long.endswith("cannot be written: File name too long")
