"""Where password hashes are computed: as many at a time over all workers as there are cores.

A hash takes 20 ms of a core and 19 MiB. For each a thread takes a place in a folder that all workers share: a
file, locked by flock, which the kernel lets go of when a worker is killed. The threads have the priority of
all others: with a lower one nobody gets to sign in while the cores are busy.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TypeVar

from flask import Flask, current_app
from werkzeug.local import LocalProxy

from pake.config import Settings
from pake.errors import Problem
from pake.metrics import meters

Result = TypeVar("Result")


class Hashing:
    """The threads of one worker. `slot`: the worker's number; `places`: hashes at a time of all of them."""

    def __init__(self, folder: Path, *, slot: int, places: int, threads: int, waiting: int) -> None:
        self.folder = folder
        self._places = (number % places for number in itertools.count(slot * threads))
        self._own = threading.local()
        self._threads = ThreadPoolExecutor(threads, "hash", self._begin)
        self._lock = threading.Lock()
        self.free = threads + waiting
        """How many more may come in."""

    def run(self, work: Callable[[], Result]) -> Result:
        """What `work` returns or raises, done in its turn. Raises Problem 503 when too many are waiting."""
        with self._lock:
            if not self.free:
                meters.hashes_refused.inc()
                raise Problem(503, "Too many sign-ins at this moment.")
            self.free -= 1
        times = [time.perf_counter()]
        try:
            return self._threads.submit(self._run, work, times).result()
        finally:
            with self._lock:
                self.free += 1
            asked, began, ended = times
            meters.hash_wait.observe(began - asked)
            meters.hash_duration.observe(ended - began)

    def _begin(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._own.place = (self.folder / str(next(self._places))).open("w")

    def _run(self, work: Callable[[], Result], times: list[float]) -> Result:
        place: IO[str] = self._own.place
        fcntl.flock(place, fcntl.LOCK_EX)
        times.append(time.perf_counter())
        try:
            return work()
        finally:
            times.append(time.perf_counter())
            fcntl.flock(place, fcntl.LOCK_UN)


def init_app(app: Flask, settings: Settings) -> None:
    """Give the app its threads."""
    app.extensions["pake_hashing"] = Hashing(
        settings.instance_path.resolve() / "hashing",
        slot=int(os.environ.get("PAKE_WORKER_SLOT", "0")),
        places=settings.hashes,
        threads=settings.hash_threads,
        waiting=settings.hashes_waiting,
    )


hashing: Hashing = LocalProxy(lambda: current_app.extensions["pake_hashing"])  # type: ignore[assignment]
"""The threads of the current app."""
