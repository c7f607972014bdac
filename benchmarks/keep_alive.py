"""A running Gunicorn and a cheap client for it, for benchmarks over HTTP.

Two Gunicorns of one configuration that take turns differ by their app alone. The client keeps its connections
and reads as little of an answer as it can: what it costs is time that the service does not get.
"""

from __future__ import annotations

import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 60
ANSWER_SECONDS = 30
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


class UnexpectedAnswer(Exception):  # noqa: N818 - what happened
    """An answer that is no 200, or none; the message holds its first bytes."""


@dataclass(frozen=True)
class Gunicorn:
    """One that runs."""

    port: int
    pid: int

    def cpu_seconds(self) -> float:
        """Processor time its workers have used so far."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        ticks = 0
        for child in children:
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(") ")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def gunicorn(folder: Path, app: str | None, **environment: str) -> Iterator[Gunicorn]:
    """`app`, or the service, by this checkout's gunicorn.conf.py; it is gone after the block.

    `folder` holds its instance and its log. Of this process's environment it gets all, and `environment`.
    """
    folder.mkdir()
    with (
        socket.create_server(("127.0.0.1", 0), backlog=2048) as listener,
        open(folder / "gunicorn.log", "wb") as log,
    ):
        port = listener.getsockname()[1]
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "gunicorn", "--config", str(ROOT / "gunicorn.conf.py")),
                *("--bind", f"fd://{listener.fileno()}"),
                *([app] if app else []),
            ],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "INSTANCE_PATH": str(folder), **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[listener.fileno()],
        )
    try:
        _wait_until_answers(process, port, folder / "gunicorn.log")
        yield Gunicorn(port, process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _wait_until_answers(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    with Client(port, "/", connections=1) as client:
        deadline = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            try:
                client.get(1)
            except ConnectionError:
                time.sleep(0.1)
            except UnexpectedAnswer:
                return
            else:
                return
    sys.exit(f"Gunicorn did not start:\n{log.read_text()[-2000:]}")


class Client:
    """Connections that ask one Gunicorn for one path, over and over. Use it in a `with` block."""

    def __init__(self, port: int, path: str, *, connections: int, headers: dict[str, str] | None = None):
        lines = {"Host": "localhost", **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._request = f"GET {path} HTTP/1.1\r\n{head}\r\n".encode()
        self._port = port
        self._connections = connections
        self._open: list[socket.socket] = []

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        while self._open:
            self._open.pop().close()

    def get(self, requests: int) -> bytes:
        """Send that many requests, one at a time on each connection; the last answer's body.

        Raises UnexpectedAnswer for anything but 200.
        """
        while len(self._open) < min(self._connections, requests):
            self._open.append(socket.create_connection(("127.0.0.1", self._port), timeout=ANSWER_SECONDS))
        sent = done = 0
        body = b""
        with selectors.DefaultSelector() as selector:
            for connection in self._open[:requests]:
                connection.sendall(self._request)
                sent += 1
                selector.register(connection, selectors.EVENT_READ)
            while done < requests:
                ready = selector.select(ANSWER_SECONDS)
                if not ready:
                    raise UnexpectedAnswer(f"no answer within {ANSWER_SECONDS} s")
                for key, _ in ready:
                    assert isinstance(key.fileobj, socket.socket)
                    body = self._read(key.fileobj)
                    done += 1
                    if sent < requests:
                        key.fileobj.sendall(self._request)
                        sent += 1
        return body

    def _read(self, connection: socket.socket) -> bytes:
        answer = connection.recv(262_144)
        while b"\r\n\r\n" not in answer:
            if not (more := connection.recv(262_144)):
                self.close()
                raise UnexpectedAnswer(repr(answer[:300]))
            answer += more
        head, _, body = answer.partition(b"\r\n\r\n")
        length = _LENGTH.search(head + b"\r\n")
        if not answer.startswith(b"HTTP/1.1 200 ") or length is None:
            self.close()
            raise UnexpectedAnswer(repr(answer[:300]))
        parts, missing = [body], int(length[1]) - len(body)
        while missing > 0:
            part = connection.recv(missing)
            if not part:
                self.close()
                raise UnexpectedAnswer("an answer that ended too early")
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)
