"""`make bench-routes`: what the service costs beside plain Flask and beside plain psycopg2.

The service and the plain routes of `benchmarks/bare.py` run under Gunicorn by the same configuration, on the
same database, and take turns. The service comes as it is: signed in, checked, limited, counted, profiled by
its default profilers. Exit status 1 when `/protected` serves less than 0.6 of the requests per second of a
bare Flask JSON route, or the list of 10 services with their newest health checks takes more than twice the
time of raw psycopg2 that returns the same JSON.

    make bench-routes
    make bench-routes ARGS="--rounds 60"
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import orjson
import sqlalchemy as sa

from benchmarks.keep_alive import Client, Gunicorn, gunicorn
from benchmarks.service import postgres, service
from benchmarks.turns import take_turns
from pake.auth import accounts, passwords, tokens
from pake.auth.keys import signing_key
from pake.extensions import db, settings

BARE, SERVICE = "bare", "service"


@dataclass(frozen=True)
class Route:
    """One comparison."""

    name: str
    path: str
    connections: int
    """16 keep every thread of two workers busy: requests per second. One alone: the time of a request."""
    requests: int
    """Of one turn."""
    most: float
    """The service's time to the other's."""


ROUTES = [
    Route("/protected, requests per second to bare Flask's", "/protected", 16, 800, 1 / 0.6),
    Route(
        "10 services with their newest 20 health checks, time to raw psycopg2's",
        "/services?limit=10&include=health_checks",
        1,
        40,
        2.0,
    ),
]


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(
        "bench_routes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=25, help="turns of each side (25)")
    rounds = parser.parse_args().rounds
    with postgres() as folder, ExitStack() as stack:
        app = stack.enter_context(service(folder, "routes", services=10, health_checks=50))
        with app.app_context():
            user_id = accounts.create("bench", passwords.generate(24))
            token = tokens.open_family(user_id).access_token
            db.session.commit()
            url, key = app.config["SQLALCHEMY_DATABASE_URI"], signing_key(settings)
        raw = sa.make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        start = partial(gunicorn, DATABASE_URL=url, BARE_DATABASE=raw, SECRET_KEY=key)
        sides = {
            BARE: stack.enter_context(start(folder.parent / "bare", "benchmarks.bare:app")),
            SERVICE: stack.enter_context(start(folder.parent / "service", None)),
        }
        print("| route | bare: ms | CPU ms | service: ms | CPU ms | service / bare, quartiles | at most |")
        print("|---|---|---|---|---|---|---|")
        slow = [route.name for route in ROUTES if not measure(route, sides, token, rounds)]
    if slow:
        sys.exit("too slow: " + "; ".join(slow))


def measure(route: Route, sides: dict[str, Gunicorn], token: str, rounds: int) -> bool:
    """Print one row of the table; whether the service was fast enough."""
    headers = {"Authorization": f"Bearer {token}"}
    with ExitStack() as stack:
        clients = {
            name: stack.enter_context(
                Client(server.port, route.path, connections=route.connections, headers=headers)
            )
            for name, server in sides.items()
        }
        bodies = {name: orjson.loads(client.get(1)) for name, client in clients.items()}
        assert bodies[BARE] == bodies[SERVICE], bodies
        before = {name: server.cpu_seconds() for name, server in sides.items()}
        calls = {name: partial(client.get, route.requests) for name, client in clients.items()}
        times = take_turns(calls, rounds, route.name)
        cells = []
        for name, server in sides.items():
            cpu = (server.cpu_seconds() - before[name]) / (route.requests * (rounds + 3))
            cells += [f"{times.milliseconds(name) / route.requests:.3f}", f"{cpu * 1000:.3f}"]
    ratio = times.ratio(SERVICE, to=BARE)
    print(f"| {route.name} | {' | '.join(cells)} | {ratio} | {route.most:.2f} |", flush=True)
    return ratio.middle <= route.most


if __name__ == "__main__":
    main()
