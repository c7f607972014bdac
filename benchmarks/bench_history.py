"""`make bench-history`: what a long history costs the routes that show its newest part.

Two copies of the service, one with 1,000 health checks and one with 1,000,000, take turns; both answer with
the same number of rows. Exit status 1 when a route is more than 1.2 times slower on the long one.

    make bench-history
    make bench-history ARGS="--rounds 500"
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import ExitStack

from apiflask import APIFlask
from flask.testing import FlaskClient

from benchmarks.service import postgres, service
from benchmarks.turns import take_turns
from pake.auth import accounts, passwords, tokens
from pake.extensions import db

SERVICES = 10
SHORT, LONG = "1,000 health checks", "1,000,000"
HEALTH_CHECKS = {SHORT: 100, LONG: 100_000}
"""Of each service."""
MOST = 1.2

ROUTES = {
    "GET /services?include=health_checks": "/services?limit=10&include=health_checks",
    "GET /services": "/services?limit=10",
    "GET /services/{id}?include=health_checks": "/services/{id}?include=health_checks",
    "GET /services/{id}/health-checks": "/services/{id}/health-checks?limit=20",
    "GET /health-checks": "/health-checks?limit=20",
}


class Client:
    """A signed-in client of one copy of the service, inside this process."""

    def __init__(self, app: APIFlask) -> None:
        with app.app_context():
            user_id = accounts.create("bench", passwords.generate(24), role="user")
            pair = tokens.open_family(user_id)
            db.session.commit()
        self._headers = {"Authorization": f"Bearer {pair.access_token}"}
        self._client: FlaskClient = app.test_client()
        (service, *_) = self._client.get("/services", headers=self._headers).get_json()["items"]
        self._service_id = service["service_id"]

    def reader(self, path: str) -> Callable[[], int]:
        """A function that reads this path and returns the length of the answer in bytes."""
        path = path.replace("{id}", self._service_id)

        def read() -> int:
            answer = self._client.get(path, headers=self._headers)
            assert answer.status_code == 200, answer.text
            return len(answer.data)

        return read


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(
        "bench_history", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=150, help="requests of each route to each copy (150)")
    rounds = parser.parse_args().rounds
    slow = []
    with postgres() as folder, ExitStack() as stack:
        clients = {}
        for side, count in HEALTH_CHECKS.items():
            print(f"writing {SERVICES * count:,} health checks", file=sys.stderr)
            app = service(folder, f"history-{count}", services=SERVICES, health_checks=count)
            clients[side] = Client(stack.enter_context(app))
        print(f"| route | {SHORT}: ms | {LONG}: ms | ratio, quartiles |")
        print("|---|---|---|---|")
        for route, path in ROUTES.items():
            times = take_turns({side: client.reader(path) for side, client in clients.items()}, rounds, route)
            ratio = times.ratio(LONG, to=SHORT)
            cells = [f"{times.milliseconds(side):.2f}" for side in clients]
            print(f"| {route} | {' | '.join(cells)} | {ratio} |", flush=True)
            if ratio.middle > MOST:
                slow.append(f"{route}: {ratio.middle:.2f}, at most {MOST} allowed")
    if slow:
        sys.exit("\n".join(slow))


if __name__ == "__main__":
    main()
