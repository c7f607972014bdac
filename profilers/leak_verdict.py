"""Does it leak, how fast, in which route? An answer from looks at the workers' memory, with its certainty.

Each worker is judged from its warm-up to its end, a recycled one anew, and the workers are pooled:

- the **slope** in bytes per request is Theil-Sen's, with its 95 % interval: outliers do not move it;
- the **trend** is tried by Mann-Kendall (Kendall's tau against time), pooled by Stouffer's method;
- and the **floor**, its lowest points, must have risen in every part of the run, so that neither a sawtooth
  nor one late step nor a cache that fills up and stops is taken for a leak.

The answer is *leak*, *no leak*, or *not enough data* with the time that is missing. Nothing here reads a file
or a clock.

Theil-Sen: Sen 1968, doi:10.1080/01621459.1968.10480934. Mann-Kendall: Hirsch and Slack 1984.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from scipy import optimize, stats

from profilers.storage.rows import MemorySample

Answer = Literal["leak", "no leak", "not enough data"]
Kind = Literal["python", "native", ""]
Array = np.ndarray[Any, np.dtype[np.float64]]

WARM_UP = 0.2
"""Share of a worker's samples that is not judged, at its beginning."""
PARTS = 5
"""Parts of a run whose floors are compared."""
MIN_SAMPLES = 4 * PARTS
"""Of one worker, after its warm-up."""
MIN_REQUESTS = 100
"""Of one worker, after its warm-up."""
SIGNIFICANT = 0.01
"""Highest probability that a trend is chance."""
CONFIDENCE = 0.95
CONFIRMED = 0.3
"""Share of the growth of Python's memory that the process, or the number of objects, must show as well: what
is new to tracemalloc may only have replaced what was there before it was switched on."""
BLOCK_BYTES = 48
"""A small object's size, low."""
CLEARLY = 10.0
"""Difference in the information criterion that is strong evidence (Kass and Raftery 1995)."""


@dataclass(frozen=True)
class Measure:
    """One figure of a sample that may grow."""

    name: str
    value: Callable[[MemorySample], float]
    least: float
    """Growth per request below which it is not called a leak."""
    noise: float
    """Rise of the floor, in one worker, that is not called growth; more where the samples scatter more."""
    even: float = 0.2
    """Of the mean rise of the floor, that each part of the run must have risen at least."""
    clear: float = 0.0
    """Rise of the floor in the later half of a run, in one worker, that a leak must have reached."""


PYTHON = Measure("Python's memory", lambda sample: sample.traced, least=16.0, noise=20_000)
"""While tracemalloc is on: everything that Python allocated since, to the byte."""
BLOCKS = Measure("Python's blocks", lambda sample: sample.blocks, least=0.2, noise=300)
"""Always: the small objects, as a number."""
PROCESS = Measure(
    "the process",
    lambda sample: sample.uss - sample.overhead,
    least=200.0,
    noise=500_000,
    even=0.5,
    clear=2_000_000,
)
"""Its own pages, less what tracemalloc takes. The allocator's reserves grow too, ever more slowly."""


@dataclass(frozen=True)
class Growth:
    """How one measure of one worker, or of all of them, went. Per request, with the 95 % interval."""

    answer: Answer
    slope: float = 0.0
    low: float = 0.0
    high: float = 0.0
    chance: float = 1.0
    """Probability that there is no trend."""
    rises: tuple[float, ...] = ()
    """Of the floor, from each part of the run to the next."""
    steady: bool = False
    """A trend that is no chance, in every part of the run."""
    requests: int = 0
    samples: int = 0
    seconds: float = 0.0
    """That were judged."""


@dataclass(frozen=True)
class WorkerGrowth:
    """One worker, from its start or its last recycling on."""

    host: str
    pid: int
    growth: Growth


@dataclass(frozen=True)
class RouteGrowth:
    """What a route adds to the growth."""

    route: str
    bytes_per_request: float
    """For each request of this route."""
    share: float
    """Of all growth, 0 to 1."""


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
    measures = (PYTHON, BLOCKS, PROCESS) if tracing else (BLOCKS, PROCESS)
    growths = {measure.name: pooled(warm, measure) for measure in measures}
    main = PYTHON if tracing else BLOCKS
    answer, kind, reason = _decide(growths, len(warm), tracing=bool(tracing))
    decisive = PROCESS if kind == "native" or growths[main.name].answer != answer else main
    if kind == "python" and not tracing:
        decisive = PROCESS  # blocks have no bytes
    growth = growths[decisive.name]
    workers = tuple(WorkerGrowth(life[0].host, life[0].pid, pooled([life], decisive)) for life in warm)
    if answer != "leak":
        more = _more_seconds(growths, len(warm)) if answer == "not enough data" else 0.0
        bounds = (growth.slope, growth.low, growth.high)
        return Verdict(answer, "", reason, *bounds, seconds_more=more, workers=workers, growths=growths)
    routes = _agreed(warm, main if kind == "python" and tracing else decisive)
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


def lives_of(samples: Iterable[MemorySample]) -> list[list[MemorySample]]:
    """The samples of each worker in order of time; a process of its own after each recycling."""
    lives: dict[tuple[str, int, float], list[list[MemorySample]]] = {}
    for sample in sorted(samples, key=lambda one: one.at):
        of_process = lives.setdefault((sample.host, sample.pid, sample.born), [[]])
        if of_process[-1] and _requests(sample) < _requests(of_process[-1][-1]):
            of_process.append([])  # the profiler was switched off and on
        of_process[-1].append(sample)
    return [life for of_process in lives.values() for life in of_process]


def trimmed(life: Sequence[MemorySample]) -> list[MemorySample]:
    """A worker's samples without its warm-up, and without the stretches in which it served nothing."""
    busy = [life[0], *(after for before, after in pairwise(life) if _requests(after) > _requests(before))]
    return busy[max(2, round(len(busy) * WARM_UP)) :]


def is_enough(life: Sequence[MemorySample]) -> bool:
    """Whether a worker, its warm-up trimmed, can be judged at all."""
    return len(life) >= MIN_SAMPLES and _requests(life[-1]) - _requests(life[0]) >= MIN_REQUESTS


def pooled(lives: Sequence[Sequence[MemorySample]], measure: Measure) -> Growth:
    """How a measure went in all these workers together; each is long enough."""
    slopes, chances, weights, rises = [], [], [], np.zeros(PARTS - 1)
    late_requests = noise = 0.0
    for life in lives:
        served = np.array([_requests(sample) for sample in life], dtype=float)
        values = np.array([measure.value(sample) for sample in life], dtype=float)
        found = stats.theilslopes(values, served, CONFIDENCE)
        residuals = values - found.slope * served
        spread = float(stats.median_abs_deviation(residuals, scale="normal"))
        noise += max(measure.noise, spread)
        slopes.append((float(found.slope), float(found.low_slope), float(found.high_slope)))
        chances.append(_trend_chance(values))
        weights.append(len(life) ** 0.5)
        floors = np.array([part.min() for part in np.array_split(values, PARTS)])
        rises += np.diff(floors)
        late_requests += served[-1] - served[len(served) // 2]
    slope, low, high = _combined(slopes)
    chance = float(stats.combine_pvalues(chances, method="stouffer", weights=weights).pvalue)
    even = bool(rises.min() > measure.even * rises.mean())
    late = float(rises[PARTS // 2 :].sum())
    tolerated = max(noise, measure.least * late_requests)
    answer: Answer
    steady = chance < SIGNIFICANT and low > 0 and slope >= measure.least and even
    if steady and late > max(tolerated, measure.clear * len(lives)):
        answer = "leak"
    elif late <= tolerated or (chance > 0.05 and low <= 0):
        answer = "no leak"
    else:
        answer = "not enough data"
    return Growth(
        answer,
        slope,
        low,
        high,
        chance,
        tuple(float(rise) for rise in rises),
        steady=steady,
        requests=sum(_requests(life[-1]) - _requests(life[0]) for life in lives),
        samples=sum(map(len, lives)),
        seconds=max(life[-1].at - life[0].at for life in lives),
    )


def attribute(lives: Sequence[Sequence[MemorySample]], measure: Measure) -> tuple[RouteGrowth, ...]:
    """Lay the growth at the routes' doors, most first; empty when they cannot be told apart.

    A robust regression of the measure over the requests of each route, every worker with a level of its own.
    A route is taken into it only if that explains clearly more (by Bayes's information criterion); the first
    one has to explain more than the number of all requests does.
    """
    names = sorted({name for life in lives for name in life[-1].requests})
    counts = [np.array([[s.requests.get(n, 0) for n in names] for s in life], dtype=float) for life in lives]
    levels = [np.array([measure.value(sample) for sample in life], dtype=float) for life in lives]
    served = np.vstack([of_life - np.median(of_life, axis=0) for of_life in counts])
    values = np.concatenate([of_life - np.median(of_life) for of_life in levels])
    chosen: list[int] = []
    best, slopes = _explained(served.sum(axis=1, keepdims=True), values)
    candidates = [number for number in range(len(names)) if served[:, number].any()]
    while left := [number for number in candidates if number not in chosen]:
        tried = [(*_explained(served[:, [*chosen, number]], values), number) for number in left]
        criterion, found, number = min(tried, key=lambda one: one[0])
        if criterion > best - CLEARLY:
            break
        best, slopes, chosen = criterion, found, [*chosen, number]
    parts = [
        float(slope) * sum(of_life[-1, number] - of_life[0, number] for of_life in counts)
        for number, slope in zip(chosen, slopes, strict=False)
    ]
    grown = [
        RouteGrowth(names[number], float(slope), part / sum(parts))
        for number, slope, part in zip(chosen, slopes, parts, strict=False)
        if part > 0
    ]
    return tuple(sorted(grown, key=lambda route: -route.share))


def _agreed(lives: Sequence[Sequence[MemorySample]], measure: Measure) -> tuple[RouteGrowth, ...]:
    """The attribution over all workers; from the process's pages only if no worker contradicts it alone."""
    routes = attribute(lives, measure)
    if measure is not PROCESS:
        return routes
    alone = [found[0].route for life in lives if (found := attribute([life], measure))]
    return routes if routes and set(alone) <= {routes[0].route} else ()


def _explained(columns: Array, values: Array) -> tuple[float, Array]:
    """How badly these columns explain the values (the criterion, less is better), and their slopes, >= 0."""
    scale = np.linalg.norm(columns, axis=0)
    scale[scale == 0] = 1.0
    matrix = columns / scale
    start, _ = optimize.nnls(matrix, values)
    spread = float(stats.median_abs_deviation(values - matrix @ start, scale="normal")) or 1.0
    fitted = optimize.least_squares(
        lambda weights: matrix @ weights - values,
        start + spread * 1e-6,
        jac=lambda weights: matrix,
        bounds=(0, np.inf),
        loss="soft_l1",
        f_scale=spread,
    )
    error = float(np.abs(matrix @ fitted.x - values).mean()) or 1e-9
    return 2 * len(values) * np.log(error) + len(fitted.x) * np.log(len(values)), fitted.x / scale


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
    if process.answer == "leak" and python.answer == "no leak":
        return "leak", "native", (
            "The process grew, Python's memory did not: native code that does not free, or fragmentation. "
            "Next: `python -m profilers memray run --native`, then `leaks`; if memray shows nothing, "
            "MALLOC_ARENA_MAX=2 in the environment."
        )  # fmt: skip
    if python.answer == "not enough data":
        return "not enough data", "", (
            "Python's memory grew, but not long or evenly enough to tell a leak from a cache."
        )  # fmt: skip
    if process.answer == "not enough data" and process.steady:
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


def _requests(sample: MemorySample) -> int:
    return sum(sample.requests.values())


def _trend_chance(values: Array) -> float:
    """Mann-Kendall, one-sided: how likely so much rising is without a trend."""
    if np.ptp(values) == 0:
        return 0.5
    return float(stats.kendalltau(np.arange(len(values)), values, alternative="greater").pvalue)


def _combined(slopes: Sequence[tuple[float, float, float]]) -> tuple[float, float, float]:
    """The workers' slopes with their intervals as one: weighted by their certainty."""
    middle = np.array([slope for slope, _, _ in slopes])
    width = np.array([high - low for _, low, high in slopes]) / 2
    width = np.maximum(width, 1e-9 + 1e-3 * np.abs(middle))
    weights = width**-2
    slope = float((weights * middle).sum() / weights.sum())
    half = float(weights.sum() ** -0.5)
    return slope, slope - half, slope + half


def _missing_seconds(lives: Sequence[Sequence[MemorySample]]) -> float:
    """Until the worker that is nearest to it has enough samples and requests."""
    missing = []
    for life in lives:
        seconds = life[-1].at - life[0].at
        served = _requests(life[-1]) - _requests(life[0])
        if seconds <= 0 or not served:
            continue
        kept = trimmed(life)
        samples = MIN_SAMPLES / (1 - WARM_UP) / max(len(kept) / (1 - WARM_UP), 1)
        needed = max(samples, MIN_REQUESTS / (1 - WARM_UP) / served)
        missing.append(seconds * (needed - 1) * 1.1)
    return max(10.0, min(missing)) if missing else 60.0


def _more_seconds(growths: dict[str, Growth], workers: int) -> float:
    """As long again: an even growth shows itself, one that ends has ended. Or until the process shows it."""
    process, python = growths[PROCESS.name], growths.get(PYTHON.name)
    seconds = process.seconds / (1 - WARM_UP)
    if python is not None and python.answer == "leak":
        seconds *= PROCESS.clear * workers / (python.slope * python.requests) - 1
    return max(30.0, seconds)


def _too_little(lives: Sequence[Sequence[MemorySample]]) -> str:
    if not any(_requests(life[-1]) > _requests(life[0]) for life in lives):
        return "There were no requests: it takes a load to see a leak."
    if len(lives) > len({life[0].host for life in lives}) and all(len(life) < MIN_SAMPLES for life in lives):
        return (
            f"No worker was seen {MIN_SAMPLES} times after its warm-up; if they are recycled by "
            "max_requests, raise it for the time of measuring."
        )
    return f"No worker had {MIN_SAMPLES} samples and {MIN_REQUESTS} requests after its warm-up."
