"""The database away in every way, seen over real HTTP: rows 29, 36, 38, 39 and 41 of the fault table."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from pake import embedded
from tests.conftest import autocommit
from tests.faults.conftest import KEY
from tests.faults.test_answers import account, assert_problem, register, with_token
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
def locked(url: str) -> Iterator[None]:
    """Inside the block every statement on services waits."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("LOCK TABLE service_registry")
        yield


def end_sessions(url: str) -> None:
    """Terminate every backend that serves this database."""
    with autocommit(url) as connection:
        connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def refused_at_once(server: Server) -> bool:
    """Whether a request was refused because the server is known to be silent."""
    assert_problem(server.get("/readyz"), 503)
    return '"KnownSilent"' in server.log


@pytest.mark.fault(38)
@pytest.mark.parametrize("established", [True, False], ids=["established connection", "new connection"])
def test_a_frozen_database_is_503_and_forgotten_when_it_thaws(place: Path, established: bool) -> None:
    limits = {"DATABASE_STATEMENT_TIMEOUT_MS": "500", "DATABASE_CONNECT_TIMEOUT_SECONDS": "1"}
    with gunicorn(place, **LIMITS, **limits) as server:
        if established:
            assert server.get("/readyz").status_code == 200
        with frozen(place / "instance/postgres"):
            assert_problem(server.get("/readyz"), 503)
            assert server.get("/livez").status_code == 200
            assert '"NoAnswer"' in server.log
            wait_for(lambda: refused_at_once(server))
        wait_for(lambda: server.get("/readyz").status_code == 200)


@pytest.mark.fault(36)
def test_a_restarted_database_is_used_again_and_a_read_does_not_notice(place: Path) -> None:
    url = embedded.start(place / "postgres")
    try:
        with gunicorn(place, DATABASE_URL=url, **LIMITS) as server:
            assert server.get("/readyz").status_code == 200
            embedded.stop(place / "postgres")
            assert_problem(server.get("/readyz"), 503)
            embedded.start(place / "postgres")
            assert server.get("/readyz").status_code == 200
            embedded.stop(place / "postgres")
            embedded.start(place / "postgres")
            assert server.get("/readyz").status_code == 200
            assert '"connection lost, read again"' in server.log
    finally:
        embedded.stop(place / "postgres")


@pytest.mark.fault(39)
def test_after_a_terminated_backend_a_read_is_tried_again(tmp_path: Path, database_url: str) -> None:
    with gunicorn(tmp_path, DATABASE_URL=database_url, **LIMITS) as server:
        assert server.get("/readyz").status_code == 200
        assert "read again" not in server.log
        end_sessions(database_url)
        assert server.get("/readyz").status_code == 200
        assert '"connection lost, read again"' in server.log


@pytest.mark.fault(39)
def test_after_a_terminated_backend_a_write_is_503_and_the_next_one_is_done(
    tmp_path: Path, database_url: str
) -> None:
    with gunicorn(tmp_path, DATABASE_URL=database_url, **LIMITS) as server:
        assert register(server).status_code == 201
        end_sessions(database_url)
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
                wait_for(lambda: sum(client.done() for client in waiting) == 4, seconds=15)
                refused = [client for client in waiting if client.done()]
                for client in refused:
                    assert_problem(client.result(), 503)
            assert [client.result().status_code for client in waiting if client not in refused] == [200, 200]
