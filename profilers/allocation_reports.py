"""What memray wrote of several workers, as one: memray itself has no report over several processes.

Its readers give the records of each file, its reporters draw them: here they are put together, so that every
total is the sum over the workers.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from memray import FileReader, MemorySnapshot
from memray._memray import compute_statistics
from memray.reporters.flamegraph import FlameGraphReporter
from memray.reporters.stats import StatsReporter
from memray.reporters.table import TableReporter

from profilers.location import is_project, shown_path
from profilers.reports.units import plural

Stack = tuple[tuple[str, str, int], ...]
"""Function, file and line, innermost first."""
DEEPEST = 40


class CaptureError(Exception):
    """There is nothing to read; the message is one line for the user."""


class Worker(NamedTuple):
    """The file of one worker."""

    pid: int
    path: Path
    bytes: int
    """At its peak; or held at the end, in a report on leaks."""


@dataclasses.dataclass(frozen=True)
class Captures:
    """The records of all workers of a run: what was held at each one's peak, or at its end."""

    records: tuple[Any, ...]
    """memray's."""
    workers: tuple[Worker, ...]
    metadata: Any
    """memray's, of all files together."""
    course: tuple[MemorySnapshot, ...]
    """Memory over time, all workers together."""
    leaks: bool
    left_out: tuple[str, ...] = ()
    """Files that cannot be read, each with the reason."""

    @property
    def bytes(self) -> int:
        """Of all workers."""
        return sum(worker.bytes for worker in self.workers)


class _Merged:
    """A record of memray's that belongs to no thread: equal stacks of all workers are one."""

    tid = -1
    thread_name = ""

    def __init__(self, record: Any) -> None:
        self._record = record

    def __getattr__(self, name: str) -> Any:
        return getattr(self._record, name)


def newest_run(runs: Path) -> Path:
    """The run that was written to last.

    Raises:
        CaptureError: there is none.
    """
    found = [folder for folder in runs.glob("*") if any(folder.glob("*.bin"))] if runs.is_dir() else []
    if not found:
        raise CaptureError(f"memray has written nothing to {runs}: start the service with `memray run`")
    return max(found, key=lambda folder: max(path.stat().st_mtime for path in folder.glob("*.bin")))


def read(folder: Path, *, leaks: bool = False) -> Captures:
    """All files of a run; one that was cut off with its worker is read as far as it goes.

    Raises:
        CaptureError: none of them can be read.
    """
    records: list[Any] = []
    workers, known, courses, left_out = [], [], [], []
    for path in sorted(folder.glob("*.bin")):
        try:
            reader = FileReader(path)
            held = (
                reader.get_leaked_allocation_records
                if leaks
                else reader.get_high_watermark_allocation_records
            )
            found = list(held(merge_threads=True))
            courses.append(list(reader.get_memory_snapshots()))
        except (OSError, RuntimeError, ValueError) as error:
            left_out.append(f"{path.name}: {error}")
            continue
        records += map(_Merged, found)
        known.append(reader.metadata)
        workers.append(Worker(reader.metadata.pid, path, sum(record.size for record in found)))
    if not workers:
        raise CaptureError(f"{folder}: {'; '.join(left_out) or 'has no file of memray'}")
    metadata = dataclasses.replace(
        known[0],
        start_time=min(one.start_time for one in known),
        end_time=max(one.end_time for one in known),
        total_allocations=sum(one.total_allocations for one in known),
        total_frames=sum(one.total_frames for one in known),
        peak_memory=sum(one.peak_memory for one in known),
        command_line=f"{plural(len(known), 'worker')} ({', '.join(str(one.pid) for one in known)}) of "
        f"{known[0].command_line}",
    )
    course = together(courses)
    return Captures(tuple(records), tuple(workers), metadata, course, leaks, tuple(left_out))


def together(courses: Sequence[Sequence[MemorySnapshot]], points: int = 500) -> tuple[MemorySnapshot, ...]:
    """The sum of several courses of memory, at evenly spaced times; each holds its last value."""
    times = [snapshot.time for course in courses for snapshot in course]
    if not times:
        return ()
    first, step = min(times), (max(times) - min(times)) / points
    rss, heap = [0] * len(courses), [0] * len(courses)
    events = sorted(
        (snapshot.time, number, snapshot.rss, snapshot.heap)
        for number, course in enumerate(courses)
        for snapshot in course
    )
    found: list[MemorySnapshot] = []
    for time, number, *now in events:
        rss[number], heap[number] = now
        if time >= first + step * len(found):
            found.append(MemorySnapshot(time, sum(rss), sum(heap)))
    return tuple(found)


def flamegraph(captures: Captures, output: TextIO) -> None:
    """memray's flame graph, as a page."""
    _draw(FlameGraphReporter.from_snapshot, captures, output)


def table(captures: Captures, output: TextIO) -> None:
    """memray's table of allocations, as a page."""
    _draw(TableReporter.from_snapshot, captures, output)


def _draw(reporter: Callable[..., Any], captures: Captures, output: TextIO) -> None:
    native = captures.metadata.has_native_traces
    drawn = reporter(
        captures.records, memory_records=captures.course, native_traces=native, merge_threads=True
    )
    drawn.render(
        output,
        captures.metadata,
        show_memory_leaks=captures.leaks,
        merge_threads=True,
        inverted=False,
        no_web=True,  # the page holds all that it needs
    )


def stats(folder: Path, largest: int = 5) -> None:
    """Print memray's statistics of all workers together.

    Raises:
        CaptureError: no file can be read.
    """
    captures = read(folder)
    found = [compute_statistics(str(worker.path), num_largest=1000) for worker in captures.workers]
    sizes: Counter[int] = Counter()
    allocators: Counter[Any] = Counter()
    tops: dict[str, Counter[Any]] = defaultdict(Counter)
    for one in found:
        sizes.update(one.allocation_count_by_size)
        allocators.update(one.allocation_count_by_allocator)
        tops["size"].update(dict(one.top_locations_by_size))
        tops["count"].update(dict(one.top_locations_by_count))
    total = dataclasses.replace(
        found[0],
        metadata=captures.metadata,
        total_num_allocations=sum(one.total_num_allocations for one in found),
        total_memory_allocated=sum(one.total_memory_allocated for one in found),
        peak_memory_allocated=sum(one.peak_memory_allocated for one in found),
        allocation_count_by_size=dict(sizes),
        allocation_count_by_allocator=dict(allocators),
        top_locations_by_size=tops["size"].most_common(largest),
        top_locations_by_count=tops["count"].most_common(largest),
        top_modules_by_allocation_size=[],
        top_modules_by_allocation_count=[],
    )
    StatsReporter(total, largest).render()


@dataclasses.dataclass
class _Branch:
    bytes: int = 0
    below: dict[tuple[str, str, int], _Branch] = dataclasses.field(default_factory=dict)


def tree(captures: Captures, least: float = 0.03) -> str:
    """Who called for what was held, from the outside in; branches of less than `least` of it are left out."""
    root = _Branch()
    for record, stack in _stacks(captures):
        branch = root
        branch.bytes += record.size
        for frame in reversed(stack[-DEEPEST:]):
            branch = branch.below.setdefault(frame, _Branch())
            branch.bytes += record.size
    lines = [f"{root.bytes / 1e6:9.2f} MB  all of {plural(len(captures.workers), 'worker')}"]
    _grow(root, least * root.bytes, 0, lines)
    return "\n".join(lines)


def _grow(branch: _Branch, least: float, depth: int, lines: list[str]) -> None:
    for (function, file, line), below in sorted(branch.below.items(), key=lambda one: -one[1].bytes):
        if below.bytes < least:
            continue
        deeper = depth
        if below.bytes < branch.bytes or is_project(file):  # a chain that passes all of it on is one line
            deeper += 1
            lines.append(f"{below.bytes / 1e6:9.2f} MB  {'  ' * deeper}{function} {shown_path(file)}:{line}")
        _grow(below, least, deeper, lines)


def lines(captures: Captures, limit: int = 20) -> str:
    """What was held by line, and the project's line that asked for it."""
    held: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for record, stack in _stacks(captures):
        inner = next(iter(stack), ("?", "?", 0))
        ours = next((frame for frame in stack if is_project(frame[1])), None)
        key = (_place(inner), _place(ours) if ours and ours != inner else "")
        held[key][0] += record.size
        held[key][1] += record.n_allocations
    ranked = sorted(held.items(), key=lambda one: -one[1][0])[:limit]
    rows = [
        f"{size / 1e6:9.2f} MB  {count:8} allocations  {place}{f'  from {ours}' if ours else ''}"
        for (place, ours), (size, count) in ranked
    ]
    return "\n".join([*rows, *workers(captures)])


def workers(captures: Captures) -> Iterator[str]:
    """A line for each worker, and for each file that could not be read."""
    what = "held at its end" if captures.leaks else "at its peak"
    for worker in captures.workers:
        yield f"worker {worker.pid}: {worker.bytes / 1e6:.2f} MB {what} ({worker.path.name})"
    for reason in captures.left_out:
        yield f"left out: {reason}"


def _stacks(captures: Captures) -> Iterable[tuple[Any, Sequence[tuple[str, str, int]]]]:
    for record in captures.records:
        native = captures.metadata.has_native_traces
        yield record, (record.hybrid_stack_trace() if native else record.stack_trace())


def _place(frame: tuple[str, str, int]) -> str:
    function, file, line = frame
    return f"{function} {shown_path(file)}:{line}"
