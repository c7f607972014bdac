"""From paired measurements to a verdict: how large the ratio of head to base is, and how sure that is.

The rounds of one pair of processes share what is peculiar to it, so a pair counts with one figure: the median
of its rounds, as a neighbour that computes spoils some of them and not the others. The error is that of a
bootstrap that draws pairs anew and keeps each whole (Davison and Hinkley 1997, section 3.8: to draw within
them as well would count the noise of rounds twice). A few pairs tell little about their own spread, so the
spread of a route is drawn towards that of all routes, as moderated t-statistics do (Smyth 2004,
doi:10.2202/1544-6115.1027). The interval is corrected for the number of figures that are judged together
(Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

CONFIDENCE = 0.95
"""Of a whole run."""
DRAWS = 1000
BORROWED = 10
"""Degrees of freedom that the other routes lend."""
MOST_PAIRS = 200
"""More than these nobody waits for."""
SLOWER, SAME, FASTER, UNSURE = "slower", "same", "faster", "cannot tell"


@dataclass(frozen=True)
class Interval:
    """A ratio of head to base, and where it lies."""

    ratio: float
    low: float
    high: float

    def verdict(self, tolerance: float) -> str:
        """Slower or faster only when the whole interval lies beyond the tolerance."""
        if self.low > 1 + tolerance:
            return SLOWER
        if self.high < 1 / (1 + tolerance):
            return FASTER
        if self.low >= 1 / (1 + tolerance) and self.high <= 1 + tolerance:
            return SAME
        return UNSURE

    def __str__(self) -> str:
        return f"{self.ratio:.2f} ({self.low:.2f}–{self.high:.2f})"  # noqa: RUF001


def intervals(seconds: Mapping[str, NDArray[np.float64]], figures: int, seed: int = 0) -> dict[str, Interval]:
    """Where the ratio of head to base lies, by route.

    Args:
        seconds: by route: of shape (2, pairs, rounds), base first; above 0. Two pairs at least.
        figures: how many are judged together.
    """
    ratios = {
        name: np.median(np.log(values[1]) - np.log(values[0]), axis=1) for name, values in seconds.items()
    }
    errors = {name: _error(each, seed) for name, each in ratios.items()}
    usual = float(np.mean([error**2 for error in errors.values()])) if errors else 0.0
    found = {}
    for name, each in ratios.items():
        freedom = len(each) - 1
        error = math.sqrt((errors[name] ** 2 * freedom + usual * BORROWED) / (freedom + BORROWED))
        reach = error * float(stats.t.isf((1 - CONFIDENCE) / figures / 2, freedom + BORROWED))
        middle = float(each.mean())
        found[name] = Interval(*map(math.exp, (middle, middle - reach, middle + reach)))
    return found


def more_pairs(found: Interval, pairs: int, tolerance: float) -> int | None:
    """How many more pairs would decide, about; None when it lies on the tolerance and none would."""
    middle = abs(math.log(found.ratio))
    reach = math.log(found.high / found.ratio)
    distance = abs(middle - math.log1p(tolerance))
    needed = pairs * (reach / distance) ** 2 if distance else math.inf
    return math.ceil(needed - pairs) if needed < MOST_PAIRS else None


def _error(ratios: NDArray[np.float64], seed: int) -> float:
    """Standard error of the mean over pairs, by bootstrap; what that lacks with few pairs is added."""
    pairs = len(ratios)
    drawn = np.random.default_rng(seed).integers(pairs, size=(DRAWS, pairs))
    return float(ratios[drawn].mean(axis=1).std()) * math.sqrt(pairs / (pairs - 1))
