"""Base and head held against each other, route by route: data in, problems out."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from locustfiles.compare import counting, judge
from locustfiles.compare.counting import Counted
from locustfiles.compare.judge import FASTER, SAME, SLOWER, UNSURE, Interval
from locustfiles.compare.routes import Route
from locustfiles.compare.timing import Measured

JUDGED = {"cpu": "CPU of the worker", "database": "CPU of the database"}
"""Figures that a verdict rests on. Latency is shown only: it is what the machine does meanwhile."""
LITTLE_SECONDS = 50e-6
"""A figure that is less on both sides is not worth a verdict."""
SHOWN_CHARACTERS = 160
"""Of a statement; summary.json has all of it."""
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Compared:
    """One route."""

    name: str
    base: Counted
    head: Counted
    times: Mapping[str, Interval] = field(default_factory=dict)
    """By figure; without those that are next to nothing."""
    cpu_ms: float = 0.0
    """Of head's worker, for one request; 0 when it was not measured."""
    verdict: str = NOT_MEASURED
    problems: tuple[str, ...] = ()
    """Why it fails, a line each."""
    doubts: tuple[str, ...] = ()
    """What could not be told, and what would."""


@dataclass(frozen=True)
class Comparison:
    """All routes."""

    routes: tuple[Compared, ...]
    only_head: tuple[str, ...] = ()
    """Routes that base does not answer."""
    neither: tuple[str, ...] = ()
    facts: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def problems(self) -> list[str]:
        """All of them, each with its route."""
        return [f"{route.name}: {problem}" for route in self.routes for problem in route.problems]

    @property
    def doubts(self) -> list[str]:
        """All of them, each with its route."""
        return [f"{route.name}: {doubt}" for route in self.routes for doubt in route.doubts]

    @property
    def passed(self) -> bool:
        """Whether head is no worse, as far as can be told."""
        return not self.problems

    @property
    def outcome(self) -> str:
        """The verdict in a few words."""
        if not self.passed:
            return f"REGRESSION ({len(self.problems)} found)"
        return "NO REGRESSION" + (f" ({len(self.doubts)} could not be told)" if self.doubts else "")


def compare(
    routes: Sequence[Route],
    base: Mapping[str, Counted],
    head: Mapping[str, Counted],
    measured: Mapping[str, Measured],
    facts: Mapping[str, str | int],
) -> Comparison:
    """Hold head against base. `measured` lacks the routes that were counted only."""
    intervals = times_of(measured)
    in_base = [route for route in routes if answered(base[route.name])]
    not_in_base = [route.name for route in routes if not answered(base[route.name])]
    return Comparison(
        tuple(
            _compared(route, base[route.name], head[route.name], intervals.get(route.name, {}), measured)
            for route in in_base
        ),
        tuple(name for name in not_in_base if answered(head[name])),
        tuple(name for name in not_in_base if not answered(head[name])),
        facts,
    )


def answered(counted: Counted) -> bool:
    """Whether the version has this route."""
    return 200 <= counted.status < 300


def times_of(measured: Mapping[str, Measured]) -> dict[str, dict[str, Interval]]:
    """The intervals of every figure that is worth one, by route."""
    worth = {
        figure: {
            name: one.figures[figure]
            for name, one in measured.items()
            if one.figures[figure].mean(axis=(1, 2)).max() >= LITTLE_SECONDS
        }
        for figure in (*JUDGED, "latency")
    }
    judged = sum(len(worth[figure]) for figure in JUDGED)
    found: dict[str, dict[str, Interval]] = {name: {} for name in measured}
    for figure, seconds in worth.items():
        for name, one in judge.intervals(seconds, judged).items():
            found[name][figure] = one
    return found


def verdicts(route: Route, times: Mapping[str, Interval]) -> dict[str, str]:
    """The verdict of each figure that is judged."""
    return {figure: times[figure].verdict(tolerance(route, figure)) for figure in JUDGED if figure in times}


def undecided(routes: Sequence[Route], measured: Mapping[str, Measured]) -> bool:
    """Whether more pairs might tell something that these do not."""
    times = times_of(measured)
    return any(UNSURE in verdicts(route, times[route.name]).values() for route in routes)


def tolerance(route: Route, figure: str) -> float:
    """The share by which a figure may grow."""
    return float(getattr(route.tolerance, figure))


def _compared(
    route: Route,
    base: Counted,
    head: Counted,
    times: Mapping[str, Interval],
    measured: Mapping[str, Measured],
) -> Compared:
    if not answered(head):
        problem = f"head answers with {head.status}, base with {base.status}"
        return Compared(route.name, base, head, problems=(problem,))
    told = verdicts(route, times)
    problems, doubts = [*_more(route, base, head)], []
    for figure, verdict in told.items():
        share = tolerance(route, figure)
        if verdict == SLOWER:
            problems.append(f"{JUDGED[figure]} × {times[figure]}, tolerance {share:.0%}")  # noqa: RUF001
        elif verdict == UNSURE:
            pairs = measured[route.name].figures[figure].shape[1]
            more = judge.more_pairs(times[figure], pairs, share)
            what = "it lies on the tolerance" if more is None else f"about {more} more pairs would tell"
            doubts.append(f"{JUDGED[figure]} × {times[figure]}, tolerance {share:.0%}: {what}")  # noqa: RUF001
    overall = next((v for v in (SLOWER, UNSURE, FASTER, SAME) if v in told.values()), NOT_MEASURED)
    milliseconds = float(measured[route.name].figures["cpu"][1].mean()) * 1000 if times else 0.0
    return Compared(route.name, base, head, times, milliseconds, overall, tuple(problems), tuple(doubts))


def _more(route: Route, base: Counted, head: Counted) -> Iterator[str]:
    """What head does more often than base, by exact counts."""
    gone = [shape for shape in base.statements if shape not in head.statements]
    more = head.statement_count - base.statement_count
    for shape, now in head.statements.items():
        known = base.statements.get(shape)
        sent = now.count - (known.count if known else 0)
        if sent > 0 and more > 0:
            yield f"{_times(sent)} more at {now.line or 'no line of the project'}: {_shown(shape)}"
        if known and (tables := counting.lost_indexes(known, now)):
            had = ", ".join(sorted(known.scans - now.scans)) or "another plan"
            yield (
                f"{', '.join(tables)} is read from end to end, base had {had}; "
                f"at {now.line or 'no line of the project'}: {_shown(shape)}"
            )
    if more > 0:
        replaced = f", {len(gone)} of base's are gone" if gone else ""
        yield f"{head.statement_count} statements, base has {base.statement_count}{replaced}"
    if head.rows > base.rows:
        yield f"{head.rows} rows, base has {base.rows}"
    for key, message in head.findings.items():
        if key not in base.findings:
            yield f"new finding: {message}"
    for name, before, after, share in (
        ("bytes in the answer", base.bytes, head.bytes, route.tolerance.bytes),
        ("allocations", base.allocations, head.allocations, route.tolerance.allocations),
        ("bytes allocated", base.allocated, head.allocated, route.tolerance.allocations),
    ):
        if before and after > before * (1 + share):
            yield f"{after:,} {name}, base has {before:,} (× {after / before:.2f}, tolerance {share:.0%})"  # noqa: RUF001


def _shown(shape: str) -> str:
    return textwrap.shorten(shape, SHOWN_CHARACTERS, placeholder=" …")


def _times(count: int) -> str:
    return "a statement" if count == 1 else f"{count} statements"
