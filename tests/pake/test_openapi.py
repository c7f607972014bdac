"""The OpenAPI document is valid, complete, and true: schemathesis holds every route to it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis
from apiflask import APIFlask
from flask.testing import FlaskClient
from openapi_spec_validator import validate
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from tests.pake.conftest import signed_in
from tests.pake.test_registry import SERVICE

HIDDEN = {"/openapi.json"}
"""The document itself."""

NOT_CHECKED = [positive_data_acceptance, negative_data_rejection]
"""Whether good data is served and bad data refused: a common password and a cursor of no page fit the schema
and are refused, and the service and token that are put into a bad request may be what was bad in it."""

EXAMPLES = 30
"""Requests of each route; `st run` with the service's address sends as many as one likes."""


@pytest.fixture
def document(client: FlaskClient) -> dict[str, Any]:
    answer = client.get("/openapi.json")
    assert answer.status_code == 200
    body: dict[str, Any] = answer.get_json()
    return body


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def test_the_document_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    validate(document)


def test_every_route_is_in_the_document(app: APIFlask, document: dict[str, Any]) -> None:
    routes = {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.rule not in HIDDEN
    }
    assert routes == {(method, path) for method, path, _ in operations(document)}


def test_every_route_tells_its_errors_as_problems(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        responses = operation["responses"]
        expected = {"400", "500"}
        if operation.get("security"):
            expected |= {"401", "503"}
        if "{" in path:
            expected |= {"404"}
        if "requestBody" in operation:
            expected |= {"413", "415", "422"}
        assert expected <= responses.keys(), (method, path)
        for status, response in responses.items():
            if status >= "400":
                assert set(response["content"]) == {"application/problem+json"}, (method, path, status)
        for status, header in {"401": "WWW-Authenticate", "429": "Retry-After", "503": "Retry-After"}.items():
            assert status not in responses or header in responses[status]["headers"], (method, path, status)


def test_answers_without_a_body_have_none_in_the_document(document: dict[str, Any]) -> None:
    without = [
        (status, said)
        for _, _, operation in operations(document)
        for status, said in operation["responses"].items()
        if status in ("204", "304")
    ]
    assert {status for status, _ in without} == {"204", "304"}
    assert not [said for _, said in without if "content" in said]


def test_no_model_is_in_the_document_twice(document: dict[str, Any]) -> None:
    assert not [name for name in document["components"]["schemas"] if "." in name]


def test_what_is_refused_is_not_in_the_document(document: dict[str, Any]) -> None:
    """Patterns and formats that validators check are told to clients."""
    schemas = document["components"]["schemas"]
    assert schemas["MetricIn"]["properties"]["metric_name"]["pattern"].startswith("^")
    assert schemas["ServiceIn"]["properties"]["service_name"]["pattern"] == r"^[^\u0000]*$"
    assert schemas["Batch_MetricIn_"]["properties"]["items"]["maxItems"] == 1000
    (service_id, *_) = document["paths"]["/services/{service_id}"]["get"]["parameters"]
    assert service_id["schema"]["format"] == "uuid"


def hold(operation: schemathesis.APIOperation[Any], headers: dict[str, str], service_id: str) -> None:
    """Send requests that follow the schema and some that do not, all about one service.

    Fails when an answer is unlike the document, or a server error.
    """
    made = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    if operation.query or operation.body:
        made |= operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)

    @hypothesis.settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)
    @hypothesis.given(case=made)
    def answers_conform(case: schemathesis.Case) -> None:
        if "service_id" in case.path_parameters:
            case.path_parameters["service_id"] = service_id
        case.call_and_validate(headers=headers, excluded_checks=NOT_CHECKED)

    answers_conform()


@pytest.mark.parametrize("tag", ["System", "Accounts", "Registry"])
def test_answers_are_as_the_document_says(app: APIFlask, client: FlaskClient, tag: str) -> None:
    schema = schemathesis.openapi.from_wsgi("/openapi.json", app).include(tag=tag)
    for number, found in enumerate(schema.get_all_operations()):
        # For each operation its own, because one signs the account out and one removes the service.
        headers = signed_in(app, f"fuzz-{number}", "admin")
        service = client.post("/services", json={**SERVICE, "service_name": f"s{number}"}, headers=headers)
        hold(found.ok(), headers, service.get_json()["service_id"])
