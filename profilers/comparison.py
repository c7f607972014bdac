"""Two stores side by side: which endpoint sends more statements, reads more rows, takes longer, and which
findings are new and which are gone.

Counts are compared as they are. Times are compared by the ratio of medians of the profiles that were kept,
with an interval from a seeded bootstrap: it says *slower* only where the whole interval is above one.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Protocol

from profilers.reports.units import plural, shortened
from profilers.store import FindingRow, ProfileRow

MOST = 400
"""Profiles of an endpoint that are compared, the newest: the interval is narrow enough by then."""
DRAWS = 400
LEVEL = 0.95


class ComparisonError(Exception):
    """There is nothing to compare; the message is one line."""


class Compared(Protocol):
    """The part of a `Reader` that is compared."""

    def profiles(self, *, limit: int) -> Sequence[ProfileRow]:
        """Newest first."""

    def findings(self) -> Sequence[FindingRow]:
        """Most time lost first."""


@dataclass(frozen=True)
class Interval:
    """A ratio and where it lies with 95 % confidence."""

    ratio: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """`slower`, `faster`, or `same`: no difference that the profiles show."""
        if self.low > 1:
            return "slower"
        return "faster" if self.high < 1 else "same"


@dataclass(frozen=True)
class Difference:
    """One endpoint, before and after; means for each request."""

    name: str
    statements: tuple[float, float]
    rows: tuple[float, float]
    time: Interval


@dataclass(frozen=True)
class Comparison:
    """What changed from one store to the other."""

    differences: Sequence[Difference]
    """Endpoints that both have."""
    only_before: Sequence[str]
    only_after: Sequence[str]
    new_findings: Sequence[FindingRow]
    gone_findings: Sequence[FindingRow]

    @property
    def unchanged(self) -> bool:
        """Whether nothing differs that the profiles can show."""
        return not (self.only_before or self.only_after or self.new_findings or self.gone_findings) and all(
            d.statements[0] == d.statements[1] and d.rows[0] == d.rows[1] and d.time.verdict == "same"
            for d in self.differences
        )


FAILURES: Mapping[str, Callable[[Comparison], bool]] = {
    "new-findings": lambda compared: bool(compared.new_findings),
    "more-statements": lambda compared: any(d.statements[1] > d.statements[0] for d in compared.differences),
}
"""What `--fail-on` may name."""


@dataclass(frozen=True)
class _Sample:
    durations: list[float]
    statements: float
    rows: float


def compare(
    before: Compared, after: Compared, where: tuple[object, object] = ("before", "after")
) -> Comparison:
    """Compare two stores; `where` they lie is for the message of an error.

    Raises:
        ComparisonError: one of them holds no profile.
    """
    old, new = _samples(before, f"A ({where[0]})"), _samples(after, f"B ({where[1]})")
    known = {row.fingerprint: row for row in before.findings()}
    found = {row.fingerprint: row for row in after.findings()}
    return Comparison(
        differences=[
            Difference(
                name,
                (old[name].statements, new[name].statements),
                (old[name].rows, new[name].rows),
                ratio(old[name].durations, new[name].durations),
            )
            for name in sorted(old.keys() & new.keys())
        ],
        only_before=sorted(old.keys() - new.keys()),
        only_after=sorted(new.keys() - old.keys()),
        new_findings=[row for key, row in found.items() if key not in known],
        gone_findings=[row for key, row in known.items() if key not in found],
    )


def ratio(before: Sequence[float], after: Sequence[float]) -> Interval:
    """How much longer `after` takes: the ratio of medians and its bootstrap interval.

    Resampling is seeded: equal data give equal intervals.
    """
    draw = random.Random(1).choices  # noqa: S311 - not a secret
    resampled = sorted(
        _middle(draw(after, k=len(after))) / _middle(draw(before, k=len(before))) for _ in range(DRAWS)
    )
    edge = int(DRAWS * (1 - LEVEL) / 2)
    return Interval(_middle(after) / _middle(before), resampled[edge], resampled[-1 - edge])


def _middle(durations: Sequence[float]) -> float:
    return max(median(durations), 1e-9)


def render(compared: Comparison) -> str:
    """The comparison for a terminal."""
    lines = [
        f"{shortened(d.name, 300)}: {d.statements[0]:.3g} -> {d.statements[1]:.3g} statements, "
        f"{d.rows[0]:.3g} -> {d.rows[1]:.3g} rows, time x {d.time.ratio:.2f} "
        f"({d.time.low:.2f} to {d.time.high:.2f}): {d.time.verdict}"
        for d in compared.differences
    ]
    lines += [f"{shortened(name, 300)}: only in A" for name in compared.only_before]
    lines += [f"{shortened(name, 300)}: only in B" for name in compared.only_after]
    lines += [f"new finding: {shortened(row.finding.message, 2000)}" for row in compared.new_findings]
    lines += [
        f"gone: {row.finding.cause.replace('_', ' ')} {shortened(row.finding.subject, 300)}"
        for row in compared.gone_findings
    ]
    new, gone = len(compared.new_findings), len(compared.gone_findings)
    lines.append("nothing changed" if compared.unchanged else f"{plural(new, 'new finding')}, {gone} gone")
    return "\n".join(lines)


def _samples(reader: Compared, label: str) -> dict[str, _Sample]:
    rows = reader.profiles(limit=100_000)
    if not rows:
        raise ComparisonError(f"{label} holds no profile")
    by_name: defaultdict[str, list[ProfileRow]] = defaultdict(list)
    for row in rows:
        if len(by_name[row.name]) < MOST:
            by_name[row.name].append(row)
    return {
        name: _Sample(
            [row.duration for row in kept],
            mean(row.statements for row in kept),
            mean(row.rows for row in kept),
        )
        for name, kept in by_name.items()
    }
