"""Plain `gunicorn`: starts service and database, survives faults, says in one line what is wrong."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from pake import embedded
from tests.servers import Server, command, environment, gunicorn, wait_for

UNREACHABLE = "postgresql://nobody:nothing@127.0.0.1:1/nowhere"


def alive(pid: int | None) -> bool:
    return Path(f"/proc/{pid}").exists()


def both_workers(server: Server) -> list[int]:
    """The process ids of the two workers, once both have read their settings."""
    wait_for(lambda: server.get("/metrics").text.count("\npake_worker_start_time_seconds{") == 2)
    return server.workers()


def refused(folder: Path, **settings: str) -> tuple[int, list[str]]:
    """The exit status and the lines of a `gunicorn` that should not start."""
    (folder / "gunicorn.conf.py").symlink_to(Path(__file__).parents[2] / "gunicorn.conf.py")
    done = subprocess.run(
        command(),
        cwd=folder,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, [line for line in done.stderr.splitlines() if "[INFO]" not in line]


def test_gunicorn_alone_starts_the_service_and_its_database(place: Path) -> None:
    with gunicorn(place) as server:
        assert server.get("/livez").status_code == 200
        database = embedded.status(place / "instance/postgres")
        assert database.running
    assert server.process.returncode == 0
    assert not alive(database.server_pid)


def test_with_a_database_url_no_database_is_started(tmp_path: Path, database_url: str) -> None:
    with gunicorn(tmp_path, DATABASE_URL=database_url) as server:
        assert server.get("/livez").status_code == 200
        assert not (tmp_path / "instance/postgres").exists()


@pytest.mark.fault(37)
def test_a_database_down_at_the_start_is_waited_for(tmp_path: Path, folder: Path) -> None:
    url = embedded.start(folder)
    embedded.stop(folder)
    with gunicorn(tmp_path, DATABASE_URL=url) as server:
        assert server.get("/livez").status_code == 200
        assert server.get("/readyz").status_code == 503
        embedded.start(folder)
        wait_for(lambda: server.get("/readyz").status_code == 200)


@pytest.mark.fault(35)
def test_a_killed_database_comes_back_with_its_data_while_the_service_runs(place: Path) -> None:
    with gunicorn(place) as server:
        first = embedded.status(place / "instance/postgres").server_pid
        assert first
        assert server.get("/readyz").status_code == 200
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: embedded.status(place / "instance/postgres").server_pid not in (first, None))
        wait_for(lambda: server.get("/readyz").status_code == 200)
        assert "ended with status -9; starting it again" in server.log


def test_ctrl_c_ends_all(place: Path) -> None:
    with gunicorn(place) as server:
        database = embedded.status(place / "instance/postgres")
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(30) == 0
        assert not alive(database.server_pid)
        assert "Traceback" not in server.log


@pytest.mark.fault(35)
def test_a_killed_master_takes_workers_and_database_with_it(place: Path) -> None:
    with gunicorn(place) as server:
        workers = server.workers()
        database = embedded.status(place / "instance/postgres")
        server.process.kill()
        server.process.wait()
        wait_for(lambda: not any(map(alive, [*workers, database.server_pid])))
    with gunicorn(place) as server:
        assert server.get("/livez").status_code == 200


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"FLASK_PROFILE": "nonsense"}, "FLASK_PROFILE=nonsense: there is no profiler nonsense; known are "),
        ({"SLOW_QUERY_THRESHOLD_MS": "abc"}, "SLOW_QUERY_THRESHOLD_MS=abc: expected "),
        ({"WEB_CONCURRENCY": "0"}, "WEB_CONCURRENCY=0: expected "),
        ({"DATABASE_URL": "mysql://a:secret@b/c"}, "DATABASE_URL: expected postgresql://"),
        ({"BIND": "127.0.0.1:99999"}, "cannot listen at 127.0.0.1:99999"),
        ({"BIND": "192.0.2.1:8000"}, "cannot listen at 192.0.2.1:8000 (Cannot assign requested address)"),
    ],
)
def test_a_wrong_setting_is_one_line_and_an_exit_status(
    tmp_path: Path, settings: dict[str, str], line: str
) -> None:
    status, lines = refused(tmp_path, **settings)
    assert status == 1
    assert [text.startswith(line) for text in lines] == [True], lines
    assert "secret" not in lines[0]


def test_all_wrong_settings_are_told_at_once(tmp_path: Path) -> None:
    status, lines = refused(tmp_path, SLOW_QUERY_THRESHOLD_MS="abc", HISTORY_LIMIT="-1")
    assert status == 1
    assert sorted(line.partition("=")[0] for line in lines) == ["HISTORY_LIMIT", "SLOW_QUERY_THRESHOLD_MS"]


def test_a_port_in_use_is_one_line_and_no_database_is_started(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, lines = refused(tmp_path, BIND=f"127.0.0.1:{port}")
    assert status == 1
    assert lines == [
        f"cannot listen at 127.0.0.1:{port} (Address already in use): set BIND to another host:port"
    ]
    assert not (tmp_path / "instance/postgres").exists()


@pytest.mark.fault(34)
def test_a_second_service_in_the_folder_leaves_with_one_line(place: Path) -> None:
    with gunicorn(place) as server:
        (place / "gunicorn.conf.py").unlink()
        status, lines = refused(place, BIND=f"unix:{place}/second.sock")
        assert status == 1
        assert len(lines) == 1
        assert f"is used by another service (process {server.process.pid})" in lines[0]
        assert server.get("/livez").status_code == 200


def slots(pids: list[int], log: str) -> dict[int, str]:
    lines = [line.split() for line in log.splitlines() if line.startswith("slot ")]
    return {int(pid): slot for _, pid, slot in lines if int(pid) in pids}


REPORT_GARBAGE = """
import gc
from pathlib import Path
exec(compile(Path({root!r}).read_text(), "gunicorn.conf.py", "exec"))
begin = post_worker_init

def post_worker_init(worker):
    begin(worker)
    state = gc.get_freeze_count(), sum(gc.get_count()), gc.get_threshold()[0]
    print("garbage", *state, file=sys.stderr, flush=True)
"""


def test_what_is_loaded_is_no_business_of_the_garbage_collector(tmp_path: Path) -> None:
    configuration = Path(__file__).parents[2] / "gunicorn.conf.py"
    (tmp_path / "gunicorn.conf.py").write_text(REPORT_GARBAGE.format(root=str(configuration)))
    with gunicorn(tmp_path, DATABASE_URL=UNREACHABLE, WEB_CONCURRENCY="1") as server:
        wait_for(lambda: "garbage " in server.log)
        (said,) = (line.split()[1:] for line in server.log.splitlines() if line.startswith("garbage "))
        frozen, since, young = map(int, said)
        assert frozen > 100_000
        assert since < 1000
        assert young > 10_000


REPORT_SLOTS = """
from pathlib import Path
exec(compile(Path({root!r}).read_text(), "gunicorn.conf.py", "exec"))

def post_worker_init(worker):
    print("slot", os.getpid(), os.environ["PAKE_WORKER_SLOT"], file=sys.stderr, flush=True)
"""


def test_a_replaced_worker_has_the_slot_of_the_dead_one(tmp_path: Path) -> None:
    configuration = Path(__file__).parents[2] / "gunicorn.conf.py"
    (tmp_path / "gunicorn.conf.py").write_text(REPORT_SLOTS.format(root=str(configuration)))
    with gunicorn(tmp_path, DATABASE_URL=UNREACHABLE, WEB_CONCURRENCY="3") as server:
        wait_for(lambda: len(slots(server.workers(), server.log)) == 3)
        before = slots(server.workers(), server.log)
        assert sorted(before.values()) == ["0", "1", "2"]
        victim = next(pid for pid, slot in before.items() if slot == "1")
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: len(slots(server.workers(), server.log)) == 3 and victim not in server.workers())
        after = slots(server.workers(), server.log)
        assert {pid: slot for pid, slot in after.items() if pid in before} == {
            pid: slot for pid, slot in before.items() if pid != victim
        }
        assert sorted(after.values()) == ["0", "1", "2"]


def test_slots_stay_few_however_often_the_service_is_reloaded(tmp_path: Path) -> None:
    configuration = Path(__file__).parents[2] / "gunicorn.conf.py"
    (tmp_path / "gunicorn.conf.py").write_text(REPORT_SLOTS.format(root=str(configuration)))
    with gunicorn(tmp_path, DATABASE_URL=UNREACHABLE, WEB_CONCURRENCY="2") as server:
        for _ in range(3):
            before = both_workers(server)
            server.process.send_signal(signal.SIGHUP)
            wait_for(lambda before=before: len(server.workers()) == 2 and not {*server.workers()} & {*before})
        wait_for(lambda: len(slots(server.workers(), server.log)) == 2)
        assert {*slots(server.workers(), server.log).values()} <= {"0", "1", "2", "3"}


def test_a_reload_keeps_the_database(place: Path) -> None:
    with gunicorn(place) as server:
        database = embedded.status(place / "instance/postgres")
        before = both_workers(server)
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: len(server.workers()) == 2 and not {*server.workers()} & {*before})
        assert embedded.status(place / "instance/postgres") == database
        assert server.get("/livez").status_code == 200


@pytest.mark.fault(33)
def test_a_bad_configuration_on_reload_leaves_the_old_workers_serving(tmp_path: Path) -> None:
    with gunicorn(tmp_path, DATABASE_URL=UNREACHABLE) as server:
        before = both_workers(server)
        (tmp_path / ".env").write_text("SLOW_QUERY_THRESHOLD_MS=abc\n")
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "the old workers go on serving: SLOW_QUERY_THRESHOLD_MS" in server.log)
        assert server.workers() == before
        assert server.get("/livez").status_code == 200
        (tmp_path / ".env").unlink()
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: len(server.workers()) == 2 and not {*server.workers()} & {*before})
        assert server.get("/livez").status_code == 200


def test_the_metrics_outlive_a_reload_and_not_the_service(tmp_path: Path) -> None:
    with gunicorn(tmp_path, DATABASE_URL=UNREACHABLE) as server:
        before = both_workers(server)
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: len(server.workers()) == 2 and not {*server.workers()} & {*before})
        assert server.get("/metrics").status_code == 200
        assert len([*tmp_path.glob("instance/metrics-*")]) == 1
    assert not [*tmp_path.glob("instance/metrics-*")]
