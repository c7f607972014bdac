"""`queries.lock`: what each route asks of the database, in a file that a pull request diffs.

    {"GET /services": {"findings": [], "statements": {"SELECT … FROM services @ api.py list_services": 1}}}

Lines are left out on purpose (they move with every edit above them); the report of a difference has them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from profilers.profile import Location, Profile


@dataclass(slots=True)
class Route:
    """The most statements that one request of a route sent, and its findings."""

    statements: Counter[str] = field(default_factory=Counter)
    """By shape and place (`SELECT … @ api.py list_services`)."""
    findings: set[str] = field(default_factory=set)
    """`lazy_relationship Post.author`."""
    lines: dict[str, Location] = field(default_factory=dict)
    """Where each statement was caused, as of this run; not written to the file."""


Routes = dict[str, Route]


def collect(profiles: Iterable[Profile]) -> Routes:
    """What a run saw: for each route the statements of its worst request and the findings of all."""
    routes: Routes = {}
    for profile in profiles:
        seen = routes.setdefault(profile.name, Route())
        seen.findings |= {f"{finding.cause} {finding.subject}" for finding in profile.findings}
        statements: Counter[str] = Counter()
        for statement in profile.statements:
            place = statement.location
            key = f"{statement.shape} @ {place.file} {place.function}" if place else statement.shape
            statements[key] += 1
            if place:
                seen.lines[key] = place
        if statements.total() > seen.statements.total():
            seen.statements = statements
    return routes


def differences(locked: Routes, seen: Routes) -> list[str]:
    """One line for each change of a route that the run saw; empty when nothing changed.

    Routes of the lock that the run did not visit are not judged: a run of one test file passes.
    """
    return [line for name in sorted(seen) for line in _route_differences(name, locked.get(name), seen[name])]


def _route_differences(name: str, locked: Route | None, seen: Route) -> list[str]:
    if locked is None:
        return [f"{name}: not in the lock ({_queries(seen.statements.total())})"]
    lines = []
    for key in sorted(locked.statements.keys() | seen.statements.keys()):
        change = seen.statements[key] - locked.statements[key]
        if change:
            shape = key.rpartition(" @ ")[0] or key
            where = f" at {seen.lines[key]}" if key in seen.lines else ""
            lines.append(f"{name}: {_queries(change, sign=True)}{where}: {shape}")
    lines += [f"{name}: new finding: {finding}" for finding in sorted(seen.findings - locked.findings)]
    lines += [f"{name}: finding gone: {finding}" for finding in sorted(locked.findings - seen.findings)]
    return lines


def _queries(count: int, *, sign: bool = False) -> str:
    noun = "query" if abs(count) == 1 else "queries"
    return f"{count:+d} {noun}" if sign else f"{count} {noun}"


def read(path: Path) -> Routes:
    """The routes of a lock file; none when there is no file.

    Raises:
        ValueError: the file is not JSON, or not a lock file of this version.
    """
    if not path.exists():
        return {}
    match json.loads(path.read_text(encoding="utf-8")):
        case {"version": 1, "routes": dict(routes)}:
            return _from_json(routes)
    raise ValueError(f"{path} is not a queries.lock of version 1: write it anew with --queries-lock=update")


def write(path: Path, locked: Routes, seen: Routes) -> None:
    """Replace the routes that the run saw and keep the others; sorted, so that diffs are small."""
    routes = {name: _route_json(route) for name, route in sorted((locked | seen).items())}
    text = json.dumps({"version": 1, "routes": routes}, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def to_json(routes: Routes) -> dict[str, Any]:
    """Routes as JSON types, lines included: what a pytest-xdist worker sends home."""
    return {
        name: {**_route_json(route), "lines": {key: list(place) for key, place in route.lines.items()}}
        for name, route in routes.items()
    }


def merge(runs: Iterable[Mapping[str, Any]]) -> Routes:
    """Join what several workers sent by `to_json`: the worst request of each route, all findings."""
    merged: Routes = {}
    for run in runs:
        for name, route in _from_json(run).items():
            known = merged.setdefault(name, Route())
            known.findings |= route.findings
            known.lines |= route.lines
            if route.statements.total() > known.statements.total():
                known.statements = route.statements
    return merged


def _route_json(route: Route) -> dict[str, Any]:
    return {"findings": sorted(route.findings), "statements": dict(sorted(route.statements.items()))}


def _from_json(data: Mapping[str, Any]) -> Routes:
    return {
        name: Route(
            Counter(route["statements"]),
            set(route["findings"]),
            {key: Location(*place) for key, place in route.get("lines", {}).items()},
        )
        for name, route in data.items()
    }
