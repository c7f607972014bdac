"""The OpenAPI 3.1 document: what the views declare, and the error answers that follow from it."""

from __future__ import annotations

import re
from http import HTTPStatus
from types import EllipsisType
from typing import Any

from apiflask import APIFlask

from pake.auth.models import Role
from pake.errors import MEDIA_TYPE

PROBLEM = {
    "type": "object",
    "description": "Problem details, RFC 9457.",
    "required": ["type", "title", "status", "detail", "instance"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string", "description": "The id of the request, also in X-Request-ID."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "location": {"type": "string"},
                    "field": {"type": "string"},
                    "message": {"type": "string"},
                },
            },
        },
    },
}

_HEADERS = {
    401: {"WWW-Authenticate": {"description": "RFC 6750 section 3", "schema": {"type": "string"}}},
    403: {"WWW-Authenticate": {"description": "RFC 6750 section 3", "schema": {"type": "string"}}},
    429: {"Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}},
    503: {"Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}},
}

_CONVERTER = re.compile(r"<(?:(\w+):)?(\w+)>")

_IF_MATCH = {
    "in": "header",
    "name": "If-Match",
    "description": "`ETag` of what was read: do nothing if it has changed since (RFC 9110 section 13.1.1).",
    "schema": {"type": "string"},
}

_IF_NONE_MATCH = {
    "in": "header",
    "name": "If-None-Match",
    "description": "`ETag` of what the client has: 304 if it is still the same (RFC 9110 section 13.1.2).",
    "schema": {"type": "string"},
}


def init_app(app: APIFlask) -> None:
    """Tell APIFlask how the document looks."""
    app.config.update(
        OPENAPI_VERSION="3.1.0",
        AUTO_SERVERS=False,
        AUTO_VALIDATION_ERROR_RESPONSE=False,
        AUTO_404_RESPONSE=False,
        AUTO_AUTH_ERROR_RESPONSE=False,
        AUTO_OPERATION_ID=True,
        SECURITY_SCHEMES={"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
    )

    @app.spec_processor
    def complete(spec: dict[str, Any] | str) -> dict[str, Any] | str:
        assert isinstance(spec, dict)
        # APIFlask registers a nested model once for each model that holds it, as "Outer.Inner".
        schemas = {name.rpartition(".")[2]: schema for name, schema in spec["components"]["schemas"].items()}
        schemas.pop("HTTPError", None)
        spec["components"]["schemas"] = schemas | {"Problem": PROBLEM}
        rules = {
            (method.lower(), _CONVERTER.sub(r"{\2}", rule.rule)): rule
            for rule in app.url_map.iter_rules()
            for method in rule.methods or ()
        }
        for path, operations in spec["paths"].items():
            for method, operation in operations.items():
                rule = rules[method, path]
                _complete(
                    operation, rule.rule, getattr(app.view_functions[rule.endpoint], "bearer_role", ...)
                )
        return spec


def _complete(operation: dict[str, Any], rule: str, role: Role | EllipsisType | None) -> None:
    """Add the errors that follow from what the operation takes, and show all errors as problems.

    Args:
        rule: its path as Flask spells it, `/services/<uuid:service_id>`.
        role: what it asks for; None is any account, an ellipsis no account at all.
    """
    responses = operation["responses"]
    statuses = {int(status) for status in responses if int(status) >= 400} | {400, 414, 431, 500}
    if operation.get("parameters") or "requestBody" in operation:
        statuses.add(422)
    if "requestBody" in operation:
        operation["requestBody"]["required"] = True
        statuses |= {413, 415}
    if "<" in rule:
        statuses.add(404)
    if 412 in statuses:
        operation["parameters"].append(_IF_MATCH)
    if "304" in responses:
        operation["parameters"].append(_IF_NONE_MATCH)
        del responses["304"]["content"]  # an answer that never has one (RFC 9110 section 15.4.5)
    for parameter in operation.get("parameters", ()):
        parameter["schema"] = _without_null(parameter["schema"])
        if f"<uuid:{parameter['name']}>" in rule:
            parameter["schema"]["format"] = "uuid"
    if role is not ...:
        operation["security"] = [{"bearer": []}]
        statuses |= {401, 503}
    if isinstance(role, str):
        statuses.add(403)
    for status in sorted(statuses):
        said = responses.get(str(status), {}).get("description")
        responses[str(status)] = {
            "description": said or HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        if status in _HEADERS:
            responses[str(status)]["headers"] = _HEADERS[status]


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a parameter that may be left out: text in an address is never null."""
    if "anyOf" not in schema:
        return schema
    (one,) = (each for each in schema["anyOf"] if each != {"type": "null"})
    return {"title": schema["title"], **one}
