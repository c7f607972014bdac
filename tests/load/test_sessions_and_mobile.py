"""The scenarios of a day and of a phone: what only they show fails a run, and its healthy twin passes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from locustfiles import network
from locustfiles.network import Connection, ConnectionLostError, Link
from tests.load.test_run import ROOT, command, stub


@pytest.mark.parametrize(
    ("scenario", "options", "faults"),
    [
        (
            "sessions",
            ("--users", "20", "--p95-ms", "20000"),
            {
                "keeps-used-tokens": "POST /auth/refresh: status 200, expected 401",
                "mixes-people-up": "GET /auth/me: the username is another one",
            },
        ),
        ("mobile", ("--users", "20"), {"slow": "FAIL  all routes: p95 < 3000 ms"}),
    ],
)
def test_a_fault_fails_the_run_and_its_healthy_twin_passes(
    tmp_path: Path, scenario: str, options: tuple[str, ...], faults: dict[str, str]
) -> None:
    runs = {}
    with ExitStack() as stack:
        for state in ("none", *faults):
            (tmp_path / state).mkdir()
            url = stack.enter_context(stub(state))
            started = command(url, tmp_path / state, *options, "--run-time", "14s", scenario=scenario)
            runs[state] = stack.enter_context(
                subprocess.Popen(
                    started, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
                )
            )
        printed = {state: run.communicate(timeout=110)[0] for state, run in runs.items()}
    assert runs["none"].returncode == 0, printed["none"]
    for fault, reason in faults.items():
        assert runs[fault].returncode == 1, printed[fault]
        assert reason in printed[fault]


# ---- the network of a phone


class Wire:
    """An open connection to somebody who answers in two parts."""

    def __init__(self) -> None:
        self.sent = b""
        self.closed = False
        self.answer = [b"x" * 500, b"y" * 1000]

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def recv(self, most: int) -> bytes:
        return self.answer.pop(0)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses of a connection, of which none is waited for."""
    pauses: list[float] = []
    monkeypatch.setattr(network, "gevent", SimpleNamespace(sleep=pauses.append))
    monkeypatch.setattr(network, "time", SimpleNamespace(monotonic=lambda: sum(pauses)))
    return pauses


def test_a_connection_takes_the_time_of_its_link(slept: list[float]) -> None:
    wire = Wire()
    connection = Connection(wire, Link(0.4, 1000))
    connection.sendall(b"q" * 100)
    assert connection.recv(4096) + connection.recv(4096) == b"x" * 500 + b"y" * 1000
    assert slept == pytest.approx([0.4, 0.2 + 0.1, 0.2 + 0.5, 1.0])
    assert wire.sent == b"q" * 100


def test_a_link_loses_its_share_on_either_way_and_a_good_one_nothing(slept: list[float]) -> None:
    cut, unread = 0, 0
    for _ in range(1000):
        wire = Wire()
        connection = Connection(wire, Link(0.1, 1e6, loss=0.2))
        try:
            connection.sendall(b"q" * 100)
            connection.recv(4096)
        except ConnectionLostError:
            assert wire.closed
            cut += len(wire.sent) < 100
            unread += len(wire.sent) == 100
    assert 50 < cut < 160  # of 1000, 100 are expected: more than five standard deviations either way
    assert 50 < unread < 160
    for _ in range(1000):
        connection = Connection(Wire(), Link(0.1, 1e6))
        connection.sendall(b"q" * 100)
        connection.recv(4096)


# ---- one user

USER = """
import json, sys
from types import SimpleNamespace
from locust.env import Environment
from locust.exception import StopUser
from locustfiles import network
from locustfiles.personas import MobileUser, WebAppUser, mobile_user, persona

mobile_user.gevent = persona.gevent = SimpleNamespace(sleep=lambda seconds: None)
persona.Persona.host = sys.argv[1]
environment = Environment()
counted = []
environment.events.request.add_listener(
    lambda name, exception, **_: counted.append([name, str(exception or "")])
)
"""
PHONE = """
phone = MobileUser(environment)
network.use(network.Link(0.0, 1e9, loss=0.5), phone)
phone.sign_in()
for _ in range(20):
    assert phone.call("GET", "/protected", shows=("message",))
    phone.refresh()
"""
PATIENT = """
try:
    WebAppUser(environment).sign_in()
except StopUser:
    pass
"""


def counted(folder: Path, url: str, does: str) -> list[tuple[str, str]]:
    """The requests of one user, and what was wrong with each; in a process that Locust may change."""
    accounts = folder / "accounts.json"
    accounts.write_text(json.dumps({"user": [{"username": "user", "password": "p"}]}))
    script = USER + does + "print(json.dumps(counted))"
    environment = {**os.environ, "LOAD_ACCOUNTS": str(accounts), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script, url],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [(name, wrong) for name, wrong in json.loads(done.stdout)]


def test_a_phone_asks_again_after_a_loss_and_signs_in_again_after_that_of_a_refresh(tmp_path: Path) -> None:
    with stub("none") as url:
        requests = counted(tmp_path, url, PHONE)
    assert [request for request in requests if request[1]] == []
    names = Counter(name for name, _ in requests)
    assert names["GET /protected"] == 20
    assert names["GET /protected (lost on the way)"] > 0
    refreshed, lost = names["POST /auth/refresh"], names["POST /auth/refresh (lost on the way)"]
    assert refreshed + lost == 20
    assert names["POST /auth/token"] == 1 + lost > 1


def test_a_user_who_is_sent_away_too_often_is_a_failed_request(tmp_path: Path) -> None:
    with stub("full") as url:
        requests = counted(tmp_path, url, PATIENT)
    assert {name for name, _ in requests} == {"POST /auth/token"}
    assert [wrong for _, wrong in requests] == [""] * 19 + ["status 503, expected 200"]
    with stub("none") as url:
        assert counted(tmp_path, url, PATIENT) == [("POST /auth/token", "")]
