"""A run as equal parts of its time: what happened in each, percentiles included."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from locustfiles.gate import Second, percentile


@dataclass(frozen=True)
class Part:
    """Some seconds of a run. Times in milliseconds."""

    at: float
    """Its middle, seconds since the run began."""
    users: int
    requests_per_second: float
    failures_per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


def parts(course: Sequence[Second], most: int = 60) -> list[Part]:
    """The run in `most` parts or fewer, without a last one that is shorter than the others.

    A percentile is that of all requests of its part.
    """
    length = max(math.ceil(len(course) / most), 1)
    found: list[Part] = []
    for first in range(0, len(course), length):
        seconds = course[first : first + length]
        if found and len(seconds) < length:
            break
        times: Counter[float] = Counter()
        for second in seconds:
            times.update(second.response_times)
        found.append(
            Part(
                first + len(seconds) / 2,
                max(second.users for second in seconds),
                times.total() / len(seconds),
                sum(second.failures for second in seconds) / len(seconds),
                *(percentile(times, share) for share in (0.5, 0.95, 0.99)),
            )
        )
    return found
