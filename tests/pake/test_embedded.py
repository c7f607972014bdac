"""The embedded server: starts, keeps its data, is nobody else's, and ends with its owner."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from pake import embedded
from tests.servers import ROOT

FAST = {"fsync": "off", "shared_buffers": "1MB", "max_connections": "20"}


def value(url: str, statement: str) -> object:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        result = connection.exec_driver_sql(statement)
        return result.scalar() if result.returns_rows else None


def test_start_gives_a_url_that_answers(empty_folder: Path) -> None:
    assert value(embedded.start(empty_folder, settings=FAST), "SELECT 1") == 1


def test_data_is_kept_from_one_start_to_the_next(folder: Path) -> None:
    value(embedded.start(folder, settings=FAST), "CREATE TABLE kept AS SELECT 42 AS answer")
    embedded.stop(folder)
    assert value(embedded.start(folder, settings=FAST), "SELECT answer FROM kept") == 42


def test_the_role_of_the_service_is_no_superuser(folder: Path) -> None:
    url = embedded.start(folder, settings=FAST)
    assert value(url, "SHOW is_superuser") == "off"
    assert value(embedded.superuser_url(folder), "SHOW is_superuser") == "on"


def test_statement_statistics_and_plans_are_loaded(folder: Path) -> None:
    url = embedded.start(folder, settings=FAST)
    assert value(url, "SHOW shared_preload_libraries") == "pg_stat_statements,auto_explain"
    assert isinstance(value(url, "SELECT count(*) FROM pg_stat_statements"), int)


def test_nothing_listens_on_the_network(folder: Path) -> None:
    assert value(embedded.start(folder, settings=FAST), "SHOW listen_addresses") == ""


@pytest.mark.parametrize("name", ["password", "superuser-password"])
def test_password_files_are_the_owners_alone(empty_folder: Path, name: str) -> None:
    embedded.start(empty_folder, settings=FAST)
    stat = (empty_folder / name).stat()
    assert (stat.st_mode & 0o777, stat.st_uid) == (0o600, os.geteuid())


def test_a_wrong_password_is_refused(folder: Path) -> None:
    url = sa.make_url(embedded.start(folder, settings=FAST)).set(password="wrong")
    with pytest.raises(sa.exc.OperationalError, match="password authentication failed"):
        value(url.render_as_string(hide_password=False), "SELECT 1")


def test_stop_leaves_no_server(folder: Path) -> None:
    embedded.start(folder, settings=FAST)
    server = embedded.status(folder).server_pid
    assert server
    embedded.stop(folder)
    assert not Path(f"/proc/{server}").exists()
    assert embedded.status(folder) == embedded.Status(folder, running=False)


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pake.embedded", "--folder", str(folder), *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_a_command_may_borrow_a_server_for_as_long_as_it_runs(folder: Path) -> None:
    done = command(
        folder, "run", "--", sys.executable, "-c", "import os; print(os.environ['DATABASE_URL']); exit(7)"
    )
    assert done.stdout.startswith("postgresql+psycopg2://")
    assert done.returncode == 7
    assert command(folder, "status").stdout == "not running\n"
    assert command(folder, "status").returncode == 3


def test_a_command_that_does_not_exist_is_one_line(folder: Path) -> None:
    done = command(folder, "run", "/no-such-command")
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["[Errno 2] No such file or directory: '/no-such-command'"]
    assert not embedded.status(folder).running


def test_status_tells_of_a_running_server(folder: Path) -> None:
    embedded.start(folder, settings=FAST)
    assert command(folder, "status").stdout.endswith(f"of process {os.getpid()}\n")
