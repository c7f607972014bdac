"""Several workers under load, killed, timed out and ended in order: what the store knows of it afterwards."""

import os
import re
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import requests

from profilers import switches
from profilers.store import ProfileRow, Store, open_store
from profilers.worker_slots import LINE_SECONDS, WorkerSlots
from profilers.writer import INTERVAL
from tests.faults import profiled_app
from tests.servers import Server, gunicorn, wait_for

CONFIGURATION = """
from profilers.gunicorn import post_worker_init, worker_abort, worker_exit
wsgi_app = "tests.faults.profiled_app:app"
control_socket_disable = True
graceful_timeout = 2
"""
SOURCE = Path(profiled_app.__file__)
SLEEPING = f"{SOURCE.name}:{1 + SOURCE.read_text().splitlines().index('    time.sleep(40)')}"


@contextmanager
def served(folder: Path, *arguments: str, **settings: str) -> Iterator[tuple[Server, Store]]:
    """The small app under Gunicorn, and the store that its workers share."""
    (folder / "gunicorn.conf.py").write_text(CONFIGURATION)
    with gunicorn(folder, *arguments, FLASK_PROFILE_STORE=str(folder / "profiles"), **settings) as server:
        yield server, open_store(folder / "profiles")


def drive(server: Server, count: int) -> Counter[int]:
    """So many requests by eight clients: how many each worker answered."""
    with ThreadPoolExecutor(8) as clients:
        return Counter(clients.map(lambda number: int(server.get(f"/numbers/{number}").text), range(count)))


def is_work(row: ProfileRow) -> bool:
    return row.name == "GET /numbers/<int:number>"


def work_of(store: Store) -> Counter[int]:
    """How many profiles the store has of each worker."""
    return Counter(row.worker for row in store.profiles(limit=100_000) if is_work(row))


def start_sleeping(server: Server) -> int:
    """Begin the request that sleeps; returns its worker."""

    def ask() -> None:
        with suppress(requests.RequestException):  # its worker is going to be killed
            server.get("/sleep")

    threading.Thread(target=ask, daemon=True).start()
    marker = server.folder / "sleeping"
    wait_for(marker.exists)
    return int(marker.read_text())


def lost(store: Store) -> list[str]:
    """What is told of requests that were lost with their workers."""
    return [row.finding.message for row in store.findings() if row.finding.kind == "lost_request"]


def test_four_workers_under_load_keep_every_request_exactly_once(tmp_path):
    with served(tmp_path, "--workers", "4", "--threads", "2") as (server, store):
        answered = drive(server, 400)
        wait_for(lambda: sum(work_of(store).values()) >= 400)
    assert work_of(store) == answered
    (endpoint,) = (row for row in store.endpoints() if row.name == "GET /numbers/<int:number>")
    assert (endpoint.requests, endpoint.statements_max) == (400, 2)
    assert sum(row.calls for row in store.statements()) == 800
    assert lost(store) == []


def test_statements_that_run_while_the_body_streams_are_counted(tmp_path):
    with served(tmp_path, "--workers", "2", "--threads", "2") as (server, store):
        with ThreadPoolExecutor(4) as clients:
            answers = list(clients.map(lambda rows: server.get(f"/stream/{rows}"), [0, 1, 10, 100]))
        assert [len(answer.text.splitlines()) for answer in answers] == [0, 1, 10, 100]
        assert {answer.headers["Transfer-Encoding"] for answer in answers} == {"chunked"}
        wait_for(lambda: len(store.profiles()) >= 5)
    streamed = [row.statements for row in store.profiles() if row.name == "GET /stream/<int:rows>"]
    assert sorted(streamed) == [1, 2, 11, 101]


def test_preloaded_workers_have_a_writer_each(tmp_path):
    with served(tmp_path, "--workers", "2", "--preload") as (server, store):
        answered = drive(server, 50)
        wait_for(lambda: sum(work_of(store).values()) >= 50)
        assert work_of(store) == answered


@pytest.mark.fault(30)
def test_a_killed_worker_loses_its_last_second_at_most_and_its_request_is_named(tmp_path):
    with served(tmp_path, "--workers", "4", "--threads", "2") as (server, store):
        worker = start_sleeping(server)
        running = WorkerSlots.of(tmp_path / "profiles" / "workers").running
        wait_for(lambda: any(request.location for request in running()))
        written = drive(server, 150)
        wait_for(lambda: work_of(store) == written)
        unwritten = drive(server, 50)
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: lost(store))
        wait_for(lambda: len(server.workers()) == 4)
        answered = written + unwritten + drive(server, 50)
        kept = answered - Counter({worker: unwritten[worker]})
        wait_for(lambda: work_of(store) >= kept)

    assert kept <= work_of(store) <= answered
    assert INTERVAL < 1, "what is answered is unwritten for a second at most"
    (message,) = lost(store)
    found = re.fullmatch(rf"killed after (\d+\.\d) s in GET /sleep at {re.escape(SLEEPING)}", message)
    assert found, message
    assert float(found[1]) >= LINE_SECONDS
    (row,) = (row for row in store.profiles(limit=1000) if row.outcome == "killed")
    assert (row.name, row.worker) == ("GET /sleep", worker)


def test_workers_that_end_in_order_keep_everything_and_tell_of_nothing(tmp_path):
    with served(tmp_path, "--workers", "2", "--threads", "2") as (server, store):
        answered = drive(server, 100)
        os.kill(server.process.pid, signal.SIGTERM)  # at once: the writers have not had their turn
        server.process.wait(30)
    assert work_of(store) == answered
    with served(tmp_path, "--workers", "1") as (server, store):
        answered += drive(server, 1)
        wait_for(lambda: work_of(store) == answered)  # a round looks for the lost before it writes
        assert lost(store) == []


def test_a_request_that_outlives_its_worker_has_timed_out(tmp_path):
    with served(tmp_path, "--workers", "2", "--timeout", "2") as (server, store):
        worker = start_sleeping(server)
        wait_for(lambda: lost(store))
        (message,) = lost(store)
        assert message.startswith("timed out after")
        assert message.endswith(f"in GET /sleep at {SLEEPING}")
        rows = [row for row in store.profiles() if row.name == "GET /sleep"]
        assert [(row.outcome, row.worker) for row in rows] == [("timed_out", worker)]


@pytest.mark.fault(42)
def test_a_store_that_is_locked_under_load_changes_no_answer_and_gets_everything_later(tmp_path):
    with served(tmp_path, "--workers", "2", "--threads", "2") as (server, store):
        drive(server, 2)
        wait_for(lambda: sum(work_of(store).values()) == 2)
        other = sqlite3.connect(tmp_path / "profiles" / "profiles.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        assert drive(server, 100).total() == 100
        assert sum(work_of(store).values()) == 2
        other.execute("COMMIT")
        other.close()
        wait_for(lambda: sum(work_of(store).values()) == 102)


def is_prompt(store: Store, asked: list[tuple[int, float, int]]) -> bool:
    """Whether a switch takes a second at most to profile all requests, and one to end after its time."""
    (switch,) = switches.turn_on(store, ["queries"], "GET /numbers*", seconds=2).on
    on_at = time.time()
    assert [item.profilers for item in switches.status(store).switches.on] == [("queries",)]
    time.sleep(switch.until + 1.5 - on_at)
    due = Counter(pid for _, began, pid in list(asked) if on_at + 1 < began < switch.until - 0.5)
    rows = [row for row in store.profiles(limit=100_000) if is_work(row) and row.started_at > on_at]
    assert switches.status(store).switches.on == ()
    profiled = Counter(row.worker for row in rows)
    return len(due) == 4 and due <= profiled and max(row.started_at for row in rows) < switch.until + 1


def test_a_switch_reaches_all_workers_within_a_second_and_ends_by_itself(tmp_path):
    with served(tmp_path, "--workers", "4", "--threads", "5", FLASK_PROFILE="standby") as (server, store):
        wait_for(lambda: len(switches.status(store).workers) == 4)
        asked: list[tuple[int, float, int]] = []
        over = threading.Event()

        def ask() -> None:
            while not over.wait(0.1):
                began = time.time()
                answer = server.get("/numbers/1")
                asked.append((answer.status_code, began, int(answer.text)))

        with ThreadPoolExecutor(20) as clients:
            asking = [clients.submit(ask) for _ in range(20)]
            try:  # where others have the processor for a whole second, even the swift are late now and then
                assert any(is_prompt(store, asked) for _ in range(6))
            finally:
                over.set()
            for client in asking:
                client.result()
        assert {status for status, _, _ in asked} == {200}
