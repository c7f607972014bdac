"""`make bench-login-flood`: what a flood of sign-ins costs the other routes.

200 clients sign in at once, half of them with wrong passwords, and again as soon as they are answered; who
gets a 503 waits as long as its `Retry-After` says. Beside them 4 connections ask for `/protected`, 50 times a
second in all. Calm and flood take turns. Exit status 1 when the median of the rounds' ratios of the 95th
percentiles is above 2, or when anything but 200, 401 and 503 was answered.

    make bench-login-flood
    make bench-login-flood ARGS="--rounds 3 --seconds 5"
"""

from __future__ import annotations

import argparse
import heapq
import multiprocessing
import re
import selectors
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from statistics import quantiles

from benchmarks.keep_alive import gunicorn
from benchmarks.service import postgres, service
from benchmarks.turns import Spread
from pake.auth import accounts, tokens
from pake.auth.keys import signing_key
from pake.extensions import db, settings

NAME, PASSWORD = "bench", "quiet river stones"
LIMITS = {"AUTH_RATE_LIMIT": "none", "SIGN_IN_ATTEMPTS": "100", "SIGN_IN_LOCK_SECONDS": "1"}
"""Out of the way: a flood from one address for a few names would end at once."""
CLIENTS = 200
PROBES = 4
_RETRY_AFTER = re.compile(rb"\r\nretry-after: (\d+)\r\n", re.IGNORECASE)
A_SECOND = 50
MOST = 2.0


def receive(connection: socket.socket) -> bytes:
    """One answer: a JSON object, in a piece or two."""
    answer = connection.recv(65_536)
    while answer and not answer.endswith(b"}") and (more := connection.recv(65_536)):
        answer += more
    return answer


def ask(port: int, token: str, seconds: float) -> list[float]:
    """Ask for /protected at a steady rate; the seconds of each answer, counted from when it was due."""
    request = f"GET /protected HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    took = []
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        idle = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(PROBES)]
        due = time.perf_counter()
        ends = due + seconds
        asked: dict[socket.socket, float] = {}
        while due < ends or asked:
            now = time.perf_counter()
            if due <= now and due < ends and idle:
                client = idle.pop(0)
                client.sendall(request)
                asked[client] = due
                selector.register(client, selectors.EVENT_READ)
                due += 1 / A_SECOND
                continue
            for key, _ in selector.select(max(0, due - now) if idle and due < ends else None):
                assert isinstance(key.fileobj, socket.socket)
                answer = receive(key.fileobj)
                if not answer.startswith(b"HTTP/1.1 200 "):
                    sys.exit(f"/protected was answered with {answer[:200]!r}")
                took.append(time.perf_counter() - asked.pop(key.fileobj))
                selector.unregister(key.fileobj)
                idle.append(key.fileobj)
    return took


class Client:
    """One of the flood, on a connection that it keeps as long as it may."""

    def __init__(self, port: int, name: str, password: str) -> None:
        self.port = port
        form = f"username={name}&password={password.replace(' ', '+')}"
        self.request = (
            "POST /auth/token HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(form)}\r\n\r\n{form}"
        ).encode()
        self.connection: socket.socket | None = None

    def send(self) -> socket.socket:
        """Sign in."""
        if self.connection is None:
            self.connection = socket.create_connection(("127.0.0.1", self.port))
        self.connection.sendall(self.request)
        return self.connection

    def receive(self) -> tuple[int, float]:
        """The status of the answer, 0 when the connection was closed; seconds to wait until the next try."""
        assert self.connection
        answer = receive(self.connection)
        if not answer or b"connection: close" in answer.lower():
            self.connection.close()
            self.connection = None
        pause = _RETRY_AFTER.search(answer)
        return int(answer[9:12] or b"0"), float(pause[1]) if pause else 0


def flood(port: int, control: Connection) -> None:
    """Sign in until told to stop; send back how often each status was answered."""
    statuses: Counter[int] = Counter()
    clients = [
        Client(port, *((NAME, PASSWORD) if number % 2 else (f"nobody-{number}", "not this one, sorry")))
        for number in range(CLIENTS)
    ]
    later = [(0.0, number) for number in range(CLIENTS)]
    with selectors.DefaultSelector() as selector:
        while not control.poll():
            now = time.monotonic()
            while later and later[0][0] <= now:
                _, number = heapq.heappop(later)
                selector.register(clients[number].send(), selectors.EVENT_READ, number)
            for key, _ in selector.select(max(0.0, min(0.1, later[0][0] - now)) if later else 0.1):
                selector.unregister(key.fileobj)
                status, pause = clients[key.data].receive()
                statuses[status] += 1
                heapq.heappush(later, (time.monotonic() + pause, key.data))
    control.send(statuses)


@contextmanager
def flooded(port: int, statuses: Counter[int]) -> Iterator[None]:
    """Inside the block there is a flood; its statuses are added."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=flood, args=(port, there))
    process.start()
    try:
        time.sleep(0.5)  # all have signed in once
        yield
        here.send("stop")
        statuses.update(here.recv())
    finally:
        process.terminate()
        process.join()


def p95(seconds: list[float]) -> float:
    return quantiles(seconds, n=20)[-1]


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(
        "bench_login_flood", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9, help="calm and flood, so often each (9)")
    parser.add_argument("--seconds", type=float, default=4, help="of each (4)")
    given = parser.parse_args()
    statuses: Counter[int] = Counter()
    with postgres() as folder, ExitStack() as stack:
        app = stack.enter_context(service(folder, "flood", services=1, health_checks=1))
        with app.app_context():
            token = tokens.open_family(accounts.create(NAME, PASSWORD)).access_token
            db.session.commit()
            url, key = app.config["SQLALCHEMY_DATABASE_URI"], signing_key(settings)
        settled = {"DATABASE_URL": url, "SECRET_KEY": key, **LIMITS}
        server = stack.enter_context(gunicorn(folder.parent / "service", None, **settled))
        ask(server.port, token, 2)
        print("| round | calm: p95 ms | flood: p95 ms | flood / calm |")
        print("|---|---|---|---|")
        ratios = []
        for number in range(given.rounds):
            calm = p95(ask(server.port, token, given.seconds))
            with flooded(server.port, statuses):
                full = p95(ask(server.port, token, given.seconds))
            ratios.append(full / calm)
            print(f"| {number + 1} | {calm * 1000:.2f} | {full * 1000:.2f} | {full / calm:.2f} |", flush=True)
    seconds = given.rounds * (given.seconds + 0.5)
    answers = ", ".join(f"{status}: {count / seconds:.0f}/s" for status, count in sorted(statuses.items()))
    print(f"\nflood / calm, quartiles: {Spread.of(ratios)}, at most {MOST:.2f}; sign-ins answered {answers}")
    wrong = {*statuses} - {200, 401, 503}
    if wrong or Spread.of(ratios).middle > MOST:
        sys.exit(f"answered {wrong}" if wrong else "the flood slows the other routes down too much")


if __name__ == "__main__":
    main()
