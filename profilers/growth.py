"""Did it grow, how fast, how surely? One measure of a worker's memory over its samples, and of all workers.

Each worker is looked at from its warm-up to its end, a recycled one anew, and the workers are pooled:

- the **slope** in bytes per request is Theil-Sen's, with its 95 % interval: outliers do not move it;
- the **trend** is tried by Mann-Kendall (Kendall's tau against time), pooled by Stouffer's method;
- and the **floor**, its lowest points, must have risen in every part of the run, so that neither a sawtooth
  nor one late step nor a cache that fills up and stops is taken for a leak.

Theil-Sen: Sen 1968, doi:10.1080/01621459.1968.10480934. Mann-Kendall: Hirsch and Slack 1984.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from scipy import stats

from profilers.storage.rows import MemorySample

Answer = Literal["leak", "no leak", "not enough data"]
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
UNBROKEN = 1 / 3
"""Of the median growth per request, that each part of the run must have had at least: what ends or grows ever
more slowly is a cache that fills up or an allocator's reserve. One large step does not move the median."""


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
    """Of the mean growth per request, that each part of the run must have had at least."""
    clear: float = 0.0
    """Rise of the floor in the later half of a run, in one worker, that a leak must have reached: less than
    that may be a small cache that fills up slowly, on a service with few requests."""


PYTHON = Measure("Python's memory", lambda sample: sample.traced, least=16.0, noise=20_000, clear=200_000)
"""While tracemalloc is on: everything that Python allocated since, to the byte."""
BLOCKS = Measure("Python's blocks", lambda sample: sample.blocks, least=0.2, noise=300, clear=1_500)
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
TRACED_PROCESS = replace(PROCESS, least=400.0)
"""While tracemalloc is on: its tables scatter the allocator's memory. A service that grew by less than
15 bytes a request without it grew by 280 with it."""


@dataclass(frozen=True)
class Growth:
    """How one measure of one worker, or of all of them, went. Per request, with the 95 % interval."""

    answer: Answer
    slope: float = 0.0
    low: float = 0.0
    high: float = 0.0
    bound: float = 0.0
    """What did not show may leak so much per request, and no more."""
    chance: float = 1.0
    """Probability that there is no trend."""
    rises: tuple[float, ...] = ()
    """Of the floor, from each part of the run to the next."""
    steady: bool = False
    """A trend that is no chance, in every part of the run."""
    goes_on: bool = False
    """It rose in every part of the run, and per request at least half as fast in the later half."""
    late: float = 0.0
    """Rise of the floor in the later half."""
    swing: float = 0.0
    """Between the lowest and the highest sample of each worker."""
    requests: int = 0
    samples: int = 0
    seconds: float = 0.0
    """That were judged."""


def lives_of(samples: Iterable[MemorySample]) -> list[list[MemorySample]]:
    """The samples of each worker in order of time; a process of its own after each recycling."""
    lives: dict[tuple[str, int, float], list[list[MemorySample]]] = {}
    for sample in sorted(samples, key=lambda one: one.at):
        of_process = lives.setdefault((sample.host, sample.pid, sample.born), [[]])
        if of_process[-1] and requests_of(sample) < requests_of(of_process[-1][-1]):
            of_process.append([])  # the profiler was switched off and on
        of_process[-1].append(sample)
    return [life for of_process in lives.values() for life in of_process]


def trimmed(life: Sequence[MemorySample]) -> list[MemorySample]:
    """A worker's samples without its warm-up, and without the stretches in which it served nothing."""
    busy = [life[0], *(after for before, after in pairwise(life) if requests_of(after) > requests_of(before))]
    return busy[max(2, round(len(busy) * WARM_UP)) :]


def is_enough(life: Sequence[MemorySample]) -> bool:
    """Whether a worker, its warm-up trimmed, can be judged at all."""
    return len(life) >= MIN_SAMPLES and requests_of(life[-1]) - requests_of(life[0]) >= MIN_REQUESTS


def pooled(lives: Sequence[Sequence[MemorySample]], measure: Measure) -> Growth:
    """How a measure went in all these workers together; each is long enough."""
    slopes, chances, weights = [], [], []
    rises, between = np.zeros(PARTS - 1), np.zeros(PARTS - 1)
    late_requests = noise = swing = 0.0
    for life in lives:
        served = np.array([requests_of(sample) for sample in life], dtype=float)
        values = np.array([measure.value(sample) for sample in life], dtype=float)
        found = stats.theilslopes(values, served, CONFIDENCE)
        residuals = values - found.slope * served
        spread = float(stats.median_abs_deviation(residuals, scale="normal"))
        slopes.append((float(found.slope), float(found.low_slope), float(found.high_slope)))
        chances.append(_trend_chance(values))
        weights.append(len(life) ** 0.5)
        risen = np.diff([part.min() for part in np.array_split(values, PARTS)])
        rises += risen
        between += np.diff([part.mean() for part in np.array_split(served, PARTS)])
        # A floor that falls shows how far it goes by itself.
        noise += max(measure.noise, spread, -risen.min())
        swing += float(np.ptp(values))
        late_requests += served[-1] - served[len(served) // 2]
    slope, low, high = _combined(slopes)
    chance = float(stats.combine_pvalues(chances, method="stouffer", weights=weights).pvalue)
    rates = rises / between
    even = bool(rates.min() > max(measure.even * rises.sum() / between.sum(), UNBROKEN * np.median(rates)))
    half = PARTS // 2
    goes_on = bool(rates.min() > 0 and rates[half:].mean() >= rates[:half].mean() / 2)
    late = float(rises[half:].sum())
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
        max(high, tolerated / late_requests),
        chance,
        tuple(float(rise) for rise in rises),
        steady=steady,
        goes_on=goes_on,
        late=late,
        swing=swing,
        requests=sum(requests_of(life[-1]) - requests_of(life[0]) for life in lives),
        samples=sum(map(len, lives)),
        seconds=max(life[-1].at - life[0].at for life in lives),
    )


def requests_of(sample: MemorySample) -> int:
    """How many the worker had served by then."""
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
