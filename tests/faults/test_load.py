"""More clients than can be served, and clients that say little: rows 26 to 28 of the fault table."""

from __future__ import annotations

import re
import selectors
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from pake.config import Settings
from tests import conftest as postgres
from tests.faults.client import account, assert_problem, new_name, sign_in, with_token
from tests.faults.conftest import KEY
from tests.servers import Server, gunicorn

JSON = "Content-Type: application/json\r\n"
CLIENTS = 4
"""Of each kind: as many as all workers have threads."""


@pytest.fixture(scope="module")
def service(server: postgres.Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service with the limits it comes with, two workers and two threads each."""
    with (
        postgres.new_database(server.url, server.template) as url,
        gunicorn(
            tmp_path_factory.mktemp("service"),
            "--threads=2",
            DATABASE_URL=url,
            SECRET_KEY=KEY,
            WEB_CONCURRENCY="2",
            MAX_CONTENT_LENGTH="100000",
        ) as service,
    ):
        yield service


@pytest.mark.fault(26)
def test_a_flood_of_sign_ins_gets_quick_503s_and_others_are_served(service: Server) -> None:
    name, tokens = account(service)
    hashes = hashes_computed(service)
    with ThreadPoolExecutor(200) as clients:
        flood = [
            clients.submit(sign_in, service, *credentials)
            for _ in range(100)
            for credentials in ((name,), (new_name(), "not this one"))
        ]
        served = 0
        while not all(client.done() for client in flood):
            assert with_token(service, tokens["access_token"]).status_code == 200
            served += 1
    assert served
    answers = Counter(client.result().status_code for client in flood)
    assert answers.keys() <= {200, 401, 503}
    assert answers[503]
    for client in flood:
        if client.result().status_code == 503:
            assert_problem(client.result(), 503)
    assert hashes_computed(service) - hashes == answers[200] + answers[401]
    assert sign_in(service, name).status_code == 200


def hashes_computed(service: Server) -> int:
    count = re.search(
        r"^pake_password_hash_duration_seconds_count (\S+)$", service.get("/metrics").text, re.M
    )
    assert count
    return int(float(count[1]))


def head(headers: str) -> bytes:
    return f"POST /auth/validate-password HTTP/1.1\r\nHost: localhost\r\n{JSON}{headers}\r\n".encode()


KINDS = {
    "half a head": (b"GET /livez HTTP/1.1\r\nHost: loc", b""),
    "half a body": (head("Content-Length: 500\r\n") + b'{"password": "', b""),
    "half a chunk": (head("Transfer-Encoding: chunked\r\n") + b"50\r\n{", b""),
    "half a large body": (head("Content-Length: 100000\r\n") + b"x" * 50_000, b""),
    "a body that waits to be asked for": (head("Content-Length: 500\r\nExpect: 100-continue\r\n"), b""),
    "a head that drips": (b"GET /livez HTTP/1.1\r\nX: ", b"x"),
    "a body that drips": (head("Content-Length: 500\r\n"), b"x"),
}


def connect(service: Server, stack: ExitStack) -> socket.socket:
    port = int(service.url.rpartition(":")[2])
    return stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))


def answered(client: socket.socket) -> bool:
    """Read one answer; whether it is 200."""
    received = client.recv(4096)
    while not received.endswith(b"}") and (more := client.recv(4096)):
        received += more
    return received.startswith(b"HTTP/1.1 200 ")


@pytest.mark.fault(27)
def test_half_sent_requests_are_refused_in_time_and_others_are_served_meanwhile(service: Server) -> None:
    limit = Settings.model_fields["request_timeout_seconds"].default
    assert limit + 1 < 10  # the worker looks once a second
    _, tokens = account(service)
    with ExitStack() as stack, selectors.DefaultSelector() as closing:
        waiting = {}
        for name, (begin, drop) in KINDS.items():
            for _ in range(CLIENTS):
                client = connect(service, stack)
                client.sendall(begin)
                if "asked for" in name:
                    assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
                closing.register(client, selectors.EVENT_READ)
                waiting[client] = drop
        served = 0
        while not closing.select(0.5):
            assert service.get("/livez").status_code == 200
            assert with_token(service, tokens["access_token"]).status_code == 200
            served += 1
            for client, drop in waiting.items():
                client.sendall(drop)
        assert served
        while waiting:
            ready = closing.select(20)
            assert ready, f"{len(waiting)} are still open"
            for key, _ in ready:
                assert isinstance(key.fileobj, socket.socket)
                closing.unregister(key.fileobj)
                del waiting[key.fileobj]
                answer = b"".join(iter(lambda: key.fileobj.recv(4096), b""))  # noqa: B023
                assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_body_that_comes_in_time_is_served_however_many_pieces_it_has(service: Server) -> None:
    body = b'{"password": "quiet river stones"}'
    with ExitStack() as stack:
        client = connect(service, stack)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in head(f"Content-Length: {len(body)}\r\n") + body:
            client.sendall(bytes([byte]))
        assert answered(client)


def test_requests_sent_behind_each_other_are_answered_in_turn(service: Server) -> None:
    ask = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"
    with ExitStack() as stack:
        client = connect(service, stack)
        client.sendall((ask + b"\r\n") * 2 + ask + b"Connection: close\r\n\r\n")
        answers = b"".join(iter(lambda: client.recv(4096), b""))
        assert answers.count(b"HTTP/1.1 200 ") == 3


@pytest.mark.fault(28)
def test_a_thousand_idle_connections_take_no_turn_from_others(service: Server) -> None:
    with ExitStack() as stack:
        idle = [connect(service, stack) for _ in range(1000)]
        for client in idle:
            client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert all(answered(client) for client in idle)
        assert [service.get("/").status_code for _ in range(10)] == [200] * 10
        for client in idle[::100]:
            client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert answered(client)
