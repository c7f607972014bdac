"""Password hashes: how many at a time over all workers, and how many wait."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from apiflask import APIFlask

from pake.auth.hashing import Hashing
from pake.config import Settings
from pake.errors import Problem


@pytest.fixture(autouse=True)
def context(app: APIFlask) -> Iterator[None]:
    """Of an app, that counts the hashes."""
    with app.app_context():
        yield


def at_once(spans: list[tuple[float, float]]) -> int:
    """The most spans at one time."""
    steps = sorted([(begin, 1) for begin, _ in spans] + [(end, -1) for _, end in spans])
    running = most = 0
    for _, step in steps:
        running += step
        most = max(most, running)
    return most


@pytest.mark.parametrize(("places", "workers"), [(2, 4), (1, 3)])
def test_all_workers_together_hash_no_more_at_a_time_than_allowed(
    app: APIFlask, tmp_path: Path, places: int, workers: int
) -> None:
    # A lock of flock belongs to whoever opened the file: these are as apart as processes are.
    all_workers = [
        Hashing(tmp_path, slot=slot, places=places, threads=1, waiting=10) for slot in range(workers)
    ]

    def span() -> tuple[float, float]:
        began = time.monotonic()
        time.sleep(0.02)
        return began, time.monotonic()

    def hash_in(worker: Hashing) -> tuple[float, float]:
        with app.app_context():
            return worker.run(span)

    with ThreadPoolExecutor(4 * workers) as clients:
        spans = list(clients.map(hash_in, all_workers * 4))
    assert len(spans) == 4 * workers
    assert at_once(spans) <= places


def test_a_worker_uses_all_the_threads_that_it_has(app: APIFlask, tmp_path: Path) -> None:
    hashing = Hashing(tmp_path, slot=0, places=2, threads=2, waiting=0)
    meet = threading.Barrier(2, timeout=20)

    def hash_something() -> None:
        with app.app_context():
            hashing.run(meet.wait)

    with ThreadPoolExecutor(2) as clients:
        for client in [clients.submit(hash_something) for _ in range(2)]:
            client.result()


def test_who_would_wait_behind_too_many_is_sent_away(app: APIFlask, tmp_path: Path) -> None:
    hashing = Hashing(tmp_path, slot=0, places=1, threads=1, waiting=2)
    release = threading.Event()

    def hash_something() -> None:
        with app.app_context():
            assert hashing.run(lambda: release.wait(20))

    with ThreadPoolExecutor(3) as clients:
        waiting = [clients.submit(hash_something) for _ in range(3)]
        while hashing.free:
            time.sleep(0.01)
        with pytest.raises(Problem) as sent_away:
            hashing.run(lambda: None)
        assert sent_away.value.status == 503
        release.set()
        for client in waiting:
            client.result()
    assert hashing.run(lambda: "room again") == "room again"


def test_what_fails_leaves_its_place_to_the_next(tmp_path: Path) -> None:
    hashing = Hashing(tmp_path, slot=0, places=1, threads=1, waiting=0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            hashing.run(lambda: 1 // 0)
    assert hashing.run(lambda: "room") == "room"


def test_there_are_as_many_places_as_cores_and_each_worker_has_its_share() -> None:
    cores = len(os.sched_getaffinity(0))
    assert Settings().hashes == cores
    assert Settings(hashes_in_parallel=8, web_concurrency=2).hash_threads == 4
    assert Settings(hashes_in_parallel=2, web_concurrency=8).hash_threads == 1
