"""What the profilers saw during a run, by route: read from their own report, nothing of them is imported."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from locustfiles.service import Service, ServiceError

SLOW = "slow_query"
SLOWEST = 10
"""Statements that are shown."""


@dataclass(frozen=True)
class ProfiledRoute:
    """The statements of one route's profiled requests."""

    name: str
    requests: int
    """That were profiled: a sample of all."""
    statements_p50: float
    statements_max: int
    database_share: float
    """Of the time of the requests, 0 to 1."""


@dataclass(frozen=True)
class ProfiledStatement:
    """One of the slowest statements, without its values. Times in milliseconds."""

    shape: str
    calls: int
    average_ms: float
    longest_ms: float
    routes: tuple[str, ...]
    plan: tuple[str, ...] = ()
    """The database's plan, a line a step, indented; of statements that were slow once."""


@dataclass(frozen=True)
class Profiled:
    """What the profilers saw."""

    routes: tuple[ProfiledRoute, ...] = ()
    findings: tuple[str, ...] = ()
    """Each with its route, both lines and the fix; slow statements are not among them."""
    statements: tuple[ProfiledStatement, ...] = ()
    """Those whose longest call was longest."""


def read(service: Service, routes: Collection[str]) -> Profiled:
    """Ask the profilers' report about the routes of the run, by the names that the run gives them.

    Raises:
        ServiceError: there is no report to read.
    """
    done = subprocess.run(
        [sys.executable, "-m", "profilers", "--store", service.profiles, "report", "--format", "json"],
        env=service.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ServiceError(f"the profilers' report could not be read: {done.stderr.strip()[-500:]}")
    report = json.loads(done.stdout)
    names = {_without_parameters(route): route for route in routes}
    seen = (
        _route(names[_without_parameters(endpoint["name"])], endpoint)
        for endpoint in report["endpoints"]
        if _without_parameters(endpoint["name"]) in names
    )
    return Profiled(
        tuple(sorted(seen, key=lambda route: route.name)),
        tuple(
            f"{', '.join(row['endpoints'])}: {row['finding']['message']}"
            for row in report["findings"]
            if row["finding"]["kind"] != SLOW
        ),
        tuple(_statements(report)),
    )


def _statements(report: dict[str, Any]) -> Iterator[ProfiledStatement]:
    slow = [row["finding"] for row in report["findings"] if row["finding"]["kind"] == SLOW]
    plans = {finding["subject"]: finding["details"].get("plan") or () for finding in slow}
    for row in sorted(report["statements"], key=lambda row: -row["duration_max"])[:SLOWEST]:
        average, longest = row["duration"] / max(row["calls"], 1) * 1000, row["duration_max"] * 1000
        plan = tuple(plans.get(row["shape"], ()))
        yield ProfiledStatement(row["shape"], row["calls"], average, longest, tuple(row["endpoints"]), plan)


def _route(name: str, endpoint: dict[str, Any]) -> ProfiledRoute:
    timings = endpoint["timings"]
    return ProfiledRoute(
        name,
        endpoint["requests"],
        endpoint["statements_p50"],
        endpoint["statements_max"],
        timings.get("database", 0.0) / timings["total"] if timings.get("total") else 0.0,
    )


def _without_parameters(name: str) -> str:
    """`GET /services/{id}` of the run and `GET /services/<uuid:service_id>` of the app are the same route."""
    return re.sub(r"<[^>]*>|\{[^}]*\}", "{}", name)
