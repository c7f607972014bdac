"""Keeps the profilers' own share of request time below 2 %: under load, fewer requests are profiled.

The share is measured, not assumed: the extension times its own hooks on one request in `TIMED`, the writer
its thread's CPU. When their sum passes the limit, half as many requests are profiled, then a quarter, down to
one in 64, and back when the load falls. Each step is logged, and `flask profile status` shows it.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass

log = logging.getLogger("profilers")

LIMIT = 0.02
"""Share of request time; `PROFILE_BRAKE` sets it, 0 switches the brake off."""
TIMED = 32
"""One request in so many has its hooks timed."""
WINDOW_SECONDS = 2.0
BUSY = 0.1
"""Below this much request time in each second a worker is idle, and may spend what it likes."""
LOWEST = 1 / 64


@dataclass(frozen=True)
class Load:
    """What one worker saw in a window; times in seconds."""

    seconds: float
    """Length of the window."""
    requests: float
    """Request time of the profiled requests."""
    timed: float
    """Request time of those whose hooks were timed."""
    hooks: float
    """Time in the hooks of those."""
    writer: float
    """CPU time of the writer's thread."""

    @property
    def cost(self) -> float:
        """What profiling a request costs, as a share of its time; 0 when nothing was measured."""
        hooks = self.hooks / self.timed if self.timed else 0.0
        return hooks + (self.writer / self.requests if self.requests else 0.0)


def next_sampling(sampling: float, load: Load, limit: float = LIMIT) -> float:
    """The share of requests to profile from now on: half of, twice, or as before.

    Twice only where the cost at twice stays below three quarters of the limit, so that it does not swing.
    """
    if load.requests / sampling < BUSY * load.seconds:
        return min(1.0, sampling * 2)
    if not load.timed:
        return sampling
    if load.cost * sampling > limit:
        return max(LOWEST, sampling / 2)
    if load.cost * sampling * 2 < 0.75 * limit:
        return min(1.0, sampling * 2)
    return sampling


class Brake:
    """The brake of one worker; used by its writer's thread alone."""

    def __init__(self, limit: float = LIMIT) -> None:
        if not (math.isfinite(limit) and 0 <= limit < 1):
            raise ValueError(
                f"PROFILE_BRAKE={limit}: expected a share of request time such as 0.02, or 0 for off"
            )
        self.limit = limit
        self.sampling = 1.0
        self.cost = 0.0
        """Share of a profiled request's time that profiling it took, in the last window."""
        self._requests = self._timed = self._hooks = 0.0
        self._writer = 0.0
        self._since = time.monotonic()

    def request(self, seconds: float, hooks: float | None = None) -> None:
        """Note a profiled request, and the seconds spent in its hooks where they were timed."""
        self._requests += seconds
        if hooks is not None:
            self._timed += seconds
            self._hooks += hooks

    def adjust(self, writer_cpu: float) -> bool:
        """Set `sampling` anew at the end of a window; True when it changed.

        `writer_cpu` is the CPU time of the writer's thread since it began.
        """
        seconds = time.monotonic() - self._since
        if not self.limit or seconds < WINDOW_SECONDS:
            return False
        load = Load(seconds, self._requests, self._timed, self._hooks, writer_cpu - self._writer)
        self._requests = self._timed = self._hooks = 0.0
        self._writer = writer_cpu
        self._since += seconds
        self.cost = load.cost
        before, self.sampling = self.sampling, next_sampling(self.sampling, load, self.limit)
        if self.sampling < before:
            log.warning(
                "the profilers took %.1f %% of request time, over %.1f %%: one request in %d is profiled",
                load.cost * before * 100, self.limit * 100, round(1 / self.sampling),
            )  # fmt: skip
        elif self.sampling > before:
            log.warning("the load fell: one request in %d is profiled", round(1 / self.sampling))
        return self.sampling != before
