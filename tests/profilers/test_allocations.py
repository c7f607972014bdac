"""`memray` in several workers: one report whose total is theirs; what goes wrong never stops the service."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import memray
import pytest

from profilers import allocation_reports as reports
from profilers import switches
from profilers.allocations import Allocations, AllocationsOptions, Tracking
from profilers.store import open_store
from profilers.testing.conformance import Conformance
from tests.profilers.leaks.load import shop
from tests.servers import Server, environment, wait_for

pytestmark = pytest.mark.timeout(180)


class TestAllocations(Conformance):
    profiler = Allocations


def run_of(server: Server) -> Path:
    """Where the workers of the shop write."""
    return reports.newest_run(server.folder / "profiles/memray")


def command(server: Server, *arguments: str) -> str:
    """What `python -m profilers memray …` prints about the shop."""
    done = subprocess.run(
        [sys.executable, "-m", "profilers", "--store", str(server.folder / "profiles"), "memray", *arguments],
        env=environment(),
        cwd=server.folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("workers", [2, 4])
def test_the_total_of_all_workers_is_the_sum_over_them(tmp_path, workers):
    with shop(tmp_path / "shop", "module_list", "--workers", str(workers), FLASK_PROFILE="memray") as server:
        wait_for(lambda: len(list(run_of(server).glob("*.bin"))) == workers)
        pids = set(server.workers())
        for number in range(40):
            assert server.get(("/report", "/items")[number % 2]).ok
    peaks = {}
    for path in run_of(server).glob("*.bin"):
        reader = memray.FileReader(path)
        records = reader.get_high_watermark_allocation_records(merge_threads=True)
        peaks[reader.metadata.pid] = sum(record.size for record in records)
    assert peaks.keys() == pids
    captures = reports.read(run_of(server))
    assert captures.bytes == sum(peaks.values()) > 100_000

    said = command(server, "flamegraph", "-o", "page.html")
    assert all(f"worker {pid}: {peak / 1e6:.2f} MB at its peak" in said for pid, peak in peaks.items())
    page = (server.folder / "page.html").read_text()
    found = re.search(r"const packed_data = (\{.*?\});?\s*\n", page)
    assert found
    assert json.loads(found[1])["nodes"]["value"][0] == sum(peaks.values())

    command(server, "table", "-o", "table.html")
    assert "app.py" in (server.folder / "table.html").read_text()
    assert f"{sum(peaks.values()) / 1e6:9.2f} MB  all of {workers} workers" in command(server, "tree")
    assert "module_list" in command(server, "leaks")
    assert "Total allocations" in command(server, "stats")


def test_a_worker_killed_while_tracked_leaves_its_file_and_the_service_goes_on(tmp_path):
    with shop(tmp_path / "shop", "module_list", FLASK_PROFILE="memray") as server:
        wait_for(lambda: len(list(run_of(server).glob("*.bin"))) == 2)
        for _ in range(20):
            assert server.get("/report").ok
        first, victim = server.workers()
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: len(server.workers()) == 2 and victim not in server.workers())
        assert server.get("/report").ok
        wait_for(lambda: len(list(run_of(server).glob("*.bin"))) == 3)
    found = {worker.pid for worker in reports.read(run_of(server)).workers}
    assert {first, victim} < found


def test_at_its_size_limit_a_tracker_stops_and_says_so(tmp_path, caplog):
    tracking = Tracking.start(tmp_path / "run", AllocationsOptions(megabytes=1))
    assert tracking
    kept: list[bytearray] = []

    def stopped() -> bool:
        kept.extend(bytearray(600 + number % 50) for number in range(20_000))
        kept.clear()
        return "its file reached PROFILE_MEMRAY_MEGABYTES=1" in caplog.text

    wait_for(stopped)
    (path,) = (tmp_path / "run").iterdir()
    assert path.stat().st_size < 100_000_000
    assert path.stat().st_mode & 0o777 == 0o600
    tracking.stop()


def test_at_its_time_limit_a_tracker_stops_and_says_so(tmp_path, caplog):
    tracking = Tracking.start(tmp_path / "run", AllocationsOptions(seconds=0.5))
    assert tracking
    wait_for(lambda: "after PROFILE_MEMRAY_SECONDS=0.5" in caplog.text)
    tracking.stop()


def test_a_full_disk_ends_the_tracking_and_nothing_else(tmp_path):
    program = """
import resource, sys
from pathlib import Path
from profilers.allocations import AllocationsOptions, Tracking
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
tracking = Tracking.start(Path(sys.argv[1]), AllocationsOptions())
for number in range(100_000):
    bytearray(600 + number % 50)
tracking.stop()
print("served on")
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "run")],
        env=environment(), capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == "served on\n"
    assert "deactivating tracking" in done.stderr
    assert "Traceback" not in done.stderr


def test_switched_on_at_run_time_it_tracks_and_off_again_its_file_is_whole(tmp_path):
    with shop(tmp_path / "shop", "module_list", FLASK_PROFILE="standby") as server:
        store = open_store(server.folder / "profiles")
        switches.turn_on(store, ["memray"], seconds=3)
        runs = server.folder / "profiles/memray"
        wait_for(lambda: len(list(runs.glob("*/*.bin"))) == 2)
        assert server.get("/report").ok
        wait_for(lambda: not switches.status(store).switches.on)
    assert len(reports.read(run_of(server)).workers) == 2


def test_a_second_tracker_is_refused_in_a_line_and_the_first_goes_on(tmp_path, caplog):
    first = Tracking.start(tmp_path / "run", AllocationsOptions())
    assert first
    assert Tracking.start(tmp_path / "other", AllocationsOptions()) is None
    assert "memray does not track worker" in caplog.text
    assert "one Tracker" in caplog.text
    first.stop()
    third = Tracking.start(tmp_path / "third", AllocationsOptions())
    assert third
    third.stop()


WITHOUT_MEMRAY = "import sys; sys.modules['memray'] = None; "


def test_without_memray_installed_the_command_and_the_configuration_say_what_to_install():
    programs = (
        "from profilers.cli import profile; profile(['memray', 'stats'])",
        "from flask import Flask; from profilers import Profilers; Profilers(Flask('app'), 'memray')",
    )
    for program in programs:
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_MEMRAY + program], env=environment(), capture_output=True,
            text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 1
        assert "pip install 'memray>=" in done.stderr.splitlines()[-1]


def test_where_nothing_was_written_a_report_says_how_to_begin(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "profilers", "--store", str(tmp_path), "memray", "stats"],
        env=environment(), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "start the service with `memray run`" in done.stderr
    assert len(done.stderr.splitlines()) == 1
