"""Captures that the console starts and stops: in all workers, for a limited time, then one file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from profilers import switches
from profilers.console import capture, capturing
from profilers.console.viewer import create_viewer
from profilers.profile import Profile
from profilers.store import Store, open_store
from profilers.switches import SwitchError
from tests.profilers.test_console import ROOT, SEEN, make_app


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request, tmp_path) -> Store:
    postgresql = request.param == "postgresql"
    return open_store(request.getfixturevalue("empty_database_url") if postgresql else tmp_path / "profiles")


def save_due(store: Store) -> None:
    """What the writers of two workers do in a round."""
    for saver in (capturing.Saver(store), capturing.Saver(store)):
        keeper = store.keeper()
        saver(keeper)
        keeper.close()


def ended(store: Store, monkeypatch: pytest.MonkeyPatch) -> capturing.CaptureRow:
    """Stop the capture, and go on to when it is saved."""
    capturing.stop(store)
    monkeypatch.setattr(capturing, "SAVE_AFTER", 0.0)
    save_due(store)
    return capturing.captures(store)[0]


def on(store: Store) -> list[tuple[str, ...]]:
    return [switch.profilers for switch in switches.status(store).switches.on]


def test_what_happened_between_start_and_stop_is_in_the_file(store, monkeypatch):
    store.add([Profile("GET /before", time.time() - 60, duration=0.1, status=200)])
    capturing.start(store, ["queries"], seconds=60)
    assert capturing.captures(store)[0].state == "running"
    assert on(store) == [("queries",)]
    store.add([Profile("GET /within", time.time(), duration=0.1, status=200) for _ in range(3)])
    capturing.stop(store)
    assert on(store) == []
    row = capturing.captures(store)[0]
    assert (row.state, capturing.text(store, row.id)) == ("being saved", None)
    save_due(store)
    assert capturing.captures(store)[0].state == "being saved", "the workers may still write"
    row = ended(store, monkeypatch)
    assert (row.state, row.requests) == ("saved", 3)
    made = capture.parse(capturing.text(store, row.id) or "")
    assert [(each.name, each.requests) for each in made.endpoints()] == [("GET /within", 3)]


def test_it_ends_by_itself(store, monkeypatch):
    capturing.start(store, ["queries"], seconds=1)
    later = time.time() + 1.5
    monkeypatch.setattr(capturing.time, "time", lambda: later)
    assert capturing.captures(store)[0].state == "being saved"
    assert on(store) == []


def test_only_its_own_switch_ends_with_it(store):
    switches.turn_on(store, ["slow-queries"])
    switches.turn_off(store, ["pyinstrument"])
    capturing.start(store, ["queries"], seconds=60)
    capturing.stop(store)
    assert on(store) == [("slow-queries",)]
    assert list(switches.status(store).switches.off) == ["pyinstrument"]


def test_one_endpoint(store, monkeypatch):
    capturing.start(store, endpoint="GET /a*", seconds=60)
    store.add([Profile(name, time.time(), duration=0.1, status=200) for name in ("GET /a", "GET /b")])
    row = ended(store, monkeypatch)
    made = capture.parse(capturing.text(store, row.id) or "")
    assert [each.name for each in made.profiles()] == ["GET /a"]


def test_a_second_one_has_to_wait_and_the_oldest_go(store, monkeypatch):
    capturing.start(store, seconds=60)
    with pytest.raises(SwitchError, match="running already"):
        capturing.start(store, seconds=60)
    monkeypatch.setattr(capturing, "KEPT", 2)
    capturing.stop(store)
    for _ in range(2):
        capturing.start(store, seconds=60)
        capturing.stop(store)
    rows = capturing.captures(store)
    assert len(rows) == 2
    capturing.delete(store, rows[0].id)
    assert capturing.captures(store) == rows[1:]


def test_forgetting_the_profiles_leaves_the_captures(store, monkeypatch):
    capturing.start(store, seconds=60)
    row = ended(store, monkeypatch)
    store.clear()
    assert capturing.captures(store) == [row]


def post(client: FlaskClient, path: str, **form: Any) -> int:
    return client.post(ROOT + path, data=form, headers=SEEN).status_code


@pytest.mark.parametrize(
    "form",
    [
        {"for": "3 weeks"},
        {"for": "2h"},
        {"for": "0s"},
        {"profiler": "nope"},
        {"profiler": "queries", "endpoint": "a*b"},
    ],
)
def test_a_mistake_is_told_and_starts_nothing(form):
    client = make_app().test_client()
    assert post(client, "/captures/start", **form) == 400
    assert client.get(f"{ROOT}/captures.json", headers=SEEN).get_json()["captures"] == []


def test_a_capture_of_nothing_is_refused():
    client = make_app(PROFILE="").test_client()
    assert post(client, "/captures/start") == 400
    assert post(client, "/captures/start", profiler="queries") == 303


def test_from_the_page_to_a_file_that_opens_elsewhere(tmp_path: Path):
    """The worker's own writer saves it: nobody has to be there."""
    client = make_app(PROFILE="").test_client()
    assert post(client, "/captures/start", profiler="queries", endpoint="GET /page") == 303
    assert "A capture is running" in client.get(f"{ROOT}/captures", headers=SEEN).text
    deadline = time.monotonic() + 30
    while not client.get(f"{ROOT}/overview.json", headers=SEEN).get_json()["requests"]:
        assert time.monotonic() < deadline, "the profiler was not switched on"
        client.get("/page")
        time.sleep(0.1)
    assert post(client, "/captures/stop") == 303
    while True:
        (row,) = client.get(f"{ROOT}/captures.json", headers=SEEN).get_json()["captures"]
        if row["state"] == "saved":
            break
        assert time.monotonic() < deadline, "the capture was not saved"
        time.sleep(0.1)
    answer = client.get(f"{ROOT}/captures/{row['id']}.json", headers=SEEN)
    assert answer.headers["Content-Disposition"].startswith("attachment; filename=capture-")
    file = tmp_path / "capture.json"
    file.write_bytes(answer.data)
    page = create_viewer(file).test_client().get("/", environ_base={"REMOTE_ADDR": "127.0.0.1"}).text
    assert "GET /page" in page
    assert client.get(f"{ROOT}/captures/nope.json", headers=SEEN).status_code == 404
    assert post(client, f"/captures/{row['id']}/delete") == 303
    assert client.get(f"{ROOT}/captures.json", headers=SEEN).get_json()["captures"] == []
