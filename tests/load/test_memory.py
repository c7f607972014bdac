"""The memory of an endurance run: a verdict that can fail it, a chart, and the line that leaks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from locustfiles import memory
from locustfiles.memory import Memory
from locustfiles.service import Service, ServiceError
from profilers.storage.memory_samples import append_sample
from profilers.store import MemorySample, open_store

ROOT = Path(__file__).resolve().parents[2]

PLUGIN = """
from flask import request
from profilers import Profiler

kept = []

class Leak(Profiler):
    name = "leak"

    def on_app(self, app):
        app.before_request_funcs.setdefault(None, []).append(self.keep)

    def keep(self):
        kept.append(bytearray(20_000))
"""


def service(store: Path) -> Service:
    """A service that has kept its profiles there."""
    return Service("http://127.0.0.1:1", environment={**os.environ, "FLASK_PROFILE_STORE": str(store)})


def store_with(folder: Path, bytes_per_request: float) -> Service:
    """The store of a run of two workers."""
    began = time.time() - 100
    connection = open_store(folder / "profiles").database.connect()
    with connection.transaction(write=True):
        for pid in (1, 2):
            for number in range(60):
                requests = number * 100
                held = int(requests * bytes_per_request)
                append_sample(
                    connection,
                    MemorySample(
                        began + number, "host", pid, 1e9, uss=50_000_000 + held, blocks=10_000 + held // 60,
                        requests={"GET /": requests, "GET /other": requests // 3},
                    ),
                )  # fmt: skip
    connection.close()
    return Service(
        "http://127.0.0.1:1", environment={**os.environ, "FLASK_PROFILE_STORE": str(folder / "profiles")}
    )


@pytest.mark.parametrize(("bytes_per_request", "answer"), [(2_000.0, "leak"), (0.0, "no leak")])
def test_the_verdict_is_read_and_the_curves_are_those_of_the_workers(
    tmp_path, monkeypatch, bytes_per_request, answer
):
    found = memory.read(store_with(tmp_path, bytes_per_request), tmp_path / "memory.json")
    assert found.answer == answer
    assert found.text.startswith(answer.upper())
    assert found.curves
    assert list(found.curves) == ["1", "2"]
    assert found.curves["1"][-1][0] == 59 * 100 + 59 * 100 // 3


def test_the_chart_is_a_picture_with_a_line_for_each_worker():
    curves = {"1": [(0, 40.0), (100, 41.0)], "<2>": [(0, 40.0), (90, 60.0)]}
    picture = ElementTree.fromstring(memory.chart(Memory("leak", "", curves)))
    assert len(picture.findall("{*}polyline")) == 2
    assert any(text.text == "worker <2>" for text in picture.findall("{*}text"))


def test_how_the_service_is_looked_at_follows_the_length_of_the_run_and_the_environment(monkeypatch):
    assert memory.settings(180)["FLASK_PROFILE_MEMORY_SNAPSHOT_EVERY"] == "9.0"
    monkeypatch.setenv("FLASK_PROFILE_MEMORY_SNAPSHOT_EVERY", "0")
    assert memory.settings(180) == {
        "FLASK_PROFILE_MEMORY_SNAPSHOT_EVERY": "0",
        "FLASK_PROFILE_MEMORY_INTERVAL": "1.8",
    }


def test_without_samples_there_is_one_error(tmp_path):
    with pytest.raises(ServiceError, match="has no samples"):
        memory.read(service(tmp_path), tmp_path / "memory.json")


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_leak_planted_by_a_plugin_fails_the_endurance_run_with_its_line(tmp_path):
    plugin = tmp_path / "plugin"
    information = plugin / "leak_plugin-1.dist-info"
    information.mkdir(parents=True)
    (plugin / "leak_plugin.py").write_text(PLUGIN)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: leak-plugin\nVersion: 1\n")
    (information / "entry_points.txt").write_text("[flask_profilers]\nleak = leak_plugin:Leak\n")
    environment = {**os.environ, "PYTHONPATH": str(plugin), "FLASK_PROFILE": "memory,leak"}
    command = [sys.executable, "-m", "locustfiles", "endurance", "--users", "10", "--run-time", "75s"]
    command += ["--output", str(tmp_path / "report"), "--p95-ms", "20000"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "LEAK. " in done.stdout
    assert "leak_plugin.py:14" in done.stdout, done.stdout
    assert "no leak (leak)" in done.stdout
    assert (tmp_path / "report/memory.svg").exists()
    assert not json.loads((tmp_path / "report/summary.json").read_text())["passed"]
