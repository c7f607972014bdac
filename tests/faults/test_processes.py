"""Reloads and the end of the service under load: rows 31 and 32 of the fault table."""

from __future__ import annotations

import os
import random
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.faults.client import account, with_token
from tests.faults.conftest import KEY
from tests.faults.test_database import locked, statement_waits
from tests.servers import Server, gunicorn, wait_for

RELOADS = int(os.environ.get("RELOADS", "2"))
"""`make test-reloads` makes 100; tests/pake/test_worker.py makes ten of a small app."""


def ask_again_and_again(server: Server, stop: threading.Event, pause: float) -> int:
    """Requests on one connection that is kept, as a browser or Locust keeps it; how many were served."""
    served = 0
    with requests.Session() as session:
        while not stop.is_set():
            assert session.get(server.url + "/livez", timeout=60).status_code == 200
            served += 1
            stop.wait(random.uniform(0, pause))
    return served


def reload(server: Server) -> None:
    """Replace both workers, and wait for the new ones; the old ones may have something to finish."""
    before = {*server.workers()}
    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: len({*server.workers()} - before) == 2, seconds=60)


@pytest.mark.fault(31)
@pytest.mark.timeout(100 + 10 * RELOADS)
def test_reloads_under_load_fail_no_request(tmp_path: Path, database_url: str) -> None:
    with (
        gunicorn(tmp_path, DATABASE_URL=database_url, SECRET_KEY=KEY, WEB_CONCURRENCY="2") as server,
        ThreadPoolExecutor(10) as clients,
    ):
        wait_for(lambda: len(server.workers()) == 2)
        stop = threading.Event()
        pauses = [0.01] * 2 + [3.0] * 8
        load = [clients.submit(ask_again_and_again, server, stop, pause) for pause in pauses]
        try:
            for _ in range(RELOADS):
                reload(server)
        finally:
            stop.set()
        assert all(client.result() for client in load)


def ask_until_refused(server: Server) -> set[int]:
    """Requests, each on a connection of its own, until none is taken any more; their statuses."""
    statuses = set()
    while True:
        try:
            statuses.add(server.get("/livez").status_code)
        except requests.ConnectionError:
            return statuses


@pytest.mark.fault(32)
def test_before_it_stops_it_is_not_ready_and_what_runs_is_finished(tmp_path: Path, database_url: str) -> None:
    limits = {"SHUTDOWN_DELAY_SECONDS": "3", "DATABASE_STATEMENT_TIMEOUT_MS": "30000"}
    with (
        gunicorn(tmp_path, DATABASE_URL=database_url, SECRET_KEY=KEY, **limits) as server,
        ThreadPoolExecutor(5) as clients,
    ):
        token = account(server)[1]["access_token"]
        assert server.get("/readyz").status_code == 200
        with locked(database_url) as lock:
            running = clients.submit(with_token, server, token, "/services")
            wait_for(lambda: statement_waits(lock))
            load = [clients.submit(ask_until_refused, server) for _ in range(4)]
            server.process.terminate()
            wait_for(lambda: server.get("/readyz").status_code == 503)
            assert not any(client.done() for client in load)
            assert {status for client in load for status in client.result()} == {200}
            assert not running.done()
        assert running.result().status_code == 200
        assert server.process.wait(30) == 0
