"""The registry over HTTP: what each route answers, to whom."""

from __future__ import annotations

import base64
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient

SERVICE = {
    "service_name": "billing",
    "service_version": "2.1.0",
    "service_type": "api",
    "environment": "production",
    "base_url": "https://billing.example/",
}
NOBODY = "/services/00000000-0000-0000-0000-000000000000"

Headers = dict[str, str]


@pytest.fixture
def service(client: FlaskClient, admin: Headers) -> dict[str, Any]:
    """A registered service, as the registration answered."""
    answer = client.post("/services", json=SERVICE, headers=admin)
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.get_json()
    return body


def fill(client: FlaskClient, admin: Headers, count: int) -> None:
    for number in range(count):
        environment = "staging" if number % 2 else "production"
        body = {**SERVICE, "service_name": f"service-{number:02}", "environment": environment}
        assert client.post("/services", json=body, headers=admin).status_code == 201


def test_a_registered_service_is_read_back_as_it_was_sent(
    client: FlaskClient, user: Headers, service: dict[str, Any]
) -> None:
    answer = client.get(f"/services/{service['service_id']}", headers=user)
    assert answer.status_code == 200
    assert answer.get_json() == service
    assert SERVICE.items() <= service.items()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/services"),
        ("POST", "/services"),
        ("GET", NOBODY),
        ("PATCH", NOBODY),
        ("DELETE", NOBODY),
        ("GET", NOBODY + "/health-checks"),
        ("POST", NOBODY + "/health-checks"),
        ("GET", NOBODY + "/metrics"),
        ("POST", NOBODY + "/metrics"),
        ("GET", "/health-checks"),
    ],
)
def test_every_route_asks_for_a_token(client: FlaskClient, method: str, path: str) -> None:
    answer = client.open(path, method=method)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(("method", "path"), [("POST", "/services"), ("PATCH", NOBODY), ("DELETE", NOBODY)])
def test_writing_services_needs_an_admin(client: FlaskClient, user: Headers, method: str, path: str) -> None:
    answer = client.open(path, method=method, json=SERVICE, headers=user)
    assert answer.status_code == 403
    assert "insufficient_scope" in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", NOBODY, None),
        ("PATCH", NOBODY, {"service_version": "3"}),
        ("DELETE", NOBODY, None),
        ("GET", NOBODY + "/health-checks", None),
        ("POST", NOBODY + "/health-checks", {"status": "healthy"}),
        ("GET", NOBODY + "/metrics", None),
        ("POST", NOBODY + "/metrics", {"metric_name": "load", "metric_value": 1.5}),
        ("GET", "/services/not-a-uuid", None),
    ],
)
def test_a_service_that_is_not_there_is_404(
    client: FlaskClient, admin: Headers, method: str, path: str, body: object
) -> None:
    assert client.open(path, method=method, json=body, headers=admin).status_code == 404


def test_a_taken_name_is_a_conflict(client: FlaskClient, admin: Headers, service: dict[str, Any]) -> None:
    assert client.post("/services", json=SERVICE, headers=admin).status_code == 409
    other = client.post("/services", json={**SERVICE, "service_name": "other"}, headers=admin).get_json()
    path = f"/services/{other['service_id']}"
    assert client.patch(path, json={"service_name": "billing"}, headers=admin).status_code == 409
    assert client.patch(path, json={"service_name": "another"}, headers=admin).status_code == 200


def test_only_the_fields_sent_change(client: FlaskClient, admin: Headers, service: dict[str, Any]) -> None:
    path = f"/services/{service['service_id']}"
    answer = client.patch(path, json={"status": "maintenance", "labels": {"team": "a"}}, headers=admin)
    changed = {**service, "status": "maintenance", "labels": {"team": "a"}}
    assert {**answer.get_json(), "updated_at": None} == {**changed, "updated_at": None}
    assert answer.get_json()["updated_at"] > service["updated_at"]


def test_a_stale_update_is_refused_and_a_fresh_one_is_not(
    client: FlaskClient, admin: Headers, service: dict[str, Any]
) -> None:
    path = f"/services/{service['service_id']}"
    first = client.get(path, headers=admin).headers["ETag"]
    changed = client.patch(path, json={"status": "inactive"}, headers={**admin, "If-Match": first})
    assert changed.status_code == 200
    for method in ("PATCH", "DELETE"):
        stale = client.open(
            path, method=method, json={"status": "active"}, headers={**admin, "If-Match": first}
        )
        assert stale.status_code == 412
    newest = changed.headers["ETag"]
    assert client.delete(path, headers={**admin, "If-Match": newest}).status_code == 204
    assert client.get(path, headers=admin).status_code == 404


def test_pages_hold_every_service_once_and_filters_hold(client: FlaskClient, admin: Headers) -> None:
    fill(client, admin, 7)
    names: list[str] = []
    query: dict[str, Any] = {"limit": 3}
    while True:
        page = client.get("/services", query_string=query, headers=admin).get_json()
        names += [service["service_name"] for service in page["items"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert names == [f"service-{number:02}" for number in range(7)]
    staging = client.get("/services?environment=staging", headers=admin).get_json()["items"]
    assert [service["service_name"] for service in staging] == ["service-01", "service-03", "service-05"]


def test_include_shows_the_newest_of_each_history(
    client: FlaskClient, admin: Headers, service: dict[str, Any]
) -> None:
    path = f"/services/{service['service_id']}"
    now = datetime.now(UTC)
    checks = [
        {"status": "healthy", "timestamp": (now - timedelta(minutes=age)).isoformat()} for age in range(30)
    ]
    assert client.post(path + "/health-checks", json={"items": checks}, headers=admin).status_code == 201
    metric = {"metric_name": "load", "metric_value": 1.5, "metric_labels": {"host": "a"}}
    assert client.post(path + "/metrics", json=metric, headers=admin).status_code == 201

    assert "health_checks" not in client.get(path, headers=admin).get_json()
    for url in (path, "/services"):
        body = client.get(url + "?include=health_checks,metrics", headers=admin).get_json()
        shown = body["items"][0] if "items" in body else body
        times = [check["timestamp"] for check in shown["health_checks"]]
        assert times == sorted(times, reverse=True)
        assert len(times) == 20
        assert [(m["metric_name"], m["metric_value"]) for m in shown["metrics"]] == [("load", 1.5)]


@pytest.mark.parametrize(
    ("history", "body"),
    [
        ("health-checks", {"status": "degraded", "response_time_ms": 12.5, "error_message": "slow"}),
        ("metrics", {"metric_name": "load", "metric_value": 3.0, "metric_labels": {"host": "a"}}),
    ],
)
def test_what_is_recorded_is_read_back_in_pages(
    client: FlaskClient, user: Headers, service: dict[str, Any], history: str, body: dict[str, Any]
) -> None:
    path = f"/services/{service['service_id']}/{history}"
    one = client.post(path, json=body, headers=user).get_json()["items"]
    many = client.post(path, json={"items": [body] * 4}, headers=user).get_json()["items"]
    assert all(body.items() <= row.items() for row in one + many)

    first = client.get(path + "?limit=3", headers=user).get_json()
    rest = client.get(path, query_string={"cursor": first["next_cursor"]}, headers=user).get_json()
    assert rest["next_cursor"] is None
    key = "health_check_id" if history == "health-checks" else "metric_id"
    assert {row[key] for row in first["items"] + rest["items"]} == {row[key] for row in one + many}


def test_health_checks_of_all_services_show_their_service(
    client: FlaskClient, user: Headers, service: dict[str, Any]
) -> None:
    path = f"/services/{service['service_id']}/health-checks"
    client.post(path, json={"status": "healthy"}, headers=user)
    (check,) = client.get("/health-checks", headers=user).get_json()["items"]
    assert check["service"] == service


DAY = timedelta(days=1)
WRONG: dict[str, tuple[str, Any]] = {
    "unknown field": ("/services", {**SERVICE, "role": "admin"}),
    "NUL in a name": ("/services", {**SERVICE, "service_name": "a\0b"}),
    "NUL in a label": ("/services", {**SERVICE, "labels": {"a": "\0"}}),
    "NUL in a label's name": ("/services", {**SERVICE, "labels": {"a\0": "b"}}),
    "integer beyond int4": ("/services", {**SERVICE, "health_timeout_seconds": 2**31}),
    "integer beyond int8": ("/services", {**SERVICE, "health_timeout_seconds": 2**64}),
    "true for an integer": ("/services", {**SERVICE, "health_timeout_seconds": True}),
    "text for a number": ("metrics", {"metric_name": "a", "metric_value": "5"}),
    "no URL": ("/services", {**SERVICE, "base_url": "javascript:alert(1)"}),
    "unknown environment": ("/services", {**SERVICE, "environment": "moon"}),
    "far past": ("metrics", {"metric_name": "a", "metric_value": 1, "timestamp": "1066-10-14T09:00:00Z"}),
    "far future": ("metrics", {"metric_name": "a", "metric_value": 1, "timestamp": "2999-01-01T00:00:00Z"}),
    "time without zone": (
        "metrics",
        {"metric_name": "a", "metric_value": 1, "timestamp": "2026-01-01T00:00:00"},
    ),
    "empty batch": ("metrics", {"items": []}),
    "Unix time": ("metrics", {"metric_name": "a", "metric_value": 1, "timestamp": str(int(time.time()))}),
    "negative time": ("health-checks", {"status": "healthy", "response_time_ms": -1}),
}


def test_a_list_is_sent_again_when_what_it_shows_has_changed(client: FlaskClient, admin: Headers) -> None:
    fill(client, admin, 5)
    first = client.get("/services?limit=2", headers=admin).get_json()
    id_, other = (each["service_id"] for each in first["items"])
    staging = "/services?environment=staging&include=health_checks"
    later = f"/services?limit=2&cursor={first['next_cursor']}"
    paths = ["/services", "/services?include=health_checks", "/services?include=health_checks,metrics"]
    paths += ["/services?include=metrics", "/health-checks", "/services?limit=2", staging, later]
    paths += [f"/services/{id_}/health-checks", f"/services/{id_}/metrics"]
    metric = {"metric_name": "load", "metric_value": 1}
    client.post(f"/services/{id_}/health-checks", json={"status": "healthy"}, headers=admin)
    client.post(f"/services/{id_}/metrics", json=metric, headers=admin)
    known: dict[str, str] = {}

    def changed() -> set[str]:
        """Paths whose list is another one than at the last call; each answer is what a new client gets."""
        found = set()
        for path in paths:
            headers = {**admin, "If-None-Match": known.get(path, '"none"')}
            answer, anew = client.get(path, headers=headers), client.get(path, headers=admin)
            assert answer.headers["ETag"] == anew.headers["ETag"]
            if answer.status_code != 304:
                assert answer.get_json() == anew.get_json()
                found.add(path)
            known[path] = anew.headers["ETag"]
        return found

    assert changed() == set(paths)
    assert changed() == set()
    client.post(f"/services/{id_}/health-checks", json={"status": "healthy"}, headers=admin)
    assert changed() == {
        "/services?include=health_checks",
        "/services?include=health_checks,metrics",
        "/health-checks",
        f"/services/{id_}/health-checks",
    }
    client.post(f"/services/{id_}/metrics", json=metric, headers=admin)
    assert changed() == {
        "/services?include=health_checks,metrics",
        "/services?include=metrics",
        f"/services/{id_}/metrics",
    }
    client.patch(f"/services/{id_}", json={"status": "retired"}, headers=admin)
    assert changed() == set(paths) - {
        staging,
        later,
        f"/services/{id_}/health-checks",
        f"/services/{id_}/metrics",
    }
    client.patch(f"/services/{id_}", json={"environment": "staging"}, headers=admin)
    assert staging in changed()
    client.delete(f"/services/{other}", headers=admin)
    assert {"/services", "/services?limit=2", staging} <= changed()
    assert changed() == set()


def test_an_empty_history_that_the_client_has_is_404_once_its_service_is_gone(
    client: FlaskClient, admin: Headers, service: dict[str, Any]
) -> None:
    path = f"/services/{service['service_id']}/metrics"
    known = {**admin, "If-None-Match": client.get(path, headers=admin).headers["ETag"]}
    assert client.get(path, headers=known).get_json()["items"] == []
    client.delete(f"/services/{service['service_id']}", headers=admin)
    assert client.get(path, headers=known).status_code == 404


def test_a_list_may_be_kept_by_its_reader_and_is_asked_about_each_time(
    client: FlaskClient, user: Headers
) -> None:
    answer = client.get("/services", headers=user)
    assert answer.headers["Cache-Control"] == "private, no-cache"
    for known in (f"W/{answer.headers['ETag']}", f'"other", {answer.headers["ETag"]}', "*"):
        assert client.get("/services", headers={**user, "If-None-Match": known}).status_code == 304
    for wrong in ('"other"', "nonsense", answer.headers["ETag"].strip('"')[:-1]):
        assert client.get("/services", headers={**user, "If-None-Match": wrong}).status_code == 200


@pytest.mark.parametrize(("where", "body"), WRONG.values(), ids=WRONG)
def test_a_wrong_value_is_422_and_nothing_is_stored(
    client: FlaskClient, admin: Headers, service: dict[str, Any], where: str, body: Any
) -> None:
    path = where if where.startswith("/") else f"/services/{service['service_id']}/{where}"
    # The service's own encoder refuses what the test must send.
    answer = client.post(path, data=json.dumps(body), content_type="application/json", headers=admin)
    assert answer.status_code == 422, answer.text
    assert answer.mimetype == "application/problem+json"
    listed = client.get(path, headers=admin).get_json()["items"]
    assert len(listed) == (1 if path == "/services" else 0)


def test_a_batch_holds_a_thousand(client: FlaskClient, user: Headers, service: dict[str, Any]) -> None:
    path = f"/services/{service['service_id']}/metrics"
    metric = {"metric_name": "a", "metric_value": 1}
    assert client.post(path, json={"items": [metric] * 1000}, headers=user).status_code == 201
    assert client.post(path, json={"items": [metric] * 1001}, headers=user).status_code == 413


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e400"])
def test_a_number_that_is_none_is_refused(
    client: FlaskClient, user: Headers, service: dict[str, Any], number: str
) -> None:
    body = f'{{"metric_name": "a", "metric_value": {number}}}'
    path = f"/services/{service['service_id']}/metrics"
    answer = client.post(path, data=body, content_type="application/json", headers=user)
    assert answer.status_code in {400, 422}


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1000000",
        "limit=99999999999999999999",
        "limit=abc",
        "limit=1&limit=2",
        "cursor=garbage",
        "cursor=WzFd",
        "cursor=%00",
        "cursor=%C3%A9",
        "cursor=x",
        "include=passwords",
        "environment=%00",
        "unknown=1",
    ],
)
def test_a_wrong_query_is_422(client: FlaskClient, user: Headers, query: str) -> None:
    assert client.get(f"/services?{query}", headers=user).status_code == 422


@pytest.mark.parametrize("key", ['["2026-01-01T00:00Z",99999999999999999999]', '["yesterday",1]', "[]", "{}"])
def test_a_cursor_that_is_none_of_ours_is_422(client: FlaskClient, user: Headers, key: str) -> None:
    cursor = base64.urlsafe_b64encode(key.encode()).decode()
    assert client.get("/health-checks", query_string={"cursor": cursor}, headers=user).status_code == 422
