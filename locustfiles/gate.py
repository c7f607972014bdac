"""The gate: what Locust measured, held against the scenario's thresholds. Data in, verdict out.

A run passes when every threshold held, overall and on every route, at least the expected number of requests
was made, and the service lived to the end. A run whose load generator was the bottleneck has no verdict: it
says how fast the generator was.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from locustfiles.scenarios import FEW, SIGN_IN, SIGN_IN_P95_MS, Scenario

BUSY = 0.9
"""Share of its core from which a Locust process is the bottleneck: Locust itself warns from there."""
LATE_SHARE = 0.25
"""How late a Locust process may wake, as a share of the p95 threshold."""
BEGUN = 0.99
"""Share of the journeys that were due in the open model which must have begun when the run ends."""
LATE_MS = 50.0
"""And whatever the threshold: less is what a busy machine does to anybody."""


@dataclass(frozen=True)
class Measured:
    """What one route, or all of them, did. Times in milliseconds."""

    name: str
    requests: int
    failures: int
    average_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float

    @property
    def errors(self) -> float:
        """Share of failed requests, 0 to 1."""
        return self.failures / self.requests if self.requests else 0.0


@dataclass(frozen=True)
class Generator:
    """How one Locust process was: a gevent loop on one core."""

    name: str
    """`Locust`, or the id of a Locust worker."""
    cpu: float
    """Share of its core that a tenth of the run's seconds exceeded, 0 to 1."""
    late_ms: float
    """How late it woke from short sleeps, 95th percentile: response times are wrong by as much."""
    cpu_by_second: tuple[float, ...] = ()


@dataclass(frozen=True)
class Second:
    """One second of a run, all routes together. Times in milliseconds."""

    at: int
    """Seconds since the epoch."""
    users: int
    response_times: Mapping[float, int]
    """Number of requests by response time."""
    failures: int

    @property
    def requests(self) -> int:
        """How many ended in it."""
        return sum(self.response_times.values())


@dataclass(frozen=True)
class Run:
    """A finished run."""

    total: Measured
    routes: tuple[Measured, ...]
    seconds: float
    failures: tuple[str, ...] = ()
    """What went wrong, most frequent first: `GET /services: status 500, expected 200 (12 times)`."""
    died: str = ""
    """Why the service or the generator ended before the run did; empty when both lived."""
    memory: str = ""
    """What the memory profiler says: `leak`, `no leak`, `not enough data`; empty when it was not asked."""
    generators: tuple[Generator, ...] = ()
    course: tuple[Second, ...] = ()
    """The run second by second."""
    journeys: Mapping[str, int] = field(default_factory=dict)
    """In the open model: how many were `due`, and how many were `begun`."""


@dataclass(frozen=True)
class Check:
    """One line of the verdict."""

    subject: str
    """`all routes`, or one route."""
    threshold: str
    """What was asked: `p95 < 200 ms`."""
    measured: str
    held: bool


@dataclass(frozen=True)
class Verdict:
    """All checks of a run."""

    checks: tuple[Check, ...]
    void: tuple[str, ...] = ()
    """Why the run says nothing about the service; empty when it does."""

    @property
    def passed(self) -> bool:
        """Whether every threshold held, in a run that says something."""
        return not self.void and all(check.held for check in self.checks)

    @property
    def reasons(self) -> list[str]:
        """One line for each threshold that did not hold."""
        return [
            f"{check.subject}: {check.measured}, expected {check.threshold}"
            for check in self.checks
            if not check.held
        ]


def judge(run: Run, scenario: Scenario) -> Verdict:
    """Hold a run against its scenario."""
    checks = [*_overall(run, scenario), *(check for r in run.routes for check in _route(r, scenario))]
    if run.memory:
        checks.append(Check("the run", "no leak", run.memory, run.memory != "leak"))
    return Verdict(tuple(checks), () if run.died else tuple(bottleneck(run, scenario)))


def bottleneck(run: Run, scenario: Scenario) -> list[str]:
    """In which way the load generator was too weak for the load; empty when it was not."""
    late_limit = max(LATE_MS, scenario.thresholds.p95_ms * LATE_SHARE)
    reasons = []
    for one in run.generators:
        if one.cpu > BUSY:
            reasons.append(f"{one.name} used {one.cpu:.0%} of a core, over {BUSY:.0%}, in a tenth of the run")
        if one.late_ms > late_limit:
            reasons.append(
                f"{one.name} woke {one.late_ms:.0f} ms late (p95), over {late_limit:.0f}: it waited for CPU"
            )
    return reasons


def _overall(run: Run, scenario: Scenario) -> list[Check]:
    limits, total = scenario.thresholds, run.total
    # While users come, half of them are there on average.
    full_seconds = scenario.run_time - scenario.ramp_seconds / 2
    expected = int(limits.requests_per_second * full_seconds)
    rate = total.requests / full_seconds
    made = [
        Check("all routes", f"at least {expected} requests", str(total.requests), total.requests >= expected),
        Check(
            "all routes",
            f"over {limits.requests_per_second:g} req/s",
            f"{rate:.1f} req/s",
            rate > limits.requests_per_second,
        ),
    ]
    if scenario.arrivals:  # the rate is given: what counts is that every journey found a user
        due, begun = run.journeys.get("due", 0), run.journeys.get("begun", 0)
        allowed = math.floor(due * BEGUN) - scenario.users  # each may be on its way to one
        made = [Check("all routes", f"at least {allowed} journeys", str(begun), begun >= max(allowed, 1))]
    return [
        Check("the run", "the service lives to the end", run.died or "alive", not run.died),
        *made,
        *_times(total, limits.average_ms, limits.p95_ms, "all routes"),
        _errors(total, limits.errors, "all routes"),
    ]


def _route(route: Measured, scenario: Scenario) -> list[Check]:
    limits = scenario.thresholds
    checks = [_errors(route, limits.errors, route.name)]
    if route.name == SIGN_IN:
        p95_limit = max(limits.p95_ms, SIGN_IN_P95_MS)
        checks += _times(route, p95_limit, p95_limit, route.name)
    elif route.requests >= FEW:
        checks += _times(route, limits.average_ms, limits.p95_ms, route.name)
    return checks


def _times(measured: Measured, average_ms: float, p95_ms: float, subject: str) -> list[Check]:
    return [
        Check(
            subject,
            f"average < {average_ms:g} ms",
            f"average {measured.average_ms:.1f} ms",
            measured.average_ms < average_ms,
        ),
        Check(subject, f"p95 < {p95_ms:g} ms", f"p95 {measured.p95_ms:.1f} ms", measured.p95_ms < p95_ms),
    ]


def _errors(measured: Measured, limit: float, subject: str) -> Check:
    share = f"{measured.failures} of {measured.requests} failed ({measured.errors:.2%})"
    if limit == 0:
        return Check(subject, "no failed request", share, measured.failures == 0)
    return Check(subject, f"errors < {limit:.0%}", share, measured.errors < limit)


def percentile(response_times: Mapping[float, int], share: float) -> float:
    """The response time that `share` (0 to 1) of the requests did not exceed (nearest rank); 0 without any.

    Args:
        response_times: number of requests by response time.
    """
    rank = share * sum(response_times.values())
    seen = 0
    for milliseconds in sorted(response_times):
        seen += response_times[milliseconds]
        if seen >= rank:
            return milliseconds
    return 0.0


def measured(name: str, entry: dict[str, Any]) -> Measured:
    """One of Locust's statistics entries, as its `--json-file` has them."""
    times = _times_of(entry["response_times"])
    requests = entry["num_requests"]
    return Measured(
        name=name,
        requests=requests,
        failures=entry["num_failures"],
        average_ms=entry["total_response_time"] / requests if requests else 0.0,
        p50_ms=percentile(times, 0.5),
        p95_ms=percentile(times, 0.95),
        p99_ms=percentile(times, 0.99),
        max_ms=entry["max_response_time"] or 0.0,
    )


def total(entries: list[dict[str, Any]]) -> Measured:
    """All routes as one."""
    times: dict[str, int] = {}
    for entry in entries:
        for milliseconds, count in entry["response_times"].items():
            times[milliseconds] = times.get(milliseconds, 0) + count
    return measured(
        "all routes",
        {
            "response_times": times,
            "num_requests": sum(entry["num_requests"] for entry in entries),
            "num_failures": sum(entry["num_failures"] for entry in entries),
            "total_response_time": sum(entry["total_response_time"] for entry in entries),
            "max_response_time": max((entry["max_response_time"] or 0 for entry in entries), default=0),
        },
    )


def generators(processes: Mapping[str, Any]) -> tuple[Generator, ...]:
    """How the Locust processes were, as `locustfiles.generator` counted it."""
    return tuple(
        Generator(
            name or "Locust",
            _exceeded(health["cpu"]),
            percentile(_times_of(health["late_ms"]), 0.95),
            tuple(health["cpu"]),
        )
        for name, health in sorted(processes.items())
    )


def _exceeded(shares: list[float]) -> float:
    """What a tenth of the values exceeded; 0 without any."""
    return percentile(Counter(shares), 0.9)


def course(data: Mapping[str, Any]) -> tuple[Second, ...]:
    """The seconds of a run, as `locustfiles.generator` counted them; those without a request too."""
    if not data["seconds"]:
        return ()
    ends = [int(second) for second in data["seconds"]]
    users = 0
    found = []
    for at in range(min(ends), max(ends) + 1):
        users = data["users"].get(str(at), users)
        times = _times_of(data["seconds"].get(str(at), {}))
        found.append(Second(at, users, times, data["failures"].get(str(at), 0)))
    return tuple(found)


def _times_of(counts: Mapping[str, int]) -> dict[float, int]:
    """Counts by time, as JSON has them."""
    return {float(milliseconds): count for milliseconds, count in counts.items()}
