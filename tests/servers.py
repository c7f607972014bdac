"""The service under Gunicorn, for tests.

with gunicorn(folder, DATABASE_URL=...) as server:
    server.get("/livez")
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from pake.config import Settings

ROOT = Path(__file__).resolve().parent.parent
NOT_INHERITED = {name.upper() for name in Settings.model_fields} | {"GUNICORN_CMD_ARGS"}
"""What a developer's environment may hold and a test decides for itself."""


@dataclass
class Server:
    """A running Gunicorn."""

    url: str
    process: subprocess.Popen[bytes]
    folder: Path

    def get(self, path: str, **options: object) -> requests.Response:
        """GET on a connection of its own, with a deadline."""
        return requests.get(self.url + path, timeout=30, **options)  # type: ignore[arg-type]

    @property
    def log(self) -> str:
        """What the service has printed so far, embedded PostgreSQL's lines included."""
        return (self.folder / "gunicorn.log").read_text()

    def workers(self) -> list[int]:
        """The process ids of the workers, lowest first."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return sorted(pid for pid in map(int, children.split()) if "supervisor.py" not in command_line(pid))


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    """Until `condition()` is true; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def environment(**settings: str) -> dict[str, str]:
    """The environment of a service with these settings and no others."""
    inherited = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
    return inherited | {"PYTHONPATH": str(ROOT), "SHUTDOWN_DELAY_SECONDS": "0"} | settings


def command() -> list[str]:
    """Plain `gunicorn`."""
    return [sys.executable, "-m", "gunicorn"]


@contextmanager
def gunicorn(folder: Path, *arguments: str, **settings: str) -> Iterator[Server]:
    """Gunicorn with this checkout's configuration, at work in `folder`, on a free port, until the block ends.

    `folder` gets its instance/ and its gunicorn.log. `settings` are environment variables.
    """
    folder.mkdir(exist_ok=True)
    if not (folder / "gunicorn.conf.py").exists():
        (folder / "gunicorn.conf.py").symlink_to(ROOT / "gunicorn.conf.py")
    with (
        socket.create_server(("127.0.0.1", 0), backlog=2048) as listener,
        open(folder / "gunicorn.log", "ab") as log,
    ):
        fd, port = listener.fileno(), listener.getsockname()[1]
        process = subprocess.Popen(
            [*command(), "--bind", f"fd://{fd}", *arguments],
            cwd=folder,
            env=environment(**settings),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[fd],
        )
    server = Server(f"http://127.0.0.1:{port}", process, folder)
    try:
        try:
            requests.get(server.url + "/livez", timeout=90)
        except requests.RequestException:
            raise AssertionError(f"the service did not start:\n{server.log}") from None
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
