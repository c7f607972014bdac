"""What `make bench-routes` measures the service against: plain Flask, and psycopg2 without anything between.

No sign-in, no checks, no limits, no metrics, no logs. `/services` reads the same rows and answers with the
same JSON as the service's `GET /services?include=health_checks`, written by hand for that one answer.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import orjson
import psycopg2
from flask import Flask, Response, request

app = Flask(__name__)
_of_this_thread = threading.local()

SERVICES = """
SELECT service_id::text, service_name, service_version, service_type, environment, base_url, health_check_url,
       health_check_interval_seconds, health_timeout_seconds, labels, status, created_at, updated_at
FROM service_registry ORDER BY service_name LIMIT %s
"""
HEALTH_CHECKS = """
SELECT newest.health_check_id, newest.service_id::text, newest.status, newest.response_time_ms,
       newest.error_message, newest.check_type, newest.timestamp
FROM unnest(%s::uuid[]) AS wanted (service_id)
CROSS JOIN LATERAL (
    SELECT * FROM service_health_checks AS checks WHERE checks.service_id = wanted.service_id
    ORDER BY checks.timestamp DESC, checks.health_check_id DESC LIMIT 20
) AS newest
ORDER BY newest.timestamp DESC, newest.health_check_id DESC
"""


@app.get("/protected")
def protected() -> dict[str, str]:
    """The JSON of the service's /protected."""
    return {"message": "Hello, bench.", "username": "bench"}


@app.get("/services")
def services() -> Response:
    """The JSON of the service's list with health checks."""
    limit = int(request.args["limit"])
    with _connection() as connection, connection.cursor() as cursor:
        cursor.execute(SERVICES, (limit + 1,))
        found = _rows(cursor)
        cursor.execute(HEALTH_CHECKS, ([service["service_id"] for service in found],))
        checks: dict[str, list[dict[str, Any]]] = {service["service_id"]: [] for service in found}
        for check in _rows(cursor):
            checks[check["service_id"]].append(check)
    page = [service | {"health_checks": checks[service["service_id"]]} for service in found]
    answer = {"items": page[:limit], "next_cursor": None}
    return Response(orjson.dumps(answer, option=orjson.OPT_UTC_Z), mimetype="application/json")


def _rows(cursor: Any) -> list[dict[str, Any]]:
    names = [column.name for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def _connection() -> Any:
    """This thread's, kept."""
    if not hasattr(_of_this_thread, "connection"):
        _of_this_thread.connection = psycopg2.connect(os.environ["BARE_DATABASE"])
    return _of_this_thread.connection
