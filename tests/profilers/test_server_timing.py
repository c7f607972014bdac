"""The Server-Timing header: for those who may see it, and for nobody else."""

from __future__ import annotations

import logging
import re

import pytest
import sqlalchemy as sa
from flask import Flask, request
from sqlalchemy.orm import Session

from profilers import ConfigError, Profilers
from tests.profilers.example import Order

TOKEN = "a-token-that-nobody-guesses"
METRICS = re.compile(
    r'db;dur=\d+\.\d;desc="11 statements", pool;dur=\d+\.\d, total;dur=\d+\.\d, findings;desc="1"'
)


@pytest.fixture
def make(engine):
    """An app with eleven statements and an N+1 on `/orders`."""

    def make(profile: str = "queries,nplusone", **config: object) -> Flask:
        app = Flask("shop")
        app.config.update(PROFILE=profile, **config)
        Profilers(app)

        @app.get("/orders")
        def orders():
            with Session(engine) as session:
                return [order.customer.name for order in session.scalars(sa.select(Order))]

        @app.get("/stream")
        def stream():
            def lines():
                with engine.connect() as connection:
                    yield str(connection.scalar(sa.text("SELECT 1")))

            return app.response_class(lines())

        @app.get("/raises")
        def raises():
            raise ZeroDivisionError

        return app

    return make


def asked(app: Flask, path: str = "/orders", **headers: str) -> str | None:
    return app.test_client().get(path, headers=headers).headers.get("Server-Timing")


def test_whoever_sends_the_token_sees_what_the_request_cost(make):
    app = make(PROFILE_SERVER_TIMING_TOKEN=TOKEN)
    seen = asked(app, **{"X-Profile-Token": TOKEN})
    assert seen is not None
    assert METRICS.fullmatch(seen), seen


@pytest.mark.parametrize("sent", [None, "", "wrong", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "ü" * 20])
def test_a_stranger_sees_nothing(make, sent):
    app = make(PROFILE_SERVER_TIMING_TOKEN=TOKEN)
    response = app.test_client().get("/orders", headers={} if sent is None else {"X-Profile-Token": sent})
    assert response.status_code == 200
    assert "Server-Timing" not in response.headers
    assert "Vary" not in response.headers


def test_a_function_of_the_app_may_decide(make):
    app = make(PROFILE_SERVER_TIMING=lambda: request.args.get("admin") == "yes")
    assert METRICS.fullmatch(asked(app, "/orders?admin=yes") or "")
    assert asked(app) is None


@pytest.mark.parametrize("answer", [1, "yes", None, object()])
def test_only_true_is_true(make, answer):
    assert asked(make(PROFILE_SERVER_TIMING=lambda: answer)) is None


def test_a_function_that_raises_changes_no_response_and_is_logged_once(make, caplog):
    app = make(PROFILE_SERVER_TIMING=lambda: 1 / 0)
    with caplog.at_level(logging.ERROR, "profilers"):
        answers = [app.test_client().get("/orders") for _ in range(3)]
    assert {answer.status_code for answer in answers} == {200}
    assert not any("Server-Timing" in answer.headers for answer in answers)
    assert len([entry for entry in caplog.records if "Server-Timing" in entry.message]) == 1


def test_without_a_setting_nothing_is_added_even_for_a_token(make):
    app = make()
    assert asked(app, **{"X-Profile-Token": ""}) is None
    assert not app.after_request_funcs.get(None)


def test_with_the_profilers_off_there_is_no_hook_and_no_header(make):
    app = make("", PROFILE_SERVER_TIMING=lambda: True)
    assert asked(app) is None
    assert not app.after_request_funcs


def test_no_cache_hands_the_header_to_anybody_else(make):
    response = make(PROFILE_SERVER_TIMING=lambda: True).test_client().get("/orders")
    assert response.headers["Vary"] == "*"


def test_statements_that_run_while_the_body_streams_come_too_late(make):
    assert '"0 statements"' in (asked(make(PROFILE_SERVER_TIMING=lambda: True), "/stream") or "")


def test_an_error_page_has_it_as_well(make):
    app = make(PROFILE_SERVER_TIMING=lambda: True)
    assert '"0 statements"' in (asked(app, "/raises") or "")
    assert '"0 statements"' in (asked(app, "/nowhere") or "")


def test_findings_are_stored_once_although_they_were_counted_for_the_header(make):
    app = make(PROFILE_SERVER_TIMING=lambda: True)
    asked(app)
    worker = app.extensions["profilers"].worker
    assert worker.writer.flush()
    (row,) = worker.store.findings()
    assert (row.requests, row.statements) == (1, 10)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("PROFILE_SERVER_TIMING_TOKEN", "short", "has 5 characters: expected 16 or more"),
        ("PROFILE_SERVER_TIMING", "yes", "PROFILE_SERVER_TIMING='yes': expected a function"),
    ],
)
def test_a_wrong_setting_stops_the_start_in_one_line(make, key, value, message):
    with pytest.raises(ConfigError, match=message) as caught:
        make(**{key: value})
    assert "\n" not in str(caught.value)
