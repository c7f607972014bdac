"""Prometheus with our configuration, on the running service: rules, alerts, every chart of the dashboards."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from monitoring import dashboards
from tests.monitoring import compose
from tests.servers import ROOT, Server, gunicorn, wait_for

PROMETHEUS = ROOT / "monitoring" / "prometheus"
RULES = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())
TESTS = yaml.safe_load((PROMETHEUS / "rules_test.yml").read_text())["tests"]
ALERTS = [rule["alert"] for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
CHARTS = [
    (f"{dashboard.uid}: {panel.title}", expression)
    for dashboard in dashboards.DASHBOARDS
    for row in dashboard.rows
    for panel in row
    for expression, _ in panel.queries
]
SERVICES = compose.services()

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None and "CI" not in os.environ,  # CI installs it, and fails without
    reason="needs Prometheus: apt-get install prometheus",
)


# ---- the files


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_is_tried_with_a_fault_and_with_its_healthy_twin(alert: str) -> None:
    expected = [
        bool(case["exp_alerts"])
        for test in TESTS
        for case in test["alert_rule_test"]
        if case["alertname"] == alert
    ]
    assert {*expected} == {True, False}


@needs_prometheus
def test_every_alert_fires_on_its_fault_and_not_on_its_twin() -> None:
    done = subprocess.run(
        ["promtool", "test", "rules", str(PROMETHEUS / "rules_test.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_prometheus
def test_prometheus_accepts_the_configuration() -> None:
    done = subprocess.run(
        ["promtool", "check", "config", str(PROMETHEUS / "prometheus.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboards_are_what_their_code_writes(tmp_path: Path) -> None:
    dashboards.write(tmp_path)
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_text() for path in dashboards.FOLDER.iterdir()}, "make dashboards"


def test_the_dashboards_ask_the_datasource_that_is_provisioned() -> None:
    folder = ROOT / "monitoring/grafana/provisioning/datasources"
    provisioned = yaml.safe_load((folder / "prometheus.yml").read_text())["datasources"]
    assert [each["uid"] for each in provisioned] == [dashboards.DATASOURCE["uid"]]


# ---- on the running service

FAULTY = """
import flask, sqlalchemy
from pake import create_app
from pake.extensions import db

def faulty():
    app = create_app()

    @app.get("/one-by-one")
    def one_by_one():
        for number in range(10):
            db.session.execute(sqlalchemy.text("SELECT :number"), {"number": number})
        return ""

    @app.get("/broken")
    def broken():
        return str(db.session.execute(sqlalchemy.text("SELECT 1/0")))

    @app.get("/failing")
    def failing():
        raise RuntimeError

    return app
"""
"""The service, with the faults that some charts are there for."""

CONFIGURATION = """
from pathlib import Path
exec(compile(Path({root!r}).read_text(), "gunicorn.conf.py", "exec"))
wsgi_app = "faulty:faulty()"
"""


class Prometheus:
    """A running one."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its API."""
        answer = requests.get(f"{self.url}/api/v1/{path}", parameters, timeout=30).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def values(self, expression: str) -> list[str]:
        """What an expression comes to now; empty for no data."""
        found = [each["value"][1] for each in self.ask("query", query=expression)["result"]]
        return [value for value in found if value != "NaN"]


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    """Prometheus with this repository's configuration, each second, on one target."""
    shutil.copytree(PROMETHEUS, folder)
    configuration = (folder / "prometheus.yml").read_text()
    hurried = configuration.replace("interval: 5s", "interval: 1s").replace("timeout: 4s", "timeout: 1s")
    (folder / "prometheus.yml").write_text(hurried)
    for path in (folder / "targets").iterdir():
        path.write_text(json.dumps([{"targets": [target]}] if path.name == "pake.yml" else []))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    # The container's own command, in other folders.
    places = {"=/etc/prometheus": f"={folder}", "=/prometheus": f"={folder}/data"}
    options = list(SERVICES["prometheus"]["command"])
    for place, instead in places.items():
        options = [option.replace(place, instead) for option in options]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["prometheus", *options, f"--web.listen-address={address}"],
            stdout=log,
            stderr=log,
        )
    try:
        running = Prometheus(f"http://{address}")
        wait_for(lambda: process.poll() is None and is_ready(running))
        yield running
    finally:
        process.terminate()
        process.wait(30)


def is_ready(running: Prometheus) -> bool:
    try:
        return requests.get(f"{running.url}/-/ready", timeout=5).ok
    except requests.ConnectionError:
        return False


@needs_prometheus
def test_every_chart_has_data_and_what_is_wrong_is_told(tmp_path: Path, database_url: str) -> None:
    """Nothing but alerts of the faults that are there, and no chart without data."""
    (tmp_path / "faulty.py").write_text(FAULTY)
    (tmp_path / "gunicorn.conf.py").write_text(CONFIGURATION.format(root=str(ROOT / "gunicorn.conf.py")))
    # The container's own settings, with every request profiled, another database, and Redis away.
    settings = SERVICES["pake-backend-perf"]["environment"] | {
        "DATABASE_URL": database_url,
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "FLASK_PROFILE_SAMPLE": "1",
    }
    with (
        gunicorn(tmp_path, **settings) as server,
        prometheus(tmp_path / "prometheus", server.url.removeprefix("http://")) as running,
    ):
        empty = [title for title, _ in CHARTS]

        def every_chart_has_data() -> bool:
            visit(server)
            empty[:] = [title for title, expression in CHARTS if not running.values(expression)]
            return not empty

        def firing() -> set[str]:
            return {alert["labels"]["alertname"] for alert in running.ask("alerts")["alerts"]}

        with suppress(AssertionError):
            wait_for(every_chart_has_data, 60)
        assert empty == []
        wait_for(lambda: "PakeNPlusOne" in firing())
        # Of the faults that are there; errors are told after five minutes. On a busy machine requests wait.
        assert firing() <= {"PakeNPlusOne", "PakeErrorShare", "PakePoolWait"}
        unhealthy = [
            rule["name"]
            for group in running.ask("rules")["groups"]
            for rule in group["rules"]
            if rule["health"] != "ok"
        ]
        assert unhealthy == []


def visit(server: Server) -> None:
    for path in ("/livez", "/readyz", "/services", "/one-by-one", "/broken", "/failing"):
        server.get(path)
    form = {"username": f"nobody-{time.monotonic_ns()}", "password": "no such password"}
    requests.post(server.url + "/auth/token", form, timeout=30)
