"""The Locust processes of a run: one, or a master with workers, here or on other hosts."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from locustfiles import gate, service
from locustfiles.environment import ACCOUNTS, ARRIVALS, RESULTS
from locustfiles.gate import Run
from locustfiles.scenarios import Scenario

GRACE_SECONDS = 60
"""How long Locust may take to stop after the run time."""
GATHER_SECONDS = 120
"""How long the workers may take to come."""


@dataclass(frozen=True)
class Crew:
    """Who makes the load."""

    workers: int = 1
    """Locust processes that make requests; with more than one, a master beside them counts."""
    listen: str = ""
    """`HOST:PORT` where the master waits for workers that are started on other hosts; empty: all run here."""

    @property
    def distributed(self) -> bool:
        """Whether there is a master."""
        return self.workers > 1 or bool(self.listen)


def drive(scenario: Scenario, running: service.Service, accounts: Path, folder: Path, crew: Crew) -> Run:
    """Run Locust against a service; every process that was started here has ended afterwards."""
    results = folder / "locust.json"
    results.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "PYTHONPATH": str(service.ROOT),
        ACCOUNTS: str(accounts),
        RESULTS: str(results),
    }
    if scenario.arrivals:
        environment[ARRIVALS] = str(scenario.arrivals / crew.workers)
    locust = [sys.executable, "-m", "locust", "--locustfile", str(service.ROOT / "locustfiles/locustfile.py")]
    locust += ["--skip-log-setup", "--host", running.url, "--stop-timeout", "10"]
    headless = ["--headless", "--only-summary", "--exit-code-on-error", "0"]
    headless += ["--users", str(scenario.users), "--spawn-rate", str(scenario.spawn_rate)]
    headless += ["--run-time", f"{scenario.run_time}s", "--html", str(folder / "locust.html")]
    headless += scenario.personas

    def start(*options: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*locust, *options], env=environment, cwd=folder, stdout=subprocess.DEVNULL)

    if not crew.distributed:
        status = _end([start(*headless)], scenario.run_time + GRACE_SECONDS)
        return _run(results, status, running)
    host, port = crew.listen.rsplit(":", 1) if crew.listen else ("127.0.0.1", str(_free_port()))
    master = ["--master", "--master-bind-host", host, "--master-bind-port", port]
    master += ["--expect-workers", str(crew.workers), "--expect-workers-max-wait", str(GATHER_SECONDS)]
    processes = [start(*headless, *master)]
    if not crew.listen:
        joining = ["--worker", "--master-host", host, "--master-port", port]
        processes += [start(*joining) for _ in range(crew.workers)]
    status = _end(processes, GATHER_SECONDS + scenario.run_time + GRACE_SECONDS)
    return _run(results, status, running)


def _end(processes: Iterable[subprocess.Popen[bytes]], seconds: float) -> int | None:
    """Wait for the first, which counts, and end all; its status, or None when it took longer."""
    first, *others = processes
    try:
        return first.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        for process in (first, *others):
            if process.poll() is None:
                process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _run(results: Path, status: int | None, running: service.Service) -> Run:
    died = ""
    if not running.alive:
        died = "it ended in mid-run"
    elif status is None:
        died = "Locust did not stop in time"
    elif status:
        died = f"Locust ended with status {status}"
    if not results.exists():
        return Run(gate.total([]), (), 0.0, died=died or "Locust wrote no results")
    data = json.loads(results.read_text(encoding="utf-8"))
    routes = sorted(
        (gate.measured(entry["name"], entry) for entry in data["entries"]), key=lambda one: one.name
    )
    return Run(
        gate.total(data["entries"]),
        tuple(routes),
        data["seconds"],
        tuple(data["failures"]),
        died,
        generators=gate.generators(data["course"]["processes"]),
        course=gate.course(data["course"]),
        journeys=data["course"]["journeys"],
    )
