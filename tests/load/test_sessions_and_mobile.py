"""The scenarios of a day and of a phone: what only they show fails a run, and its healthy twin passes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from locustfiles import network
from locustfiles.gate import Measured, Run, judge
from locustfiles.network import Connection, ConnectionLostError, Link
from locustfiles.scenarios import SCENARIOS
from tests.load.test_run import ROOT, drive, stub


@pytest.mark.parametrize(
    ("scenario", "route"), [("sessions", "POST /auth/refresh"), ("mobile", "GET /services")]
)
def test_its_own_persona_comes_and_finds_nothing_wrong_with_a_healthy_service(
    tmp_path: Path, scenario: str, route: str
) -> None:
    with stub("none") as url:
        done = drive(url, tmp_path, "--users", "4", "--run-time", "9s", scenario=scenario)
    assert f"{scenario}: " in done.stdout, done.stderr  # whatever the verdict: machines differ in speed
    summary = json.loads((tmp_path / "report/summary.json").read_text())
    assert summary["failures"] == []
    assert route in {each["name"] for each in summary["routes"]}
    assert not {"GET /admin", "POST /services"} & {each["name"] for each in summary["routes"]}


@pytest.mark.parametrize(("p95_ms", "passed"), [(2900.0, True), (3100.0, False)])
def test_a_phone_waits_for_three_seconds_and_no_longer(p95_ms: float, passed: bool) -> None:
    total = Measured("all routes", 4000, 0, 900.0, 700.0, p95_ms, 4000.0, 5000.0)
    assert judge(Run(total, (total,), 300.0), SCENARIOS["mobile"]).passed is passed


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
from gevent import GreenletExit
from locustfiles import network
from locustfiles.personas import MobileUser, SessionUser, WebAppUser, mobile_user, persona

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
SESSION = """
user = SessionUser(environment)
user.on_start()
user.come_back()
user.lose_a_token_to_a_thief()
user.come_back()
user.sign_out_and_in_again()
user.try_the_first_token()
user.come_back()
"""
UNENDING = """
user = SessionUser(environment)
user.on_start()
user.first_ended = 0.0
user.try_the_first_token()
"""
PATIENT = """
slept = []
persona.gevent = SimpleNamespace(sleep=slept.append)
persona.time = SimpleNamespace(monotonic=lambda: sum(slept))
try:
    WebAppUser(environment).sign_in()
except GreenletExit:
    assert 120 <= sum(slept) < 130 and slept == sorted(slept[:7]) + slept[7:] and max(slept) < 9
else:
    assert not slept
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


@pytest.mark.parametrize(
    ("fault", "wrong"),
    [
        ("none", set()),
        ("keeps-used-tokens", {("POST /auth/refresh", "status 200, expected 401")}),
        ("mixes-people-up", {("GET /auth/me", "the username is another one")}),
    ],
)
def test_a_session_finds_tokens_that_do_not_end_and_somebody_elses_name(
    tmp_path: Path, fault: str, wrong: set[tuple[str, str]]
) -> None:
    with stub(fault) as url:
        requests = counted(tmp_path, url, SESSION)
    assert {request for request in requests if request[1]} == wrong
    assert Counter(name for name, _ in requests)["POST /auth/refresh"] == 7


def test_a_session_finds_a_token_that_does_not_run_out(tmp_path: Path) -> None:
    with stub("none") as url:  # where none does
        *before, last = counted(tmp_path, url, UNENDING)
    assert before == [("POST /auth/token", "")]
    assert last == ("GET /protected", "status 200, expected 401")


def test_a_user_who_is_sent_away_too_often_is_a_failed_request(tmp_path: Path) -> None:
    with stub("full") as url:
        requests = counted(tmp_path, url, PATIENT)
    *away, last = requests
    assert {*away} == {("POST /auth/token (sent away)", "")}
    assert len(away) > 10
    assert last == ("POST /auth/token", "status 503, expected 200")
    with stub("none") as url:
        assert counted(tmp_path, url, PATIENT) == [("POST /auth/token", "")]
