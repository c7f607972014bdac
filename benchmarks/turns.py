"""Side-by-side measurement: the sides take turns, so what else the machine does hits all of them alike."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

WARM_UP = 3


@dataclass(frozen=True)
class Spread:
    """Median and quartiles."""

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, middle, high = quantiles(values, n=4, method="inclusive")
        return cls(low, middle, high)

    def __str__(self) -> str:
        return f"{self.middle:.2f} ({self.low:.2f}–{self.high:.2f})"  # noqa: RUF001


@dataclass(frozen=True)
class Times:
    """Seconds of each call of each side; calls of one index were made one right after the other."""

    seconds: Mapping[str, Sequence[float]]

    def milliseconds(self, side: str) -> float:
        """Of the median call."""
        return median(self.seconds[side]) * 1000

    def ratio(self, side: str, to: str) -> Spread:
        """Of one side's time to another's, each pair of neighbouring calls by itself."""
        return Spread.of(
            [mine / other for mine, other in zip(self.seconds[side], self.seconds[to], strict=True)]
        )


def take_turns(sides: Mapping[str, Callable[[], object]], rounds: int, label: str = "") -> Times:
    """Call every side once a round, in random order, after a few calls to warm up. `label` shows progress."""
    for call in sides.values():
        for _ in range(WARM_UP):
            call()
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(rounds):
        if sys.stderr.isatty():
            print(f"\r\033[K{label} {number + 1}/{rounds}", end="", file=sys.stderr)
        for side in random.sample(list(sides), len(sides)):
            started = time.perf_counter()
            sides[side]()
            seconds[side].append(time.perf_counter() - started)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    return Times(seconds)
