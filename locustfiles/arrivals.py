"""The open model: journeys begin at times that are fixed beforehand, whatever the service does.

Users who wait for an answer ask nothing meanwhile: a service that stalls is asked less, and the few requests
that it held up vanish among the others ("coordinated omission", Gil Tene). Here the next journey is due
whether or not the last has ended, a free user takes it, and the response time counts from when it was due:
it holds the time that nobody was free.
"""

from __future__ import annotations

import os
import time
from typing import Any

from gevent.event import Event
from locust import events

from locustfiles.environment import ARRIVALS


class Arrivals:
    """Evenly spaced times for the users of one process to share, from when all of them are there."""

    def __init__(self, per_second: float) -> None:
        self.per_second = per_second
        self._taken = 0
        self._started = Event()
        self._began = 0.0

    def start(self) -> None:
        """All users are there."""
        if not self._started.is_set():
            self._began = time.monotonic()
            self._started.set()

    def take(self) -> float:
        """When the next journey is due, by `time.monotonic()`: in the past when nobody was free for it."""
        self._started.wait()
        self._taken += 1
        return self._began + (self._taken - 1) / self.per_second

    def journeys(self) -> dict[str, int]:
        """How many were `due` until now, and how many of them have `begun`."""
        due = int((time.monotonic() - self._began) * self.per_second) if self._started.is_set() else 0
        return {"due": due, "begun": min(self._taken, due)}


shared = Arrivals(float(os.environ[ARRIVALS])) if ARRIVALS in os.environ else None
"""Of this process's users; None in the closed model."""


def install() -> None:
    """Begin when all users have come, and end with the run."""
    if shared is not None:
        events.spawning_complete.add_listener(_spawned)  # type: ignore[no-untyped-call]


def _spawned(user_count: int, **_: Any) -> None:
    if shared is not None:
        shared.start()
