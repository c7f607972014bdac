"""The workers as the console shows them: what they do now, what profiling costs them, their memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from profilers.console import figures
from profilers.store import MemorySample
from profilers.switches import WorkerStatus
from profilers.worker_slots import Running

MOST_POINTS = 120


@dataclass(frozen=True)
class MemoryTrend:
    """A worker's memory over the period; sizes in bytes."""

    born: float
    newest: MemorySample
    lowest: int
    highest: int
    points: str
    """For an SVG line."""


@dataclass(frozen=True)
class WorkerSeen:
    """One worker process."""

    host: str
    pid: int
    status: WorkerStatus | None
    """None of one that has not been heard of in the last half minute."""
    running: Sequence[Running]
    memory: MemoryTrend | None


def workers_seen(
    statuses: Sequence[WorkerStatus], running: Sequence[Running], memory: Sequence[MemorySample]
) -> list[WorkerSeen]:
    """All that is known of each worker; those that are gone are here while their memory is in the period."""
    by_worker: defaultdict[tuple[str, int], list[MemorySample]] = defaultdict(list)
    for sample in memory:
        by_worker[sample.host, sample.pid].append(sample)
    known = {(status.host, status.pid): status for status in statuses}
    found = []
    for host, pid in sorted(known.keys() | by_worker.keys(), key=lambda key: (key not in known, key)):
        samples = by_worker[host, pid]
        samples = [sample for sample in samples if sample.born == samples[-1].born]
        status = known.get((host, pid))
        mine = [each for each in running if each.pid == pid] if status else []
        found.append(WorkerSeen(host, pid, status, mine, _trend(samples) if samples else None))
    return found


def _trend(samples: Sequence[MemorySample]) -> MemoryTrend:
    every = max(1, len(samples) // MOST_POINTS)
    sizes = [figures.own(sample) for sample in samples]
    return MemoryTrend(
        born=samples[-1].born,
        newest=samples[-1],
        lowest=min(sizes),
        highest=max(sizes),
        points=figures.line(sizes[::every], 400, 64),
    )
