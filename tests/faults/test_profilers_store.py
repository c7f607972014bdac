"""A store that cannot be written to changes no answer; what it keeps holds no secret and has an end."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask, request
from flask.testing import FlaskClient
from sqlalchemy.pool import StaticPool

from profilers import Profilers
from profilers.profile import Profile, Statement
from profilers.storage.database import Connection, Database
from profilers.store import Limits, open_store
from profilers.worker import Worker
from profilers.writer import Writer
from tests.servers import wait_for

CANARY = "canary-5f0c1d"

Served = tuple[FlaskClient, Worker]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """An app with profilers whose view puts everything of the request into SQL, and its worker."""
    engine = sa.create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    app = Flask("vault")
    app.config.update(PROFILE="queries,standby", PROFILE_STORE=str(tmp_path / "profiles"), PROFILE_BRAKE=0)
    extension = Profilers(app)

    @app.post("/<path>")
    def take(path: str) -> str:
        values = [path, request.args["q"], request.form["b"], request.cookies["c"], request.headers["X-H"]]
        with engine.connect() as connection:
            for value in values:
                connection.execute(sa.text("SELECT :value AS given"), {"value": value})
                connection.execute(sa.text(f"SELECT '{value}' AS written"))
            if request.args.get("fail"):
                connection.execute(sa.text(f"SELECT 1 FROM nowhere WHERE a = '{CANARY}'"))
        return "taken"

    assert extension.worker is not None
    extension.start_worker()
    yield app.test_client(), extension.worker
    extension.worker.close()
    engine.dispose()


def ask(client: FlaskClient, **query: str) -> str:
    client.set_cookie("c", f"{CANARY}-cookie")
    return client.post(
        f"/{CANARY}-path",
        query_string={"q": f"{CANARY}-query", **query},
        data={"b": f"{CANARY}-body"},
        headers={"X-H": f"{CANARY}-header"},
    ).text


@pytest.fixture
def spoilt(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes each connection to a store begin with a statement that spoils it."""
    connect = Database._connect_sqlite

    def spoil(statement: str) -> None:
        def spoilt(database: Database) -> Connection:
            connection = connect(database)
            connection.execute(statement)
            return connection

        monkeypatch.setattr(Database, "_connect_sqlite", spoilt)

    return spoil


@pytest.mark.fault(42)
@pytest.mark.parametrize(
    ("statement", "reason"),
    [("PRAGMA query_only = 1", "readonly database"), ("PRAGMA max_page_count = 1", "disk is full")],
)
def test_a_store_that_is_read_only_or_full_changes_no_answer(
    statement, reason, spoilt, tmp_path, monkeypatch, caplog, request
):
    monkeypatch.setattr("profilers.writer.RETRY_SECONDS", (0.01, 0.02))
    open_store(tmp_path / "profiles").add(
        [Profile("GET /", 1000.0, statements=[big(number) for number in range(200)])]
    )
    spoilt(statement)
    client, worker = request.getfixturevalue("served")
    with caplog.at_level(logging.INFO, "profilers"):
        assert {ask(client) for _ in range(30)} == {"taken"}
        worker.writer.flush(timeout=0.5)
        wait_for(lambda: caplog.messages)
    assert [reason in message for message in caplog.messages] == [True], caplog.messages
    assert worker.writer.failing_since is not None


def test_a_healthy_store_logs_nothing(served, caplog):
    client, worker = served
    with caplog.at_level(logging.INFO, "profilers"):
        assert {ask(client) for _ in range(30)} == {"taken"}
        assert worker.writer.flush()
    assert caplog.messages == []
    assert worker.store.endpoints()[0].requests == 30


@pytest.mark.fault(42)
def test_profilers_rest_while_the_store_is_out_for_long_and_wake_when_it_is_back(
    served, spoilt, monkeypatch, caplog
):
    client, worker = served
    monkeypatch.setattr("profilers.writer.RETRY_SECONDS", (0.01, 0.02))
    monkeypatch.setattr("profilers.worker.GIVE_UP_SECONDS", 0.1)
    given = worker._activate
    active = []
    worker._activate = lambda plan: (active.append(plan), given(plan))
    out = worker.store.database.connect()
    monkeypatch.setattr("profilers.storage.database.BUSY_SECONDS", 0.01)
    with monkeypatch.context() as gone:
        gone.setattr(Database, "is_gone", lambda *_: True)
        gone.setattr(Database, "_connect_sqlite", lambda _: (_ for _ in ()).throw(OSError("gone")))
        ask(client)
        wait_for(lambda: active == [None])
        ask(client)
    wait_for(lambda: len(active) == 2 and active[1] is not None)
    ask(client)
    assert worker.writer.flush()
    assert worker.store.endpoints()[0].requests == 2, "the one before and the one after"
    out.close()


@pytest.mark.fault(43)
def test_no_secret_of_a_request_reaches_the_store_or_the_log(served, caplog, tmp_path):
    client, worker = served
    client.application.config["PROPAGATE_EXCEPTIONS"] = False
    client.application.logger.disabled = True  # Flask's own log of the traceback is the app's affair
    with caplog.at_level(logging.DEBUG, "profilers"):
        ask(client)
        ask(client, fail="yes")
        assert worker.writer.flush()
    assert worker.store.endpoints()[0].requests == 2
    assert [row.shape for row in worker.store.statements() if "written" in row.shape] == [
        "SELECT ? AS written"
    ]
    worker.close()
    kept = b"".join(file.read_bytes() for file in (tmp_path / "profiles").iterdir())
    assert b"/<path>" in kept
    assert CANARY.encode() not in kept
    assert CANARY not in caplog.text


def big(number: int) -> Statement:
    return Statement(f"SELECT column_{number}", 0.0)


@pytest.mark.fault(45)
def test_a_flood_of_requests_is_bounded_in_memory_and_on_disk_and_counted(tmp_path):
    store = open_store(tmp_path / "profiles", Limits(profiles=1_000, detailed=100, megabytes=1))
    writer = Writer(store, profiles=200)
    for number in range(20_000):
        writer.put(
            Profile("GET /", 1000.0 + number / 1000, duration=0.001, statements=[big(number % 50)] * 20)
        )
    assert writer.flush(timeout=60)
    writer.close()
    again = store.keeper()
    again._next_upkeep = 0.0
    again.write(again.batch([Profile("GET /", 1020.0)]))
    again.close()

    assert writer.written + writer.left_out == 20_000
    assert len(store.profiles(limit=100_000)) <= 1_000
    assert store.endpoints()[0].requests + writer.left_out == 20_001
    assert store.left_out()["profiles"] >= 20_001 - 1_000
    assert sum(file.stat().st_size for file in (tmp_path / "profiles").iterdir()) < 20_000_000
