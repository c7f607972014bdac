"""The gate: what Locust measured, held against the scenario's thresholds. Data in, verdict out.

A run passes when every threshold held, overall and on every route, at least the expected number of requests
was made, and the service lived to the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from locustfiles.scenarios import FEW, SIGN_IN, SIGN_IN_P95_MS, Scenario


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

    @property
    def passed(self) -> bool:
        """Whether every threshold held."""
        return all(check.held for check in self.checks)

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
    return Verdict(tuple(checks))


def _overall(run: Run, scenario: Scenario) -> list[Check]:
    limits, total = scenario.thresholds, run.total
    # While users come, half of them are there on average.
    full_seconds = scenario.run_time - scenario.ramp_seconds / 2
    expected = int(limits.requests_per_second * full_seconds)
    rate = total.requests / full_seconds
    return [
        Check("the run", "the service lives to the end", run.died or "alive", not run.died),
        Check("all routes", f"at least {expected} requests", str(total.requests), total.requests >= expected),
        Check(
            "all routes",
            f"over {limits.requests_per_second:g} req/s",
            f"{rate:.1f} req/s",
            rate > limits.requests_per_second,
        ),
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


def percentile(response_times: dict[float, int], share: float) -> float:
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
    times = {float(milliseconds): count for milliseconds, count in entry["response_times"].items()}
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
