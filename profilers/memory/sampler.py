"""The thread beside the requests that looks at a worker's memory, and takes snapshots while tracing."""

from __future__ import annotations

import gc
import logging
import os
import socket
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from profilers.memory import tracing
from profilers.memory.snapshots import Snapshot, View, statistics_of, write_snapshot
from profilers.memory.tracing import Tracing
from profilers.storage.database import Connection
from profilers.storage.memory_samples import append_sample, keep_samples_bounded
from profilers.store import MemorySample, Store, StoreError

if TYPE_CHECKING:
    from profilers.memory import MemoryOptions

log = logging.getLogger("profilers")

TICK = 1.0
"""Seconds between two looks at the switch."""
COLLECT_SHARE = {False: 0.01, True: 0.05}
"""Of the time between two looks, for a garbage collection before each: while not tracing, and while tracing.

What waits to be collected is not a leak, but looks like one: a full collection may be minutes away, because
Python waits until a quarter of all objects is new.
"""
SNAPSHOT_SHARE = 0.2
"""Of the time, for snapshots: where they take long they come less often."""
BOUNDS_EVERY = 50
"""Samples between two looks whether the store has too many."""


class Sampler:
    """One for each worker process; `start` it after the fork."""

    def __init__(
        self,
        store: Store,
        folder: Path,
        options: MemoryOptions,
        requests: Callable[[], dict[str, int]],
        views: tuple[View, ...],
    ) -> None:
        self._store = store
        self._folder = folder
        self._options = options
        self._requests = requests
        self._views = views
        self._stop = threading.Event()
        self._connection: Connection | None = None
        self._logged: set[str] = set()
        self._tracing: Tracing | None = None
        self._owns_tracing = False
        self._next_snapshot = 0.0
        self._collect_seconds = 0.0
        self._collections = Collections()
        self._taken = 0
        self._always = (
            Tracing(
                f"always-{os.getppid()}",
                float("inf"),
                options.frames,
                options.snapshot_every,
                min(options.interval, options.snapshot_every),
            )
            if options.snapshot_every
            else None
        )

    def start(self) -> None:
        """Start the thread."""
        self._process = psutil.Process()
        self._born = self._process.create_time()
        self._thread = threading.Thread(target=self._run, name="profilers-memory", daemon=True)
        gc.callbacks.append(self._collections)
        self._thread.start()

    def stop(self, timeout: float = 2.0) -> None:
        """Take a last look, end the thread and whatever tracing it began."""
        self._stop.set()
        self._thread.join(timeout)
        if self._collections in gc.callbacks:
            gc.callbacks.remove(self._collections)

    def _run(self) -> None:
        due = time.monotonic()
        while True:
            self._guard(self._look_at_switch)
            now = time.monotonic()
            if now >= due:
                self._guard(self._sample)
                due = max(due + self._every, now)
            if self._tracing is not None and now >= self._next_snapshot:
                self._guard(self._snapshot)
                seconds = time.monotonic() - now
                self._next_snapshot = now + max(self._tracing.snapshot_every, seconds / SNAPSHOT_SHARE)
            if self._stop.wait(max(0.01, min(TICK, due - time.monotonic()))):
                break
        self._guard(self._sample)
        self._switch(None)
        self._close()

    @property
    def _every(self) -> float:
        return self._tracing.sample_every if self._tracing else self._options.interval

    def _look_at_switch(self) -> None:
        """Trace or not, as the store says; while it cannot be asked, until the time that it last said."""
        wanted = self._tracing if self._tracing and self._tracing.until > time.time() else None
        try:
            with self._connected().transaction(write=False) as connection:
                wanted = tracing.read(connection)
        finally:
            self._switch(wanted or self._always)

    def _switch(self, wanted: Tracing | None) -> None:
        before = self._tracing
        if (before and before.id) == (wanted and wanted.id):
            self._tracing = wanted
            return
        if before is not None:
            if not self._stop.is_set():
                self._guard(self._snapshot)
            if self._owns_tracing:
                tracemalloc.stop()
            self._tracing = None
            self._guard(self._sample)  # so that whoever waits for it sees at once that it is off
        if wanted is not None:
            self._owns_tracing = not tracemalloc.is_tracing()
            if self._owns_tracing:
                tracemalloc.start(wanted.frames)
            self._next_snapshot = time.monotonic() + min(wanted.sample_every, wanted.snapshot_every)
        self._tracing = wanted

    def _sample(self) -> None:
        self._collect()
        is_tracing = self._tracing is not None
        memory = self._process.memory_full_info()
        sample = MemorySample(
            at=time.time(),
            host=socket.gethostname(),
            pid=os.getpid(),
            born=self._born,
            rss=memory.rss,
            uss=memory.uss,
            pss=getattr(memory, "pss", 0),
            blocks=sys.getallocatedblocks(),
            threads=threading.active_count(),
            collections=tuple(generation["collections"] for generation in gc.get_stats()),
            pauses=round(self._collections.seconds, 6),
            longest_pause=round(self._collections.longest, 6),
            requests=self._requests(),
            tracing=self._tracing.id if self._tracing else "",
            traced=tracemalloc.get_traced_memory()[0] if is_tracing else 0,
            overhead=tracemalloc.get_tracemalloc_memory() if tracemalloc.is_tracing() else 0,
        )
        with self._connected().transaction(write=True) as connection:
            append_sample(connection, sample)
            if self._taken % BOUNDS_EVERY == 0:
                keep_samples_bounded(connection, self._store.limits)
        self._taken += 1

    def _collect(self) -> None:
        """Collect garbage, unless that has been found to take too large a share of the time."""
        if self._collect_seconds > COLLECT_SHARE[self._tracing is not None] * self._every:
            self._collect_seconds *= 0.8  # to be tried again some time
            return
        began = time.perf_counter()
        self._collections.collect()
        self._collect_seconds = time.perf_counter() - began

    def _snapshot(self) -> None:
        assert self._tracing is not None
        self._collections.collect()
        statistics, left_out_bytes, left_out_blocks = statistics_of(tracemalloc.take_snapshot())
        snapshot = Snapshot(
            at=time.time(),
            host=socket.gethostname(),
            pid=os.getpid(),
            born=self._born,
            tracing=self._tracing.id,
            statistics=statistics,
            traced=tracemalloc.get_traced_memory()[0],
            left_out_bytes=left_out_bytes,
            left_out_blocks=left_out_blocks,
            requests=self._requests(),
            views=self._views,
        )
        options = self._options
        write_snapshot(self._folder, snapshot, options.keep_snapshots, options.keep_megabytes * 1_000_000)

    def _connected(self) -> Connection:
        if self._connection is not None and self._store.database.is_gone(self._connection):
            self._close()
        if self._connection is None:
            self._connection = self._store.database.connect()
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _guard(self, action: Callable[[], None]) -> None:
        """What fails is logged once by its kind, and tried again at its next turn."""
        try:
            action()
        except (StoreError, OSError, psutil.Error, self._store.database.errors) as error:
            self._close()
            self._log_once(action, error)
        except Exception as error:  # noqa: BLE001 (a thread of ours must not end the measuring for good)
            self._log_once(action, error)

    def _log_once(self, action: Callable[[], None], error: Exception) -> None:
        key = f"{action.__name__} {type(error).__name__}"
        if key not in self._logged:
            self._logged.add(key)
            log.warning(
                "the memory profiler failed in %s: %s: %s", action.__name__, type(error).__name__, error
            )


class Collections:
    """How long garbage collections hold the requests up; called by the interpreter around each."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.longest = 0.0
        self._began = 0.0
        self._ours = False

    def __call__(self, phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            self._began = time.perf_counter()
        elif not self._ours:
            seconds = time.perf_counter() - self._began
            self.seconds += seconds
            self.longest = max(self.longest, seconds)

    def collect(self) -> None:
        """Collect garbage now, which is not the app's doing and not counted."""
        self._ours = True
        gc.collect()
        self._ours = False
