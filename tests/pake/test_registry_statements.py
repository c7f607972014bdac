"""Each route of the registry sends a fixed number of statements, whatever the number of rows."""

from __future__ import annotations

import pytest
from apiflask import APIFlask
from flask.testing import FlaskClient

from pake.extensions import db
from pake.registry.demo import add_demo_services
from tests.pake.test_registry import SERVICE, Headers

TOKEN = 1
"""The statement that asks about the token: the app of these tests remembers none."""

METRIC = {"metric_name": "load", "metric_value": 1}

ROUTES = {
    ("GET", "/services"): 1,
    ("GET", "/services?include=health_checks"): 2,
    ("GET", "/services?include=metrics"): 2,
    ("GET", "/services?include=health_checks,metrics"): 3,
    ("GET", "/services/{id}"): 1,
    ("GET", "/services/{id}?include=health_checks"): 1,
    ("GET", "/services/{id}?include=metrics"): 1,
    ("GET", "/services/{id}?include=health_checks,metrics"): 3,
    ("GET", "/services/{id}/health-checks"): 1,
    ("GET", "/services/{id}/metrics"): 1,
    ("GET", "/health-checks"): 1,
    ("POST", "/services"): 1,
    ("POST", "/services/{id}/health-checks"): 1,
    ("POST", "/services/{id}/metrics"): 1,
    ("PATCH", "/services/{id}"): 2,
    ("DELETE", "/services/{id}"): 2,
}
BODIES: dict[tuple[str, str], object] = {
    ("POST", "/services"): SERVICE,
    ("POST", "/services/{id}/health-checks"): {"status": "healthy"},
    ("POST", "/services/{id}/metrics"): {"items": [METRIC] * 500},
    ("PATCH", "/services/{id}"): {"status": "retired"},
}


@pytest.mark.parametrize(("services", "children"), [(1, 1), (40, 30)])
def test_a_route_sends_as_many_statements_as_it_says(
    app: APIFlask, client: FlaskClient, admin: Headers, statements: list[str], services: int, children: int
) -> None:
    with app.app_context():
        add_demo_services(db.session(), services=services, health_checks=children, metrics=children)
        db.session.commit()
    (service, *_) = client.get("/services", headers=admin).get_json()["items"]
    for (method, path), expected in ROUTES.items():
        statements.clear()
        answer = client.open(
            path.replace("{id}", service["service_id"]),
            method=method,
            json=BODIES.get((method, path)),
            headers=admin,
        )
        assert answer.status_code < 300, answer.text
        assert len(statements) == expected + TOKEN, (method, path, statements)


LISTS = [
    path
    for method, path in ROUTES
    if method == "GET" and "services/{id}?" not in path and path != "/services/{id}"
]


@pytest.mark.parametrize(
    "path", [*LISTS, "/services?environment=production&limit=2", "/health-checks?limit=2"]
)
def test_a_list_that_the_client_has_costs_one_statement(
    app: APIFlask, client: FlaskClient, admin: Headers, user: Headers, statements: list[str], path: str
) -> None:
    with app.app_context():
        add_demo_services(db.session(), services=9, health_checks=4, metrics=4)
        db.session.commit()
    (service, *_) = client.get("/services", headers=admin).get_json()["items"]
    path = path.replace("{id}", service["service_id"])
    etag = client.get(path, headers=admin).headers["ETag"]
    statements.clear()
    same = client.get(path, headers={**user, "If-None-Match": etag})  # whoever asks sees the same list
    assert (same.status_code, same.data, same.headers["ETag"]) == (304, b"", etag)
    assert len(statements) == 1 + TOKEN, statements
    assert client.get(path, headers={"If-None-Match": etag}).status_code == 401
