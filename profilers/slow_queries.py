"""`slow-queries`: which statements took too long, on which line, and what PostgreSQL's plan says about them.

Each is a finding with its time, rows, line and plan, and one line in the log `profilers.slow_queries`; values
are in neither. The plan is asked for after the response was sent and never runs it; of a statement that stays
slow it is asked for again every ten minutes, and the store notes when it has changed. Where it shows what is
missing, the fix is SQL that can be run as it stands: `CREATE INDEX CONCURRENTLY ON orders (customer_id);`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from profilers.collect import MAX_TEXT, Record, Recording, shape_of
from profilers.location import resolve
from profilers.plan_hints import Hint, hints
from profilers.plans import NoPlanError, NotReachedError, fetch, outline
from profilers.plugin import Profiler, option
from profilers.profile import Finding, Location, Profile

log = logging.getLogger("profilers.slow_queries")

MAX_PLANS = 200
"""Statements of which a process asks for a plan; of further ones it does not."""
AGAIN_SECONDS = 600.0
"""Age from which a plan is asked for again, should the statement still be slow."""
PAUSE_SECONDS = 60.0
"""How long no plan is asked for after the database could not be reached for one."""


@dataclass(frozen=True)
class SlowQueryOptions:
    threshold_ms: float = option(1000.0, "Statements that took at least this long are findings.")
    log: bool = option(True, "Write a line to the log `profilers.slow_queries` for each.")
    plan: bool = option(True, "Ask PostgreSQL for the plan, which needs a connection now and then.")


@dataclass(frozen=True)
class Planned:
    """What is known of one statement's plan."""

    outline: list[str] = field(default_factory=list)
    hints: list[Hint] = field(default_factory=list)
    missing: str = ""
    """Why there is no plan."""
    at: float = field(default_factory=time.time)
    """When it was asked for."""


class SlowQueries(Profiler[SlowQueryOptions]):
    name = "slow-queries"
    options_class = SlowQueryOptions
    needs = frozenset({"statements"})

    def __init__(self, options: SlowQueryOptions) -> None:
        super().__init__(options)
        self._planned: dict[tuple[str, str], Planned] = {}
        self._pause_until = 0.0
        self._planning = threading.Lock()

    def examine(self, profile: Profile) -> None:
        assert isinstance(profile, Recording)
        threshold = self.options.threshold_ms / 1000
        slow: dict[tuple[str, Location | None], list[Record]] = {}
        for record in profile.records if profile.longest >= threshold else ():
            if record.ended - record.started >= threshold:
                location = resolve(record.site) if record.site else None
                slow.setdefault((shape_of(record), location), []).append(record)
        if not slow:
            return
        found = [
            slow_query(profile, shape, location, records, self._plan(shape, records[0]))
            for (shape, location), records in slow.items()
        ]
        profile.findings += found
        profile.sections[self.name] = {
            "threshold_ms": self.options.threshold_ms,
            "statements": sum(finding.count for finding in found),
            "without_plan": sorted({finding.details["no_plan"] for finding in found} - {""}),
        }
        if self.options.log:
            for finding in found:
                log.warning("%s", finding.message)

    def _plan(self, shape: str, record: Record) -> Planned:
        """The plan of a statement, asked for when it is slow and the last one is not of now."""
        key = (str(record.engine.url), shape)
        with self._planning:
            planned = self._planned.get(key)
            if planned is not None and time.time() - planned.at < AGAIN_SECONDS:
                return planned
            if not self.options.plan:
                return Planned(missing="PROFILE_SLOW_QUERIES_PLAN is off")
            if planned is None and len(self._planned) >= MAX_PLANS:
                return Planned(missing=f"{MAX_PLANS} statements have been planned by this process")
            if time.monotonic() < self._pause_until:
                return planned or Planned(missing="the database could not be reached for a plan a moment ago")
            try:
                planned = self._planned[key] = plan_of(record)
            except NotReachedError as error:
                self._pause_until = time.monotonic() + PAUSE_SECONDS
                planned = planned or Planned(missing=str(error))
            return planned


def plan_of(record: Record) -> Planned:
    """Ask the database that ran a statement for its plan, and read it.

    Raises:
        NotReachedError: it cannot be asked now.
    """
    if isinstance(record.sql, str) and len(record.sql) >= MAX_TEXT:
        return Planned(missing=f"it is longer than {MAX_TEXT} characters")
    try:
        plan = fetch(record.engine, record.sql)
    except NotReachedError:
        raise
    except NoPlanError as error:
        return Planned(missing=str(error))
    return Planned(outline(plan), hints(plan))


def slow_query(
    profile: Profile, shape: str, location: Location | None, records: Sequence[Record], planned: Planned
) -> Finding:
    """Executions of one statement on one line, each of which took too long."""
    slowest = max(records, key=lambda record: record.ended - record.started)
    milliseconds = (slowest.ended - slowest.started) * 1000
    times = f"{len(records)} times, at worst " if len(records) > 1 else ""
    rows = f" for {slowest.rows:,} rows" if slowest.rows >= 0 else ""
    message = (
        f"{profile.name} ran a slow statement, {times}{milliseconds:,.0f} ms{rows}, "
        f"at {location or 'no line of the project'}: {shape}."
    )
    said = " ".join(f"{hint.message} {hint.fix}" for hint in planned.hints)
    return Finding(
        kind="slow_query",
        cause=planned.hints[0].cause if planned.hints else "slow_statement",
        subject=shape,
        count=len(records),
        location=location,
        fix=planned.hints[0].fix if planned.hints else "",
        message=f"{message} {said}".rstrip(),
        duration=sum(record.ended - record.started for record in records),
        details={
            "slowest_ms": round(milliseconds, 3),
            "rows": slowest.rows,
            "error": slowest.error,
            "plan": planned.outline,
            "no_plan": planned.missing,
            **(_asked(planned, records[0]) if planned.outline else {}),
            "hints": [asdict(hint) for hint in planned.hints],
        },
    )


def _asked(planned: Planned, record: Record) -> dict[str, object]:
    """When a plan was asked for, and of which database: a statement has one in each."""
    return {"planned_at": planned.at, "database": record.engine.url.database or ""}
