"""The service about itself: documents, probes, metrics, logs, and what every answer carries."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest
from apiflask import APIFlask
from flask import abort
from flask.testing import FlaskClient
from openapi_spec_validator import OpenAPIV31SpecValidator
from sqlalchemy import exc

from pake import create_app
from pake.errors import Problem
from pake.extensions import db
from pake.headers import SECURITY
from profilers import Finding
from profilers.worker import store_of
from tests.pake.conftest import settings

UNREACHABLE = "postgresql://nobody@127.0.0.1:1/none"


# ---- what is there


def test_the_root_leads_to_pages_that_exist(client: FlaskClient) -> None:
    body = client.get("/").get_json()
    assert body["name"] == "pake"
    statuses = {path: client.get(path).status_code for path in body["links"].values()}
    assert 404 not in statuses.values(), statuses


@pytest.fixture
def document(client: FlaskClient) -> dict[str, Any]:
    """/openapi.json."""
    body: dict[str, Any] = client.get("/openapi.json").get_json()
    return body


def test_the_document_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(document).validate()


def test_every_route_is_in_the_document(app: APIFlask, document: dict[str, Any]) -> None:
    routes = {
        (re.sub(r"<(?:[^<:]+:)?([^>]+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.endpoint not in {"static", "openapi.spec"}
    }
    described = {(path, method) for path, operations in document["paths"].items() for method in operations}
    assert routes == described


def test_every_operation_tells_its_errors(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            answers = operation["responses"]
            wanted = {"400", "500"}
            wanted |= {"401"} if "security" in operation else set()
            wanted |= {"413", "415", "422"} if "requestBody" in operation else set()
            assert wanted <= answers.keys(), f"{method} {path}"
            for status, answer in answers.items():
                if int(status) >= 400:
                    assert list(answer["content"]) == ["application/problem+json"], (
                        f"{method} {path} {status}"
                    )


def test_admin_routes_say_403_and_others_do_not(document: dict[str, Any]) -> None:
    assert "403" in document["paths"]["/admin"]["get"]["responses"]
    assert "403" not in document["paths"]["/protected"]["get"]["responses"]


class Resources(HTMLParser):
    """Collects what a page would load, and its links."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loaded += [value for name, value in attrs if name in {"src", "action"} and value]


def test_the_docs_page_loads_nothing_and_runs_nothing(client: FlaskClient) -> None:
    answer = client.get("/docs")
    page = Resources()
    page.feed(answer.text)
    assert page.loaded == []
    assert not page.tags & {"script", "link", "img", "iframe"}
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'nonce-")
    nonce = policy.split("'nonce-")[1].split("'")[0]
    assert f'<style nonce="{nonce}">' in answer.text
    assert "/auth/token" in answer.text
    assert "With <code>If-Match</code>, only if" in answer.text
    assert "`" not in answer.text


# ---- probes


def test_ready_asks_the_database_and_alive_does_not(client: FlaskClient, statements: list[str]) -> None:
    assert client.get("/livez").status_code == 200
    assert statements == []
    assert client.get("/readyz").status_code == 200
    assert statements == ["SELECT 1"]


def test_without_a_database_the_service_lives_and_is_not_ready() -> None:
    client = create_app(settings(UNREACHABLE)).test_client()
    assert client.get("/livez").status_code == 200
    answer = client.get("/readyz")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")


# ---- errors


@pytest.fixture
def failing(app: APIFlask) -> APIFlask:
    """The service with a route that raises `failing.config["RAISE"]`."""

    @app.get("/fail")
    def fail() -> str:
        raise app.config["RAISE"]

    return app


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RuntimeError("CANARY"), 500),
        (exc.OperationalError("SELECT CANARY", {}, Exception("CANARY")), 503),
        (exc.TimeoutError("QueuePool CANARY"), 503),
        (exc.InterfaceError("SELECT CANARY", {}, Exception("CANARY")), 503),
        (exc.IntegrityError("INSERT CANARY", {}, Exception("CANARY")), 409),
        (exc.DataError("INSERT CANARY", {}, Exception("CANARY")), 422),
        (exc.ProgrammingError("SELECT CANARY", {}, Exception("CANARY")), 500),
        (RecursionError("CANARY"), 500),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_is_a_problem_without_its_cause(failing: APIFlask, error: Exception, status: int) -> None:
    failing.config["RAISE"] = error
    answer = failing.test_client().get("/fail")
    assert answer.status_code == status
    assert answer.mimetype == "application/problem+json"
    assert "CANARY" not in answer.text
    assert ("Retry-After" in answer.headers) is (status == 503)


def test_a_description_given_to_abort_is_not_shown(failing: APIFlask) -> None:
    with pytest.raises(Exception, match="CANARY") as caught:
        abort(404, "CANARY")
    failing.config["RAISE"] = caught.value
    answer = failing.test_client().get("/fail")
    assert (answer.status_code, "CANARY" in answer.text) == (404, False)


def test_a_problem_carries_its_fields_and_headers(failing: APIFlask) -> None:
    failing.config["RAISE"] = Problem(409, "Taken.", headers={"X-Reason": "name"}, field="name")
    answer = failing.test_client().get("/fail")
    assert (answer.get_json()["detail"], answer.get_json()["field"]) == ("Taken.", "name")
    assert answer.headers["X-Reason"] == "name"


def test_a_session_is_clean_after_an_error(failing: APIFlask) -> None:
    @failing.get("/broken-transaction")
    def break_it() -> str:
        db.session.execute(db.text("SELECT 1/0"))
        return ""

    client = failing.test_client()
    assert client.get("/broken-transaction").status_code == 422
    assert client.get("/readyz").status_code == 200


# ---- SQL settings


def profiled(app: APIFlask, view: Callable[[], str]) -> list[Finding]:
    """The findings of one request to a view."""
    app.get("/view")(view)
    app.test_client().get("/view")
    app.extensions["profilers"].worker.close()
    with app.app_context():
        db.engine.dispose()
    return [row.finding for row in store_of(app).findings()]


def loop() -> str:
    for number in range(10):
        db.session.execute(db.text("SELECT :canary"), {"canary": f"CANARY {number}"})
    return ""


@pytest.mark.parametrize(("limit", "found"), [(9, True), (10, False)])
def test_more_statements_than_allowed_are_a_warning_and_a_finding(
    database_url: str, capsys: pytest.CaptureFixture[str], limit: int, found: bool
) -> None:
    app = create_app(settings(database_url, max_queries_per_request=limit))
    findings = profiled(app, loop)
    assert ("over_budget" in {finding.kind for finding in findings}) is found
    assert ("10 statements" in capsys.readouterr().err) is found


@pytest.mark.parametrize("switched_on", [True, False])
def test_the_n_plus_one_detector_has_a_switch_of_its_own(database_url: str, switched_on: bool) -> None:
    app = create_app(settings(database_url, detect_n_plus_1=switched_on))
    assert ("n_plus_one" in {finding.kind for finding in profiled(app, loop)}) is switched_on


@pytest.mark.parametrize("switched_on", [True, False])
def test_slow_statements_are_logged_without_their_values(
    database_url: str, capsys: pytest.CaptureFixture[str], switched_on: bool
) -> None:
    app = create_app(settings(database_url, slow_query_threshold_ms=0, log_slow_queries=switched_on))
    profiled(app, loop)
    logged = capsys.readouterr().err
    assert ("profilers.slow_queries" in logged) is switched_on
    assert "CANARY" not in logged


@pytest.mark.parametrize("echo", [True, False])
def test_statements_are_echoed_without_their_values(
    database_url: str, capsys: pytest.CaptureFixture[str], echo: bool
) -> None:
    app = create_app(settings(database_url, sql_echo=echo))
    with app.app_context():
        db.session.execute(db.text("SELECT :canary"), {"canary": "CANARY"})
        db.session.remove()
        db.engine.dispose()
    logged = capsys.readouterr().err
    assert ("SELECT %(canary)s" in logged) is echo
    assert "CANARY" not in logged


def test_a_logged_event_names_its_request(capsys: pytest.CaptureFixture[str]) -> None:
    answer = create_app(settings(UNREACHABLE)).test_client().get("/readyz")
    (line,) = capsys.readouterr().err.splitlines()
    assert answer.get_json()["instance"] in line
    assert "database unavailable" in line


@pytest.mark.parametrize("path", ["/", "/livez", "/services", "/nowhere", "/docs", "/?a=%00"])
def test_every_answer_carries_the_security_headers(client: FlaskClient, path: str) -> None:
    headers = client.get(path).headers
    for name, value in SECURITY:
        own_word = path == "/docs" and name == "Content-Security-Policy"
        assert headers.getlist(name) == [headers[name] if own_word else value]
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "Strict-Transport-Security" not in headers


def test_over_tls_an_answer_asks_to_stay_there(client: FlaskClient) -> None:
    answer = client.get("/livez", base_url="https://localhost")
    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000; includeSubDomains"
