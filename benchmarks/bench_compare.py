"""Does `make perf-compare` tell the truth? A version beside itself, and beside copies with a planted fault.

`same`: this checkout twice; what is called slower, faster or grown is a false alarm. `cpu`: one route
computes 20 % longer. `counts`: one statement more, half as many allocations again, and an index that a
migration drops, each on a route of its own. With `--load`, processes that compute in bursts run beside. Each
run starts the services anew, with other hash seeds, requests and order; a line of JSON for each goes to
`--log`, and `summary` sums the log up.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import random
import re
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from locustfiles import service
from locustfiles.compare import __main__ as compare
from locustfiles.compare import counting, routes, sides, timing
from locustfiles.compare.comparison import Comparison

SLOWER_ROUTE = "GET /health-checks"
SLOWER_BY = 0.2
MORE_ALLOCATIONS = 0.5
VIEWS = "pake/registry/views.py"
MIGRATIONS = "pake/migrations/versions"
STATEMENT_ROUTE, ALLOCATIONS_ROUTE, INDEX_ROUTE = (
    "GET /services/{id}",
    "GET /services",
    "GET /services/{id}/health-checks",
)
FOUND = {
    "statement": rf"^{re.escape(STATEMENT_ROUTE)}: a statement more at {VIEWS}:\d+ in show_service: SELECT",
    "allocations": rf"^{re.escape(ALLOCATIONS_ROUTE)}: [\d,]+ allocations, base has",
    "index": rf"^{re.escape(INDEX_ROUTE)}: service_health_checks is read from end to end",
}
"""What a problem says that found its fault."""
LOOP = 30_000
"""Turns that take about as long as what is planted."""
CORES = 2
"""Processes of the load beside."""


def main() -> int:
    """Run, or sum up."""
    parser = argparse.ArgumentParser(prog="make bench-compare", description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("same", "cpu", "counts", "summary"))
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--load", action="store_true", help="compute in bursts beside it")
    parser.add_argument("--log", type=Path, default=Path("reports/bench-compare.jsonl"))
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options, rest = parser.parse_known_args()
    if options.what == "summary":
        return summary(options.log)
    options.log.parent.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, compare.interrupted)
    with tempfile.TemporaryDirectory(prefix="bench-compare-") as place:
        head = planted(options.what, Path(place) / "head")
        with load(CORES if options.load else 0), sides.prepared(str(service.ROOT), str(head)) as both:
            for number in range(options.runs):
                arguments = ["--seed", str(options.seed + 1000 * number), *rest]
                if options.what == "counts":
                    arguments.append("--counts-only")
                chosen = compare.options_of(arguments)
                found = compare.measure(both, routes.read(), chosen)
                line = {
                    "what": options.what,
                    "load": options.load,
                    "at": time.time(),
                    **told(options.what, found),
                }
                with options.log.open("a") as log:
                    log.write(json.dumps(line) + "\n")
                print(json.dumps(line), flush=True)
    return summary(options.log)


def told(what: str, found: Comparison) -> dict[str, object]:
    """What one run said that matters."""
    verdicts = {route.name: route.verdict for route in found.routes}
    line: dict[str, object] = {
        "problems": found.problems,
        "faster": [name for name, verdict in verdicts.items() if verdict == "faster"],
        "cannot_tell": [name for name, verdict in verdicts.items() if verdict == "cannot tell"],
        **{name: found.facts[name] for name in ("pairs", "rounds", "seconds")},
    }
    if what == "counts":
        line["found"] = [
            fault for fault, said in FOUND.items() if any(re.search(said, p) for p in found.problems)
        ]
    if what == "cpu":
        line["verdict"] = verdicts[SLOWER_ROUTE]
        line["elsewhere"] = [each for each in found.problems if not each.startswith(f"{SLOWER_ROUTE}:")]
        line["cpu"] = str(next(one.times["cpu"] for one in found.routes if one.name == SLOWER_ROUTE))
    return line


def summary(log: Path) -> int:
    """The runs in a few lines; 0 when they are as docs/compare-two-versions.md promises."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    kept = True
    for load in (False, True):
        print("with a load beside:" if load else "beside what else the machine did:")
        same, cpu, counts = (
            [each for each in lines if (each["what"], each["load"]) == (what, load)]
            for what in ("same", "cpu", "counts")
        )
        if same:
            wrong = sum(bool(each["problems"] or each["faster"]) for each in same)
            unsure = sum(bool(each["cannot_tell"]) for each in same)
            seconds = statistics.median(each["seconds"] for each in same)
            print(
                f"  itself: {wrong} of {len(same)} false, {unsure} left something open; {seconds:.0f} s each"
            )
            kept = kept and wrong <= max(len(same) // 20, 1)
        if cpu:
            found = sum(each["verdict"] == "slower" for each in cpu)
            wrong = sum(bool(each["elsewhere"] or each["faster"]) for each in cpu)
            print(f"  20 % more CPU: {found} of {len(cpu)} found, {wrong} false of other routes")
            kept = kept and found >= 0.9 * len(cpu)
        for fault in FOUND if counts else ():
            found = sum(fault in each["found"] for each in counts)
            print(f"  {fault}: {found} of {len(counts)} found")
            kept = kept and found == len(counts)
    return 0 if kept else 1


def planted(what: str, head: Path) -> Path:
    """A copy of this checkout with the fault."""
    sides.copy(service.ROOT, head)
    views = head / VIEWS
    if what == "cpu":
        edit(
            views,
            "        checks = rows.list_health",
            "        from itertools import repeat\n"
            f"        for _ in repeat(None, {turns()}):\n            pass\n",
        )
    if what == "counts":
        extra = '            session.connection().exec_driver_sql("SELECT count(*) FROM users")\n'
        edit(views, "            service, shape = queries.get_service(", extra)
        edit(
            views,
            "    after = from_cursor(NAME_KEY",
            f"    [bytearray(200) for _ in bytes({byte_arrays()})]\n",
        )
        last = sorted((head / MIGRATIONS).glob("0*.py"))[-1]
        revision = re.search(r'^revision = "(.+)"', last.read_text(), re.M)
        assert revision
        (head / MIGRATIONS / "9999_planted.py").write_text(
            "from alembic import op\n"
            f'revision = "9999"\ndown_revision = "{revision[1]}"\n'
            "def upgrade() -> None:\n"
            '    op.drop_index("ix_service_health_checks_newest", "service_health_checks")\n'
        )
    return head


def edit(file: Path, before: str, line: str) -> None:
    """Put a line before another one."""
    text = file.read_text()
    assert text.count("\n" + before) == 1, f"{file}: {before!r}"
    file.write_text(text.replace("\n" + before, "\n" + line + before))


def turns() -> int:
    """Turns of an empty loop that cost a fifth of the slower route's CPU time, measured here and now.

    In turns with the requests, since a machine that is busy at one of the two moments would plant another
    share; and after pauses, as in a worker: a processor that had other code in its caches takes longer.
    """
    route = next(route for route in routes.read() if route.name == SLOWER_ROUTE)
    seconds, request = [], 0.0
    with sides.prepared(str(service.ROOT), str(service.ROOT)) as both:
        for measured in timing.measure(both, [route], pairs=5, rounds=10, seed=1, say=print):
            for _ in range(50):
                time.sleep(0.003)
                began = time.thread_time()
                for _ in itertools.repeat(None, LOOP):
                    pass
                seconds.append((time.thread_time() - began) / LOOP)
            request = float(measured[route.name].figures["cpu"].mean())
    return round(request * SLOWER_BY / statistics.mean(seconds))


def byte_arrays() -> int:
    """Byte arrays, two allocations each, that make half as many again as the route has."""
    route = next(route for route in routes.read() if route.name == ALLOCATIONS_ROUTE)
    with sides.prepared(str(service.ROOT), str(service.ROOT)) as (side, _):
        allocated = counting.count(side, [route], 1)[route.name].allocations
    return round(allocated * MORE_ALLOCATIONS / 2)


@contextmanager
def load(processes: int) -> Iterator[None]:
    """Processes that compute in bursts, as neighbours do."""
    started = [
        multiprocessing.Process(target=_bursts, args=(seed,), daemon=True) for seed in range(processes)
    ]
    for process in started:
        process.start()
    try:
        yield
    finally:
        for process in started:
            process.terminate()
            process.join()


def _bursts(seed: int) -> None:
    chance = random.Random(seed)
    while True:
        end = time.monotonic() + chance.uniform(0.05, 3)
        while time.monotonic() < end:
            sum(range(10_000))
        time.sleep(chance.uniform(0.05, 2))


if __name__ == "__main__":
    sys.exit(main())
