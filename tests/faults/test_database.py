"""The database away in every way, seen over real HTTP: rows 29, 36 and 38 to 41 of the fault table."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from pake import embedded
from pake.config import Settings
from pake.database import longest_wait
from tests.conftest import autocommit, migrate
from tests.faults.client import account, assert_problem, register, with_token
from tests.faults.conftest import KEY
from tests.servers import Server, gunicorn, wait_for

LIMITS = {"WEB_CONCURRENCY": "1", "SECRET_KEY": KEY, "LOG_FORMAT": "json"}


@pytest.fixture
def place() -> Iterator[Path]:
    """A short directory that every user may enter, unlike `tmp_path`."""
    path = Path(tempfile.mkdtemp(prefix="pake-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@contextmanager
def frozen(folder: Path) -> Iterator[None]:
    """Inside the block no process of the server does anything, and every connection stays open."""
    postmaster = embedded.status(folder).server_pid
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    processes = [int(pid) for pid in (postmaster, *children) if pid]
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in processes:
            os.kill(pid, signal.SIGCONT)


@contextmanager
def locked(url: str, table: str = "service_registry") -> Iterator[sa.Connection]:
    """Until the block or the server ends, every statement on that table waits."""
    connection = sa.create_engine(url, poolclass=sa.NullPool).connect()
    try:
        connection.exec_driver_sql(f"LOCK TABLE {table}")
        yield connection
    finally:
        connection.invalidate()
        connection.close()


def statement_waits(lock: sa.Connection) -> bool:
    """Whether one waits for that lock."""
    return bool(lock.exec_driver_sql("SELECT count(*) FROM pg_locks WHERE NOT granted").scalar())


def end_sessions(connection: sa.Connection) -> None:
    """Terminate every other backend that serves this database."""
    connection.exec_driver_sql(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


def refused_at_once(server: Server) -> bool:
    """Whether a request was refused because the server is known to be silent."""
    assert_problem(server.get("/readyz"), 503)
    return '"KnownSilent"' in server.log


@pytest.mark.fault(38)
def test_a_frozen_database_is_503_and_forgotten_when_it_thaws(place: Path) -> None:
    assert longest_wait(Settings()) <= 6
    with gunicorn(place, **LIMITS) as server:
        assert server.get("/readyz").status_code == 200
        with frozen(place / "instance/postgres"), ThreadPoolExecutor(2) as clients:
            # One gets the connection that is there, the other one asks for a new one.
            for answer in clients.map(server.get, ["/readyz"] * 2):
                assert_problem(answer, 503)
            assert server.get("/livez").status_code == 200
            assert server.log.count('"NoAnswer"') == 2
            wait_for(lambda: refused_at_once(server))
        wait_for(lambda: server.get("/readyz").status_code == 200)


@pytest.mark.fault(36)
def test_a_restart_under_load_costs_the_writes_in_flight_and_a_read_does_not_notice(place: Path) -> None:
    url = embedded.start(place / "postgres")
    try:
        migrate(url)
        with (
            gunicorn(place, DATABASE_URL=url, **LIMITS) as server,
            ThreadPoolExecutor(5) as clients,
            locked(url, "users") as lock,
        ):
            workers = server.workers()
            write = clients.submit(register, server, username="somebody")
            wait_for(lambda: statement_waits(lock))
            stop = threading.Event()
            reads = [clients.submit(read_until, stop, server) for _ in range(4)]
            embedded.stop(place / "postgres")
            assert_problem(write.result(), 503)
            wait_for(lambda: server.get("/readyz").status_code == 503)
            embedded.start(place / "postgres")
            wait_for(lambda: server.get("/readyz").status_code == 200)
            stop.set()
            assert {status for read in reads for status in read.result()} <= {200, 503}
            assert register(server, username="somebody").status_code == 201
            embedded.stop(place / "postgres")
            embedded.start(place / "postgres")
            assert server.get("/readyz").status_code == 200
            assert '"connection lost, read again"' in server.log
            assert server.workers() == workers
    finally:
        embedded.stop(place / "postgres")


def read_until(stop: threading.Event, server: Server) -> set[int]:
    """The statuses of reads, one after the other."""
    statuses = set()
    while not stop.is_set():
        statuses.add(server.get("/readyz").status_code)
    return statuses


@pytest.mark.fault(39)
def test_after_a_terminated_backend_a_read_is_tried_again(tmp_path: Path, database_url: str) -> None:
    with gunicorn(tmp_path, DATABASE_URL=database_url, **LIMITS) as server:
        assert server.get("/readyz").status_code == 200
        assert "read again" not in server.log
        with autocommit(database_url) as connection:
            end_sessions(connection)
        assert server.get("/readyz").status_code == 200
        assert '"connection lost, read again"' in server.log


@pytest.mark.fault(39)
def test_after_a_terminated_backend_a_write_is_503_and_the_next_one_is_done(
    tmp_path: Path, database_url: str
) -> None:
    with gunicorn(tmp_path, DATABASE_URL=database_url, **LIMITS) as server:
        assert register(server).status_code == 201
        with autocommit(database_url) as connection:
            end_sessions(connection)
        assert_problem(register(server), 503)
        assert register(server).status_code == 201


@pytest.mark.fault(41)
def test_a_statement_over_its_limit_is_503_and_logged_with_its_route(
    tmp_path: Path, database_url: str
) -> None:
    with gunicorn(
        tmp_path, DATABASE_URL=database_url, DATABASE_STATEMENT_TIMEOUT_MS="500", **LIMITS
    ) as server:
        token = account(server)[1]["access_token"]
        assert with_token(server, token, "/services").status_code == 200
        with locked(database_url):
            assert_problem(with_token(server, token, "/services"), 503)
        (line,) = [line for line in server.log.splitlines() if "QueryCanceled" in line]
        assert '"/services"' in line
        assert with_token(server, token, "/services").status_code == 200


@pytest.mark.fault(29)
def test_requests_beyond_the_pool_are_503_while_the_others_still_wait(
    tmp_path: Path, database_url: str
) -> None:
    assert Settings.model_fields["database_pool_timeout_seconds"].default < 1
    with gunicorn(
        tmp_path,
        "--threads=6",
        DATABASE_URL=database_url,
        DATABASE_POOL_SIZE="2",
        DATABASE_STATEMENT_TIMEOUT_MS="20000",
        **LIMITS,
    ) as server:
        token = account(server)[1]["access_token"]
        assert with_token(server, token, "/services").status_code == 200
        with ThreadPoolExecutor(6) as clients:
            with locked(database_url):
                waiting = [clients.submit(with_token, server, token, "/services") for _ in range(6)]
                wait_for(lambda: sum(client.done() for client in waiting) == 4)
                refused = [client for client in waiting if client.done()]
                for client in refused:
                    assert_problem(client.result(), 503)
            assert [client.result().status_code for client in waiting if client not in refused] == [200, 200]


@pytest.mark.fault(40)
def test_too_many_clients_are_503_and_the_log_says_what_does_not_fit(place: Path) -> None:
    # 3 are kept for superusers, so that 2 are left for a pool of 6.
    url = embedded.start(place / "postgres", settings={"max_connections": "5"})
    try:
        with gunicorn(place, "--threads=6", DATABASE_URL=url, DATABASE_POOL_SIZE="6", **LIMITS) as server:
            assert server.get("/readyz").status_code == 200
            with autocommit(url) as one:
                end_sessions(one)
                with autocommit(url):
                    assert_problem(server.get("/readyz"), 503)
            (line,) = [line for line in server.log.splitlines() if "no connection left" in line]
            wait_for(lambda: server.get("/readyz").status_code == 200)
    finally:
        embedded.stop(place / "postgres")
    said = json.loads(line)
    assert (said["pools"], said["max_connections"]) == (7, 5)
