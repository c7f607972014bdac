"""What a request leaves behind, whatever its app, its body and its profilers do."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from flask import Flask, Response, abort, send_file, stream_with_context
from sqlalchemy.orm import Session
from werkzeug.wsgi import FileWrapper

from profilers import ConfigError, Profile, Profiler, Profilers, record
from profilers.plugin import MAX_FAILURES
from profilers.recording import Active
from tests.profilers.example import Customer, Order


def count(engine: sa.Engine) -> int:
    with Session(engine) as session:
        return len(session.scalars(sa.select(Order)).all())


def test_profile_is_named_after_method_and_rule(profiled, engine):
    app, profiles = profiled("queries")
    app.add_url_rule("/orders/<int:order_id>", view_func=lambda order_id: str(count(engine)))
    assert app.test_client().get("/orders/7?token=canary").text == "10"
    (profile,) = profiles
    assert (profile.name, profile.status, profile.statement_count) == ("GET /orders/<int:order_id>", 200, 1)
    assert "canary" not in str(profile.to_json())


@pytest.mark.parametrize(
    ("method", "name"), [("GET", "GET (no route)"), ("POST", "POST (no route)"), ("PWN", "OTHER (no route)")]
)
def test_what_no_route_matches_shares_one_name(profiled, method, name):
    app, profiles = profiled("queries")
    app.test_client().open("/nothing/here/17", method=method)
    assert [(profile.name, profile.status) for profile in profiles] == [(name, 404)]


def test_statements_that_run_while_the_body_streams_belong_to_the_request(profiled, engine):
    app, profiles = profiled("queries")

    @app.get("/export")
    def export() -> Response:
        def rows() -> Iterator[str]:
            for _ in range(3):
                yield str(count(engine))

        return Response(stream_with_context(rows()))

    response = app.test_client().get("/export")
    assert profiles == []
    assert response.text == "101010"
    response.close()
    (profile,) = profiles
    assert profile.statement_count == 3
    count(engine)
    assert profile.statement_count == 3


def test_a_body_that_the_client_leaves_halfway_is_finished(profiled, engine):
    app, profiles = profiled("queries")
    app.add_url_rule("/", view_func=lambda: Response(str(count(engine)) for _ in range(9)))
    response = app.test_client().get("/")
    next(iter(response.response))
    response.close()
    assert [profile.statement_count for profile in profiles] == [1]


def test_a_file_is_handed_to_the_server_as_it_is(profiled):
    app, profiles = profiled("queries")
    app.add_url_rule("/file", view_func=lambda: send_file(io.BytesIO(b"data"), mimetype="text/plain"))
    environ = app.test_request_context("/file").request.environ
    body = app.wsgi_app({**environ, "wsgi.file_wrapper": FileWrapper}, lambda *_: lambda _: None)
    assert isinstance(body, FileWrapper)
    assert [profile.name for profile in profiles] == ["GET /file"]
    body.close()


def test_a_request_that_raises_is_kept(profiled, engine):
    app, profiles = profiled("queries")
    app.testing = True

    @app.get("/")
    def fail() -> None:
        count(engine)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        app.test_client().get("/")
    assert [(profile.outcome, profile.statement_count) for profile in profiles] == [("raised", 1)]


def test_an_aborted_request_has_its_status(profiled):
    app, profiles = profiled("queries")
    app.add_url_rule("/", view_func=lambda: abort(409))
    app.test_client().get("/")
    assert [(profile.outcome, profile.status) for profile in profiles] == [("finished", 409)]


def test_pool_wait_hold_commits_and_rollbacks_are_measured(profiled, tmp_path):
    app, profiles = profiled("queries")
    engine = sa.create_engine(f"sqlite:///{tmp_path}/shop.db")

    @app.get("/")
    def view() -> str:
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT 1"))
            connection.commit()
            connection.execute(sa.text("SELECT 1"))
        engine.dispose()
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT 1"))
        return ""

    app.test_client().get("/")
    app.test_client().get("/")
    engine.dispose()
    for profile in profiles:
        assert profile.counters["commits"] == 1
        assert profile.counters["rollbacks"] == 2
        assert profile.timings["connection_hold"] > profile.timings["database"] > 0
    assert profiles[1].timings["pool_wait"] > 0


def test_only_wanted_endpoints_are_kept(profiled, engine):
    app, profiles = profiled("standby")
    app.add_url_rule("/a", view_func=lambda: str(count(engine)), endpoint="a")
    app.add_url_rule("/b", view_func=lambda: str(count(engine)), endpoint="b")
    client = app.test_client()
    client.get("/a")
    assert profiles == []
    extension = app.extensions["profilers"]
    counter = Profilers(Flask("other")).profilers or (_named("queries"),)
    extension.activate(Active(counter, wants=lambda name: name == "GET /b"))
    with record("around", profile="queries") as block:
        client.get("/a")
        client.get("/b")
    assert [(profile.name, profile.statement_count) for profile in profiles] == [("GET /b", 1)]
    assert block.statement_count == 2
    drawn = iter([None, Active(counter)])
    extension.activate(Active((), draw=lambda: next(drawn)))
    client.get("/b")
    client.get("/a")
    assert [profile.name for profile in profiles[1:]] == ["GET /a"]
    extension.activate(None)
    with record("around, with nothing on", profile="queries") as block:
        assert client.get("/b").status_code == 200
    assert (block.name, block.statement_count) == ("around, with nothing on", 1)
    client.get("/a")
    assert len(profiles) == 2


def _named(name: str) -> Profiler:
    app = Flask("named")
    app.config["PROFILE"] = name
    return Profilers(app).profilers[0]


class Faulty(Profiler):
    name = "faulty"

    def _fail(self, *_: object) -> None:
        raise ZeroDivisionError

    on_app = on_worker_start = on_start = on_finish = examine = on_worker_exit = _fail


def test_a_profiler_that_raises_in_every_hook_changes_no_response(profiled, engine, caplog):
    app, profiles = profiled("queries")
    app.add_url_rule("/", view_func=lambda: str(count(engine)))
    extension = app.extensions["profilers"]
    faulty = Faulty(None)
    extension.profilers = (faulty, *extension.profilers)
    extension.activate(Active(extension.profilers))
    with caplog.at_level(logging.ERROR, "profilers"):
        answers = {app.test_client().get("/").text for _ in range(9)}
    assert answers == {"10"}
    assert len(profiles) == 9
    assert faulty.failures == MAX_FAILURES
    assert [message.split()[0] for message in caplog.messages] == ["profiler", "profiler"]


def test_an_error_of_the_collection_itself_changes_no_response(profiled, engine, monkeypatch, caplog):
    from profilers import listeners

    app, profiles = profiled("queries")
    app.add_url_rule("/", view_func=lambda: str(count(engine)))
    monkeypatch.setattr(listeners, "find_way", lambda frame: 1 / 0)
    monkeypatch.setattr(listeners, "follow", lambda ways: 1 / 0)
    monkeypatch.setattr(listeners, "_failures", 0)
    assert [app.test_client().get("/").text for _ in range(5)] == ["10"] * 5
    assert [profile.statement_count for profile in profiles] == [1, 1, 1, 0, 0]  # after three it is off
    assert len(caplog.messages) == 2


def test_unknown_profiler_stops_the_start_and_lists_the_known(profiled):
    with pytest.raises(ConfigError, match=r"PROFILE='querys': there is no such profiler; .*queries"):
        profiled("querys")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "PROFILE_QUERIES_MAX_STATEMENTS",
            "many",
            "'many': expected a whole number; set PROFILE_QUERIES_MAX_ST",
        ),
        (
            "PROFILE_QUERIES_MAX",
            3,
            "queries has no such option; expected some of: PROFILE_QUERIES_MAX_STATEMENT",
        ),
        ("PROFILE_QUERIES_BUDGETS", "GET /", "'GET /': expected a method, a rule and a number"),
    ],
)
def test_a_wrong_option_stops_the_start_in_one_line(profiled, key, value, message):
    with pytest.raises(ConfigError) as caught:
        profiled("queries", **{key: value})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_environment_wins_over_the_config(profiled, monkeypatch):
    monkeypatch.setenv("FLASK_PROFILE", "queries")
    monkeypatch.setenv("FLASK_PROFILE_QUERIES_MAX_STATEMENTS", "7")
    app, _ = profiled("", PROFILE_QUERIES_MAX_STATEMENTS=9)
    assert app.extensions["profilers"].profilers[0].options.max_statements == 7


def test_record_needs_no_app(engine):
    with record("job", profile="queries") as profile, Session(engine) as session:
        session.scalars(sa.select(Customer)).all()
        session.execute(sa.text("SELECT name FROM customer WHERE email = 'canary@example.org'"))
    assert isinstance(profile, Profile)
    assert (profile.kind, profile.outcome, profile.statement_count) == ("block", "finished", 2)
    assert profile.statements[1].shape == "SELECT name FROM customer WHERE email = ?"
    assert profile.statements[0].location.function == "test_record_needs_no_app"
    assert "canary" not in str(profile.to_json())


def test_a_block_within_a_block_is_part_of_both(engine):
    with record("outer", profile="queries") as outer:
        count(engine)
        with record("inner", profile="queries") as inner:
            count(engine)
        count(engine)
    assert (outer.statement_count, inner.statement_count) == (3, 1)


def test_record_can_be_limited_to_one_engine(engine):
    other = sa.create_engine("sqlite://")
    with record("job", profile="queries", engine=other) as profile:
        count(engine)
        with other.connect() as connection:
            connection.execute(sa.text("SELECT 1"))
    other.dispose()
    assert [statement.shape for statement in profile.statements] == ["SELECT ?"]


def test_a_failed_statement_is_kept_with_its_error(engine):
    with record("job", profile="queries") as profile, engine.connect() as connection:
        with pytest.raises(sa.exc.OperationalError):
            connection.execute(sa.text("SELECT * FROM nowhere"))
        connection.execute(sa.text("SELECT 1"))
    assert [statement.error for statement in profile.statements] == ["OperationalError", ""]


def test_a_hundred_thousand_statements_are_counted_and_not_kept(engine):
    from profilers.collect import MAX_RECORDS

    with record("job", profile="queries") as profile, engine.connect() as connection:
        for number in range(100_000):
            connection.exec_driver_sql(f"SELECT {number}")
    assert profile.statement_count == 100_000
    assert len(profile.statements) == MAX_RECORDS
    assert profile.left_out == 100_000 - MAX_RECORDS


@pytest.mark.parametrize("broken", ["_boundary", "_held_from", "_time_pool"])
def test_an_error_in_any_listener_changes_no_transaction(profiled, tmp_path, monkeypatch, caplog, broken):
    from profilers import listeners

    app, _ = profiled("queries")
    engine = sa.create_engine(f"sqlite:///{tmp_path}/shop.db")

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(listeners, broken, fail)
    monkeypatch.setattr(listeners, "_failures", 0)

    @app.get("/")
    def view() -> str:
        with engine.begin() as connection:
            connection.execute(sa.text("CREATE TABLE IF NOT EXISTS t (i INTEGER)"))
            connection.execute(sa.text("INSERT INTO t VALUES (1)"))
        with engine.connect() as connection:
            return str(connection.scalar(sa.text("SELECT count(*) FROM t")))

    answers = [app.test_client().get("/").text for _ in range(3)]
    engine.dispose()
    assert answers == ["1", "2", "3"]
    assert caplog.messages


def test_the_answer_to_an_error_is_not_that_of_the_block_around_it(profiled):
    app, profiles = profiled("standby")

    @app.get("/")
    def view() -> str:
        raise ZeroDivisionError

    with record("job") as block:
        assert app.test_client().get("/").status_code == 500
    assert (block.status, block.response, profiles) == (0, None, [])


def test_a_pool_that_runs_out_is_counted(engine, tmp_path):
    pool = {"poolclass": sa.QueuePool, "pool_size": 1, "max_overflow": 0, "pool_timeout": 0.05}
    small = sa.create_engine(f"sqlite:///{tmp_path}/shop.db", **pool)
    with record("job", profile="queries") as profile, small.connect(), pytest.raises(sa.exc.TimeoutError):
        small.connect()
    small.dispose()
    assert profile.counters["pool_timeouts"] == 1
    assert profile.timings["pool_wait"] >= 0.05
