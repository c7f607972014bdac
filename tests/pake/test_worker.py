"""The worker class: work goes where a thread is free, and nobody waits for a slow or greedy client."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import requests

from tests.faults.client import assert_problem
from tests.faults.test_processes import ask_again_and_again, reload
from tests.servers import Server, gunicorn, wait_for

APP = """
import json, os, pathlib, sys, threading, time

def app(environ, start_response):
    if environ["PATH_INFO"] in ("/slow", "/auth/token"):
        pathlib.Path(f"busy-{os.getpid()}-{threading.get_ident()}").touch()
        while not pathlib.Path("go-on").exists():
            time.sleep(0.02)
    if environ["PATH_INFO"] == "/short":
        time.sleep(0.05)
    if environ["PATH_INFO"] == "/large":
        start_response("200 OK", [("Content-Length", "50000000")])
        return [b"x" * 50_000_000]
    if environ["PATH_INFO"] == "/counts":
        body = json.dumps(counts).encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
    if environ["PATH_INFO"] == "/exit":
        sys.exit("of a view")
    if environ["PATH_INFO"] == "/parts":
        start_response("200 OK", [("Content-Length", "6")])
        return parts()
    if environ["PATH_INFO"] == "/broken":
        start_response("200 OK", [("Content-Length", "6")])
        return broken()
    if environ["PATH_INFO"] == "/turn":
        body = f"{sys.getswitchinterval():.4f}".encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]

def parts():
    for number in range(3):
        yield f"{number} ".encode()
        while not pathlib.Path(f"after-{number}").exists():
            time.sleep(0.02)

def broken():
    yield b"abc"
    raise ValueError("in the middle")
"""
CONFIGURATION = """
from pake.worker import Limits, Worker as worker_class
worker_class.limits = Limits({limits})
wsgi_app = "slow:app"
keepalive = 60
control_socket_disable = True
"""


@contextmanager
def slow_app(folder: Path, *arguments: str, limits: str = "", configuration: str = "") -> Iterator[Server]:
    (folder / "slow.py").write_text(APP)
    (folder / "gunicorn.conf.py").write_text(CONFIGURATION.format(limits=limits) + configuration)
    with gunicorn(folder, *arguments) as server:
        try:
            yield server
        finally:
            (folder / "go-on").touch()


def address(server: Server) -> tuple[str, int]:
    return "127.0.0.1", int(server.url.rpartition(":")[2])


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
        for _ in range(50):
            silent.enter_context(socket.create_connection(address(server)))
        assert server.get("/").text == "ok"  # gthread gets to it after 50 / 2 * 5 s


def test_a_silent_connection_is_served_when_it_speaks(tmp_path: Path) -> None:
    with slow_app(tmp_path, "--workers=1", "--threads=2") as server:
        with socket.create_connection(address(server)) as connection:
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


def test_what_would_wait_too_long_for_a_thread_is_503_and_liveness_is_not(tmp_path: Path) -> None:
    with (
        slow_app(tmp_path, "--workers=1", "--threads=1", limits="queue_seconds=0.5") as server,
        ThreadPoolExecutor(3) as clients,
    ):
        served = clients.submit(server.get, "/slow")
        wait_for(lambda: [*tmp_path.glob("busy-*")])
        waited = [clients.submit(server.get, "/") for _ in range(2)]
        for client in waited:
            assert_problem(client.result(), 503)
        assert_problem(server.get("/"), 503)
        assert server.get("/livez").text == "ok"
        assert not served.done()
        (tmp_path / "go-on").touch()
        assert served.result().text == "ok"
        wait_for(lambda: server.get("/").text == "ok")


def test_sign_ins_take_no_thread_from_others_and_few_wait(tmp_path: Path) -> None:
    with (
        slow_app(tmp_path, "--workers=1", "--threads=1", limits="costly_waiting=2") as server,
        ThreadPoolExecutor(8) as clients,
    ):
        sign_ins = [clients.submit(requests.post, server.url + "/auth/token", timeout=30) for _ in range(8)]
        wait_for(lambda: sum(client.done() for client in sign_ins) == 5)
        assert server.get("/").text == "ok"
        assert len([*tmp_path.glob("busy-*")]) == 1
        refused = [client.result() for client in sign_ins if client.done()]
        (tmp_path / "go-on").touch()
        for answer in refused:
            assert_problem(answer, 503)
        assert [client.result().status_code for client in sign_ins].count(200) == 3


def test_threads_take_short_turns_while_somebody_signs_in(tmp_path: Path) -> None:
    with slow_app(tmp_path, "--workers=1", "--threads=2") as server:
        assert server.get("/turn").text == "0.0050"
        with ThreadPoolExecutor() as clients:
            answers = [
                clients.submit(requests.post, server.url + "/auth/token", timeout=30) for _ in range(2)
            ]
            wait_for(lambda: [*tmp_path.glob("busy-*")])
            assert server.get("/turn").text == "0.0010"
            (tmp_path / "go-on").touch()
            assert [answer.result().text for answer in answers] == ["ok", "ok"]
        wait_for(lambda: server.get("/turn").text == "0.0050")


def test_a_client_that_does_not_take_its_answer_frees_its_thread(tmp_path: Path) -> None:
    with (
        slow_app(tmp_path, "--workers=1", "--threads=1", limits="request_seconds=0.5") as server,
        socket.create_connection(address(server)) as client,
    ):
        client.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")
        assert server.get("/").text == "ok"
        wait_for(lambda: "did not take its answer" in server.log)


def until(connection: socket.socket, end: bytes) -> bytes:
    """What is received until that has come."""
    received = b""
    while not received.endswith(end):
        more = connection.recv(65_536)
        assert more, received
        received += more
    return received


def test_the_parts_of_an_answer_are_sent_as_they_are_made(tmp_path: Path) -> None:
    with (
        slow_app(tmp_path, "--workers=1", "--threads=1") as server,
        socket.create_connection(address(server), timeout=20) as client,
    ):
        client.sendall(b"GET /parts HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert until(client, b"0 ").startswith(b"HTTP/1.1 200 ")
        for number in range(3):
            (tmp_path / f"after-{number}").touch()
            if number < 2:
                assert until(client, f"{number + 1} ".encode()) == f"{number + 1} ".encode()
        client.sendall(b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert until(client, b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")  # a head alone is sent as well


def test_what_a_client_sends_before_it_has_its_answer_is_answered_in_turn(tmp_path: Path) -> None:
    request = b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with slow_app(tmp_path, "--workers=1", "--threads=2") as server:
        with socket.create_connection(address(server), timeout=20) as client:
            client.sendall(request * 3)  # at once
            wait_for(lambda: [*tmp_path.glob("busy-*")])
            client.sendall(request)  # and while the first is served
            assert server.get("/").text == "ok"
            (tmp_path / "go-on").touch()
            answers = b""
            while answers.count(b"\r\n\r\nok") < 4:
                answers += until(client, b"\r\n\r\nok")
        assert len(server.workers()) == 1


def test_a_client_that_leaves_while_it_is_served_harms_nobody(tmp_path: Path) -> None:
    with slow_app(tmp_path, "--workers=1", "--threads=2") as server:
        workers = server.workers()
        for _ in range(20):
            with socket.create_connection(address(server), timeout=20) as client:
                client.sendall(b"GET /short HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert server.get("/").text == "ok"
        assert server.workers() == workers


@pytest.mark.parametrize(("path", "logged"), [("/broken", "in the middle"), ("/exit", "of a view")])
def test_a_request_that_breaks_off_ends_its_connection_and_nothing_else(
    tmp_path: Path, path: str, logged: str
) -> None:
    with slow_app(tmp_path, "--workers=1", "--threads=1") as server:
        workers = server.workers()
        for _ in range(3):
            with pytest.raises(requests.RequestException):
                server.get(path)
            assert server.get("/").text == "ok"
        assert server.workers() == workers
        assert logged in server.log


COUNTED = """
def post_worker_init(worker):
    def counting(name, call):
        def counted(*args):
            counts[name] += 1
            return call(*args)
        return counted
    import slow
    counts = slow.counts = dict.fromkeys(("register", "unregister", "wake"), 0)
    worker.poller.register = counting("register", worker.poller.register)
    worker.poller.unregister = counting("unregister", worker.poller.unregister)
    worker.method_queue.defer = counting("wake", worker.method_queue.defer)
"""


def test_a_connection_that_stays_is_looked_after_once(tmp_path: Path) -> None:
    with (
        slow_app(tmp_path, "--workers=1", "--threads=2", configuration=COUNTED) as server,
        requests.Session() as session,
    ):
        first = session.get(server.url + "/counts", timeout=30).json()
        for _ in range(50):
            assert session.get(server.url, timeout=30).text == "ok"
            time.sleep(0.005)  # else it may ask again while its thread is not quite done
        last = session.get(server.url + "/counts", timeout=30).json()
    grown = {name: last[name] - first[name] for name in last}
    assert sum(grown.values()) <= 5  # 150 with Gunicorn's way


def test_a_client_that_is_told_goodbye_and_stays_keeps_nobody_waiting(tmp_path: Path) -> None:
    with slow_app(tmp_path, "--workers=1", "--threads=1") as server, ExitStack() as stay:
        for _ in range(30):
            client = stay.enter_context(socket.create_connection(address(server)))
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")
        assert server.get("/").text == "ok"  # Gunicorn gets to it after 30 * 2 s


def test_all_that_is_received_at_a_time_is_bounded(tmp_path: Path) -> None:
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n"
    with (
        slow_app(tmp_path, "--workers=1", "--threads=1", limits="received_bytes=120_000") as server,
        ExitStack() as stack,
    ):
        clients = [stack.enter_context(socket.create_connection(address(server))) for _ in range(3)]
        for client in clients:
            client.sendall(head + b"x" * 50_000)
        with selectors.DefaultSelector() as answers:
            for client in clients:
                answers.register(client, selectors.EVENT_READ)
            ((key, _),) = answers.select(20)
        refused = key.fileobj
        assert isinstance(refused, socket.socket)
        assert refused.recv(100).startswith(b"HTTP/1.1 503 ")
        for client in clients:
            if client is not refused:
                client.sendall(b"x" * 10_000)
                assert client.recv(100).startswith(b"HTTP/1.1 200 ")


@pytest.mark.fault(30)
def test_a_worker_killed_in_mid_request_takes_that_request_with_it_and_no_other(tmp_path: Path) -> None:
    with slow_app(tmp_path, "--workers=2", "--threads=1") as server, ThreadPoolExecutor(1) as client:
        lost = client.submit(server.get, "/slow")
        wait_for(lambda: [*tmp_path.glob("busy-*")])
        (busy,) = tmp_path.glob("busy-*")
        os.kill(int(busy.name.split("-")[1]), signal.SIGKILL)
        assert server.get("/").text == "ok"
        with pytest.raises(requests.ConnectionError):
            lost.result()
        wait_for(lambda: len(server.workers()) == 2)


@pytest.mark.fault(31)
def test_ten_reloads_under_load_fail_no_request(tmp_path: Path) -> None:
    with slow_app(tmp_path, "--workers=2", "--threads=2") as server, ThreadPoolExecutor(6) as clients:
        stop = threading.Event()
        load = [clients.submit(ask_again_and_again, server, stop, pause=0.05) for _ in range(6)]
        try:
            for _ in range(10):
                reload(server)
        finally:
            stop.set()
        assert all(client.result() for client in load)
