"""One process of one variant: reads `request count` lines, answers each with what that many requests took.

python -m benchmarks.overhead.child VARIANT DATABASE_URL
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable
from typing import Any

from flask import Flask
from werkzeug.test import EnvironBuilder

from benchmarks.overhead.app import REQUESTS, create_app
from benchmarks.overhead.variants import SETTINGS, VARIANTS


def call(app: Flask, environ: dict[str, Any]) -> int:
    """Serve one request as a WSGI server would; nanoseconds."""
    statuses: list[str] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> Any:
        statuses.append(status)

    started = time.perf_counter_ns()
    body: Iterable[bytes] = app(environ, start_response)
    for _ in body:
        pass
    close = getattr(body, "close", None)
    if close is not None:
        close()
    ended = time.perf_counter_ns()
    assert statuses == ["200 OK"], statuses
    return ended - started


def resident() -> int:
    """Memory of this process in bytes."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def mark() -> None:
    """A system call that nothing else makes: `callgrind --dump-before` cuts here."""
    os.getpriority(os.PRIO_PROCESS, 0)


def main(variant: str, database_url: str) -> None:
    app, db = create_app(database_url, **SETTINGS.get(variant, {}))
    VARIANTS[variant](app, db)
    environs = {name: EnvironBuilder(path).get_environ() for name, path in REQUESTS.items()}
    for line in sys.stdin:
        name, count = line.strip().rsplit(" ", 1)
        environ = environs[name]
        copies = [dict(environ) for _ in range(int(count))]
        mark()
        began = time.process_time_ns()
        times = [call(app, each) for each in copies]
        ended = time.process_time_ns()
        mark()
        measured = {"times": times, "cpu": ended - began, "cpu_ended": ended, "resident": resident()}
        print(json.dumps(measured), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
