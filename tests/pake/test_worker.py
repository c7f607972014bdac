"""The worker class: work goes where a thread is free, and silent connections cost nobody anything."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import requests

from tests.servers import Server, gunicorn, wait_for

APP = """
import os, pathlib, threading, time

def app(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        pathlib.Path(f"busy-{os.getpid()}-{threading.get_ident()}").touch()
        while not pathlib.Path("go-on").exists():
            time.sleep(0.02)
    if environ["PATH_INFO"] == "/short":
        time.sleep(0.05)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""
CONFIGURATION = """
from pake.worker import Worker as worker_class
wsgi_app = "slow:app"
keepalive = 60
control_socket_disable = True
"""


@contextmanager
def slow_app(folder: Path, *arguments: str) -> Iterator[Server]:
    (folder / "slow.py").write_text(APP)
    (folder / "gunicorn.conf.py").write_text(CONFIGURATION)
    with gunicorn(folder, *arguments) as server:
        try:
            yield server
        finally:
            (folder / "go-on").touch()


@pytest.mark.parametrize("attempt", [1, 2, 3])
def test_as_many_slow_requests_run_at_once_as_all_workers_have_threads(tmp_path: Path, attempt: int) -> None:
    with slow_app(tmp_path, "--workers=2", "--threads=3") as server:
        clients = [threading.Thread(target=server.get, args=["/slow"]) for _ in range(6)]
        for client in clients:
            client.start()
        wait_for(lambda: len([*tmp_path.glob("busy-*")]) == 6)
        (tmp_path / "go-on").touch()
        for client in clients:
            client.join()


def test_silent_connections_take_no_thread(tmp_path: Path) -> None:
    with slow_app(tmp_path, "--workers=1", "--threads=2") as server, ExitStack() as silent:
        port = int(server.url.rpartition(":")[2])
        for _ in range(50):
            silent.enter_context(socket.create_connection(("127.0.0.1", port)))
        assert server.get("/").text == "ok"  # gthread gets to it after 50 / 2 * 5 s


def test_a_silent_connection_is_served_when_it_speaks(tmp_path: Path) -> None:
    with slow_app(tmp_path, "--workers=1", "--threads=2") as server:
        port = int(server.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as connection:
            assert server.get("/").text == "ok"
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.endswith(b"ok")


def test_kept_alive_connections_do_not_count_as_busy(tmp_path: Path) -> None:
    with slow_app(tmp_path, "--workers=1", "--threads=2") as server, ExitStack() as open_sessions:
        for _ in range(10):
            session = open_sessions.enter_context(requests.Session())
            assert session.get(server.url, timeout=30).text == "ok"
        assert server.get("/").text == "ok"


def test_clients_that_keep_a_worker_busy_do_not_keep_others_out(tmp_path: Path) -> None:
    with slow_app(tmp_path, "--workers=1", "--threads=1") as server:
        done = threading.Event()

        def ask_again_and_again() -> None:
            with requests.Session() as session:
                while not done.is_set():
                    assert session.get(server.url + "/short", timeout=60).text == "ok"

        clients = [threading.Thread(target=ask_again_and_again) for _ in range(4)]
        for client in clients:
            client.start()
        try:
            assert [server.get("/").text for _ in range(3)] == ["ok"] * 3
        finally:
            done.set()
            for client in clients:
                client.join()
