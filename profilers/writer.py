"""Hands finished profiles to the store without a request ever waiting for it.

One thread in each worker process examines and writes them, twice a second. It starts with the first profile
after a fork, so `preload_app` and reloaders need no care. The queue before it is bounded: what does not fit
is counted. A store that is read-only, full, locked or gone is tried again, ever more slowly; the log says so
once, and once more when it is written to again.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence

from profilers.profile import Profile
from profilers.storage.batch import Batch
from profilers.storage.keeper import Keeper
from profilers.store import Store, StoreError

log = logging.getLogger("profilers")

INTERVAL = 0.4
"""Seconds between rounds: a killed worker loses what was finished since the last one."""
RETRY_SECONDS = (1.0, 30.0)
"""First and longest pause before a store that failed is tried again."""
SLICE_SECONDS = 0.0005
"""How long the thread works at a time: a request that waits for the interpreter would wait 5 ms for it."""
PAUSE_SECONDS = 0.0002
"""A pause of no length would be over before the waiting thread has woken up."""

Chore = Callable[[Keeper | None], None]
"""Something else to be done in each round, such as looking whether a switch was turned; given no keeper
while the store fails."""


class Writer:
    """The queue and the thread of one process; every method may be called from any thread.

    `examine` is called with each profile before it is written, in the writer's thread; `chores` in each
    round. Neither can stop the writer: what they raise is logged once.
    """

    def __init__(
        self,
        store: Store,
        examine: Callable[[Profile], None] | None = None,
        chores: Sequence[Chore] = (),
        *,
        profiles: int = 2_000,
        statements: int = 200_000,
        interval: float = INTERVAL,
    ) -> None:
        self.store = store
        self.interval = interval
        self.written = 0
        """Profiles written by this process."""
        self.left_out = 0
        """Profiles of this process that were not written."""
        self.cpu = 0.0
        """CPU seconds of the thread."""
        self.failing_since: float | None = None
        """`time.monotonic()` of the first failure since the last success."""
        self._examine = examine
        self._chores = chores
        self._profiles = profiles
        self._statements = statements
        self._logged: set[object] = set()
        self._reset()
        _writers.add(self)

    def _reset(self) -> None:
        """Begin anew in a forked child: what the parent has queued is the parent's to write."""
        self._changed = threading.Condition(threading.Lock())
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._queue: deque[Profile] = deque()  # its ends may be used by several threads at once
        self._room = 0
        """Profiles in the queue from which on `_make_room` is asked."""
        self._queued_statements = 0
        """About how many: requests that end at the same moment may count as one."""
        self._uncounted = 0
        self._pending: Batch | None = None
        self._busy = False
        self._retry_at = 0.0
        self._pause = RETRY_SECONDS[0]
        self.written = self.left_out = 0
        self.cpu = 0.0
        self.failing_since = None

    def add_chore(self, chore: Chore) -> None:
        """Do something else in each round as well."""
        self._chores = (*self._chores, chore)

    def put(self, profile: Profile) -> None:
        """Queue a finished profile; never waits, never raises."""
        queue = self._queue
        if len(queue) >= self._room and not self._make_room():
            return
        queue.append(profile)
        if kept := len(profile.noted):
            self._queued_statements += kept
            if self._queued_statements > self._statements:
                self._room = 0

    def _make_room(self) -> bool:
        """Whether one more profile is taken; what is not is counted."""
        if self._thread is None:
            self.start()
        if self._closed or len(self._queue) >= self._profiles or self._queued_statements > self._statements:
            with self._changed:
                self._leave_out(1)
            return False
        self._room = self._profiles
        return True

    def start(self) -> None:
        """Start the thread, unless it runs already in this process."""
        with self._changed:
            if self._thread is not None or self._closed:
                return
            self._thread = threading.Thread(target=self._run, name="profilers-writer", daemon=True)
            self._thread.start()
        atexit.register(self.close)

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until all that was put has been written or left out; False when it took longer."""
        self._wake.set()
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue and not self._busy, timeout)

    def close(self, timeout: float = 2.0) -> None:
        """Write what is queued and end the thread; later profiles are left out."""
        atexit.unregister(self.close)
        with self._changed:
            self._closed = True
            self._room = 0
            thread = self._thread
        self._wake.set()
        if thread is not None:
            thread.join(timeout)

    def _run(self) -> None:
        keeper = self.store.keeper()
        while True:
            self._wake.wait(self.interval)
            self._wake.clear()
            closed = self._closed  # read before the round: what was queued before it is still written
            self._round(keeper, last=closed)
            self.cpu = time.thread_time()
            if closed:
                keeper.close()
                return

    def _round(self, keeper: Keeper, *, last: bool) -> None:
        self._do_chores(keeper)
        if self._pending is None:
            self._pending = self._take(keeper)
        while self._pending is not None and (last or time.monotonic() >= self._retry_at):
            if not self._write(keeper, self._pending):
                break
            self._pending = self._take(keeper)
        with self._changed:
            self._busy = self._pending is not None
            self._changed.notify_all()

    def _take(self, keeper: Keeper) -> Batch | None:
        """Everything that is queued, examined and summed up; None when nothing is."""
        with self._changed:
            self._busy = True
        queued = len(self._queue)
        self._queued_statements = 0
        if not queued and not self._uncounted:
            return None
        batch = keeper.new_batch()
        now = time.monotonic()
        next_chores, next_pause = now + self.interval, now + SLICE_SECONDS
        for _ in range(queued):
            profile = self._queue.popleft()
            if self._examine is not None:
                self._guard(self._examine, profile)
            if not self._guard(batch.add, profile):
                with self._changed:
                    self._leave_out(1)
            if time.monotonic() > next_pause:
                time.sleep(PAUSE_SECONDS)
                now = time.monotonic()
                if now > next_chores:  # a switch should not wait for a long queue
                    self._do_chores(keeper)
                    next_chores = now + self.interval
                next_pause = now + SLICE_SECONDS
        return batch

    def _write(self, keeper: Keeper, batch: Batch) -> bool:
        left_out = self._uncounted
        try:
            keeper.write(batch, left_out)
        except keeper.database.refusals as error:
            self._log_once("refused", "the profile store %s refused a batch: %s", self.store.database, error)
            with self._changed:
                self._leave_out(len(batch.profiles))
            return True
        except (StoreError, OSError, keeper.database.errors) as error:
            self._failed(error)
            return False
        with self._changed:
            self._uncounted -= left_out
        self.written += len(batch.profiles)
        self._succeeded()
        return True

    def _failed(self, error: Exception) -> None:
        now = time.monotonic()
        if self.failing_since is None:
            self.failing_since = now
            log.warning(
                "profiles cannot be written (requests are served as ever, the next try is in %.0f s): %s",
                self._pause,
                error if isinstance(error, StoreError) else f"PROFILE_STORE={self.store.database}: {error}",
            )
        self._retry_at = now + self._pause
        self._pause = min(self._pause * 2, RETRY_SECONDS[1])

    def _succeeded(self) -> None:
        if self.failing_since is not None:
            seconds = time.monotonic() - self.failing_since
            log.warning("profiles are written again after %.0f s; %d were left out", seconds, self.left_out)
            self.failing_since = None
            self._pause = RETRY_SECONDS[0]

    def _leave_out(self, profiles: int) -> None:
        self.left_out += profiles
        self._uncounted += profiles

    def _do_chores(self, keeper: Keeper) -> None:
        waits = self.failing_since is not None and time.monotonic() < self._retry_at
        for chore in self._chores:
            try:
                chore(None if waits else keeper)
            except (StoreError, OSError, self.store.database.errors) as error:
                keeper.close()  # the connection may be what broke
                self._failed(error)
                return
            except Exception as error:  # noqa: BLE001 (one chore must not end the others)
                self._log_once((chore, type(error)), "%r failed in the profilers' writer", chore, trace=True)
        if self.failing_since is not None and not waits and self._pending is None:
            self._succeeded()

    def _guard(self, action: Callable[[Profile], None], profile: Profile) -> bool:
        """Whether an action of others went well; what it raises ends nothing but itself."""
        try:
            action(profile)
        except Exception as error:  # noqa: BLE001 (whatever a profiler raises, the next profile is written)
            self._log_once((action, type(error)), "%r failed in the profilers' writer", action, trace=True)
            return False
        return True

    def _log_once(self, key: object, message: str, *values: object, trace: bool = False) -> None:
        if key not in self._logged:
            self._logged.add(key)
            log.warning(message, *values, exc_info=trace)


_writers: weakref.WeakSet[Writer] = weakref.WeakSet()


def _after_fork() -> None:
    for writer in list(_writers):
        atexit.unregister(writer.close)
        writer._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
