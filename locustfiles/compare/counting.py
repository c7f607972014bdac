"""Exact counts: statements, rows, plans and findings by the version's own profilers, bytes and allocations.

Counted apart from the timing, by one client of one worker, so a count is the same each time. The least of
several requests counts: what happens in some of them only, a buffer that grows, would make a count depend on
how fast the machine is.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from locustfiles.compare import probe
from locustfiles.compare.routes import Client, Route
from locustfiles.compare.sides import Side
from locustfiles.service import PROFILERS, ServiceError

WARM_UP = 4
COUNTED = 5
"""Requests of a route."""
TRACKED = 3
"""Those whose allocations are counted, which takes a hundred times as long; one more to warm up."""
SETTINGS = {
    "FLASK_PROFILE": PROFILERS,
    "FLASK_PROFILE_SAMPLE": "1",
    "SLOW_QUERY_THRESHOLD_MS": "0",  # of every statement there is a plan
    "TOKEN_MEMORY_SECONDS": "0",  # each request looks its token up, not the first of every three seconds
}
SLOW = "slow_query"
_NODE = re.compile(
    r"(?P<node>[A-Z][\w ]*Scan)\b(?: Backward)?(?: using (?P<index>\S+))?(?: on (?P<table>\S+))?"
)


@dataclass(frozen=True)
class Statement:
    """A statement that one request sends, without values."""

    shape: str
    count: int
    rows: int
    line: str
    """`pake/registry/rows.py:41 in list_services`; empty when no line of the project sent it."""
    scans: frozenset[str] = frozenset()
    """How its plan reads: `Seq Scan on service_metrics`, `Index Scan using … on …`."""


@dataclass(frozen=True)
class Counted:
    """What one request of one route does."""

    status: int
    statements: Mapping[str, Statement] = field(default_factory=dict)
    """By shape."""
    findings: Mapping[str, str] = field(default_factory=dict)
    """Messages by what makes a finding the same in another version; slow statements are not among them."""
    bytes: int = 0
    """Of the answer's body."""
    allocations: int = 0
    allocated: int = 0
    """Bytes, those that were freed again as well."""

    @property
    def statement_count(self) -> int:
        """Of one request."""
        return sum(statement.count for statement in self.statements.values())

    @property
    def rows(self) -> int:
        """Returned or changed by all statements of one request."""
        return sum(statement.rows for statement in self.statements.values())


def count(side: Side, routes: Sequence[Route], seed: int) -> dict[str, Counted]:
    """Count every route, by name.

    Raises:
        ServiceError: the version has no counts, or does not run.
    """
    sent: dict[str, list[tuple[float, float]]] = {}
    sizes: dict[str, list[int]] = {}
    statuses: dict[str, int] = {}
    with side.serving(seed, **SETTINGS) as running:
        client = Client(side, running, seed)
        for route in routes:
            for _ in range(WARM_UP):
                client.send(route)
            for _ in range(COUNTED):
                began = time.time()
                answer = client.send(route)
                sent.setdefault(route.name, []).append((began, time.time()))
                sizes.setdefault(route.name, []).append(len(answer.body))
                statuses[route.name] = answer.status
        allocated = {route.name: _allocated(client, route) for route in routes}
        client.close()
        environment = running.environment
    kept = _profiles(side, environment)  # when the worker has ended, all of them are written
    counted = {}
    for route in routes:
        profiles = [
            next((each for each in kept if began <= each["started_at"] <= ended), None)
            for began, ended in sent[route.name]
        ]
        if None in profiles:
            raise ServiceError(f"{side.name}: the profilers have no profile of a request to {route.name}")
        statements, findings = seen([each for each in profiles if each])
        counted[route.name] = Counted(
            statuses[route.name], statements, findings, min(sizes[route.name]), *allocated[route.name]
        )
    return counted


def _profiles(side: Side, environment: Mapping[str, str]) -> list[dict[str, Any]]:
    command = [*side.code.python, "-m", "profilers", "--store", environment["FLASK_PROFILE_STORE"], "export"]
    done = subprocess.run(
        command, env=dict(environment), cwd=side.folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ServiceError(
            f"{side.name} ({side.version}) has no counts, its `python -m profilers export` failed: "
            f"{done.stderr.strip()[-500:]}"
        )
    return [json.loads(line) for line in done.stdout.splitlines()]


def seen(profiles: Sequence[dict[str, Any]]) -> tuple[dict[str, Statement], dict[str, str]]:
    """What all of several requests did: statements by shape, and messages of findings.

    Args:
        profiles: as `python -m profilers export` prints them.
    """
    counts: dict[str, list[int]] = {}
    rows: dict[str, list[int]] = {}
    lines: dict[str, str] = {}
    scans: dict[str, frozenset[str]] = {}
    found_in: dict[str, set[int]] = {}
    messages: dict[str, str] = {}
    for number, profile in enumerate(profiles):
        for statement in profile["statements"]:
            shape = statement["shape"]
            counts.setdefault(shape, [0] * len(profiles))[number] += 1
            rows.setdefault(shape, [0] * len(profiles))[number] += max(statement["rows"], 0)
            lines.setdefault(shape, place(statement["location"]))
        for finding in profile["findings"]:
            if finding["kind"] == SLOW:
                if plan := finding["details"].get("plan"):
                    scans[finding["subject"]] = scans_of(plan)
                continue
            key = "|".join((finding["kind"], finding["cause"], finding["subject"]))
            found_in.setdefault(key, set()).add(number)
            messages[key] = finding["message"]
    statements = {
        shape: Statement(shape, least, min(rows[shape]), lines[shape], scans.get(shape, frozenset()))
        for shape, each in counts.items()
        if (least := min(each))
    }
    findings = {key: messages[key] for key, those in found_in.items() if len(those) == len(profiles)}
    return statements, findings


def place(location: Sequence[Any] | None) -> str:
    """A line of the project as text: `pake/registry/rows.py:41 in list_services`."""
    return f"{location[0]}:{location[1]} in {location[2]}" if location else ""


def scans_of(plan: Iterable[str]) -> frozenset[str]:
    """How a plan reads its tables, without costs: `Seq Scan on service_metrics`."""
    found = (_NODE.match(line.strip()) for line in plan)
    return frozenset(match[0] for match in found if match)


def lost_indexes(base: Statement, head: Statement) -> list[str]:
    """Tables that a statement reads from end to end now, and did not before."""

    def whole(scans: frozenset[str]) -> set[str]:
        return {
            match["table"] for scan in scans if (match := _NODE.match(scan)) and match["node"] == "Seq Scan"
        }

    return sorted(whole(head.scans) - whole(base.scans)) if base.scans and head.scans else []


def _allocated(client: Client, route: Route) -> tuple[int, int]:
    """How many allocations each request makes, and of how many bytes."""
    client.send(route, probe.ALLOCATIONS)
    answers = [client.send(route, probe.ALLOCATIONS) for _ in range(TRACKED)]
    if not 200 <= answers[-1].status < 300:
        return 0, 0
    numbers, totals = (
        [int(answer.headers[name]) for answer in answers]
        for name in ("X-Perf-Allocations", "X-Perf-Allocated-Bytes")
    )
    return min(numbers), min(totals)
