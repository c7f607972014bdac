"""The OpenAPI 3.1 document: what the views declare, and the error answers that follow from it."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

from apiflask import APIFlask

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
        spec["components"].setdefault("schemas", {})["Problem"] = PROBLEM
        spec["components"]["schemas"].pop("HTTPError", None)
        roles = _roles(app)
        for path, operations in spec["paths"].items():
            for method, operation in operations.items():
                _complete(operation, path, roles.get((method, path)))
        return spec


def _roles(app: APIFlask) -> dict[tuple[str, str], str]:
    """For every operation behind `bearer`: the role it asks for, or an empty string."""
    return {
        (method.lower(), re.sub(r"<(?:[^<:]+:)?([^>]+)>", r"{\1}", rule.rule)): view.bearer_role or ""
        for rule in app.url_map.iter_rules()
        if hasattr(view := app.view_functions[rule.endpoint], "bearer_role")
        for method in rule.methods or ()
    }


def _complete(operation: dict[str, Any], path: str, role: str | None) -> None:
    """Add the errors that follow from what the operation takes, and show all errors as problems."""
    responses = operation["responses"]
    statuses = {int(status) for status in responses if int(status) >= 400} | {400, 500}
    if operation.get("parameters") or "requestBody" in operation:
        statuses.add(422)
    if "requestBody" in operation:
        operation["requestBody"]["required"] = True
        statuses |= {413, 415}
    if "{" in path:
        statuses.add(404)
    if role is not None:
        operation["security"] = [{"bearer": []}]
        statuses |= {401, 503}
    if role:
        statuses.add(403)
    for status in sorted(statuses):
        said = responses.get(str(status), {}).get("description")
        responses[str(status)] = {
            "description": said or HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        if status in _HEADERS:
            responses[str(status)]["headers"] = _HEADERS[status]
