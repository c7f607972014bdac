"""The verdict on the workers' memory that the page Workers shows."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import pytest

from profilers import switches
from profilers.console import leaks
from profilers.console.app import create_console
from profilers.console.views import Source
from profilers.storage.memory_samples import append_sample
from profilers.store import MemorySample, Store, open_store
from profilers.switches import WorkerStatus

HOST = socket.gethostname()
HEALTHY = leaks.LeakVerdict("no leak", "")


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request, tmp_path) -> Store:
    postgresql = request.param == "postgresql"
    return open_store(request.getfixturevalue("empty_database_url") if postgresql else tmp_path / "profiles")


def see(store: Store, *, leaking: bool, pid: int = 7, count: int = 120) -> None:
    """A living worker, looked at every five seconds while it served ten requests in each."""
    now = time.time()
    connection = store.database.connect()
    with connection.transaction(write=True):
        switches.say(connection, WorkerStatus(HOST, pid, now, 1.0, 0.01, 0))
        for number in range(count):
            own = 50_000_000 + (number * 10_000 * 10 if leaking else 0)
            sample = MemorySample(
                now - 5.0 * (count - number), HOST, pid, now - 4000, rss=own, uss=own,
                blocks=400_000 + (number * 200 if leaking else number % 3), requests={"GET /": 10 * number},
            )  # fmt: skip
            append_sample(connection, sample)
    connection.close()


def verdict(store: Store) -> leaks.LeakVerdict:
    """Look until there is one."""
    deadline = time.monotonic() + 60
    while (found := leaks.live_verdict(store)) is None:
        assert time.monotonic() < deadline, "there is no verdict"
        time.sleep(0.1)
    return found


def test_a_worker_that_leaks_is_told_from_one_that_does_not(tmp_path):
    for leaking, answer in ((True, "leak"), (False, "no leak")):
        store = open_store(tmp_path / answer)
        see(store, leaking=leaking)
        found = verdict(store)
        assert (found.answer, found.workers) == (answer, {f"{HOST}:7": answer})
        page = create_console(Source(reader=store, store=store), lambda request: True).test_client()
        shown = page.get("/workers.json").get_json()["leak"]
        assert (shown["answer"], shown["at"] > time.time() - 60) == (answer, True)
        assert (">leaks</span>" in page.get("/workers").text) is leaking


def test_little_is_not_enough(store):
    see(store, leaking=True, count=9)
    assert verdict(store).answer == "not enough data"


def test_workers_that_are_gone_and_samples_taken_otherwise_are_not_judged(store, monkeypatch):
    seen: list[MemorySample] = []
    monkeypatch.setattr(
        leaks, "_ask", lambda samples: seen.extend(samples) or leaks.LeakVerdict("no leak", "")
    )
    see(store, leaking=False)
    connection = store.database.connect()
    with connection.transaction(write=True):
        now = time.time()
        append_sample(connection, MemorySample(now - 5, HOST, 9, now - 50, rss=7))
        append_sample(
            connection, MemorySample(now - 300.5, HOST, 7, now - 4000, rss=7, tracing="run", traced=1)
        )
    connection.close()
    assert verdict(store).answer == "no leak"
    assert {sample.pid for sample in seen} == {7}
    assert {sample.tracing for sample in seen} == {""}


def test_without_samples_it_says_what_is_missing(store):
    assert "switch it on" in verdict(store).reason


def test_it_is_reached_once_for_all_workers_and_again_when_it_is_old(store, monkeypatch):
    asked: list[int] = []
    monkeypatch.setattr(leaks, "_ask", lambda samples: asked.append(1) or HEALTHY)
    see(store, leaking=False, count=3)
    verdict(store)
    for _ in range(5):
        leaks.live_verdict(store)
    assert len(asked) == 1
    monkeypatch.setattr(leaks, "AGAIN_SECONDS", -1.0)
    leaks.live_verdict(store)
    deadline = time.monotonic() + 20
    while len(asked) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_process_that_fails_is_told_and_tried_again_later(store, monkeypatch, caplog):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    see(store, leaking=False, count=3)
    assert "cannot be judged here (FileNotFoundError)" in verdict(store).reason
    assert "cannot judge" in caplog.text


def test_a_store_that_goes_away_meanwhile_is_told(store, monkeypatch, caplog):
    see(store, leaking=False, count=3)

    def ask(samples):
        monkeypatch.setattr(store.database, "connect", lambda: 1 / 0)
        return HEALTHY

    monkeypatch.setattr(leaks, "_ask", ask)
    leaks.live_verdict(store)
    deadline = time.monotonic() + 20
    while "cannot keep the verdict" not in caplog.text:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_worker_itself_never_loads_the_statistics(tmp_path):
    see(open_store(tmp_path / "profiles"), leaking=False, count=3)
    look = f"""
import sys, time
from profilers.console import app, leaks, views
from profilers.store import open_store
store = open_store({str(tmp_path / "profiles")!r})
client = app.create_console(views.Source(reader=store, store=store), lambda request: True).test_client()
while not client.get("/workers.json").get_json()["leak"]:
    time.sleep(0.1)
print(client.get("/workers.json").get_json()["leak"]["answer"], "numpy" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", look],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "not enough data False\n"
