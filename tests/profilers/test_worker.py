"""What runs beside the requests: settings, where the store lies by default, switches, and the brake."""

import itertools
import stat
import tempfile
import threading
import time

import pytest
import sqlalchemy as sa
from flask import Flask

from profilers import ConfigError, Profilers, switches
from profilers.store import Limits, StoreError, default_folder
from tests.servers import wait_for


def app_with(engine=None, **config) -> Flask:
    app = Flask("shop")
    app.config.update({"PROFILE": "standby", **config})
    Profilers(app)

    @app.get("/services/<int:number>")
    def service(number):
        with engine.connect() as connection:
            return str(connection.scalar(sa.text("SELECT 1")))

    return app


def names_of(worker) -> list[str]:
    assert worker.writer.flush()
    return [row.name for row in worker.store.profiles()]


def test_settings_bound_the_store():
    app = app_with(PROFILE_STORE_PROFILES=10, PROFILE_STORE_DAYS="0.5")
    worker = app.extensions["profilers"].worker
    assert worker.store.limits == Limits(profiles=10, days=0.5)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("PROFILE_STORE_PROFILES", "many", "PROFILE_STORE_PROFILES='many': expected a whole number"),
        ("PROFILE_STORE_DAYS", 0, "PROFILE_STORE_DAYS=0.0: expected more than 0"),
        ("PROFILE_BRAKE", "2%", "PROFILE_BRAKE='2%': expected a number"),
        ("PROFILE_BRAKE", 2, "PROFILE_BRAKE=2.0: expected a share of request time such as 0.02"),
        ("PROFILE_SAMPLE", 0, "PROFILE_SAMPLE=0.0: expected more than 0 and at most 1"),
        ("PROFILE_STORE", "mysql://h/d", "PROFILE_STORE=mysql://h/d: expected a path or postgresql://"),
    ],
)
def test_a_wrong_setting_stops_the_start_in_one_line(setting, value, message, monkeypatch):
    monkeypatch.delenv("FLASK_PROFILE_STORE")
    with pytest.raises(ConfigError, match=message) as caught:
        app_with(**{setting: value})
    assert "\n" not in str(caught.value)


def test_by_default_profiles_go_to_the_apps_instance_folder(tmp_path):
    assert default_folder(str(tmp_path / "instance")) == tmp_path / "instance" / "profiles"
    assert not (tmp_path / "instance").exists(), "nothing is made before it is needed"


def test_where_that_cannot_be_they_go_to_a_private_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("profilers.store.os.access", lambda *_: False)
    folder = default_folder("/somewhere/instance")
    assert folder.parent == tmp_path
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert default_folder("/somewhere/instance") == folder
    assert default_folder("/elsewhere/instance") != folder


def test_a_folder_that_others_can_write_to_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("profilers.store.os.access", lambda *_: False)
    default_folder("/somewhere/instance").chmod(0o777)
    with pytest.raises(StoreError, match="set PROFILE_STORE to a folder of yours"):
        default_folder("/somewhere/instance")


def test_switched_on_at_run_time_requests_are_profiled_and_off_they_are_not(engine):
    app = app_with(engine)
    extension = app.extensions["profilers"]
    client = app.test_client()
    client.get("/services/1")
    assert extension.active is None

    switches.turn_on(extension.worker.store, ["queries"], "GET /services*", seconds=60)
    wait_for(lambda: extension.active is not None)
    client.get("/services/1")
    client.get("/elsewhere")
    assert names_of(extension.worker) == ["GET /services/<int:number>"]

    switches.turn_off(extension.worker.store)
    wait_for(lambda: extension.active is None)
    client.get("/services/1")
    assert len(names_of(extension.worker)) == 1


def test_of_a_busy_service_a_sample_is_profiled(engine, monkeypatch):
    draws = iter([0.9, 0.1, 0.6, 0.4])
    monkeypatch.setattr("profilers.worker.random.random", lambda: next(draws))
    app = app_with(engine, PROFILE="queries", PROFILE_SAMPLE=0.5)
    for _ in range(4):
        app.test_client().get("/services/1")
    assert len(names_of(app.extensions["profilers"].worker)) == 2


def test_what_cannot_be_switched_on_is_said_once_and_the_rest_is(engine, caplog):
    extension = app_with(engine).extensions["profilers"]
    extension.start_worker()
    switches.turn_on(extension.worker.store, ["nonsense"], seconds=60)
    switches.turn_on(extension.worker.store, ["queries"], seconds=60)
    wait_for(lambda: extension.active is not None and extension.active.profilers)
    assert [profiler.name for profiler in extension.active.profilers] == ["queries"]
    assert caplog.text.count("there is no such profiler") == 1


def test_twenty_threads_run_sql_while_profilers_are_switched(tmp_path):
    shared = sa.create_engine(f"sqlite:///{tmp_path / 'shop.db'}", pool_size=20)
    app = app_with(shared)
    extension = app.extensions["profilers"]
    over = threading.Event()
    answers: list[int] = []

    def ask() -> None:
        client = app.test_client()
        while not over.is_set():
            answers.append(client.get("/services/1").status_code)
            time.sleep(0.01)

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            switches.turn_on(extension.worker.store, ["queries", "nplusone"], sample=0.5, seconds=60)
            wait_for(lambda: extension.active is not None)
            switches.turn_off(extension.worker.store)
            wait_for(lambda: extension.active is None)
    finally:
        over.set()
        for thread in threads:
            thread.join()
        shared.dispose()
    assert set(answers) == {200}
    assert names_of(extension.worker)


def test_the_brake_lets_fewer_requests_through_and_status_shows_it(engine, monkeypatch):
    monkeypatch.setattr("profilers.brake.WINDOW_SECONDS", 0.05)
    extension = app_with(engine, PROFILE_BRAKE=0.02).extensions["profilers"]
    worker = extension.worker
    switches.turn_on(worker.store, ["queries"], seconds=60)
    extension.start_worker()
    wait_for(lambda: extension.active is not None)

    def loaded() -> bool:
        worker.brake.request(1.0, hooks=0.5)  # half of the time is the profilers'
        return worker.brake.sampling <= 1 / 16

    wait_for(loaded)
    assert extension.active.draw is not None
    wait_for(lambda: any(item.sampling < 1 for item in switches.status(worker.store).workers))


def test_hooks_are_timed_on_some_requests(engine, monkeypatch):
    monkeypatch.setattr("profilers.recording._timed", itertools.repeat(True))
    app = app_with(engine)
    extension = app.extensions["profilers"]
    switches.turn_on(extension.worker.store, ["queries"], seconds=60)
    extension.start_worker()
    wait_for(lambda: extension.active is not None)
    noted = []
    monkeypatch.setattr(extension.worker.brake, "request", lambda *given: noted.append(given))
    app.test_client().get("/services/1")
    assert extension.worker.writer.flush()
    ((duration, hooks),) = noted
    assert 0 < hooks < duration
