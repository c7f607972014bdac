"""`queries`: how many statements a request sends, what they cost, and which were sent twice for nothing.

Adds to the profile: rows, time in the driver, the wait for a pooled connection and how long it was held,
commits and rollbacks. A request over its budget is a finding and one warning in the log, and so is a
statement repeated with the very same parameters.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from flask import Flask

from profilers.collect import Record, Recording, shape_of
from profilers.location import resolve
from profilers.options import ConfigError
from profilers.plugin import Profiler, option
from profilers.profile import Finding, Profile

log = logging.getLogger("profilers.queries")

View = TypeVar("View", bound=Callable[..., Any])


def query_budget(limit: int) -> Callable[[View], View]:
    """Give a view a budget of its own: more than `limit` statements are a finding.

    @app.get("/posts")
    @query_budget(3)
    def posts(): ...
    """

    def give(view: View) -> View:
        view.__query_budget__ = limit  # type: ignore[attr-defined]
        return view

    return give


@dataclass(frozen=True)
class QueryOptions:
    max_statements: int = option(50, "More statements in one request or block are a finding.")
    budgets: tuple[str, ...] = option(
        (),
        "Budgets by endpoint, `GET /posts=3`, first match counts; `*` is any text. Beats @query_budget.",
    )
    duplicates: int = option(
        3, "A statement sent this often with equal parameters is a finding; 0 for never."
    )


class QueryCounter(Profiler[QueryOptions]):
    name = "queries"
    options_class = QueryOptions
    needs = frozenset({"statements", "pool"})

    def __init__(self, options: QueryOptions) -> None:
        super().__init__(options)
        self._budgets = [_budget(text) for text in options.budgets]
        self._views: Mapping[str, Any] = {}

    def on_app(self, app: Flask) -> None:
        self._views = app.view_functions

    def examine(self, profile: Profile) -> None:
        assert isinstance(profile, Recording)
        if not profile.records:
            return
        if profile.statement_count > (limit := self.limit(profile)):
            finding = over_budget(profile, limit)
            profile.findings.append(finding)
            log.warning("%s", finding.message)
        if self.options.duplicates and len(profile.records) >= self.options.duplicates:
            profile.findings += duplicates(profile, self.options.duplicates)

    def limit(self, profile: Recording) -> int:
        """The budget of this request or block."""
        for pattern, limit in self._budgets:
            if fnmatchcase(profile.name, pattern):
                return limit
        view = self._views.get(profile.endpoint)
        return getattr(view, "__query_budget__", self.options.max_statements)


def _budget(text: str) -> tuple[str, int]:
    pattern, _, limit = text.rpartition("=")
    if not pattern or not limit.strip().isdigit():
        raise ConfigError(
            f"PROFILE_QUERIES_BUDGETS={text!r}: expected a method, a rule and a number: 'GET /posts=3'"
        )
    return pattern.strip(), int(limit)


def over_budget(profile: Recording, limit: int) -> Finding:
    """More statements than the request may send, with the line that sent the most."""
    sites = {
        (id(record.site.code), record.site.instruction): record.site
        for record in profile.records
        if record.site
    }
    counts = Counter(
        (id(record.site.code), record.site.instruction) for record in profile.records if record.site
    )
    for total in profile.overflow.values():
        if site := total.sample.site:
            sites[id(site.code), site.instruction] = site
            counts[id(site.code), site.instruction] += total.count
    line, most = max(counts.items(), key=lambda item: item[1], default=(None, 0))
    location = resolve(sites[line]) if line else None
    return Finding(
        kind="over_budget",
        cause="over_budget",
        subject=profile.name,
        count=profile.statement_count,
        location=location,
        duration=profile.timings["database"],
        fix=f"Send at most {limit} statements, or allow {profile.statement_count} with @query_budget.",
        message=(
            f"{profile.name} sent {profile.statement_count} statements where {limit} are allowed; "
            f"most of them, {most}, at {location or 'no line of the project'}."
        ),
        details={"limit": limit},
    )


def duplicates(profile: Recording, least: int) -> list[Finding]:
    """Statements that were repeated with equal parameters and no write in between."""
    values = {record.parameters for record in profile.records}
    if len(profile.records) - len(values) < least - 1:  # too few are equal, whatever they ask for
        return []
    groups: dict[tuple[str, int, int], list[Record]] = {}
    written = 0
    for record in profile.records:
        if is_read(record):
            groups.setdefault((record.text or record.sql, record.parameters, written), []).append(record)
        else:
            written += 1
    return [_duplicate(group) for group in groups.values() if len(group) >= least]


def is_read(record: Record) -> bool:
    """Whether the statement only reads, as far as its first word tells."""
    text = record.sql if isinstance(record.sql, str) else str(record.sql)
    return text.lstrip("( \n\t")[:6].upper() == "SELECT"


def _duplicate(group: list[Record]) -> Finding:
    location = resolve(group[0].site) if group[0].site else None
    shape = shape_of(group[0])
    seconds = sum(record.ended - record.started for record in group)
    return Finding(
        kind="duplicate_query",
        cause="equal_parameters",
        subject=shape,
        count=len(group),
        location=location,
        duration=seconds,
        fix="Run it once and pass its result on.",
        message=(
            f"The same statement was sent {len(group)} times with the same parameters, first at "
            f"{location or 'no line of the project'} ({seconds * 1000:.1f} ms): {shape}. "
            "Run it once and pass its result on."
        ),
    )
