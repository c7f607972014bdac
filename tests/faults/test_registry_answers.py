"""Bad requests to the registry over real HTTP: rows 3, 4, 6, 7 and 23 to 25 of the fault table."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from tests.faults.client import PASSWORD, assert_problem, command, new_name, post, send, sign_in
from tests.servers import Server

SERVICE = {
    "service_version": "2.1.0",
    "service_type": "api",
    "environment": "production",
    "base_url": "https://billing.example/",
}
METRIC = {"metric_name": "load", "metric_value": 1.5}

Call = Callable[..., requests.Response]


@pytest.fixture(scope="module")
def token(service: Server, service_database_url: str) -> str:
    """An administrator's."""
    name = new_name()
    command(service_database_url, "create-user", name, "--role", "admin", "--password-stdin", stdin=PASSWORD)
    access_token: str = sign_in(service, name).json()["access_token"]
    return access_token


@pytest.fixture
def call(service: Server, token: str) -> Call:
    """A request as the administrator: `call("POST", "/services", {…})`; bytes are sent as they are."""

    def send_as_admin(method: str, path: str, body: Any = None, **headers: str) -> requests.Response:
        return requests.request(
            method,
            service.url + path,
            data=body if body is None or isinstance(body, bytes) else json.dumps(body),
            headers={
                "Authorization": f"Bearer {token}",
                "Content-Type": "application/json",
                **{name.replace("_", "-"): value for name, value in headers.items()},
            },
            timeout=20,
        )

    return send_as_admin


@pytest.fixture
def path(call: Call) -> str:
    """Of a service that was just registered."""
    answer = call("POST", "/services", {**SERVICE, "service_name": new_name()})
    assert answer.status_code == 201, answer.text
    return str(answer.headers["Location"])


def stored(call: Call, path: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = call("GET", path).json()["items"]
    return items


# ---- rows 3, 4, 6, 7: values


@pytest.mark.fault(3, 4, 7)
@pytest.mark.parametrize(
    "change",
    [
        {"service_version": "1\0"},
        {"labels": {"team": "\0"}},
        {"labels": {"\0": "team"}},
        {"health_timeout_seconds": 2**31},
        {"health_timeout_seconds": 2**63},
        {"health_timeout_seconds": 10**400},
        {"health_timeout_seconds": True},
        {"health_timeout_seconds": "5"},
        {"health_timeout_seconds": 5.5},
        {"health_timeout_seconds": None},
        {"role": "admin"},
        {"service_id": "00000000-0000-0000-0000-000000000000"},
    ],
    ids=lambda change: str(change)[:60],
)
def test_a_wrong_value_is_422_and_changes_nothing(call: Call, path: str, change: dict[str, Any]) -> None:
    before = call("GET", path).json()
    assert_problem(call("PATCH", path, change), 422)
    new = {**SERVICE, "service_name": new_name(), **change}
    assert_problem(call("POST", "/services", new), 422)
    assert call("GET", path).json() == before


def test_a_right_value_is_stored(call: Call, path: str) -> None:
    change = {"health_timeout_seconds": 7, "labels": {"team": "é \U0001f600"}}
    assert change.items() <= call("PATCH", path, change).json().items()
    assert change.items() <= call("GET", path).json().items()


@pytest.mark.fault(25)
@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=-1",
        "limit=1000000",
        "limit=9223372036854775808",
        "limit=abc",
        "limit=",
        "limit=5&limit=6",
        "cursor=garbage",
        "cursor=",
        "cursor=%00",
        "cursor=%C3%A9",
        "cursor=W10=",
        "cursor=WyJhXHUwMDAwIl0=",
        "environment=%00",
        "environment=moon",
        "include=passwords",
        "unknown=1",
    ],
)
def test_a_wrong_query_is_422(call: Call, query: str) -> None:
    assert_problem(call("GET", f"/services?{query}"), 422)


@pytest.mark.fault(25)
def test_the_cursor_of_one_collection_is_none_of_another(call: Call, path: str) -> None:
    for _ in range(2):
        assert call("POST", path + "/health-checks", {"status": "healthy"}).status_code == 201
    cursor = call("GET", path + "/health-checks?limit=1").json()["next_cursor"]
    assert call("GET", f"{path}/health-checks?cursor={cursor}").status_code == 200
    assert_problem(call("GET", f"/services?cursor={cursor}"), 422)


@pytest.mark.fault(4)
@pytest.mark.parametrize("service_id", ["1", "9223372036854775808", "nobody", "%27--", "0" * 36])
def test_an_id_that_is_none_is_404(call: Call, service_id: str) -> None:
    assert_problem(call("GET", f"/services/{service_id}"), 404)
    assert_problem(call("POST", f"/services/{service_id}/metrics", METRIC), 404)


@pytest.mark.fault(3)
def test_a_nul_in_the_path_is_422(call: Call) -> None:
    assert_problem(call("GET", "/services/%00"), 422)


# ---- row 23: two writers


@pytest.mark.fault(23)
def test_of_many_who_register_one_name_one_does(call: Call) -> None:
    body = {**SERVICE, "service_name": new_name()}
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: call("POST", "/services", body), range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    for answer in answers:
        if answer.status_code == 409:
            assert_problem(answer, 409)


@pytest.mark.fault(23)
def test_of_many_who_change_the_same_version_one_does(call: Call, path: str) -> None:
    etag = call("GET", path).headers["ETag"]
    versions = [str(number) for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        answers = list(
            threads.map(lambda each: call("PATCH", path, {"service_version": each}, If_Match=etag), versions)
        )
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 7
    (winner,) = (answer.json() for answer in answers if answer.status_code == 200)
    now = call("GET", path)
    assert now.json() == winner
    assert_problem(call("DELETE", path, If_Match=etag), 412)
    assert call("DELETE", path, If_Match=now.headers["ETag"]).status_code == 204


def test_a_weak_or_unknown_version_is_412(call: Call, path: str) -> None:
    etag = call("GET", path).headers["ETag"]
    for wrong in (f"W/{etag}", '"0"', "nonsense"):
        assert_problem(call("PATCH", path, {"service_version": "3"}, If_Match=wrong), 412)
    for right in ("*", f'"0", {etag}'):
        assert call("PATCH", path, {}, If_Match=right).status_code == 200


# ---- row 24: metrics


@pytest.mark.fault(24)
@pytest.mark.parametrize(
    "timestamp",
    [
        timedelta(days=-365),
        timedelta(days=2),
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59-12:00",
        "2026-11-23T10:00:00",
        "1795000000",
        1795000000,
        "yesterday",
    ],
    ids=str,
)
def test_a_time_that_cannot_be_is_422(call: Call, path: str, timestamp: object) -> None:
    if isinstance(timestamp, timedelta):
        timestamp = (datetime.now(UTC) + timestamp).isoformat()
    assert_problem(call("POST", path + "/metrics", {**METRIC, "timestamp": timestamp}), 422)
    assert stored(call, path + "/metrics") == []


@pytest.mark.parametrize("offset", [timedelta(days=-29), timedelta(minutes=-1), timedelta(minutes=1)])
def test_a_recent_time_is_stored_as_utc(call: Call, path: str, offset: timedelta) -> None:
    sent = datetime.now(UTC) + offset
    elsewhere = sent.astimezone(tz=None).isoformat()
    assert call("POST", path + "/metrics", {**METRIC, "timestamp": elsewhere}).status_code == 201
    (metric,) = stored(call, path + "/metrics")
    assert metric["timestamp"] == sent.isoformat().replace("+00:00", "Z")


@pytest.mark.fault(24)
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e400", "true", '"5"', "null"])
def test_a_value_that_is_no_number_is_422(call: Call, path: str, value: str) -> None:
    body = b'{"metric_name": "load", "metric_value": %s}' % value.encode()
    assert_problem(call("POST", path + "/metrics", body), 422)
    assert stored(call, path + "/metrics") == []


@pytest.mark.parametrize("value", ["-0.0", "5", "1.7976931348623157e308", "5e-324"])
def test_a_number_comes_back_exactly(call: Call, path: str, value: str) -> None:
    body = b'{"metric_name": "load", "metric_value": %s}' % value.encode()
    assert call("POST", path + "/metrics", body).status_code == 201
    (metric,) = stored(call, path + "/metrics")
    assert metric["metric_value"] == float(value)


def test_one_wrong_metric_of_a_batch_stores_none(call: Call, path: str) -> None:
    items = [METRIC] * 5 + [{**METRIC, "metric_value": None}]
    problem = assert_problem(call("POST", path + "/metrics", {"items": items}), 422)
    assert problem["errors"][0]["field"] == "items.5.metric_value"
    assert stored(call, path + "/metrics") == []


def test_a_batch_of_a_thousand_is_stored_and_a_longer_one_is_413(call: Call, path: str) -> None:
    metrics = [{**METRIC, "metric_value": number} for number in range(1001)]
    assert_problem(call("POST", path + "/metrics", {"items": metrics}), 413)
    assert stored(call, path + "/metrics") == []
    answer = call("POST", path + "/metrics", {"items": metrics[:1000]})
    assert [metric["metric_value"] for metric in answer.json()["items"]] == list(range(1000))


@pytest.mark.fault(24)
def test_a_million_metrics_are_413(service: Server, token: str, path: str) -> None:
    length = 1_000_000 * len(json.dumps(METRIC))
    headers = f"Authorization: Bearer {token}\r\nContent-Type: application/json\r\n"
    assert_problem(send(service, post(path + "/metrics", f"{headers}Content-Length: {length}\r\n")), 413)


def test_what_was_refused_is_not_repeated(call: Call, path: str) -> None:
    canary = "CANARY" + secrets.token_hex(4)
    for body in ({canary: 1}, {"labels": {canary: 5}}, {"environment": canary}, {"base_url": canary}):
        answer = call("PATCH", path, body)
        assert_problem(answer, 422)
        assert canary not in answer.text
    assert canary not in call("GET", f"/services?{canary}={canary}").text
    assert canary not in call("GET", f"/services?cursor={canary}").text
