"""`/services…` and `/health-checks`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from apiflask import APIBlueprint
from flask import Response, request, url_for
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from pake.auth.tokens import bearer
from pake.database import read_connection
from pake.errors import Problem
from pake.extensions import db, settings
from pake.json import json_response
from pake.registry import queries, rows
from pake.registry.models import ServiceHealthCheck, ServiceMetrics, ServiceRegistry
from pake.registry.queries import Filter
from pake.registry.schemas import (
    NAME_KEY,
    TIME_KEY,
    AnyService,
    Batch,
    HealthCheckPage,
    HealthChecksIn,
    HealthCheckWithServicePage,
    MetricPage,
    MetricsIn,
    PageQuery,
    ServiceIn,
    ServiceOut,
    ServicePage,
    ServicePatch,
    ServiceQuery,
    ServicesQuery,
    ServiceWithAll,
    ServiceWithHealthChecks,
    ServiceWithMetrics,
    from_cursor,
    to_cursor,
)
from pake.replica import from_replica

bp = APIBlueprint("registry", __name__, tag="Registry")

Load = Callable[..., Any]
SHOWN: dict[frozenset[str], tuple[Load, type[ServiceOut]]] = {
    frozenset({"health_checks"}): (queries.get_service_with_health_checks, ServiceWithHealthChecks),
    frozenset({"metrics"}): (queries.get_service_with_metrics, ServiceWithMetrics),
    frozenset({"health_checks", "metrics"}): (queries.get_service_with_all_relationships, ServiceWithAll),
}
"""By what `include` names: how to load one service, and what it looks like."""

NOT_CHANGED = {304: "The client has it already"}
"""For the OpenAPI document: an answer to `If-None-Match`."""
REVALIDATE = "private, no-cache"
"""A client may keep a list, and asks each time, with its token, whether it is still the same."""


@bp.get("/services")
@bearer()
@bp.input(ServicesQuery, location="query")
@bp.output(ServicePage)
@bp.doc(responses=NOT_CHANGED)
@from_replica
def list_services(query_data: ServicesQuery) -> Response:
    """Services by name, with the newest of the histories that `include` names."""
    after = from_cursor(NAME_KEY, query_data.cursor)
    wanted = Filter(
        environment=query_data.environment,
        status=query_data.status,
        after=after[0] if after else None,
        limit=query_data.limit + 1,
    )
    include = query_data.include.split(",") if query_data.include else ()
    with read_connection() as connection:
        found = rows.list_services(connection, wanted, include, settings.history_limit, _known())
    return _page(found, query_data.limit, "service_name")


@bp.post("/services")
@bearer(role="admin")
@bp.input(ServiceIn)
@bp.output(ServiceOut, status_code=201)
@bp.doc(responses=[409])
def register_service(json_data: ServiceIn) -> tuple[ServiceOut, int, dict[str, str]]:
    """Register a service. Its name is unique."""
    service = ServiceRegistry(**json_data.model_dump())
    db.session.add(service)
    shown, headers = _saved(service)
    where = url_for(".show_service", service_id=shown.service_id)
    return shown, 201, {**headers, "Location": where}


@bp.get("/services/<uuid:service_id>")
@bearer()
@bp.input(ServiceQuery, location="query")
@bp.output(AnyService)
@bp.doc(responses=[404])
@from_replica
def show_service(service_id: UUID, query_data: ServiceQuery) -> tuple[ServiceOut, int, dict[str, str]]:
    """One service, with the newest of the histories that `include` names."""
    with read_connection() as connection, Session(connection) as session:
        if query_data.include is None:
            service, shape = queries.get_service(session, service_id), ServiceOut
        else:
            load, shape = SHOWN[frozenset(query_data.include.split(","))]
            service = load(session, service_id, history_limit=settings.history_limit)
        service = _found(service)
        return shape.model_validate(service), 200, {"ETag": _etag(service)}


@bp.patch("/services/<uuid:service_id>")
@bearer(role="admin")
@bp.input(ServicePatch)
@bp.output(ServiceOut)
@bp.doc(responses=[404, 409, 412])
def update_service(service_id: UUID, json_data: ServicePatch) -> tuple[ServiceOut, int, dict[str, str]]:
    """Change a service. With `If-Match`, only if nobody has changed it since."""
    service = _locked(service_id)
    for name, value in json_data.model_dump(exclude_unset=True).items():
        setattr(service, name, value)
    shown, headers = _saved(service)
    return shown, 200, headers


@bp.delete("/services/<uuid:service_id>")
@bearer(role="admin")
@bp.doc(responses={204: "Removed", 404: "No such service", 412: "Changed by somebody else"})
def remove_service(service_id: UUID) -> tuple[str, int]:
    """Remove a service and its history. With `If-Match`, only if nobody has changed it since."""
    db.session.delete(_locked(service_id))
    db.session.commit()
    return "", 204


@bp.get("/services/<uuid:service_id>/health-checks")
@bearer()
@bp.input(PageQuery, location="query")
@bp.output(HealthCheckPage)
@bp.doc(responses=NOT_CHANGED)
@from_replica
def list_health_checks(service_id: UUID, query_data: PageQuery) -> Response:
    """The health checks of one service, newest first."""
    return _history(service_id, query_data, ServiceHealthCheck)


@bp.post("/services/<uuid:service_id>/health-checks")
@bearer()
@bp.input(HealthChecksIn)
@bp.output(HealthCheckPage, status_code=201)
@bp.doc(responses=[404])
def record_health_checks(service_id: UUID, json_data: HealthChecksIn) -> Response:
    """Record one health check, or several."""
    return _record(service_id, json_data, ServiceHealthCheck)


@bp.get("/services/<uuid:service_id>/metrics")
@bearer()
@bp.input(PageQuery, location="query")
@bp.output(MetricPage)
@bp.doc(responses=NOT_CHANGED)
@from_replica
def list_metrics(service_id: UUID, query_data: PageQuery) -> Response:
    """The metrics of one service, newest first."""
    return _history(service_id, query_data, ServiceMetrics)


@bp.post("/services/<uuid:service_id>/metrics")
@bearer()
@bp.input(MetricsIn)
@bp.output(MetricPage, status_code=201)
@bp.doc(responses=[404])
def record_metrics(service_id: UUID, json_data: MetricsIn) -> Response:
    """Record one metric, or several."""
    return _record(service_id, json_data, ServiceMetrics)


@bp.get("/health-checks")
@bearer()
@bp.input(PageQuery, location="query")
@bp.output(HealthCheckWithServicePage)
@bp.doc(responses=NOT_CHANGED)
@from_replica
def list_all_health_checks(query_data: PageQuery) -> Response:
    """The health checks of all services, newest first, each with its service."""
    before = from_cursor(TIME_KEY, query_data.cursor)
    with read_connection() as connection:
        checks = rows.list_health_checks_with_services(
            connection, before=before, limit=query_data.limit + 1, known=_known()
        )
    return _page(checks, query_data.limit, "timestamp", "health_check_id")


def _found(service: ServiceRegistry | None) -> ServiceRegistry:
    if service is None:
        raise Problem(404, "There is no such service.")
    return service


def _locked(service_id: UUID) -> ServiceRegistry:
    """The service, held against other writers until the end of the transaction.

    Raises:
        Problem: 404, there is none; 412, `If-Match` names another version (RFC 9110 section 13.1.1).
    """
    service = _found(db.session.get(ServiceRegistry, service_id, with_for_update=True))
    if request.if_match and not request.if_match.contains(_etag(service).strip('"')):
        raise Problem(412, "The service has been changed since; read it again.")
    return service


def _etag(service: ServiceRegistry) -> str:
    return f'"{service.updated_at.timestamp():.6f}"'


def _saved(service: ServiceRegistry) -> tuple[ServiceOut, dict[str, str]]:
    """Commit; what to show of the service, and its version as a header."""
    db.session.flush()  # shown before the commit, which would cost a statement to read it back
    shown, headers = ServiceOut.model_validate(service), {"ETag": _etag(service)}
    db.session.commit()
    return shown, headers


def _history(service_id: UUID, query: PageQuery, history: queries.History) -> Response:
    before = from_cursor(TIME_KEY, query.cursor)
    with read_connection() as connection:
        found = rows.list_history(
            connection, history, service_id, before=before, limit=query.limit + 1, known=_known()
        )
    if found.rows == []:
        _found(queries.get_service(db.session(), service_id))
    key = "health_check_id" if history is ServiceHealthCheck else "metric_id"
    return _page(found, query.limit, "timestamp", key)


def _record(service_id: UUID, sent: HealthChecksIn | MetricsIn, history: queries.History) -> Response:
    now = datetime.now(UTC)
    items = sent.root.items if isinstance(sent.root, Batch) else [sent.root]
    values = [
        {**item.model_dump(), "timestamp": item.timestamp or now, "service_id": service_id} for item in items
    ]
    try:
        recorded = rows.record(db.session.connection(), history, values)
    except IntegrityError:  # the foreign key: nothing else here can conflict
        db.session.rollback()
        raise Problem(404, "There is no such service.") from None
    db.session.commit()
    response = json_response({"items": recorded, "next_cursor": None})
    response.status_code = 201
    return response


def _known() -> rows.Known | None:
    """What the client says it has, by `If-None-Match` (RFC 9110 section 13.1.2)."""
    return request.if_none_match.contains_weak if request.if_none_match else None


def _page(found: rows.Found, limit: int, *key: str) -> Response:
    """The first `limit` rows; one more than that was asked for, to know whether another page follows."""
    if found.rows is None:
        response = Response(status=304)
    else:
        shown = found.rows[:limit]
        more = len(found.rows) > limit
        cursor = to_cursor(*(shown[-1][name] for name in key)) if more else None
        response = json_response({"items": shown, "next_cursor": cursor})
    response.set_etag(found.etag)
    response.headers["Cache-Control"] = REVALIDATE
    return response
