"""Two stores, two captures or two periods of one store side by side: which endpoint sends more statements,
reads more rows, takes longer, and which findings are new and which are gone.

All requests count, by the sums that are kept of them. Counts are compared as they are. Times are compared by
the ratio of medians with its 95 % interval, which holds for any distribution: it says *slower* only where the
whole interval is above one. Medians are known within 2.5 %, which the interval covers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from profilers.reports.units import plural, shortened
from profilers.storage import schema
from profilers.store import EndpointRow, FindingRow, Period, Reader

ENOUGH = 6
"""Requests below which a median has no 95 % interval."""


class ComparisonError(Exception):
    """There is nothing to compare; the message is one line."""


class Compared(Protocol):
    """The part of a `Reader` that is compared."""

    def endpoints(self) -> Sequence[EndpointRow]:
        """Most total time first."""

    def findings(self) -> Sequence[FindingRow]:
        """Most time lost first."""


@dataclass(frozen=True)
class Slice:
    """One period of a reader."""

    reader: Reader
    period: Period

    def endpoints(self) -> Sequence[EndpointRow]:
        """Most total time first."""
        return self.reader.endpoints(self.period)

    def findings(self) -> Sequence[FindingRow]:
        """Most time lost first."""
        return self.reader.findings(self.period)


@dataclass(frozen=True)
class Interval:
    """A ratio and where it lies with 95 % confidence."""

    ratio: float
    low: float
    high: float
    enough: bool = True
    """Requests on both sides."""

    @property
    def verdict(self) -> str:
        """`slower`, `faster`, `same` (no difference that the requests show) or `too few`."""
        if not self.enough:
            return "too few"
        if self.low > 1:
            return "slower"
        return "faster" if self.high < 1 else "same"


@dataclass(frozen=True)
class Difference:
    """One endpoint, before and after."""

    name: str
    requests: tuple[int, int]
    statements: tuple[float, float]
    """Of a request, the mean."""
    rows: tuple[float, float]
    """Of a request, the mean."""
    p50: tuple[float, float]
    """Seconds."""
    p95: tuple[float, float]
    """Seconds."""
    time: Interval

    @property
    def changed(self) -> bool:
        """Whether anything differs that the requests show."""
        counts = self.statements[0] != self.statements[1] or self.rows[0] != self.rows[1]
        return counts or self.time.verdict in ("slower", "faster")


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
        """Whether nothing differs that the requests show."""
        names = self.only_before or self.only_after
        findings = self.new_findings or self.gone_findings
        return not names and not findings and not any(each.changed for each in self.differences)


FAILURES: Mapping[str, Callable[[Comparison], bool]] = {
    "new-findings": lambda compared: bool(compared.new_findings),
    "more-statements": lambda compared: any(d.statements[1] > d.statements[0] for d in compared.differences),
}
"""What `--fail-on` may name."""


def compare(
    before: Compared, after: Compared, where: tuple[object, object] = ("before", "after")
) -> Comparison:
    """Compare two of anything that has endpoints; `where` they lie is for the message of an error.

    Raises:
        ComparisonError: one of them holds no profile.
    """
    old, new = _endpoints(before, f"A ({where[0]})"), _endpoints(after, f"B ({where[1]})")
    known = {row.fingerprint: row for row in before.findings()}
    found = {row.fingerprint: row for row in after.findings()}
    return Comparison(
        differences=[_difference(old[name], new[name]) for name in sorted(old.keys() & new.keys())],
        only_before=sorted(old.keys() - new.keys()),
        only_after=sorted(new.keys() - old.keys()),
        new_findings=[row for key, row in found.items() if key not in known],
        gone_findings=[row for key, row in known.items() if key not in found],
    )


def ratio(before: EndpointRow, after: EndpointRow) -> Interval:
    """How much longer `after` takes: the ratio of the medians, and the interval that those of the two give.

    The method is MOVER (Donner and Zou, 2012, doi:10.1177/0962280210383081) on logarithms.
    """
    old, old_low, old_high = (math.log(max(value, 1e-9)) for value in (before.duration_p50, *before.median))
    new, new_low, new_high = (math.log(max(value, 1e-9)) for value in (after.duration_p50, *after.median))
    low = new - old - math.hypot(new - new_low, old_high - old)
    high = new - old + math.hypot(new_high - new, old - old_low)
    enough = min(before.requests, after.requests) >= ENOUGH
    return Interval(math.exp(new - old), math.exp(low), math.exp(high), enough)


def periods(
    length: float, until: float | None = None, back: float | None = None, name: str | None = None
) -> tuple[Period, Period]:
    """Two periods of `length` seconds: one that ends at `until` (now), and one that ended `back` seconds (its
    length) earlier.

    They begin and end where slots of the store's sums do, wider ones the older they are: they share none.
    """
    now = time.time()
    until = now if until is None else min(until, now)
    before_until = until - (length if back is None else back)
    after_since, after_until = _slot(until - length, now)[0], _slot(until, now)[1]
    before_since = _slot(before_until - length, now)[0]
    before_until = min(_slot(before_until, now)[1], after_since)
    if before_since >= before_until:
        before_since = _slot(before_until - 1, now)[0]
    return Period(before_since, before_until, name), Period(after_since, after_until, name)


def _slot(at: float, now: float) -> tuple[float, float]:
    """Where the slot of a moment begins and ends; both are the moment itself where a slot begins, and now."""
    if at >= now:
        return at, at
    width = next(width for age, width in schema.SLOTS if age is None or now - at <= age)
    begin = at // width * width
    return begin, begin if begin == at else begin + width


def render(compared: Comparison) -> str:
    """The comparison for a terminal."""
    lines = [
        f"{shortened(d.name, 300)}: {d.statements[0]:.3g} -> {d.statements[1]:.3g} statements, "
        f"{d.rows[0]:.3g} -> {d.rows[1]:.3g} rows, time x {d.time.ratio:.2f} "
        f"({d.time.low:.2f} to {d.time.high:.2f}): {d.time.verdict}{' requests' * (not d.time.enough)}"
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


def _endpoints(reader: Compared, label: str) -> dict[str, EndpointRow]:
    rows = {row.name: row for row in reader.endpoints()}
    if not rows:
        raise ComparisonError(f"{label} holds no profile")
    return rows


def _difference(before: EndpointRow, after: EndpointRow) -> Difference:
    of_before, of_after = max(before.requests, 1), max(after.requests, 1)
    return Difference(
        before.name,
        (before.requests, after.requests),
        (before.statements / of_before, after.statements / of_after),
        (before.rows / of_before, after.rows / of_after),
        (before.duration_p50, after.duration_p50),
        (before.duration_p95, after.duration_p95),
        ratio(before, after),
    )
