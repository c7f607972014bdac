"""The embedded server under fire: something is killed, lost, taken or broken."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pake import embedded
from tests.pake.test_embedded import FAST, value

OWNER = f"""
import sys
from pake import embedded
try:
    print(embedded.start(sys.argv[1], settings={FAST!r}), flush=True)
except embedded.EmbeddedPostgresError as error:
    sys.exit(str(error))
sys.stdin.read()
"""


@contextmanager
def owner(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has started the server of `folder`."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout
        assert process.stdout.readline().startswith("postgresql+psycopg2://")
        started = pids(folder)
        try:
            yield process
        finally:
            process.kill()
            wait_for(lambda: not any(map(alive, started)))


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int | None) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):  # the second: it ended while its file was open
        return False


def pids(folder: Path) -> tuple[int, int]:
    """Of the server and its supervisor."""
    with open(folder / "lock", "rb") as lock:
        state = embedded.supervisor.read_state(lock)
    assert state.server_pid
    return state.server_pid, state.supervisor_pid


@pytest.mark.fault(35)
def test_a_killed_server_is_started_again_with_its_data(folder: Path) -> None:
    url = embedded.start(folder, settings=FAST)
    value(url, "CREATE TABLE kept AS SELECT 42 AS answer")
    server, _ = pids(folder)
    os.kill(server, signal.SIGKILL)
    wait_for(lambda: embedded.status(folder).server_pid not in (None, server))
    assert value(url, "SELECT answer FROM kept") == 42


@pytest.mark.fault(35)
def test_a_killed_owner_leaves_no_server(folder: Path) -> None:
    with owner(folder) as process:
        server, supervisor = pids(folder)
        process.kill()
        wait_for(lambda: not alive(server) and not alive(supervisor))
    assert value(embedded.start(folder, settings=FAST), "SELECT 1") == 1


def test_a_start_right_after_the_owner_was_killed_waits_for_the_old_server(folder: Path) -> None:
    with owner(folder) as process:
        server, _ = pids(folder)
        process.kill()
        process.wait()
    assert value(embedded.start(folder, settings=FAST), "SELECT 1") == 1
    assert not alive(server)


def test_a_killed_supervisor_takes_the_server_with_it(folder: Path) -> None:
    with owner(folder) as process:
        server, supervisor = pids(folder)
        os.kill(supervisor, signal.SIGKILL)
        wait_for(lambda: not alive(server))
        process.kill()
    assert value(embedded.start(folder, settings=FAST), "SELECT 1") == 1


def test_data_survives_when_all_are_killed_at_once(folder: Path) -> None:
    with owner(folder) as process:
        url = embedded.status(folder).url
        assert url
        value(url, "CREATE TABLE kept AS SELECT 42 AS answer")
        for pid in (process.pid, *pids(folder)[::-1]):
            os.kill(pid, signal.SIGKILL)
    assert value(embedded.start(folder, settings=FAST), "SELECT answer FROM kept") == 42


def test_a_stale_pid_file_whose_number_now_is_somebody_elses_is_no_obstacle(folder: Path) -> None:
    embedded.start(folder, settings=FAST)
    pid_file = folder / "data/postmaster.pid"
    lines = pid_file.read_text().splitlines()
    embedded.stop(folder)
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]))
    assert value(embedded.start(folder, settings=FAST), "SELECT 1") == 1


def test_a_server_started_by_hand_on_the_data_is_respected(folder: Path) -> None:
    embedded.start(folder, settings=FAST)
    pid_file = folder / "data/postmaster.pid"
    lines = pid_file.read_text().splitlines()
    embedded.stop(folder)
    with subprocess.Popen(["sleep", "60"], cwd=folder / "data") as other:
        pid_file.write_text("\n".join([str(other.pid), *lines[1:]]))
        with pytest.raises(embedded.EmbeddedPostgresError, match=f"by hand, process {other.pid}"):
            embedded.start(folder, settings=FAST)
        other.kill()


@pytest.mark.fault(34)
def test_a_second_service_on_the_folder_is_told_in_one_line(folder: Path) -> None:
    with owner(folder) as process:
        with pytest.raises(embedded.EmbeddedPostgresError) as refused:
            embedded.start(folder, settings=FAST)
        assert f"{folder} is used by another service (process {process.pid})" in str(refused.value)
        assert "\n" not in str(refused.value)
        assert embedded.status(folder).running


def test_two_services_in_two_folders_do_not_meet(folder: Path) -> None:
    with owner(folder.with_name("other")):
        assert value(embedded.start(folder, settings=FAST), "SELECT 1") == 1


def test_a_forked_worker_does_not_keep_the_server_alive(folder: Path) -> None:
    embedded.start(folder, settings=FAST)
    server, _ = pids(folder)
    worker = os.fork()
    if worker == 0:
        time.sleep(60)
        os._exit(0)
    embedded.stop(folder)
    assert not alive(server)
    os.kill(worker, signal.SIGKILL)
    os.waitpid(worker, 0)


def test_a_forked_worker_that_ends_does_not_stop_the_server(folder: Path) -> None:
    url = embedded.start(folder, settings=FAST)
    worker = os.fork()
    if worker == 0:
        embedded.stop(folder)
        os._exit(0)
    os.waitpid(worker, 0)
    assert value(url, "SELECT 1") == 1


def test_an_interrupted_initialisation_is_begun_anew(empty_folder: Path) -> None:
    (empty_folder / "data.new").mkdir(parents=True)
    (empty_folder / "data.new/PG_VERSION").write_text("18\n")
    empty_folder.chmod(0o711)
    assert value(embedded.start(empty_folder, settings=FAST), "SELECT 1") == 1
    assert not (empty_folder / "data.new").exists()


def test_a_lost_password_is_replaced(folder: Path) -> None:
    first = embedded.start(folder, settings=FAST)
    embedded.stop(folder)
    (folder / "password").unlink()
    url = embedded.start(folder, settings=FAST)
    assert url != first
    assert value(url, "SELECT 1") == 1


def test_data_of_another_major_version_is_left_alone(folder: Path) -> None:
    embedded.start(folder, settings=FAST)
    embedded.stop(folder)
    (folder / "data/PG_VERSION").write_text("12\n")
    with pytest.raises(embedded.EmbeddedPostgresError, match=r"made by PostgreSQL 12, .* holds 18"):
        embedded.start(folder, settings=FAST)


def test_a_broken_setting_is_told_with_the_servers_own_words(folder: Path) -> None:
    with pytest.raises(embedded.EmbeddedPostgresError, match="shared_buffers"):
        embedded.start(folder, settings=FAST | {"shared_buffers": "nonsense"})
    assert value(embedded.start(folder, settings=FAST), "SELECT 1") == 1


def test_a_file_in_the_way_is_told_in_one_line(empty_folder: Path) -> None:
    empty_folder.write_text("not a empty_folder")
    with pytest.raises(
        embedded.EmbeddedPostgresError, match=f"{empty_folder} cannot be used .*set DATABASE_URL"
    ):
        embedded.start(empty_folder)


def test_a_path_too_long_for_a_socket_gets_a_temporary_one(empty_folder: Path) -> None:
    deep = empty_folder / ("long" * 30) / "postgres"
    url = embedded.start(deep, settings=FAST)
    with open(deep / "lock", "rb") as lock:
        (temporary,) = map(Path, embedded.supervisor.read_state(lock).temporary)
    assert value(url, "SELECT 1") == 1
    assert temporary.stat().st_mode & 0o777 == 0o700
    embedded.stop(deep)
    assert not temporary.exists()


def test_a_temporary_folder_left_by_a_killed_supervisor_is_removed_by_the_next(empty_folder: Path) -> None:
    deep = empty_folder / ("long" * 30) / "postgres"
    with owner(deep) as process:
        with open(deep / "lock", "rb") as lock:
            (temporary,) = map(Path, embedded.supervisor.read_state(lock).temporary)
        for pid in (process.pid, *pids(deep)[::-1]):
            os.kill(pid, signal.SIGKILL)
    assert temporary.exists()
    assert value(embedded.start(deep, settings=FAST), "SELECT 1") == 1
    assert not temporary.exists()
    embedded.stop(deep)


def test_the_servers_log_keeps_no_value_of_a_failed_statement(folder: Path) -> None:
    url = embedded.start(folder, settings=FAST)
    value(url, "CREATE TABLE users (name text UNIQUE)")
    value(url, "INSERT INTO users VALUES ('canary')")
    with pytest.raises(Exception, match="canary"):
        value(url, "INSERT INTO users VALUES ('canary')")
    log = (folder / "server.log").read_text()
    assert "duplicate key value violates unique constraint" in log
    assert "canary" not in log
