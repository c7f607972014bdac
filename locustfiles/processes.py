"""What the service's processes cost while they were driven: CPU and memory of workers and database.

Seen from outside, by the operating system's counters, so it is the same whatever the service profiles itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import psutil

from locustfiles.service import Service

SECONDS = 1.0
"""Between two looks."""
DATABASE = "PostgreSQL"
WORKER = "worker"


@dataclass(frozen=True)
class Usage:
    """One process, or all of the database, in one second."""

    at: float
    """Seconds since the epoch."""
    name: str
    """`worker 4711`, `Gunicorn` or `PostgreSQL`."""
    cpu: float
    """Cores in use."""
    megabytes: float
    """Resident; pages that processes share count in each. Not known of the database."""


@contextmanager
def watched(service: Service) -> Iterator[list[Usage]]:
    """Look at the service's processes every second until the block ends; nothing of a service elsewhere."""
    found: list[Usage] = []
    ended = threading.Event()
    root = _root(service)
    watch = threading.Thread(target=_watch, args=(root, found, ended), daemon=True)
    if root is not None:
        watch.start()
    try:
        yield found
    finally:
        ended.set()
        if root is not None:
            watch.join()


def cpu(usage: Iterable[Usage], *, database: bool) -> list[tuple[float, float]]:
    """Cores in use by the database, or by all the rest of the service: (when, how many)."""
    sums: dict[float, float] = {}
    for one in usage:
        sums[one.at] = sums.get(one.at, 0.0) + (one.cpu if (one.name == DATABASE) is database else 0.0)
    return list(sums.items())


def memory(usage: Iterable[Usage]) -> dict[str, list[tuple[float, float]]]:
    """Megabytes by worker: (when, how many)."""
    found: dict[str, list[tuple[float, float]]] = {}
    for one in usage:
        if one.name.startswith(WORKER):
            found.setdefault(one.name, []).append((one.at, one.megabytes))
    return found


def _root(service: Service) -> psutil.Process | None:
    """The process that all others of the service come from."""
    if service.process is not None:
        return psutil.Process(service.process.pid)
    address = urlsplit(service.url)
    if address.hostname not in ("127.0.0.1", "localhost", "::1"):
        return None
    try:
        listening = {
            connection.pid
            for connection in psutil.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN and [*connection.laddr][1:2] == [address.port or 80]
        }
    except psutil.AccessDenied:
        return None
    processes = [psutil.Process(pid) for pid in listening if pid is not None]
    return min(processes, key=lambda process: process.create_time(), default=None)


@dataclass(frozen=True)
class _Look:
    """One process at one moment."""

    name: str
    parent: int
    spent: float
    """CPU seconds since it began."""
    megabytes: float


def _watch(root: psutil.Process, found: list[Usage], ended: threading.Event) -> None:
    before, then = _look(root), time.monotonic()
    while not ended.wait(SECONDS):
        seen, now = _look(root), time.monotonic()
        found += _usage(root, before, seen, time.time(), now - then)
        before, then = seen, now


def _look(root: psutil.Process) -> dict[psutil.Process, _Look]:
    seen = {}
    try:
        processes = [root, *root.children(recursive=True)]
    except psutil.Error:  # it died, and the run says so
        return {}
    for process in processes:
        try:
            times, resident = process.cpu_times(), process.memory_info().rss
            seen[process] = _Look(process.name(), process.ppid(), times.user + times.system, resident / 1e6)
        except psutil.Error:  # it ended just now
            continue
    return seen


def _usage(
    root: psutil.Process,
    before: dict[psutil.Process, _Look],
    seen: dict[psutil.Process, _Look],
    at: float,
    seconds: float,
) -> Iterator[Usage]:
    database = 0.0
    # The embedded server's keeper is a child of Gunicorn as well, and no worker.
    keepers = {look.parent for look in seen.values() if look.name == "postgres"}
    for process, look in seen.items():
        cores = max(look.spent - (before[process].spent if process in before else 0.0), 0.0) / seconds
        if look.name == "postgres":
            database += cores
        elif process == root:
            yield Usage(at, "Gunicorn", cores, look.megabytes)
        elif look.parent == root.pid and process.pid not in keepers:
            yield Usage(at, f"{WORKER} {process.pid}", cores, look.megabytes)
    yield Usage(at, DATABASE, database, 0.0)
