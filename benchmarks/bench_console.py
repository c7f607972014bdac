"""`make bench-console`: what a full store costs the console's pages.

Two consoles, one over an empty store and one over 100,000 requests with 1,000,000 statements, take turns.
Exit status 1 when a page of the full one takes more than 300 ms or is larger than 200 kB.

    make bench-console ARGS="--rounds 20"
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from flask.testing import FlaskClient

from benchmarks.turns import take_turns
from profilers.console.app import create_console
from profilers.console.views import Source
from profilers.profile import Finding, Location, Profile, Statement
from profilers.store import Store, open_store

REQUESTS, STATEMENTS = 100_000, 10
ENDPOINTS, SHAPES, FINDINGS = 40, 400, 60
HOURS = 6.0
MOST_MS, MOST_BYTES = 300.0, 200_000
EMPTY, FULL = "empty store", "full store"

PAGES = {
    "Overview": "/?last=all",
    "Overview, as JSON": "/overview.json?last=all",
    "Findings": "/findings?last=all",
    "Requests, newest": "/requests?last=all",
    "Requests, further back": "/requests?last=all&before={middle}",
    "Requests of one endpoint": "/requests?last=all&route=GET+/endpoint/7",
    "Statements": "/statements?last=all",
    "Workers": "/workers?last=all",
    "Compare, an hour with the one before": "/compare?length=1h",
    "Captures": "/captures",
    "Switches": "/switches",
}


def profiles(now: float) -> Iterator[Profile]:
    """Requests of the last hours, oldest first, each with ten statements, one in fifty with a finding."""
    draw = random.Random(7)
    places = [
        Location(f"shop/views_{number % 9}.py", number, f"view_{number}") for number in range(1, SHAPES + 1)
    ]
    shapes = [
        f"SELECT t{number}.id, t{number}.name, t{number}.total FROM t{number} WHERE t{number}.id = ?"
        for number in range(SHAPES)
    ]
    pool = [
        Statement(shapes[number], 0.001, draw.uniform(0.0002, 0.004), 3, places[number], number)
        for number in range(SHAPES)
    ]
    for number in range(REQUESTS):
        endpoint = draw.randrange(ENDPOINTS)
        profile = Profile(f"GET /endpoint/{endpoint}", now - HOURS * 3600 * (1 - number / REQUESTS))
        profile.statements = [pool[(endpoint * 10 + step) % SHAPES] for step in range(STATEMENTS)]
        profile.duration = draw.lognormvariate(-4, 0.6)
        profile.status, profile.host, profile.worker = 200, "host", 1 + number % 4
        if number % 50 == 0:
            of = draw.randrange(FINDINGS)
            profile.findings = [
                Finding("n_plus_one", "lazy_relationship", f"Model{of}.children", STATEMENTS, places[of],
                        places[of + 1], ".options(selectinload(Model.children))", "N+1", 0.01)
            ]  # fmt: skip
        yield profile


def fill(store: Store) -> None:
    """Add them a thousand at a time."""
    batch: list[Profile] = []
    for profile in profiles(time.time()):
        batch.append(profile)
        if len(batch) == 1000:
            store.add(batch)
            batch = []
            if sys.stderr.isatty():
                print(".", end="", flush=True, file=sys.stderr)


def client_of(store: Store) -> FlaskClient:
    """A console over a store, to which everybody is let in."""
    return create_console(Source(reader=store, store=store), lambda request: True).test_client()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10, help="calls of each page and store")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="bench-console-") as folder:
        stores = {EMPTY: open_store(Path(folder, "empty")), FULL: open_store(Path(folder, "full"))}
        began = time.monotonic()
        fill(stores[FULL])
        rows = stores[FULL].profiles(limit=REQUESTS)
        sums = stores[FULL].endpoints()
        requests = sum(row.requests for row in sums)
        statements = sum(row.calls for row in stores[FULL].statements(limit=SHAPES))
        print(f"\n{requests:,} requests, {statements:,} statements, in {time.monotonic() - began:.0f} s\n")
        pages = {**PAGES, "One request": f"/requests/{rows[0].id}"}
        clients = {side: client_of(store) for side, store in stores.items()}
        print("| page | ms | bytes | times the empty store |\n|---|---:|---:|---:|")
        worst = 0
        for name, pattern in pages.items():
            path = pattern.format(middle=rows[len(rows) // 2].id)

            def call(side: str, path: str = path) -> Callable[[], object]:
                return lambda: clients[side].get(path)

            size = len(clients[FULL].get(path).data)
            times = take_turns({side: call(side) for side in stores}, rounds, name)
            milliseconds = times.milliseconds(FULL)
            print(f"| {name} | {milliseconds:.1f} | {size:,} | {times.ratio(FULL, EMPTY)} |")
            worst += milliseconds > MOST_MS or (size > MOST_BYTES and "JSON" not in name)
    return int(worst > 0)


if __name__ == "__main__":
    sys.exit(main())
