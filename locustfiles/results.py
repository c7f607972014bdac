"""What leaves the Locust process: a line of progress while it runs, and one JSON file at its end."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import gevent
from locust import events
from locust.env import Environment
from locust.runners import STATE_CLEANUP, STATE_STOPPED, STATE_STOPPING, WorkerRunner

from locustfiles import arrivals, generator
from locustfiles.environment import RESULTS

SECONDS = 5
"""Between two lines of progress."""


def install() -> None:
    """Report on the run that begins next."""
    events.test_start.add_listener(_start)  # type: ignore[no-untyped-call]
    events.quitting.add_listener(_write)  # type: ignore[no-untyped-call]
    generator.install()
    arrivals.install()


def _start(environment: Environment, **_: Any) -> None:
    headless = environment.parsed_options is not None and environment.parsed_options.headless
    if headless and not isinstance(environment.runner, WorkerRunner):
        gevent.spawn(_progress, environment)


def _progress(environment: Environment) -> None:
    runner, began = environment.runner, time.monotonic()
    while runner is not None and runner.state not in (STATE_STOPPING, STATE_STOPPED, STATE_CLEANUP):
        total = environment.stats.total
        p95 = total.get_current_response_time_percentile(0.95) or 0
        print(
            f"{time.monotonic() - began:5.0f} s  {runner.user_count:5} users  {total.num_requests:8} requests"
            f"  {total.current_rps:7.1f} req/s  p95 {p95:7.1f} ms  {total.num_failures} failures",
            file=sys.stderr,
            flush=True,
        )
        gevent.sleep(SECONDS)


def _write(environment: Environment, **_: Any) -> None:
    path = os.environ.get(RESULTS)
    if not path or isinstance(environment.runner, WorkerRunner):
        return
    stats = environment.stats
    failures = sorted(stats.errors.values(), key=lambda error: -error.occurrences)
    exceptions = environment.runner.exceptions.values() if environment.runner else ()
    results = {
        "entries": stats.serialize_stats(),
        "failures": [f"{error.name}: {error.error} ({error.occurrences} times)" for error in failures]
        + [f"in a persona: {error['msg']} ({error['count']} times)" for error in exceptions],
        "seconds": (stats.last_request_timestamp or 0) - stats.start_time,
        "course": generator.taken(),
    }
    Path(path).write_text(json.dumps(results), encoding="utf-8")
