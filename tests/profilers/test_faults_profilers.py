"""Whatever a profiler, a client or a statement does: the response is the app's, and no secret is kept."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from flask import Flask, request
from sqlalchemy.orm import Session

from profilers import Profiler, Profilers, options
from profilers.plugin import MAX_FAILURES
from profilers.profile import Profile
from profilers.reports import build, formats, text
from profilers.store import Store
from tests.profilers.example import Customer

HOOKS = ["on_app", "on_worker_start", "on_start", "on_finish", "examine", "on_worker_exit"]
CANARY = "c4n4ry"


@pytest.mark.fault(42)
@pytest.mark.parametrize("hook", HOOKS)
def test_a_profiler_that_raises_in_a_hook_costs_its_own_work_alone(hook, engine, monkeypatch, caplog):
    class Faulty(Profiler):
        name = "faulty"

    def fail(self: Faulty, *_: object) -> None:
        raise ZeroDivisionError

    setattr(Faulty, hook, fail)
    known = {**options.available(), "faulty": SimpleNamespace(load=lambda: Faulty)}
    monkeypatch.setattr(options, "available", lambda: known)
    app = Flask("shop")
    app.config["PROFILE"] = "faulty,queries"

    @app.get("/")
    def ask():
        with engine.connect() as connection:
            return str(connection.scalar(sa.text("SELECT 1")))

    with caplog.at_level(logging.ERROR, "profilers"):
        extension = Profilers(app)
        answers = [app.test_client().get("/") for _ in range(5)]
        assert extension.worker.writer.flush()
        extension.stop_worker()
    assert [(answer.status_code, answer.text) for answer in answers] == [(200, "1")] * 5
    assert [row.requests for row in extension.worker.store.endpoints()] == [5]
    each = hook in ("on_start", "on_finish", "examine")
    assert extension.profilers[0].failures == (MAX_FAILURES if each else 1)
    assert [entry.message.split()[2] for entry in caplog.records] == (["failed"] * 2 if each else ["failed"])
    assert f"failed in {hook}" in caplog.messages[0]


def everything_kept(store: Store) -> str:
    """All that anybody can read of a store: each report, each profile, and the files themselves."""
    report = build(store)
    parts = [render(report) for render in formats().values()]
    parts += [text.profile(profile) for profile in store.every_profile()]
    parts += [str(profile.to_json()) for profile in store.every_profile()]
    folder = store.database.path.parent
    parts += [path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file()]
    return "\n".join(parts)


@pytest.mark.fault(43)
def test_no_secret_of_a_request_is_kept_anywhere(engine, caplog):
    app = Flask("shop")
    app.config.update(
        PROFILE="queries,nplusone,slow-queries,pyinstrument",
        PROFILE_SLOW_QUERIES_THRESHOLD_MS=0,
        PROFILE_PYINSTRUMENT_SAMPLE=1,
        PROFILE_PYINSTRUMENT_SLOWER_THAN_MS=0,
        PROFILE_SERVER_TIMING_TOKEN=f"{CANARY}-token-of-the-header",
    )
    Profilers(app)

    @app.post("/<secret>")
    def ask(secret):
        sent = request.get_json()["password"]
        with Session(engine) as session:
            session.scalars(sa.select(Customer).where(Customer.name == sent)).all()
            session.execute(sa.text(f"SELECT '{sent}' /* {sent} */ -- {sent}")).all()
            session.execute(sa.text("SELECT :value"), {"value": sent}).all()
            for number in range(5):
                session.scalar(sa.select(Customer.name).where(Customer.email == f"{sent}{number}"))
        with engine.connect() as connection, pytest.raises(sa.exc.OperationalError):
            connection.execute(sa.text("SELECT nothing FROM nowhere WHERE x = :x"), {"x": sent})
        raise ValueError(f"{sent} {secret}")

    with caplog.at_level(logging.DEBUG):
        for _ in range(2):
            answer = app.test_client().post(
                f"/{CANARY}?token={CANARY}",
                json={"password": CANARY},
                headers={
                    "Authorization": f"Bearer {CANARY}",
                    "Cookie": f"session={CANARY}",
                    "User-Agent": CANARY,
                },
            )
            assert answer.status_code == 500
        worker = app.extensions["profilers"].worker
        assert worker.writer.flush()
    assert [row.requests for row in worker.store.endpoints()] == [2]
    (profile, _) = worker.store.every_profile()
    assert (profile.name, profile.statement_count) == ("POST /<secret>", 9)
    assert {statement.error for statement in profile.statements} == {"", "OperationalError"}
    assert CANARY not in everything_kept(worker.store)
    ours = [entry for entry in caplog.records if entry.name.startswith("profilers")]
    assert CANARY not in "\n".join(entry.getMessage() + str(entry.exc_text or "") for entry in ours)


def test_a_canary_in_the_code_is_seen_by_the_same_search(engine):
    """The search above can find something: what a developer wrote is kept."""
    app = Flask("shop")
    app.config["PROFILE"] = "queries"
    Profilers(app)

    @app.get(f"/{CANARY}")
    def ask():
        with engine.connect() as connection:
            return str(connection.scalar(sa.text(f"SELECT 1 AS {CANARY}")))

    app.test_client().get(f"/{CANARY}")
    worker = app.extensions["profilers"].worker
    assert worker.writer.flush()
    kept = everything_kept(worker.store)
    assert f"GET /{CANARY}" in kept
    assert f"AS {CANARY}" in kept


@pytest.mark.fault(45)
def test_a_request_without_measure_is_counted_bounded_and_told(engine):
    """100,000 statements and one of ten megabytes in a single request."""
    app = Flask("shop")
    app.config["PROFILE"] = "queries,nplusone"
    Profilers(app)
    many = sa.select(sa.literal(1))
    huge = sa.text(f"SELECT 1 AS a{'b' * 10_000_000}")

    @app.get("/")
    def ask():
        with engine.connect() as connection:
            for _ in range(100_000):
                connection.execute(many)
            connection.execute(huge)
        return "done"

    assert app.test_client().get("/").text == "done"
    worker = app.extensions["profilers"].worker
    assert worker.writer.flush(timeout=60)
    (row,) = worker.store.endpoints()
    assert row.statements_max == 100_001
    (profile,) = worker.store.every_profile()
    assert isinstance(profile, Profile)
    assert len(profile.statements) + profile.left_out == 100_001
    assert len(profile.statements) <= 2_000
    assert worker.store.database.path.stat().st_size < 2_000_000
    assert f"and {profile.left_out} more that were counted but not kept" in text.profile(profile)
    report = build(worker.store)
    assert report.left_out["statements"] > 90_000
    for name in ("text", "md", "html"):
        page = formats()[name](report)
        assert f"{report.left_out['statements']} statements" in page
        assert len(page) < 2_000_000
