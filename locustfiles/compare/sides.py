"""The two versions: each with a checkout, a copy of the same data, and a service to start again and again.

Both lie in folders whose names have the same length, and run with the same hash seed and, where the system
lets us, the same memory layout: what differs between two processes of one program should differ as little.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from locustfiles import service
from locustfiles.compare import probe
from locustfiles.service import Code, Service, ServiceError

SERVICES = 100
"""In the database, each with the demo data's histories."""
ROLES = ("user", "admin")
FILL = """
flask() { "$python" -m flask --app pake "$@"; }
flask db upgrade
flask pake demo-data --services "$services"
for role in $roles; do flask pake create-users "perf-$role" 1 --role "$role" > "$data/$role"; done
exec "$python" -c "$settle"
"""
LOCK = Path("requirements/run.txt")
SETTLE = """
import os, psycopg2
connection = psycopg2.connect(os.environ["DATABASE_URL"].replace("+psycopg2", ""))
connection.autocommit = True
cursor = connection.cursor()
cursor.execute("SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 'public'")
for (table,) in cursor.fetchall():
    cursor.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
cursor.execute("VACUUM (FREEZE, ANALYZE)")
"""
"""Now, so that autovacuum does not in the middle of one side's round."""


@dataclass(frozen=True)
class Side:
    """One version."""

    name: str
    """`base` or `head`."""
    version: str
    """Its commit, or what else names it."""
    code: Code
    folder: Path
    """Holds its instance and the logs of its services."""

    @contextmanager
    def serving(self, seed: int, **settings: str) -> Iterator[Service]:
        """Its service with one worker and one thread, every request profiled alike.

        Args:
            seed: of Python's hashes.
        """
        with service.serving(
            self.folder / "instance",
            self.code,
            PERF_PROBED="pake:create_app()",
            PYTHONHASHSEED=str(seed),
            WEB_CONCURRENCY="1",
            DATABASE_POOL_SIZE="1",
            FLASK_PROFILE_BRAKE="0",
            **{"FLASK_PROFILE": "", **settings},
        ) as running:
            yield running

    def account(self, role: str) -> dict[str, str]:
        """Name and password of somebody of this role."""
        printed = (self.folder / role).read_text(encoding="utf-8").splitlines()
        return dict(json.loads(next(line for line in printed if line.startswith("{"))))


@contextmanager
def prepared(base: str, head: str | None) -> Iterator[tuple[Side, Side]]:
    """Base and head, with the same data; all of it gone afterwards.

    Args:
        base: a commit of this repository, or a folder that holds a checkout.
        head: the same; None is this checkout with what is not committed. A commit `base` then means where
            this branch left it, as in a pull request: what base has gained since is not head's fault.

    Raises:
        ServiceError: a version cannot be had, or its database not be filled.
    """
    with tempfile.TemporaryDirectory(prefix="perf-compare-") as place:
        os.chmod(place, 0o711)  # noqa: S103 - under root the database is another user's, and must get in
        work = Path(place)
        (work / "probe").mkdir()
        shutil.copy(probe.__file__, work / "probe" / "perf_probe.py")
        versions = {"base": base, "head": head or str(service.ROOT)}
        if head is None and not _is_checkout(base):
            versions["base"] = _run(["git", "merge-base", base, "HEAD"]).strip()
        found = [_side(name, version, work) for name, version in versions.items()]
        data = _filled(found[0], work / "data")
        for (
            side
        ) in found:  # both are copies: one that is written in the first place lies otherwise on the disk
            _run(["cp", "-a", f"{data}/.", str(side.folder)])
        yield found[0], found[1]


def _side(name: str, version: str, work: Path) -> Side:
    folder = work / name
    root = folder / "code"
    root.mkdir(parents=True)
    if _is_checkout(version):
        copy(Path(version), root)
        described = _described(Path(version))
    else:
        described = _run(["git", "rev-parse", "--short", "--verify", f"{version}^{{commit}}"]).strip()
        archive = folder / "code.tar"
        _run(["git", "archive", "--output", str(archive), described])
        _run(["tar", "-x", "-f", str(archive), "-C", str(root)])
    python = sys.executable
    if (root / LOCK).read_bytes() != (service.ROOT / LOCK).read_bytes():
        print(f"==> {name} has other dependencies: an environment of its own", file=sys.stderr, flush=True)
        _run(["make", "-s", f".venv/{LOCK.stem}.stamp"], cwd=root)
        python = str(root / ".venv/bin/python")
    code = Code(root, (*_same_layout(), python), ("perf_probe:app()",), (work / "probe",))
    return Side(name, described, code, folder)


def _is_checkout(version: str) -> bool:
    return (Path(version) / "gunicorn.conf.py").exists()


def _described(checkout: Path) -> str:
    if not (checkout / ".git").exists():
        return checkout.name
    return _run(["git", "describe", "--always", "--dirty"], cwd=checkout).strip()


def copy(checkout: Path, root: Path) -> None:
    """A checkout's files with what is not committed, without what git ignores."""
    if not (checkout / ".git").exists():
        shutil.copytree(checkout, root, dirs_exist_ok=True)
        return
    listed = _run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=checkout)
    for name in filter(None, listed.split("\0")):
        if (checkout / name).is_file():  # not one that was removed
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(checkout / name, root / name)


def _same_layout() -> list[str]:
    """A command that gives each process the same memory layout; nothing where that is not to be had."""
    command = ["setarch", "-R"]
    if shutil.which(command[0]) is None:
        return []
    tried = subprocess.run([*command, "true"], capture_output=True, check=False)
    return command if tried.returncode == 0 else []


def _filled(side: Side, data: Path) -> Path:
    """The folder with an instance and accounts, made by the version that knows the fewest migrations."""
    instance = data / "instance"
    instance.mkdir(parents=True)
    python = side.code.python[-1]
    given = {"python": python, "services": str(SERVICES), "roles": " ".join(ROLES), "data": str(data)}
    environment = side.code.environment(instance) | given | {"settle": SETTLE}
    postgres = [python, "-m", "pake.embedded", "--folder", str(instance / "postgres"), "run"]
    _run([*postgres, "sh", "-ec", FILL], cwd=side.code.root, environment=environment)
    return data


def _run(command: list[str], cwd: Path = service.ROOT, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ServiceError(f"{' '.join(command[:4])} …: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout
