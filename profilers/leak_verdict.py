"""Does it leak, how fast, in which route? An answer from looks at the workers' memory, with its certainty.

The answer is *leak*, *no leak*, or *not enough data* with the time that is missing. It rests on how Python's
memory, its objects and the process grew (`growth.py`), and in which route (`growth_by_route.py`). Nothing
here reads a file or a clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from profilers.growth import (
    BLOCKS,
    MIN_REQUESTS,
    MIN_SAMPLES,
    PROCESS,
    PYTHON,
    TRACED_PROCESS,
    WARM_UP,
    Answer,
    Growth,
    is_enough,
    lives_of,
    pooled,
    requests_of,
    trimmed,
)
from profilers.growth_by_route import RouteGrowth, agreed
from profilers.storage.rows import MemorySample

Kind = Literal["python", "native", ""]

CONFIRMED = 0.3
"""Share of the growth of Python's memory that the process, or the number of objects, must show as well: what
is new to tracemalloc may only have replaced what was there before it was switched on."""
BLOCK_BYTES = 48
"""A small object's size, low."""


@dataclass(frozen=True)
class WorkerGrowth:
    """One worker, from its start or its last recycling on."""

    host: str
    pid: int
    growth: Growth


@dataclass(frozen=True)
class LineGrowth:
    """Memory that came to be held at one line between two snapshots."""

    frames: tuple[str, ...]
    """`file:line`, innermost first."""
    bytes: int
    blocks: int
    bytes_per_request: float
    route: str = ""
    """Whose view is among the frames."""
    steady: float = 1.0
    """Share of the intervals in which it grew, 0 to 1."""


@dataclass(frozen=True)
class Verdict:
    """The answer, and what it rests on."""

    answer: Answer
    kind: Kind = ""
    """Of a leak: in Python's memory, or in the process only."""
    reason: str = ""
    """All of it in a sentence or two."""
    bytes_per_request: float = 0.0
    low: float = 0.0
    high: float = 0.0
    route: str = ""
    lines: tuple[LineGrowth, ...] = ()
    routes: tuple[RouteGrowth, ...] = ()
    seconds_more: float = 0.0
    """How much longer to run for an answer; 0 when there is one."""
    workers: tuple[WorkerGrowth, ...] = ()
    growths: dict[str, Growth] = field(default_factory=dict)
    """By the name of the measure, all workers together."""


def judge(samples: Sequence[MemorySample], lines: Sequence[LineGrowth] = ()) -> Verdict:
    """Judge a run: the samples of all its workers, and what grew by line if there were snapshots.

    Samples that were taken while tracemalloc was on are judged alone if there are any, of its last run.
    """
    tracing = next((sample.tracing for sample in reversed(samples) if sample.tracing), "")
    judged = [sample for sample in samples if sample.tracing == tracing]
    lives = [life for life in lives_of(judged) if len(life) >= 2]
    warm = [trimmed(life) for life in lives]
    warm = [life for life in warm if is_enough(life)]
    if not warm:
        return Verdict("not enough data", reason=_too_little(lives), seconds_more=_missing_seconds(lives))
    process = TRACED_PROCESS if tracing else PROCESS
    measures = (PYTHON, BLOCKS, process) if tracing else (BLOCKS, process)
    growths = {measure.name: pooled(warm, measure) for measure in measures}
    main = PYTHON if tracing else BLOCKS
    answer, kind, reason = _decide(growths, len(warm), tracing=bool(tracing))
    decisive = main if tracing and kind != "native" and growths[main.name].answer == answer else process
    growth = growths[decisive.name]
    workers = tuple(WorkerGrowth(life[0].host, life[0].pid, pooled([life], decisive)) for life in warm)
    if answer != "leak":
        more = _more_seconds(growths, len(warm)) if answer == "not enough data" else 0.0
        bounds = (growth.slope, growth.low, growth.high)
        return Verdict(answer, "", reason, *bounds, seconds_more=more, workers=workers, growths=growths)
    routes = agreed(warm, main if kind == "python" and tracing else decisive)
    grown = tuple(lines) if kind == "python" else ()
    return Verdict(
        answer,
        kind,
        reason,
        growth.slope,
        growth.low,
        growth.high,
        route=_route(grown, routes),
        lines=grown,
        routes=routes,
        workers=workers,
        growths=growths,
    )


def _decide(growths: dict[str, Growth], workers: int, *, tracing: bool) -> tuple[Answer, Kind, str]:
    process, blocks = growths[PROCESS.name], growths[BLOCKS.name]
    if not tracing:
        if blocks.answer == "leak":
            return "leak", "python", "Python's objects grow in number."
        if process.answer == "leak":
            return "leak", "native", (
                "The process grows, the number of Python's small objects does not: large buffers, native "
                "code or fragmentation. `python -m profilers memory` tells them apart."
            )  # fmt: skip
        if "not enough data" in (blocks.answer, process.answer):
            return (
                "not enough data",
                "",
                "It grew, but not long or evenly enough to tell a leak from a cache.",
            )
        return "no leak", "", "Neither Python's objects nor the process went on growing."
    python = growths[PYTHON.name]
    if python.answer == "leak":
        others = max(process.low, blocks.low * BLOCK_BYTES)
        if "leak" in (blocks.answer, process.answer) or others > CONFIRMED * python.slope:
            return "leak", "python", "Python's memory grew evenly, through the whole run."
        shows = python.slope * python.requests > PROCESS.clear * workers
        if blocks.answer == process.answer == "no leak" and shows:
            return "no leak", "", (
                "What was allocated since tracing began grew, the number of objects and the process did not: "
                "old objects were replaced by new ones."
            )  # fmt: skip
        return "not enough data", "", (
            "Large objects grew, by less than the process's own ups and downs: they may have replaced others."
        )  # fmt: skip
    # What Python's memory goes up and down by, the allocator may keep for the next time.
    beyond = process.answer == "leak" and process.late > python.swing
    if beyond and python.answer == "no leak":
        return "leak", "native", (
            "The process grew, Python's memory did not: native code that does not free, or fragmentation. "
            "Next: `python -m profilers memray run --native`, then `leaks`; if memray shows nothing, "
            "MALLOC_ARENA_MAX=2 in the environment."
        )  # fmt: skip
    if python.answer == "not enough data":
        return "not enough data", "", (
            "Python's memory grew, but not long or evenly enough to tell a leak from a cache."
        )  # fmt: skip
    if process.answer != "no leak" and (process.steady or process.goes_on):
        return "not enough data", "", (
            "The process grew, Python's memory did not: not yet by enough to tell native code that leaks "
            "from the allocator's reserves."
        )  # fmt: skip
    return "no leak", "", "Python's memory did not go on growing, nor did the process evenly."


def _route(lines: Sequence[LineGrowth], routes: Sequence[RouteGrowth]) -> str:
    """The route whose view is on the way to most of the grown memory; else what the regression says."""
    by_route: dict[str, int] = {}
    for line in lines:
        if line.route:
            by_route[line.route] = by_route.get(line.route, 0) + line.bytes
    total = sum(line.bytes for line in lines)
    if by_route:
        route = max(by_route, key=lambda name: by_route[name])
        if by_route[route] > total / 2:
            return route
    return routes[0].route if routes and routes[0].share > 0.5 else ""


def _missing_seconds(lives: Sequence[Sequence[MemorySample]]) -> float:
    """Until the worker that is nearest to it has enough samples and requests."""
    missing = []
    for life in lives:
        seconds = life[-1].at - life[0].at
        served = requests_of(life[-1]) - requests_of(life[0])
        if seconds <= 0 or not served:
            continue
        kept = trimmed(life)
        samples = MIN_SAMPLES / (1 - WARM_UP) / max(len(kept) / (1 - WARM_UP), 1)
        needed = max(samples, MIN_REQUESTS / (1 - WARM_UP) / served)
        missing.append(seconds * (needed - 1) * 1.1)
    return max(10.0, min(missing)) if missing else 60.0


def _more_seconds(growths: dict[str, Growth], workers: int) -> float:
    """As long again: even growth shows itself, one that ends has ended. Or until it grew enough to tell."""
    process, python = growths[PROCESS.name], growths.get(PYTHON.name)
    times = 1.0
    if python is not None and python.answer == "leak":
        times = PROCESS.clear * workers / (python.slope * python.requests) - 1
    elif python is not None and python.steady:
        times = PYTHON.clear * workers / python.late
    return max(30.0, times * process.seconds / (1 - WARM_UP))


def _too_little(lives: Sequence[Sequence[MemorySample]]) -> str:
    if not any(requests_of(life[-1]) > requests_of(life[0]) for life in lives):
        return "There were no requests: it takes a load to see a leak."
    if len(lives) > len({life[0].host for life in lives}) and all(len(life) < MIN_SAMPLES for life in lives):
        return (
            f"No worker was seen {MIN_SAMPLES} times after its warm-up; if they are recycled by "
            "max_requests, raise it for the time of measuring."
        )
    return f"No worker had {MIN_SAMPLES} samples and {MIN_REQUESTS} requests after its warm-up."
