"""The service under load: started with a database of its own, filled, given accounts, and stopped.

All by its commands, as an operator would; nothing of it is imported here.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 120
STOP_SECONDS = 60
PROFILERS = "queries,nplusone,slow-queries"
PROFILED_SHARE = "0.2"
"""Of the requests: enough for the statements of every route, and little of the run's time."""
SLOW_MS = "100"
"""A statement that takes longer is shown with its plan."""


class ServiceError(Exception):
    """The service could not be started or filled; the message is for the person who runs the load."""


@dataclass
class Service:
    """A running service."""

    url: str
    process: subprocess.Popen[bytes] | None = None
    """None when it was running already."""
    environment: dict[str, str] = field(default_factory=dict)
    """What its commands need, such as the place of its database."""

    def flask(self, *arguments: str) -> str:
        """Run `flask pake …` and return what it printed. Raises ServiceError when it fails."""
        done = subprocess.run(
            [sys.executable, "-m", "flask", "--app", "pake", "pake", *arguments],
            env=self.environment,
            cwd=self.environment["INSTANCE_PATH"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ServiceError(f"flask pake {arguments[0]} failed: {done.stderr.strip()[-2000:]}")
        return done.stdout

    @property
    def profiles(self) -> str:
        """Where its profilers keep what they see."""
        return self.environment["FLASK_PROFILE_STORE"]

    @property
    def alive(self) -> bool:
        """Whether it still runs: its process, or where that is not ours an answer."""
        if self.process is not None:
            return self.process.poll() is None
        return self.answers("/livez")

    def answers(self, path: str) -> bool:
        """Whether GET of the path is a success."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=5):
                return True
        except OSError:
            return False


@dataclass(frozen=True)
class Code:
    """Which checkout serves, and what runs it."""

    root: Path = ROOT
    python: tuple[str, ...] = (sys.executable,)
    """The command that is Python: its environment has what the checkout needs."""
    app: tuple[str, ...] = ()
    """What Gunicorn loads instead of the checkout's app."""
    paths: tuple[Path, ...] = ()
    """Further folders to import from."""

    def environment(self, instance: Path) -> dict[str, str]:
        """What the checkout's commands run with.

        A `.env` of the checkout and a `DATABASE_URL` of the caller are not their business: a load must never
        reach a database that somebody needs.
        """
        paths = (str(self.root), *map(str, self.paths), os.environ.get("PYTHONPATH", ""))
        return {name: value for name, value in os.environ.items() if name != "DATABASE_URL"} | {
            "INSTANCE_PATH": str(instance),
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "FLASK_SKIP_DOTENV": "1",
        }


@contextmanager
def started(folder: Path, profilers: str = PROFILERS, **settings: str) -> Iterator[Service]:
    """The service on a free port with a new database, its files in `folder`; all of it gone afterwards.

    `settings` are further environment variables; where the environment has one of them, or of those for the
    profilers, its word goes.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    ours = {
        "FLASK_PROFILE": profilers,
        "FLASK_PROFILE_SAMPLE": PROFILED_SHARE,
        "SLOW_QUERY_THRESHOLD_MS": SLOW_MS,
        **settings,
    }
    ours = {name: os.environ.get(name, value) for name, value in ours.items()}
    try:
        with serving(folder, Code(), **ours) as service:
            yield service
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def serving(folder: Path, code: Code, **settings: str) -> Iterator[Service]:
    """The service on a free port with the instance in `folder`, which stays.

    Its log is `server.log` beside the folder.

    Raises:
        ServiceError: it does not start.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        bind = f"127.0.0.1:{probe.getsockname()[1]}"
    environment = code.environment(folder) | {"BIND": bind, "FLASK_PROFILE_STORE": str(folder / "profiles")}
    environment |= settings
    log_path = folder.with_name("server.log")
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [*code.python, "-m", "gunicorn", "--config", str(code.root / "gunicorn.conf.py"), *code.app],
            env=environment,
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    service = Service(f"http://{bind}", process, environment)
    try:
        _wait_until_ready(service, log_path)
        yield service
    finally:
        _stop(process)


@contextmanager
def accounts(service: Service, path: Path, users: int, admins: int) -> Iterator[Path]:
    """Accounts for the personas, in a file that only the owner reads; removed afterwards."""
    try:
        make_accounts(service, path, users, admins)
        yield path
    finally:
        path.unlink(missing_ok=True)
        if service.alive:
            delete_accounts(service)


def make_accounts(service: Service, path: Path, users: int, admins: int) -> None:
    """Make accounts for the personas, and write them to a file that only the owner reads."""
    made: dict[str, list[Any]] = {}
    for role, count in (("user", users), ("admin", admins)):
        printed = service.flask("create-users", f"load-{role}", str(count), "--role", role)
        made[role] = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    path.touch(mode=0o600)
    path.write_text(json.dumps(made), encoding="utf-8")


def delete_accounts(service: Service) -> None:
    """Delete those that a load has made."""
    service.flask("delete-users", "load-user")
    service.flask("delete-users", "load-admin")


def _wait_until_ready(service: Service, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if not service.alive:
            raise ServiceError(f"the service did not start:\n{_tail(log)}")
        if service.answers("/readyz"):
            return
        time.sleep(0.2)
    raise ServiceError(f"the service was not ready after {START_SECONDS} s:\n{_tail(log)}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])
