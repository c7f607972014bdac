"""`python -m locustfiles smoke`: start the service, drive a scenario, judge it, stop what was started.

The exit status is 0 when every threshold held, 1 when one did not, 2 when there was no run to judge, 3 when
the run says nothing because the load generator was the bottleneck.
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
from typing import NoReturn

from locustfiles import driving, gate, history, memory, page, processes, profiled, report, service
from locustfiles.driving import Crew
from locustfiles.gate import Run
from locustfiles.memory import Memory
from locustfiles.processes import Usage
from locustfiles.profiled import Profiled
from locustfiles.result import Result
from locustfiles.scenarios import SCENARIOS, Scenario

ACCOUNTS_PER_USER = 0.2
"""Accounts for each simulated user: several sessions of one account are as common as one."""
PROFILES_WRITTEN_SECONDS = 2
"""Within a second of a request its profile is in the store."""
NO_VERDICT = 3
"""The exit status of a run that says nothing about the service."""


def main(arguments: list[str] | None = None) -> int:
    """Run one scenario; the exit status."""
    options = _options(arguments)
    scenario = _scenario(options)
    signal.signal(signal.SIGTERM, _interrupted)
    folder: Path = (options.output or service.ROOT / "reports" / scenario.name).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        result = _drive(scenario, folder, options)
    except service.ServiceError as error:
        print(f"no run: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("no verdict: interrupted; what was started is stopped", file=sys.stderr)
        return 2
    if result.held.curves:
        (folder / "memory.svg").write_text(memory.chart(result.held), encoding="utf-8")
    summary = json.dumps(report.as_json(result), indent=2)
    (folder / "summary.json").write_text(summary + "\n", encoding="utf-8")
    (folder / "summary.md").write_text(report.markdown(result), encoding="utf-8")
    (folder / "report.html").write_text(page.render(result), encoding="utf-8")
    if not result.verdict.void and options.host is None:
        history.add(scenario.name, str(result.facts["commit"]), report.figures(result))
    print(report.terminal(result))
    print(
        f"report: {os.path.relpath(folder)}/ (report.html, summary.md, summary.json, locust.html, server.log)"
    )
    return NO_VERDICT if result.verdict.void else 0 if result.verdict.passed else 1


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m locustfiles", description=__doc__.partition("\n")[0])
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument("--users", type=_count, help="instead of the scenario's number; its rate is scaled")
    parser.add_argument("--run-time", type=_seconds, help="instead of the scenario's: 90, 90s, 5m, 1h")
    parser.add_argument("--services", type=int, default=100, help="services in the database (100)")
    parser.add_argument("--p95-ms", type=float, help="instead of the scenario's threshold")
    parser.add_argument("--host", help="drive this running service instead of starting one")
    parser.add_argument("--accounts", type=Path, help="with --host: a JSON file of accounts by role")
    parser.add_argument("--arrivals", type=_rate, default=0.0, help="journeys a second, whatever happens")
    parser.add_argument("--workers", type=_count, default=1, help="Locust processes that make requests (1)")
    parser.add_argument("--listen", default="", help="HOST:PORT where --workers from other hosts come to")
    parser.add_argument("--output", type=Path, help="folder of the report (reports/SCENARIO)")
    options = parser.parse_args(arguments)
    if (options.host is None) != (options.accounts is None):
        parser.error("--host and --accounts go together")
    if options.listen and not re.fullmatch(r".+:\d+", options.listen):
        parser.error(f"--listen: expected HOST:PORT such as 0.0.0.0:5557, not {options.listen}")
    return options


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise argparse.ArgumentTypeError(f"expected journeys a second such as 50 or 2.5, not {text}")
    return rate


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a number from 1, not {text}")
    return int(text)


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
        arrivals=options.arrivals,
    )


def _drive(scenario: Scenario, folder: Path, options: argparse.Namespace) -> Result:
    crew = Crew(options.workers, options.listen)

    def run(running: service.Service, accounts: Path) -> tuple[Run, list[Usage]]:
        _say(f"{scenario.name}: {scenario.users} users for {scenario.run_time} s on {running.url}")
        with processes.watched(running) as usage:
            return driving.drive(scenario, running, accounts, folder, crew), usage

    if options.host is not None:
        running = service.Service(options.host)
        if not running.alive:
            raise service.ServiceError(f"{running.url}/livez gives no success: is the service up?")
        driven, usage = run(running, options.accounts.resolve())
        verdict = gate.judge(driven, scenario)
        return Result(scenario, driven, verdict, usage=usage, facts=_facts(running, crew))
    count = max(2, round(scenario.users * ACCOUNTS_PER_USER))
    profilers, settings = service.PROFILERS, dict(scenario.settings)
    if scenario.memory:
        profilers = f"{profilers},{memory.NAME}"
        settings |= memory.settings(scenario.run_time)
    _say("starting the service with a database of its own")
    with service.started(folder / "instance", profilers, **settings) as running:
        _say(f"adding {options.services} services and {count} accounts")
        running.flask("demo-data", "--services", str(options.services))
        with service.accounts(running, folder / "accounts.json", users=count, admins=count) as accounts:
            driven, usage = run(running, accounts)
        seen, held = Profiled(), Memory()
        if running.environment["FLASK_PROFILE"]:
            time.sleep(PROFILES_WRITTEN_SECONDS)
            seen = profiled.read(running, [route.name for route in driven.routes])
        if memory.NAME in running.environment["FLASK_PROFILE"].split(","):
            held = memory.read(running, folder / "memory.json")
            driven = dataclasses.replace(driven, memory=held.answer)
        verdict = gate.judge(driven, scenario)
        return Result(scenario, driven, verdict, seen, held, usage, _facts(running, crew))


def _facts(running: service.Service, crew: Crew) -> dict[str, str | int]:
    try:
        git = ["git", "rev-parse", "--short", "HEAD"]
        commit = subprocess.run(git, cwd=service.ROOT, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:  # in a container
        commit = ""
    return {
        "commit": commit.strip() or "unknown",
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "profilers": running.environment.get("FLASK_PROFILE") or "none",
        "Locust processes": crew.workers,
    }


def _say(text: str) -> None:
    print(f"==> {text}", file=sys.stderr, flush=True)


def _interrupted(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
