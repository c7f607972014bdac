"""A finished run to draw, with everything in it that a report can show, and nothing that it may believe."""

from __future__ import annotations

from locustfiles.gate import Generator, Measured, Run, Second, judge
from locustfiles.memory import Memory
from locustfiles.processes import Usage
from locustfiles.profiled import Profiled, ProfiledRoute, ProfiledStatement
from locustfiles.result import Result
from locustfiles.scenarios import SCENARIOS, Scenario

BEGAN = 1_800_000_000
HOSTILE = "<script>alert('seen')</script><img src=x onerror=alert(1)>|"


def measured(name: str, requests: int = 900, p95_ms: float = 60) -> Measured:
    return Measured(name, requests, 0, p95_ms / 3, p95_ms / 4, p95_ms, p95_ms * 1.5, p95_ms * 2.5)


def course(seconds: int) -> tuple[Second, ...]:
    """Twenty requests a second, slower and slower."""
    return tuple(
        Second(BEGAN + at, min(at * 2, 10), {10.0 + at: 15, 30.0 + at: 4, 80.0 + at: 1}, at % 7 == 6)
        for at in range(seconds)
    )


def usage(seconds: int) -> list[Usage]:
    """Two workers, one of which grows."""
    found = []
    for at in range(seconds):
        found += [
            Usage(BEGAN + at, "worker 101", 0.30, 90 + at / 2),
            Usage(BEGAN + at, "worker 102", 0.35, 90),
            Usage(BEGAN + at, "Gunicorn", 0.01, 60),
            Usage(BEGAN + at, "PostgreSQL", 0.20, 0),
        ]
    return found


def result(scenario: Scenario = SCENARIOS["smoke"], *, p95_ms: float = 60, cpu: float = 0.3) -> Result:
    """A smoke run that was good, unless it is asked to be slow or its generator weak."""
    generator = Generator("Locust", cpu, 1.5, tuple(cpu - at % 3 / 20 for at in range(60)))
    routes = (measured("GET /services", p95_ms=p95_ms), measured(f"GET /{HOSTILE}", 30))
    run = Run(
        measured("all routes"),
        routes,
        60.0,
        (f"GET /x: {HOSTILE} (3 times)",),
        generators=(generator,),
        course=course(60),
        memory="no leak",
    )
    shape = "SELECT services.service_id, services.service_name FROM services WHERE services.environment = ?"
    seen = Profiled(
        (ProfiledRoute("GET /services", 180, 2, 3, 0.42),),
        (f"GET /services: N+1: {HOSTILE}",),
        (
            ProfiledStatement(
                shape, 180, 4.2, 131.0, ("GET /services",), ("Seq Scan on services", f"  {HOSTILE}")
            ),
            ProfiledStatement(f"SELECT '{HOSTILE}'", 20, 1.0, 9.0, (HOSTILE,)),
        ),
    )
    held = Memory("no leak", f"NO LEAK. {HOSTILE}")
    facts = {"commit": "abc1234", "cores": 2, "system": HOSTILE}
    return Result(scenario, run, judge(run, scenario), seen, held, usage(60), facts)
