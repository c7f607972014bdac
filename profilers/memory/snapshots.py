"""What Python's memory consists of, by line of the project: tracemalloc's statistics as JSON files.

A snapshot is written as plain JSON, mode 0600, and read with every member checked: a file that somebody else
made can be refused, and can never run anything. Their number and their bytes are bounded.
"""

from __future__ import annotations

import contextlib
import json
import os
import tracemalloc
from collections import defaultdict
from collections.abc import Iterable, Sequence, Set
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from profilers.location import is_project

FORMAT = "flask-profilers memory snapshot 1"
MAX_STATISTICS = 1_000
"""Tracebacks kept of one snapshot, those with most bytes; the rest is summed up as left out."""
MAX_FRAMES = 6
"""Frames of the project kept of one traceback, innermost first."""
MAX_FILE_BYTES = 4_000_000
_OWN = (tracemalloc.__file__, str(Path(__file__).parent) + os.sep)


class SnapshotError(ValueError):
    """A file is not a snapshot; the message is one line for the user."""


class Frame(NamedTuple):
    """A line; tracemalloc knows no functions."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Statistic(NamedTuple):
    """What was allocated by one way through the project and is still held."""

    frames: tuple[Frame, ...]
    """Innermost first. The first is of a library where the project's line called one."""
    bytes: int
    blocks: int


class View(NamedTuple):
    """The lines of a view, so that an allocation below it can be laid at its route's door."""

    file: str
    first: int
    last: int
    route: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One worker's Python memory at one moment, since tracemalloc was switched on there."""

    at: float
    """Seconds since the epoch."""
    host: str
    pid: int
    born: float
    """When the process started."""
    tracing: str
    """Which run of tracemalloc it is of."""
    statistics: tuple[Statistic, ...]
    """Most bytes first."""
    traced: int = 0
    """Bytes held altogether."""
    left_out_bytes: int = 0
    left_out_blocks: int = 0
    requests: dict[str, int] = field(default_factory=dict)
    """By route, since the profiler was switched on."""
    views: tuple[View, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As JSON types; `from_json` is the inverse."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, data: Any) -> Snapshot:
        """Rebuild a snapshot, checking every member.

        Raises:
            SnapshotError: the data is of another shape.
        """
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise SnapshotError(f"its format is not {FORMAT!r}")
        try:
            return cls(
                at=_number(data["at"]),
                host=_text(data["host"]),
                pid=_whole(data["pid"]),
                born=_number(data["born"]),
                tracing=_text(data["tracing"]),
                statistics=tuple(
                    Statistic(
                        tuple(Frame(_text(file), _whole(line)) for file, line in frames),
                        _whole(size),
                        _whole(blocks),
                    )
                    for frames, size, blocks in data["statistics"]
                ),
                traced=_whole(data["traced"]),
                left_out_bytes=_whole(data["left_out_bytes"]),
                left_out_blocks=_whole(data["left_out_blocks"]),
                requests={_text(name): _whole(count) for name, count in data["requests"].items()},
                views=tuple(
                    View(_text(file), _whole(first), _whole(last), _text(route))
                    for file, first, last, route in data["views"]
                ),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SnapshotError(f"not of a snapshot's shape ({type(error).__name__}: {error})") from None


def statistics_of(
    snapshot: tracemalloc.Snapshot, below: Set[tuple[str, int]] = frozenset()
) -> tuple[tuple[Statistic, ...], int, int]:
    """Group what is held by its way through the project; also bytes and blocks of what is left out.

    What the profiler itself allocated is not among them. With lines in `below`, only what was allocated at or
    below one of them is.
    """
    # tracemalloc's own grouping makes two objects for each block, and each new object is itself traced: that
    # takes seconds, while the requests wait for the interpreter. This loop makes none.
    held: defaultdict[Any, list[int]] = defaultdict(list)
    for trace in snapshot.traces._traces:  # type: ignore[attr-defined]  # (domain, size, traceback, …)
        held[trace[2]].append(trace[1])
    sums: dict[tuple[Frame, ...], list[int]] = {}
    for traceback, sizes in held.items():  # innermost frame first
        if traceback[0][0].startswith(_OWN) or (below and below.isdisjoint(traceback)):
            continue
        total = sums.setdefault(way_through_project(traceback), [0, 0])
        total[0] += sum(sizes)
        total[1] += len(sizes)
    ranked = sorted((Statistic(way, *total) for way, total in sums.items()), key=lambda one: -one.bytes)
    rest = ranked[MAX_STATISTICS:]
    return tuple(ranked[:MAX_STATISTICS]), sum(one.bytes for one in rest), sum(one.blocks for one in rest)


def way_through_project(frames: Sequence[tuple[str, int]]) -> tuple[Frame, ...]:
    """Of a traceback, innermost first: the project's lines, and the line of the library they called into.

    Where no line is the project's, the library's own two innermost lines.
    """
    ours = [number for number, (file, _) in enumerate(frames) if is_project(file)]
    if not ours:
        return tuple(Frame(*frame) for frame in frames[:2])
    called = [ours[0] - 1] if ours[0] else []
    return tuple(Frame(*frames[number]) for number in called + ours[:MAX_FRAMES])


def write_snapshot(folder: Path, snapshot: Snapshot, keep: int, keep_bytes: int) -> Path:
    """Write a file that only its owner may read, and drop the oldest beyond `keep` files or `keep_bytes`.

    Raises:
        OSError: it cannot be written; no half file is left.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = json.dumps(snapshot.to_json(), separators=(",", ":"))
    path = folder / f"{snapshot.tracing}-{int(snapshot.at * 1000)}-{snapshot.pid}.json"
    unfinished = path.with_suffix(".unfinished")
    try:
        with open(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(text)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    _keep_bounded(folder, keep, keep_bytes)
    return path


def _keep_bounded(folder: Path, keep: int, keep_bytes: int) -> None:
    """Several workers may do it at once: what another has deleted already is fine."""
    found = []
    for path in folder.glob("*.json"):
        with contextlib.suppress(FileNotFoundError):
            found.append((path.stat().st_mtime_ns, path.stat().st_size, path))
    size = 0
    for number, (_, of_file, path) in enumerate(sorted(found, reverse=True)):
        size += of_file
        if number >= keep or (size > keep_bytes and number):
            path.unlink(missing_ok=True)


def read_snapshot(path: Path) -> Snapshot:
    """Read one file.

    Raises:
        SnapshotError: it is none, or larger than a snapshot can be; the message is one line.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise SnapshotError(f"larger than {MAX_FILE_BYTES} bytes")
        return Snapshot.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SnapshotError(f"{path} is not a memory snapshot: {reason}") from None


def read_snapshots(folder: Path, tracing: str) -> list[Snapshot]:
    """Those of one run of tracemalloc, oldest first; files that are none are passed over."""
    found = []
    for path in folder.glob(f"{tracing}-*.json"):
        with contextlib.suppress(SnapshotError):  # deleted meanwhile, or somebody else's
            found.append(read_snapshot(path))
    return sorted(found, key=lambda snapshot: (snapshot.at, snapshot.pid))


def route_of(frames: Iterable[Frame], views: Iterable[View]) -> str:
    """The route whose view is among the frames; empty when there is none."""
    by_file: dict[str, list[View]] = {}
    for view in views:
        by_file.setdefault(view.file, []).append(view)
    for file, line in frames:
        for view in by_file.get(file, ()):
            if view.first <= line <= view.last:
                return view.route
    return ""


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.60} is not text")
    return value


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r:.60} is not a whole number")
    return value


def _number(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{value!r:.60} is not a number")
    return float(value)
