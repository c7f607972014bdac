"""Which requests a worker has served and is serving, and the one whose memory is measured."""

from __future__ import annotations

import threading
import tracemalloc
from dataclasses import dataclass


@dataclass
class Measured:
    """The request that is being measured."""

    thread: int
    held: int
    """Bytes that Python held as it began."""
    started_tracing: bool
    shared: bool
    """Other requests ran in this worker meanwhile: their memory is in the figures."""


class Requests:
    """The requests of this process: how many of each route, and which threads have one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_route: dict[str, int] = {}
        self._running: set[int] = set()
        self._measured: Measured | None = None

    def begin(self, name: str) -> None:
        thread = threading.get_ident()
        with self._lock:
            self._by_route[name] = self._by_route.get(name, 0) + 1
            self._running.add(thread)
            if self._measured is not None and self._measured.thread != thread:
                self._measured.shared = True

    def end(self) -> None:
        self._running.discard(threading.get_ident())

    def others(self) -> bool:
        """Whether another thread has a request now."""
        return bool(self._running - {threading.get_ident()})

    def by_route(self) -> dict[str, int]:
        """Requests so far."""
        with self._lock:
            return dict(self._by_route)

    def measure(self, started_tracing: bool) -> Measured | None:
        """Take the place of the one request that is measured; None while another has it."""
        others = self.others()
        with self._lock:
            if self._measured is not None:
                return None
            tracemalloc.reset_peak()
            held, _ = tracemalloc.get_traced_memory()
            self._measured = Measured(threading.get_ident(), held, started_tracing, others)
            return self._measured

    def measured(self, measured: Measured) -> None:
        """Give the place back."""
        with self._lock:
            if self._measured is measured:
                self._measured = None
