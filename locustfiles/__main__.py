"""`python -m locustfiles smoke`: start the service, drive a scenario, judge it, stop what was started.

The exit status is 0 when every threshold held, 1 when one did not, 2 when there was no run to judge.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from locustfiles import gate, memory, profiled, report, service
from locustfiles.environment import ACCOUNTS, RESULTS
from locustfiles.gate import Run
from locustfiles.memory import Memory
from locustfiles.profiled import Profiled
from locustfiles.scenarios import SCENARIOS, Scenario

ACCOUNTS_PER_USER = 0.2
"""Accounts for each simulated user: several sessions of one account are as common as one."""
PROFILES_WRITTEN_SECONDS = 2
"""Within a second of a request its profile is in the store."""
GRACE_SECONDS = 60
"""How long Locust may take to stop after the run time."""


def main(arguments: list[str] | None = None) -> int:
    """Run one scenario; the exit status."""
    options = _options(arguments)
    scenario = _scenario(options)
    signal.signal(signal.SIGTERM, _interrupted)
    folder: Path = (options.output or service.ROOT / "reports" / scenario.name).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        run, seen, held, facts = _drive(scenario, folder, options)
    except service.ServiceError as error:
        print(f"no run: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("no verdict: interrupted; what was started is stopped", file=sys.stderr)
        return 2
    verdict = gate.judge(run, scenario)
    if held.curves:
        (folder / "memory.svg").write_text(memory.chart(held), encoding="utf-8")
    summary = report.as_json(run, verdict, scenario, seen, held, facts)
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    (folder / "summary.md").write_text(
        report.markdown(run, verdict, scenario, seen, held, facts), encoding="utf-8"
    )
    print(report.terminal(run, verdict, scenario, seen, held))
    print(f"report: {os.path.relpath(folder)}/ (summary.md, summary.json, locust.html, server.log)")
    return 0 if verdict.passed else 1


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m locustfiles", description=__doc__.partition("\n")[0])
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument("--users", type=int, help="instead of the scenario's number; its rate is scaled")
    parser.add_argument("--run-time", type=_seconds, help="instead of the scenario's: 90, 90s, 5m, 1h")
    parser.add_argument("--services", type=int, default=100, help="services in the database (100)")
    parser.add_argument("--p95-ms", type=float, help="instead of the scenario's threshold")
    parser.add_argument("--host", help="drive this running service instead of starting one")
    parser.add_argument("--accounts", type=Path, help="with --host: a JSON file of accounts by role")
    parser.add_argument("--output", type=Path, help="folder of the report (reports/SCENARIO)")
    options = parser.parse_args(arguments)
    if (options.host is None) != (options.accounts is None):
        parser.error("--host and --accounts go together")
    return options


def _seconds(text: str) -> int:
    match = re.fullmatch(r"(\d+)([smh]?)", text)
    if not match or not int(match[1]):
        raise argparse.ArgumentTypeError(f"expected a time such as 90, 90s, 5m or 1h, not {text}")
    return int(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def _scenario(options: argparse.Namespace) -> Scenario:
    """The scenario with what the command line changes; a smaller load is asked for a smaller rate."""
    scenario = SCENARIOS[options.scenario]
    limits = scenario.thresholds
    if options.p95_ms is not None:
        limits = dataclasses.replace(limits, p95_ms=options.p95_ms)
    if options.users is not None:
        rate = limits.requests_per_second * options.users / scenario.users
        limits = dataclasses.replace(limits, requests_per_second=rate)
    return dataclasses.replace(
        scenario,
        users=options.users or scenario.users,
        run_time=options.run_time or scenario.run_time,
        thresholds=limits,
    )


def _drive(
    scenario: Scenario, folder: Path, options: argparse.Namespace
) -> tuple[Run, Profiled, Memory, dict[str, Any]]:
    if options.host is not None:
        running = service.Service(options.host)
        run = _locust(scenario, running, options.accounts.resolve(), folder)
        return run, Profiled(), Memory(), _facts(running)
    count = max(2, round(scenario.users * ACCOUNTS_PER_USER))
    profilers, settings = service.PROFILERS, {}
    if scenario.memory:
        profilers, settings = f"{profilers},{memory.NAME}", memory.settings(scenario.run_time)
    _say("starting the service with a database of its own")
    with service.started(folder / "instance", profilers, **settings) as running:
        _say(f"adding {options.services} services and {count} accounts")
        running.flask("demo-data", "--services", str(options.services))
        with service.accounts(running, folder / "accounts.json", users=count, admins=count) as accounts:
            run = _locust(scenario, running, accounts, folder)
        if not running.environment["FLASK_PROFILE"]:
            return run, Profiled(), Memory(), _facts(running)
        time.sleep(PROFILES_WRITTEN_SECONDS)
        seen = profiled.read(running, [route.name for route in run.routes])
        held = Memory()
        if memory.NAME in running.environment["FLASK_PROFILE"].split(","):
            held = memory.read(running, folder / "memory.json")
            run = dataclasses.replace(run, memory=held.answer)
        return run, seen, held, _facts(running)


def _locust(scenario: Scenario, running: service.Service, accounts: Path, folder: Path) -> Run:
    _say(f"{scenario.name}: {scenario.users} users for {scenario.run_time} s on {running.url}")
    results = folder / "locust.json"
    results.unlink(missing_ok=True)
    command = [
        sys.executable,
        "-m",
        "locust",
        "--locustfile",
        str(service.ROOT / "locustfiles/locustfile.py"),
    ]
    command += ["--headless", "--only-summary", "--skip-log-setup", "--exit-code-on-error", "0"]
    command += [
        "--host",
        running.url,
        "--users",
        str(scenario.users),
        "--spawn-rate",
        str(scenario.spawn_rate),
    ]
    command += ["--run-time", f"{scenario.run_time}s", "--stop-timeout", "10"]
    command += ["--html", str(folder / "locust.html")]
    environment = {
        **os.environ,
        "PYTHONPATH": str(service.ROOT),
        ACCOUNTS: str(accounts),
        RESULTS: str(results),
    }
    locust = subprocess.Popen(command, env=environment, cwd=folder, stdout=subprocess.DEVNULL)
    try:
        status = locust.wait(scenario.run_time + GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        status = None
    finally:
        if locust.poll() is None:
            locust.kill()
            locust.wait()
    return _run(results, status, running)


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
    return Run(gate.total(data["entries"]), tuple(routes), data["seconds"], tuple(data["failures"]), died)


def _facts(running: service.Service) -> dict[str, Any]:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=service.ROOT, capture_output=True, text=True, check=False
    )
    return {
        "commit": commit.stdout.strip() or "unknown",
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "profilers": running.environment.get("FLASK_PROFILE") or "none",
    }


def _say(text: str) -> None:
    print(f"==> {text}", file=sys.stderr, flush=True)


def _interrupted(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
