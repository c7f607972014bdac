"""Does the number of statements grow with the data? A verdict from counts, which cannot be wrong by timing.

The same code is run over several sizes of data. Each group of equal statements from one line is fitted to
statements = a + b * n; a group with b > 0 grows, and is named with its statement and line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import linear_regression

from profilers.profile import Location, Profile

Source = tuple[str, Location | None]
"""A statement's shape and the line that caused it."""


@dataclass(frozen=True, slots=True)
class Growth:
    """One group of equal statements whose number rises with the size of the data."""

    shape: str
    location: Location | None
    counts: Mapping[int, int]
    """Number of statements by size of the data."""
    constant: float
    """`a` of statements = a + b * n, by least squares."""
    slope: float
    """`b`: statements for each further row."""

    def __str__(self) -> str:
        fitted = f"{self.constant:.3g} + {self.slope:.3g} * n"
        counts = ", ".join(f"n={size}: {count}" for size, count in sorted(self.counts.items()))
        return (
            f"{fitted} statements ({counts}) at {self.location or 'no line of the project'}\n    {self.shape}"
        )


def growing(profiles: Mapping[int, Profile]) -> list[Growth]:
    """The groups of statements that grow with the data, steepest first.

    Args:
        profiles: what the same code did, by size of the data; two sizes at least.

    A group grows when its count never falls and ends higher than it began: a cache that warms up, a page that
    is full and a statement that runs now and then do not.
    """
    if len(profiles) < 2:
        raise ValueError(f"two sizes of data at least are needed to see growth, got {sorted(profiles)}")
    counts = {size: _by_source(profile) for size, profile in profiles.items()}
    sources = {source for counter in counts.values() for source in counter}
    by_size = {source: {size: counts[size][source] for size in sorted(counts)} for source in sources}
    grown = (_fit(source, series) for source, series in by_size.items() if _rises(list(series.values())))
    return sorted(grown, key=lambda growth: (-growth.slope, growth.shape))


def _by_source(profile: Profile) -> Counter[Source]:
    return Counter((statement.shape, statement.location) for statement in profile.statements)


def _rises(counts: Sequence[int]) -> bool:
    return counts[0] < counts[-1] and list(counts) == sorted(counts)


def _fit(source: Source, counts: dict[int, int]) -> Growth:
    slope, constant = linear_regression(list(counts), list(counts.values()))
    return Growth(*source, counts=counts, constant=constant, slope=slope)
