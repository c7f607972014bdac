"""`python -m locustfiles` from the outside: its exit status and the line that says why."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def stub(fault: str) -> Iterator[str]:
    """The URL of a service with one fault."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(Path(__file__).with_name("stub.py")), str(port), fault])
    try:
        deadline = time.monotonic() + 30
        while not listens(port) and time.monotonic() < deadline:
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def command(url: str, folder: Path, *options: str, scenario: str = "smoke") -> list[str]:
    """A short run against a service."""
    accounts = folder / "accounts.json"
    made = {role: [{"username": role, "password": "p"}] for role in ("user", "admin")}
    accounts.write_text(json.dumps(made))
    command = [sys.executable, "-m", "locustfiles", scenario, "--host", url, "--accounts", str(accounts)]
    return [*command, "--output", str(folder / "report"), "--users", "8", "--run-time", "6s", *options]


def drive(url: str, folder: Path, *options: str, scenario: str = "smoke") -> subprocess.CompletedProcess[str]:
    """The run, to its end. With that p95 Locust may be late as well, as it is on a busy machine."""
    started = command(url, folder, "--p95-ms", "60000", *options, scenario=scenario)
    return subprocess.run(started, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)


@pytest.mark.long
def test_a_healthy_service_passes_and_leaves_a_report(tmp_path: Path) -> None:
    with stub("none") as url:
        done = drive(url, tmp_path, "--workers", "2", scenario="stress")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "stress: PASSED" in done.stdout
    summary = json.loads((tmp_path / "report/summary.json").read_text())
    assert summary["passed"]
    assert summary["total"]["requests"] == sum(route["requests"] for route in summary["routes"]) > 0
    assert all("{" in route["name"] or "1" not in route["name"] for route in summary["routes"])
    assert "stress: PASSED" in (tmp_path / "report/summary.md").read_text()
    assert (tmp_path / "report/locust.html").stat().st_size > 0
    assert len(summary["generators"]) == 2
    assert sum(cores for _, cores in summary["service_cpu"]) > 0


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("500", ": status 500, expected 200"),
        ("wrong-body", ": the body lacks"),
        ("dies", "the service lives to the end (it ended in mid-run)"),
    ],
)
def test_a_fault_fails_the_run_and_is_named(tmp_path: Path, fault: str, reason: str) -> None:
    with stub(fault) as url:
        done = drive(url, tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "smoke: FAILED" in done.stdout
    assert reason in done.stdout
    assert not json.loads((tmp_path / "report/summary.json").read_text())["passed"]


def test_a_generator_that_gets_too_little_cpu_gives_no_verdict_and_says_why(tmp_path: Path) -> None:
    with (
        stub("none") as url,
        (tmp_path / "printed").open("w") as printer,
        subprocess.Popen(command(url, tmp_path), stdout=printer, stderr=printer, cwd=ROOT) as run,
    ):
        while run.poll() is None:
            for locust in psutil.Process(run.pid).children():  # stopped for four fifths of the time
                with suppress(psutil.NoSuchProcess):
                    locust.suspend()
                    time.sleep(0.2)
                    locust.resume()
            time.sleep(0.05)
    printed = (tmp_path / "printed").read_text()
    assert run.returncode == 3, printed
    assert "smoke: NO VERDICT (the load generator was the bottleneck)" in printed
    assert "no verdict: Locust woke" in printed
    summary = json.loads((tmp_path / "report/summary.json").read_text())
    assert not summary["passed"]
    assert summary["no_verdict"]


def test_a_service_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # bound and not listening: refused
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done = drive(url, tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"no run: {url}/livez gives no success: is the service up?\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["smoke", "--run-time", "soon"], "expected a time such as 90, 90s, 5m or 1h, not soon"),
        (["smoke", "--host", "http://127.0.0.1:1"], "--host and --accounts go together"),
        (["smoke", "--workers", "none"], "expected a number from 1, not none"),
        (["smoke", "--listen", "here"], "expected HOST:PORT such as 0.0.0.0:5557, not here"),
        (["siesta"], "invalid choice: 'siesta'"),
    ],
)
def test_a_wrong_option_is_one_line(arguments: list[str], line: str) -> None:
    started = [sys.executable, "-m", "locustfiles", *arguments]
    done = subprocess.run(started, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert line in done.stderr
    assert "Traceback" not in done.stderr
