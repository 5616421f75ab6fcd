"""`deploy/`: its guide works, it agrees with the program, and systemd accepts the units."""

from __future__ import annotations

import re
import shlex
import shutil
import socket
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import mysql.connector
import pytest
import requests

from commands.check.run import check_setup
from config.settings import DEFAULTS, NAMES, REQUIRED, SECRET_FILE_NAMES, Settings
from errors import ExitStatus
from sandbox.iterable_api import IterableSandbox
from tests.conftest import SAMPLE_DATA, SourceDatabase
from tests.support.documents import Document
from tests.support.program import copy_of_project, wait_until
from tests.support.program_files import PACKAGES, PROJECT_FOLDER
from tests.support.quick_start import Reader
from tests.support.users import WINDOW, add_users

DEPLOY = PROJECT_FOLDER / "deploy"
SERVICE, TIMER = DEPLOY / "mysql-to-iterable.service", DEPLOY / "mysql-to-iterable.timer"
LISTENER = DEPLOY / "mysql-to-iterable-listener.service"
NGINX = (DEPLOY / "nginx-webhooks.conf").read_text(encoding="utf-8")
HOME = "/opt/mysql-to-iterable"
ENV_FILE = "/etc/mysql-to-iterable/env"
WRITABLE = ("/var/lib/mysql-to-iterable", "/var/log/mysql-to-iterable")
README = (DEPLOY / "README.md").read_text(encoding="utf-8")


class Unit:
    """A unit file. A key may occur more than once."""

    def __init__(self, path: Path) -> None:
        self.values: dict[str, list[str]] = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            if "=" in line and not line.startswith("#"):
                key, value = line.split("=", 1)
                self.values.setdefault(key, []).append(value)

    def __getitem__(self, key: str) -> str:
        (value,) = self.values[key]
        return value


def cron_jobs() -> list[str]:
    lines = (DEPLOY / "crontab").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and line[0] in "*0123456789@"]


def command_lines() -> list[str]:
    """Every command in `deploy/` that starts the program."""
    files = [SERVICE, LISTENER, DEPLOY / "crontab", DEPLOY / "README.md"]
    lines = [line for path in files for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if "main.py " in line and not line.lstrip().startswith("#")]


# Commands of the guide that would change the machine.
CHANGES_THE_MACHINE = (
    r"(docker|kubectl|mysql|git|useradd|systemctl|journalctl|crontab) |cp deploy/|cd "
)


@pytest.mark.slow
def test_the_commands_of_the_guide_work(real: SourceDatabase, tmp_path: Path) -> None:
    real.run_sql(SAMPLE_DATA.read_text(encoding="utf-8"))
    folder = copy_of_project(tmp_path / "opt")
    for name in (".env.example", "requirements.txt", "constraints.txt"):
        shutil.copy(PROJECT_FOLDER / name, folder)
    (tmp_path / "etc").mkdir()
    places = {"/etc/mysql-to-iterable": tmp_path / "etc"}
    places |= {path: tmp_path / path.split("/")[2] for path in WRITABLE}
    with IterableSandbox() as iterable:
        own = {
            **real.settings(),
            "ITERABLE_API_KEY": "c0ffee00c0ffee00c0ffee00c0ffee00",
            "ITERABLE_API_BASE_URL": iterable.url,
        }
        reader = Reader(folder, own, places)
        for command in Document("deploy/README.md").commands:
            line = re.sub(r"^sudo -u \S+ | -o \S+ -g \S+", "", command)
            if setting := re.fullmatch(r"([A-Z_]+)=(/\S+)", line):
                reader.edit(ENV_FILE, {setting[1]: setting[2]})
            elif not re.match(CHANGES_THE_MACHINE, line):
                ending = reader.do(line)
                assert ending.status in {0, ExitStatus.SOME_FAILED}, f"{command}\n{ending.output}"
    assert (tmp_path / "lib/sync_state.sqlite3").exists()
    assert (tmp_path / "log/iterable_integration.log").exists()


@pytest.fixture(scope="module")
def flags() -> set[str]:
    command = [sys.executable, str(PROJECT_FOLDER / "main.py"), "--help"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"--[a-z][a-z-]+", said))


@pytest.mark.parametrize("line", command_lines())
def test_every_flag_that_is_used_exists(line: str, flags: set[str]) -> None:
    used = set(re.findall(r"(?<=\s)--[a-z][a-z-]+", line.split("main.py", 1)[1]))
    assert "--env-file" in used
    assert used <= flags


def test_the_paths_are_the_same_everywhere() -> None:
    service = Unit(SERVICE)
    python, program = service["ExecStart"].split()[:2]
    assert (python, program) == (f"{HOME}/.venv/bin/python", f"{HOME}/main.py")
    assert service["LoadCredential"] == f"env:{ENV_FILE}"
    assert "--env-file ${CREDENTIALS_DIRECTORY}/env" in service["ExecStart"]
    (job,) = cron_jobs()
    assert f"{python} {program} --env-file {ENV_FILE}" in job
    assert all(path in README for path in (HOME, ENV_FILE, *WRITABLE))


def test_the_unit_may_write_only_where_the_advised_settings_point() -> None:
    service = Unit(SERVICE)
    writable = " ".join(service.values["ReadWritePaths"]).split()
    assert service["ProtectSystem"] == "strict"
    assert {path for path in writable if not path.startswith("-")} == set(WRITABLE)
    assert {f"/var/lib/{service['StateDirectory']}", f"/var/log/{service['LogsDirectory']}"} == {
        *WRITABLE
    }
    advised = dict(re.findall(r"^ {4}([A-Z_]+)=(/\S+)$", README, re.MULTILINE))
    assert set(advised) == {"STATE_FILE", "RESULTS_DIR", "LOG_FILE"}
    for path in advised.values():
        assert path.startswith(WRITABLE)


def test_every_setting_that_is_named_exists() -> None:
    text = README + SERVICE.read_text(encoding="utf-8")
    named = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", text))
    assert {"METRICS_FILE", "RESULTS_KEEP"} <= named <= set(NAMES)
    for name in ("RESULTS_KEEP", "RESULTS_KEEP_MB"):
        assert f"`{name}` ({DEFAULTS[name]})" in README


def test_the_unit_does_not_fail_when_rows_failed_or_it_was_stopped() -> None:
    assert Unit(SERVICE)["SuccessExitStatus"].split() == ["3", "143"]
    assert Unit(SERVICE)["Restart"] == "no"


def test_the_units_and_the_crontab_contain_no_secret() -> None:
    for path in (SERVICE, TIMER, DEPLOY / "crontab"):
        text = path.read_text(encoding="utf-8")
        for name in ("DB_PASSWORD", "ITERABLE_API_KEY", "Environment="):
            assert name not in text


def test_the_timer_starts_the_service_every_ten_minutes() -> None:
    assert TIMER.stem == SERVICE.stem
    assert Unit(TIMER)["OnCalendar"] == "*:0/10"
    assert Unit(TIMER)["WantedBy"] == "timers.target"


class TestTheCrontab:
    def test_has_one_job_without_a_percent_sign(self) -> None:
        (job,) = cron_jobs()
        assert job.split()[:5] == ["*/10", "*", "*", "*", "*"]
        assert "%" not in job  # cron would make a new line of it
        assert job.endswith(" --quiet")

    def test_skips_a_start_while_the_last_run_is_active(self, tmp_path: Path) -> None:
        (job,) = cron_jobs()
        program = tmp_path / "program"
        program.write_text('#!/bin/sh\necho "$@"\nsleep 1\n', encoding="ascii")
        program.chmod(0o755)
        command = job.split(None, 5)[5]
        command = command.replace(f"{HOME}/.venv/bin/python", shlex.quote(str(program)))
        command = command.replace(WRITABLE[0], str(tmp_path))
        environment = {"PATH": "/usr/bin:/bin", "SHELL": "/bin/sh"}  # as cron sets it

        def start() -> subprocess.Popen[str]:
            return subprocess.Popen(
                ["/bin/sh", "-c", command],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                cwd="/",
            )

        with start() as first:
            assert first.stdout is not None
            said = first.stdout.readline()
            with start() as second:
                assert second.communicate()[0] == ""  # no output, no mail
            assert second.returncode == 0
        assert said.split() == [f"{HOME}/main.py", "--env-file", ENV_FILE, "--quiet"]
        assert first.returncode == 0


class TestSystemd:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        """Return a root folder with systemd's own units and stand-ins for the program's files."""
        own_units = Path("/usr/lib/systemd/system")
        if shutil.which("systemd-analyze") is None or not own_units.is_dir():
            pytest.skip("needs systemd-analyze (apt-get install systemd)")
        shutil.copytree(own_units, tmp_path / "usr/lib/systemd/system", symlinks=True)
        (tmp_path / "lib").symlink_to("usr/lib")
        for name in (f"{HOME}/.venv/bin/python", f"{HOME}/main.py", f"{HOME}/README.md", ENV_FILE):
            path = tmp_path / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("#!/bin/sh\n", encoding="ascii")
            path.chmod(0o755)
        units = tmp_path / "etc/systemd/system"
        units.mkdir(parents=True)
        shutil.copy(SERVICE, units)
        shutil.copy(TIMER, units)
        shutil.copy(LISTENER, units)
        return tmp_path

    def test_accepts_the_units(self, root: Path) -> None:
        done = analyze("verify", f"--root={root}", SERVICE.name, TIMER.name, LISTENER.name)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def test_would_reject_a_wrong_line(self, root: Path) -> None:
        with (root / "etc/systemd/system" / SERVICE.name).open("a", encoding="ascii") as unit:
            unit.write("ProtectEverything=yes\n")
        assert "ProtectEverything" in analyze("verify", f"--root={root}", SERVICE.name).stderr

    @pytest.mark.usefixtures("root")
    @pytest.mark.parametrize("unit", [SERVICE, LISTENER], ids=lambda path: path.name)
    def test_rates_the_exposure_of_the_service_as_low(self, unit: Path) -> None:
        done = analyze("security", "--offline=true", str(unit))
        if "offline" in done.stderr:
            pytest.skip("this systemd-analyze is too old to judge a file")
        found = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
        assert found
        assert float(found.group(1)) < 2.0


class TestNginx:
    def test_writes_no_token_into_its_logs(self, tmp_path: Path) -> None:
        """It did, into the error log, where the token is a part of the address."""
        if shutil.which("nginx") is None:
            pytest.skip("needs nginx (apt-get install nginx-light)")
        port, closed_port = free_port(), free_port()
        self.write_configuration(tmp_path, port, closed_port)
        command = ["nginx", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
        with subprocess.Popen([*command, "-e", str(tmp_path / "error.log")]) as nginx:
            url = f"http://127.0.0.1:{port}/iterable/0123456789-secret-token"
            try:
                wait_until(lambda: is_open(port))
                bad_gateway = requests.post(url, b"{}", timeout=10)
                too_large = requests.post(url, b"x" * 300_000, timeout=10)
                not_allowed = requests.get(url, timeout=10)
            finally:
                nginx.terminate()
        statuses = [each.status_code for each in (bad_gateway, too_large, not_allowed)]
        assert statuses == [502, 413, 403]
        logs = [path.read_text(encoding="utf-8") for path in tmp_path.glob("*.log")]
        assert not [text for text in logs if "secret-token" in text]

    def write_configuration(self, folder: Path, port: int, closed_port: int) -> None:
        """Write the site of `deploy/` without TLS, and a configuration around it."""
        site = NGINX.replace("listen 443 ssl;", f"listen 127.0.0.1:{port};")
        site = re.sub(r"\n *(listen \[::\]|ssl_).*", "", site)
        site = site.replace("127.0.0.1:8080", f"127.0.0.1:{closed_port}")
        (folder / "site.conf").write_text(site, encoding="utf-8")
        folders = "".join(
            f"{name}_temp_path {folder}/{name};\n"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (folder / "nginx.conf").write_text(
            f"daemon off; pid {folder}/pid; error_log {folder}/error.log;\n"
            f"events {{}}\nhttp {{ access_log {folder}/access.log; {folders}"
            f"include {folder}/site.conf; }}\n",
            encoding="utf-8",
        )

    def test_logs_neither_calls_nor_errors(self) -> None:
        server = NGINX.partition("server {")[2]
        assert "    access_log off;\n    error_log /dev/null emerg;\n" in server


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def is_open(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_an_update_restarts_the_listener() -> None:
    update = README.partition("## Updating the program")[2]
    commands, _blank, token = update.partition("Put a new")
    for text in (commands, token):
        assert f"systemctl try-restart {LISTENER.name}" in text


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True)


class TestTheGrant:
    PASSWORD = "a password of one's own"

    @pytest.fixture
    def reader(self, real: SourceDatabase) -> SourceDatabase:
        script = (DEPLOY / "grant_select.sql").read_text(encoding="utf-8")
        quoted = self.PASSWORD.replace("'", "''")
        real.run_sql("DROP USER IF EXISTS iterable_sync")
        real.run_sql(script.replace("your_database_password_here", quoted))
        return replace(real, user="iterable_sync", password=self.PASSWORD)

    def test_is_enough_for_check_to_pass(self, reader: SourceDatabase, tmp_path: Path) -> None:
        add_users(reader.run_sql, range(1, 4))
        with IterableSandbox() as iterable:
            environment = {
                **reader.settings(),
                **WINDOW,
                "ITERABLE_API_KEY": "c0ffee00c0ffee00c0ffee00c0ffee00",
                "ITERABLE_API_BASE_URL": iterable.url,
                "STATE_FILE": str(tmp_path / "state.sqlite3"),
                "RESULTS_DIR": str(tmp_path),
                "LOG_FILE": str(tmp_path / "run.log"),
            }
            lines = list(check_setup(Settings.from_environment(environment), None))
        assert [line for line in lines if not line.ok or line.is_warning] == []

    def test_is_enough_to_abandon_a_query(self, reader: SourceDatabase) -> None:
        add_users(reader.run_sql, range(1, 2_001))
        with reader.connection() as database:
            stream = database.stream(
                "SELECT a.id FROM customers a, customers b, customers c", chunk_rows=10
            )
            assert len(next(stream)) == 10
            stream.close()
            assert database.execute_query("SELECT 1 AS one") == [{"one": 1}]

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE customers SET first_name = 'x'",
            "DELETE FROM page_views",
            "CREATE TABLE theirs (x INT)",
            "SELECT * FROM mysql.user",
        ],
    )
    def test_allows_nothing_but_reading_the_two_tables(
        self, reader: SourceDatabase, statement: str
    ) -> None:
        connection = mysql.connector.connect(
            host=reader.host,
            port=reader.port,
            user=reader.user,
            password=reader.password,
            database=reader.database,
            collation="utf8mb4_general_ci",
        )
        try:
            with pytest.raises(mysql.connector.Error, match="denied"):
                connection.cursor().execute(statement)
        finally:
            connection.close()

    def test_has_a_placeholder_that_the_settings_would_refuse(self) -> None:
        script = (DEPLOY / "grant_select.sql").read_text(encoding="utf-8")
        (password,) = re.findall(r"IDENTIFIED BY '([^']+)'", script)
        assert password.startswith("your_")
        assert password.endswith("_here")


# Container and CronJob

CRONJOB = (DEPLOY / "cronjob.yaml").read_text(encoding="utf-8")
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
PROGRAM = "/app/.venv/bin/python /app/main.py"


def job_script(program: str) -> str:
    """Return the shell script of the CronJob with another program in it."""
    block = CRONJOB.partition("                - |\n")[2].partition("              env:\n")[0]
    script = textwrap.dedent(block)
    assert PROGRAM in script
    return script.replace(PROGRAM, program)


@pytest.mark.parametrize(("status", "expected"), [(0, 0), (1, 1), (2, 2), (3, 0), (70, 70)])
def test_only_failed_rows_are_no_failure_of_the_job(status: int, expected: int) -> None:
    done = subprocess.run(["sh", "-c", job_script(f"sh -c 'exit {status}'")], check=False)
    assert done.returncode == expected


def test_the_job_passes_sigterm_on_and_waits_for_the_graceful_end(tmp_path: Path) -> None:
    program = tmp_path / "program.sh"
    program.write_text(
        "trap 'echo graceful; sleep 0.3; exit 143' TERM; echo ready; while :; do sleep 0.1; done"
    )
    with subprocess.Popen(
        ["sh", "-c", job_script(f"sh {program}")], stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        running.terminate()
        assert running.stdout.read() == "graceful\n"
        assert running.wait(10) == 143


def test_image_and_job_agree_on_user_folder_and_secrets() -> None:
    user = re.findall(r"runAs(?:User|Group): (\d+)", CRONJOB)
    assert re.findall(r"USER (\d+):(\d+)", DOCKERFILE) == [tuple(user)]
    assert "mountPath: /data" in CRONJOB
    for setting in ("STATE_FILE", "RESULTS_DIR", "CONFIRMATIONS_FILE"):
        assert re.search(rf"{setting}=/data\b", DOCKERFILE), setting
    names = set(re.findall(r"- name: ([A-Z_]+)", CRONJOB)) | set(
        re.findall(r"\b([A-Z]+_[A-Z_]+)=", DOCKERFILE)
    )
    assert names - {"PYTHONUNBUFFERED"} <= {*NAMES, *SECRET_FILE_NAMES}
    assert set(REQUIRED) <= {name.removesuffix("_FILE") for name in names}
    for line in ("concurrencyPolicy: Forbid", "readOnlyRootFilesystem: true", "backoffLimit: 0"):
        assert line in CRONJOB


def test_the_image_has_every_package_of_the_program() -> None:
    copied = set(re.findall(r"^COPY (\w+) \1$", DOCKERFILE, re.MULTILINE))
    assert copied == {*PACKAGES, "sql"}
