"""How well the load generator itself was, and how the run went second by second.

A Locust process that is short of CPU measures itself and not the service: the clock runs on while it is busy.
So each notes the CPU that it uses and how late it wakes from short sleeps, and tells the master.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import gevent
import locust.stats
from locust import events
from locust.env import Environment
from locust.runners import STATE_MISSING, MasterRunner, WorkerNode, WorkerRunner

from locustfiles import arrivals

SLEEP_SECONDS = 0.05
"""Between two looks at the clock."""
CPU_SECONDS = 1.0
"""Between two looks at the CPU time."""
MESSAGE = "load"
"""The member of a worker's report that is ours."""
LAST_REPORT = "last load"
"""The member of a worker's report after which no other comes."""
LAST_REPORTS_SECONDS = 30
"""How long a master waits for them."""


@dataclass
class Health:
    """Of one Locust process."""

    cpu: list[float] = field(default_factory=list)
    """Share of one core in each second, 0 to 1."""
    late_ms: Counter[float] = field(default_factory=Counter)
    """How late it woke, as response times are counted."""


@dataclass
class Course:
    """A run second by second. The seconds are those of the clock."""

    seconds: defaultdict[int, Counter[float]] = field(default_factory=lambda: defaultdict(Counter))
    """Response times of the requests that ended in it."""
    failures: Counter[int] = field(default_factory=Counter)
    users: dict[int, int] = field(default_factory=dict)
    processes: defaultdict[str, Health] = field(default_factory=lambda: defaultdict(Health))
    journeys: Counter[str] = field(default_factory=Counter)
    """In the open model: how many were `due` until the end, and how many `begun`."""

    def add(self, sender: str, data: dict[str, Any]) -> None:
        """What another process has sent."""
        for second, times in data["seconds"].items():
            self.seconds[second].update(times)
        self.failures.update(data["failures"])
        self.journeys.update(data["journeys"])
        for name, health in data["processes"].items():
            mine = self.processes[name or sender]
            mine.cpu += health["cpu"]
            mine.late_ms.update(health["late_ms"])


course = Course()
"""Of this process; in a master, of all."""


def taken() -> dict[str, Any]:
    """The course so far as plain data, to be sent; it begins anew."""
    global course
    sent, course = course, Course()
    return {
        "seconds": {second: dict(times) for second, times in sent.seconds.items()},
        "failures": dict(sent.failures),
        "users": sent.users,
        "journeys": dict(sent.journeys),
        "processes": {
            name: {"cpu": health.cpu, "late_ms": dict(health.late_ms)}
            for name, health in sent.processes.items()
        },
    }


def install() -> None:
    """Watch the run that begins next."""
    events.request.add_listener(_request)  # type: ignore[no-untyped-call]
    events.test_start.add_listener(_start)  # type: ignore[no-untyped-call]
    events.test_stopping.add_listener(_stopping)  # type: ignore[no-untyped-call]
    events.test_stop.add_listener(_stop)  # type: ignore[no-untyped-call]
    events.report_to_master.add_listener(_report)  # type: ignore[no-untyped-call]
    events.worker_report.add_listener(_reported)  # type: ignore[no-untyped-call]


def _request(response_time: float, exception: BaseException | None, **_: Any) -> None:
    now = int(time.time())
    course.seconds[now][locust.stats.bucket_response_time(response_time)] += 1
    if exception is not None:
        course.failures[now] += 1


_watching: list[gevent.Greenlet[..., None]] = []
_ended: set[str] = set()
"""Workers whose last report has come, in a master; in a worker itself, once it has stopped."""


def _start(environment: Environment, **_: Any) -> None:
    _ended.clear()
    _watching.append(gevent.spawn(_watch, environment))


def _watch(environment: Environment) -> None:
    wall, cpu = time.monotonic(), time.process_time()
    generates = not isinstance(environment.runner, MasterRunner)
    while environment.runner is not None:
        asleep = time.monotonic()
        gevent.sleep(SLEEP_SECONDS)
        now = time.monotonic()
        health = course.processes[""] if generates else Health()
        late = max(now - asleep - SLEEP_SECONDS, 0.0) * 1000
        health.late_ms[locust.stats.bucket_response_time(late)] += 1
        if now - wall >= CPU_SECONDS:
            used = time.process_time()
            health.cpu.append((used - cpu) / (now - wall))
            wall, cpu = now, used
            course.users[int(time.time())] = environment.runner.user_count


def _stopping(**_: Any) -> None:
    if arrivals.shared is not None:
        course.journeys.update(arrivals.shared.journeys())


def _stop(environment: Environment, **_: Any) -> None:
    gevent.killall(_watching)
    _watching.clear()
    runner = environment.runner
    if isinstance(runner, WorkerRunner):
        # The master waits for "stopped", which comes after this on the same socket: no count is left behind.
        _ended.add(runner.client_id)
        runner._send_stats()
    elif isinstance(runner, MasterRunner):
        # Locust waits for the users that it has heard of. A worker short of CPU may not have told of its own.
        deadline = time.monotonic() + LAST_REPORTS_SECONDS
        while _awaited(runner) and time.monotonic() < deadline:
            gevent.sleep(0.1)


def _awaited(master: MasterRunner) -> list[WorkerNode]:
    """The workers whose last report has yet to come."""
    living = (worker for worker in master.clients.values() if worker.state != STATE_MISSING)
    return [worker for worker in living if worker.id not in _ended]


def _report(client_id: str, data: dict[str, Any]) -> None:
    data[MESSAGE] = taken()
    data[LAST_REPORT] = client_id in _ended


def _reported(client_id: str, data: dict[str, Any]) -> None:
    if MESSAGE in data:
        course.add(client_id, data[MESSAGE])
    if data.get(LAST_REPORT):
        _ended.add(client_id)
