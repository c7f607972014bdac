"""Which lines came to hold more, from one snapshot of each worker to its last."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise

from profilers.growth import WARM_UP
from profilers.leak_verdict import LineGrowth
from profilers.memory.snapshots import Frame, Snapshot, View, route_of

STEADY = 0.6
"""Share of the intervals in which a line must have grown, to be taken for a place that leaks."""


def grown_lines(snapshots: Iterable[Snapshot]) -> list[LineGrowth]:
    """All workers together, most growth first; of each worker the warm-up is not looked at.

    A worker with one snapshot is not looked at either.
    """
    by_process: defaultdict[tuple[str, int, float], list[Snapshot]] = defaultdict(list)
    for snapshot in snapshots:
        by_process[snapshot.host, snapshot.pid, snapshot.born].append(snapshot)
    grown: defaultdict[tuple[Frame, ...], _Sum] = defaultdict(_Sum)
    requests = 0
    views: tuple[View, ...] = ()
    for taken in by_process.values():
        judged = taken[round(len(taken) * WARM_UP) :] if len(taken) > 3 else taken
        if len(judged) < 2:
            continue
        views = judged[-1].views
        requests += sum(judged[-1].requests.values()) - sum(judged[0].requests.values())
        for frames, sizes in _courses(judged).items():
            grown[frames].add(sizes)
    lines = [
        LineGrowth(
            frames=tuple(map(str, frames)),
            bytes=total.bytes,
            blocks=total.blocks,
            bytes_per_request=total.bytes / requests if requests else 0.0,
            route=route_of(frames, views),
            steady=total.rises / total.intervals,
        )
        for frames, total in grown.items()
        if total.bytes > 0
    ]
    return sorted(lines, key=lambda line: -line.bytes)


def leaking(lines: Sequence[LineGrowth], limit: int = 5) -> list[LineGrowth]:
    """Those that grew again and again, and make up most of the growth."""
    steady = [line for line in lines if line.steady >= STEADY]
    return [line for line in steady[:limit] if line.bytes >= 0.05 * steady[0].bytes]


def consumers(snapshots: Iterable[Snapshot], limit: int = 10) -> list[LineGrowth]:
    """What holds most at the end, all workers together."""
    last = {(one.host, one.pid, one.born): one for one in snapshots}
    held: defaultdict[tuple[Frame, ...], list[int]] = defaultdict(lambda: [0, 0])
    for snapshot in last.values():
        for frames, size, blocks in snapshot.statistics:
            held[frames][0] += size
            held[frames][1] += blocks
    views = next(iter(last.values())).views if last else ()
    ranked = sorted(held.items(), key=lambda one: -one[1][0])[:limit]
    return [
        LineGrowth(tuple(map(str, frames)), size, blocks, 0.0, route_of(frames, views))
        for frames, (size, blocks) in ranked
    ]


class _Sum:
    def __init__(self) -> None:
        self.bytes = self.blocks = self.rises = self.intervals = 0

    def add(self, sizes: Sequence[tuple[int, int]]) -> None:
        self.bytes += sizes[-1][0] - sizes[0][0]
        self.blocks += sizes[-1][1] - sizes[0][1]
        self.rises += sum(after[0] > before[0] for before, after in pairwise(sizes))
        self.intervals += len(sizes) - 1


def _courses(snapshots: Sequence[Snapshot]) -> dict[tuple[Frame, ...], list[tuple[int, int]]]:
    """Bytes and blocks of each way through the project, in each of the snapshots."""
    held = [{one.frames: (one.bytes, one.blocks) for one in snapshot.statistics} for snapshot in snapshots]
    return {frames: [of.get(frames, (0, 0)) for of in held] for frames in held[-1]}
