"""`memray`: every allocation of every worker, native ones too, in a file for each.

The tracker starts after the fork, in the workers alone, and stops by itself at a size and at a time. What it
wrote is read by `python -m profilers memray flamegraph`, `table`, `tree`, `stats` and `leaks`, over all
workers together.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import memray
from flask import Flask

from profilers.options import ConfigError
from profilers.plugin import Profiler, option
from profilers.store import Store, default_folder
from profilers.worker import store_of

log = logging.getLogger("profilers")

TICK = 0.25
"""Seconds between two looks at the file's size."""
MAX_FILES = 32
"""Of one run: workers that are recycled again and again are tracked so many times."""
KEPT_RUNS = 5


@dataclass(frozen=True)
class AllocationsOptions:
    megabytes: int = option(200, "Size of a worker's file at which its tracker stops.")
    seconds: float = option(300.0, "Time after which a worker's tracker stops.")
    native: bool = option(False, "Follow the stacks of native code as well.")
    python: bool = option(False, "Follow Python's own allocator as well: larger, slower, every object.")
    run: str = option("", "Name of the folder that the files go to; of the workers' parent by default.")


class Allocations(Profiler[AllocationsOptions]):
    name = "memray"
    options_class = AllocationsOptions

    def __init__(self, options: AllocationsOptions) -> None:
        super().__init__(options)
        for key in ("megabytes", "seconds"):
            if getattr(options, key) <= 0:
                raise ConfigError(
                    f"PROFILE_MEMRAY_{key.upper()}={getattr(options, key)}: expected more than 0"
                )
        self._app: Flask | None = None
        self._tracking: Tracking | None = None

    def on_app(self, app: Flask) -> None:
        self._app = app

    def on_worker_start(self) -> None:
        self.on_switched(True)

    def on_switched(self, on: bool) -> None:
        self.on_worker_exit()
        if not on:
            return
        assert self._app is not None
        folder = runs_folder(store_of(self._app), self._app.instance_path)
        folder /= self.options.run or f"{time.strftime('%Y%m%d')}-{os.getppid()}"
        self._tracking = Tracking.start(folder, self.options)

    def on_worker_exit(self) -> None:
        if self._tracking is not None:
            self._tracking.stop()
            self._tracking = None


class Tracking:
    """memray's tracker of this process, and the thread that ends it."""

    def __init__(self, tracker: memray.Tracker, path: Path, options: AllocationsOptions) -> None:
        self._tracker = tracker
        self._path = path
        self._options = options
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="profilers-memray", daemon=True)
        self._thread.start()

    @classmethod
    def start(cls, folder: Path, options: AllocationsOptions) -> Tracking | None:
        """Track from now on; None, and a line in the log, when that is not possible."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if len(list(folder.glob("*.bin"))) >= MAX_FILES:
                log.warning(
                    "memray does not track worker %d: %s has %d files", os.getpid(), folder, MAX_FILES
                )
                return None
            path = folder / f"{os.getpid()}-{time.time():.0f}.bin"
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            tracker = memray.Tracker(
                destination=memray.FileDestination(path, overwrite=True, compress_on_exit=False),
                native_traces=options.native,
                trace_python_allocators=options.python,
            )
            tracker.__enter__()
        except (OSError, RuntimeError) as error:  # a tracker is active already: there is one for a process
            log.warning("memray does not track worker %d: %s", os.getpid(), error)
            return None
        return cls(tracker, path, options)

    def stop(self) -> None:
        """End the tracking, unless it has ended."""
        self._stop.set()
        self._thread.join(5)

    def _watch(self) -> None:
        until = time.monotonic() + self._options.seconds
        reason = ""
        while not reason and not self._stop.wait(TICK):
            with contextlib.suppress(FileNotFoundError):
                if self._path.stat().st_size >= self._options.megabytes * 1_000_000:
                    reason = f"its file reached PROFILE_MEMRAY_MEGABYTES={self._options.megabytes}"
            if time.monotonic() >= until:
                reason = f"after PROFILE_MEMRAY_SECONDS={self._options.seconds:g}"
        self._tracker.__exit__(None, None, None)
        if reason:
            log.warning("memray stopped in worker %d: %s", os.getpid(), reason)


def runs_folder(store: Store, instance_path: str) -> Path:
    """Beside the store's file, or where it would be: a folder for each run."""
    path = store.database.path
    return (path.parent if path is not None else default_folder(instance_path)) / "memray"
