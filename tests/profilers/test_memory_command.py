"""`python -m profilers memory` on a live shop: what leaks is named, and tracemalloc goes off again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from profilers.store import MemorySample, open_store
from tests.profilers.leaks.load import Load, command, measure, shop
from tests.servers import Server, environment, wait_for

pytestmark = pytest.mark.timeout(180)

LIGHT = 20.0
"""Requests a second."""


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The shop without a leak, under a load as light as those tests need that look at no growth."""
    folder = tmp_path_factory.mktemp("healthy") / "shop"
    with shop(folder, "bounded_cache") as server, Load(server, LIGHT) as load:
        wait_for(lambda: load.answers > 20)
        yield server
        assert not load.failures


def last_samples(server: Server) -> dict[int, MemorySample]:
    """The newest look at each living worker."""
    found = {sample.pid: sample for sample in open_store(server.folder / "profiles").memory()}
    return {pid: sample for pid, sample in found.items() if pid in server.workers()}


def is_tracing(server: Server) -> bool:
    """Whether any worker pays for tracemalloc, whoever started it."""
    return any(sample.overhead for sample in last_samples(server).values())


def all_tracing(server: Server) -> bool:
    """Whether all workers do."""
    samples = last_samples(server)
    return len(samples) == 2 and all(sample.overhead for sample in samples.values())


def failed(*arguments: str, cwd: object = None) -> str:
    """What a command that must fail says, in one line."""
    done = subprocess.run(
        [sys.executable, "-m", "profilers", *arguments],
        env=environment(),
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.long
def test_a_leak_under_load_is_named_with_route_and_line(tmp_path):
    with shop(tmp_path / "shop", "dict_by_request") as server, Load(server) as load:
        found, printed = measure(server, 45, 5)
        assert not load.failures
    verdict = found["verdict"]
    assert (verdict["answer"], verdict["kind"], verdict["route"]) == ("leak", "python", "GET /report"), (
        printed
    )
    assert "app.py" in verdict["lines"][0]["frames"][0]
    assert verdict["low"] > 0
    assert 'seen[f"request-{next(numbers)}"] = ' in printed


def test_all_workers_are_measured_and_tracemalloc_is_off_again_afterwards(healthy):
    assert not is_tracing(healthy)
    output = healthy.folder / "memory.json"
    measuring = command(healthy, "--duration", "10s", "--interval", "2s", "--output", str(output))
    wait_for(lambda: all_tracing(healthy), 60)
    printed, progress = measuring.communicate(timeout=60)
    assert measuring.returncode == 0, progress
    assert not is_tracing(healthy)
    assert "tracemalloc is off again in all workers" in progress
    workers = {sample["pid"] for sample in json.loads(output.read_text())["samples"]}
    assert workers == set(healthy.workers())
    assert all(f"  {pid}: " in printed for pid in workers)
    assert output.stat().st_mode & 0o777 == 0o600
    files = list((healthy.folder / "profiles/memory").iterdir())
    assert files
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGTERM])
def test_ended_early_it_switches_tracemalloc_off_and_judges_what_it_saw(healthy, ended_by):
    measuring = command(
        healthy, "--duration", "300s", "--interval", "5s", "--output", str(healthy.folder / "ended.json")
    )
    wait_for(lambda: all_tracing(healthy), 60)
    measuring.send_signal(ended_by)
    printed, progress = measuring.communicate(timeout=60)
    assert not is_tracing(healthy)
    assert "interrupted" in progress
    assert "NOT ENOUGH DATA" in printed
    assert "more." in printed


def test_killed_it_leaves_a_switch_that_ends_by_itself(healthy):
    measuring = command(healthy, "--duration", "300s", "--interval", "5s")
    wait_for(lambda: all_tracing(healthy), 60)
    measuring.kill()
    measuring.communicate()
    wait_for(lambda: not is_tracing(healthy), 40)


@pytest.mark.long
def test_a_worker_killed_while_traced_is_told_and_the_service_goes_on(tmp_path):
    with shop(tmp_path / "shop", "bounded_cache") as server:
        measuring = command(server, "--duration", "30s", "--interval", "2s")
        wait_for(lambda: all_tracing(server), 60)
        first, victim = server.workers()
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: victim not in server.workers() and all_tracing(server), 25)
        (replacement,) = set(server.workers()) - {first}
        assert server.get("/about").ok
        _, progress = measuring.communicate(timeout=60)
        assert f"worker {victim} is gone (killed or recycled)" in progress
        assert f"worker {replacement} has come" in progress
        assert not is_tracing(server)


def test_by_pid_only_the_workers_of_that_process_are_measured(healthy):
    one = healthy.workers()[0]
    output = healthy.folder / "one.json"
    measuring = command(
        healthy, "--duration", "8s", "--interval", "2s", "--pid", str(one), "--output", str(output)
    )
    _, progress = measuring.communicate(timeout=60)
    assert measuring.returncode == 0, progress
    assert {sample["pid"] for sample in json.loads(output.read_text())["samples"]} == {one}


def test_by_url_the_service_and_its_store_are_found(healthy):
    output = healthy.folder / "by-url.json"
    done = subprocess.run(
        [sys.executable, "-m", "profilers", "memory", "--duration", "8s", "--interval", "2s",
         "--url", healthy.url, "--output", str(output)],
        env={name: value for name, value in environment().items() if name != "FLASK_PROFILE_STORE"},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {sample["pid"] for sample in json.loads(output.read_text())["samples"]} == set(healthy.workers())


def test_a_process_that_is_not_ours_is_refused(healthy, tmp_path):
    store = str(healthy.folder / "profiles")
    line = failed("--store", store, "memory", "--pid", str(os.getpid()))
    assert f"--pid {os.getpid()}: no worker of " in line
    assert all(str(pid) in line for pid in healthy.workers())
    assert "there is no such process" in failed("memory", "--pid", "4194303", cwd=tmp_path)
    assert not is_tracing(healthy)


def test_a_store_without_workers_an_address_without_a_service_and_a_foreign_file_are_told(tmp_path):
    assert "FLASK_PROFILE=memory" in failed("--store", str(tmp_path / "none"), "memory")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    line = failed("memory", "--url", f"http://127.0.0.1:{port}", cwd=tmp_path)
    assert f"listens on port {port}" in line
    (tmp_path / "a.json").write_text("[" * 100_000)
    assert "was not written by" in failed(
        "memory", "--compare", str(tmp_path / "a.json"), str(tmp_path / "a.json")
    )


def test_two_runs_are_compared_by_line(healthy, tmp_path):
    one, other = (tmp_path / name for name in ("a.json", "b.json"))
    for path, rate in ((one, 10.0), (other, 500.0)):
        line = {"frames": ["/app/views.py:3"], "bytes_per_request": rate, "bytes": 1000}
        path.write_text(json.dumps({"format": "flask-profilers memory run 1", "grown": [line]}))
    arguments = ["memory", "--compare", str(one), str(other)]
    done = subprocess.run(
        [sys.executable, "-m", "profilers", *arguments], env=environment(), capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert "+490 B a request  (10 B -> 500 B)  /app/views.py:3" in done.stdout


def test_a_service_without_profilers_on_is_switched_on_from_standby(tmp_path):
    with (
        shop(tmp_path / "shop", "module_list", FLASK_PROFILE="standby") as server,
        Load(server, LIGHT) as load,
    ):
        wait_for(lambda: load.answers > 20)
        assert not last_samples(server)
        found, _ = measure(server, 10, 2)
        assert {sample["pid"] for sample in found["samples"]} == set(server.workers())
