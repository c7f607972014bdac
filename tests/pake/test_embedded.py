"""The embedded server: starts, keeps its data, is nobody else's, and ends with its owner."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import sqlalchemy as sa

from pake import embedded

FAST = {"fsync": "off", "shared_buffers": "1MB", "max_connections": "20"}


def value(url: str, statement: str) -> object:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        result = connection.exec_driver_sql(statement)
        return result.scalar() if result.returns_rows else None


def test_start_gives_a_url_that_answers(folder: Path) -> None:
    assert value(embedded.start(folder, settings=FAST), "SELECT 1") == 1


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
def test_password_files_are_the_owners_alone(folder: Path, name: str) -> None:
    embedded.start(folder, settings=FAST)
    stat = (folder / name).stat()
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
