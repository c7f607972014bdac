"""What the list routes show, read as rows: from columns to JSON without an entity or a model between.

A page of services with their histories is hundreds of rows that nobody changes; an entity and a model of each
took three times as long as reading them. The columns are those of the models in `schemas.py`, which describe
the answers. Each function sends a fixed number of statements; histories are cut by a LATERAL subquery that
reads the newest rows off an index. For entities see `queries.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Column, Connection, Select, String, Uuid, any_, bindparam, cast, select, true
from sqlalchemy import tuple_ as pair

from pake.registry.models import ServiceHealthCheck, ServiceMetrics, ServiceRegistry
from pake.registry.queries import Filter, History
from pake.registry.schemas import HealthCheckOut, MetricOut, ServiceOut
from pake.schemas import Out

Row = dict[str, Any]

_SHOWN: dict[type[Any], type[Out]] = {
    ServiceRegistry: ServiceOut,
    ServiceHealthCheck: HealthCheckOut,
    ServiceMetrics: MetricOut,
}
_HISTORIES: dict[str, History] = {"health_checks": ServiceHealthCheck, "metrics": ServiceMetrics}
"""By the name that `include` has for each."""


def list_services(
    connection: Connection, wanted: Filter, include: Collection[str], history_limit: int
) -> list[Row]:
    """Services by name, with the newest rows of the histories in `include`. 1 statement, 1 more for each."""
    given = {"environment": wanted.environment, "status": wanted.status, "after": wanted.after}
    values = {name: value for name, value in given.items() if value is not None}
    services = _read(connection, _services(frozenset(values)), limit=wanted.limit, **values)
    ids = [service["service_id"] for service in services]
    for name in include:
        newest: defaultdict[str, list[Row]] = defaultdict(list)
        for row in _read(connection, _newest(_HISTORIES[name]), services=ids, limit=history_limit):
            newest[row["service_id"]].append(row)
        for service in services:
            service[name] = newest[service["service_id"]]
    return services


def list_history(
    connection: Connection,
    history: History,
    service_id: UUID,
    *,
    before: tuple[datetime, int] | None,
    limit: int,
) -> list[Row]:
    """The health checks or metrics of one service, newest first. 1 statement."""
    statement = _of_one_service(history, before is not None)
    return _read(connection, statement, service_id=service_id, limit=limit, **_key(before))


def list_health_checks_with_services(
    connection: Connection, *, before: tuple[datetime, int] | None, limit: int
) -> list[Row]:
    """Health checks of all services, newest first, each with its service. 1 statement."""
    rows = _read(connection, _with_services(before is not None), limit=limit, **_key(before))
    for row in rows:
        row["service"] = {name: row.pop(f"service.{name}") for name in ServiceOut.model_fields}
    return rows


def _read(connection: Connection, statement: Select[Any], **values: Any) -> list[Row]:
    result = connection.execute(statement, values)
    names = tuple(result.keys())
    return [dict(zip(names, row, strict=True)) for row in result.all()]


def _key(before: tuple[datetime, int] | None) -> dict[str, Any]:
    return dict(zip(("timestamp", "id"), before, strict=True)) if before else {}


# ---- the statements, built once


def _columns(source: Any, model: type[Any], prefix: str = "") -> Sequence[Any]:
    """The columns of `source` that the answer shows; UUIDs as text, which is how they are shown."""
    columns: list[Column[Any]] = [source.c[name] for name in _SHOWN[model].model_fields]
    return [
        (cast(column, String) if isinstance(column.type, Uuid) else column).label(prefix + column.name)
        for column in columns
    ]


@cache
def _services(given: frozenset[str]) -> Select[Any]:
    table = ServiceRegistry.__table__
    conditions = {
        "environment": table.c.environment == bindparam("environment"),
        "status": table.c.status == bindparam("status"),
        "after": table.c.service_name > bindparam("after"),
    }
    return (
        select(*_columns(table, ServiceRegistry))
        .where(*(conditions[name] for name in sorted(given)))
        .order_by(table.c.service_name)
        .limit(bindparam("limit"))
    )


@cache
def _newest(history: History) -> Select[Any]:
    """The newest rows of each of `services`."""
    services = ServiceRegistry.__table__
    rows = (
        select(history.__table__)
        .where(history.service_id == services.c.service_id)
        .order_by(history.timestamp.desc(), history.id.desc())
        .limit(bindparam("limit"))
        .lateral()
    )
    wanted = cast(bindparam("services", type_=ARRAY(String)), ARRAY(Uuid))
    return (
        select(*_columns(rows, history))
        .select_from(services.join(rows, true()))
        .where(services.c.service_id == any_(wanted))
        .order_by(rows.c.timestamp.desc(), _id(history, rows).desc())
    )


@cache
def _of_one_service(history: History, later_page: bool) -> Select[Any]:
    table = history.__table__
    return _page(select(*_columns(table, history)), history, later_page).where(
        table.c.service_id == bindparam("service_id")
    )


@cache
def _with_services(later_page: bool) -> Select[Any]:
    checks, services = ServiceHealthCheck.__table__, ServiceRegistry.__table__
    shown = (*_columns(checks, ServiceHealthCheck), *_columns(services, ServiceRegistry, "service."))
    statement = select(*shown).select_from(checks.join(services))
    return _page(statement, ServiceHealthCheck, later_page)


def _page(statement: Select[Any], history: History, later_page: bool) -> Select[Any]:
    table = history.__table__
    moment, key = table.c.timestamp, _id(history, table)
    if later_page:
        last = pair(bindparam("timestamp", type_=moment.type), bindparam("id", type_=key.type))
        statement = statement.where(pair(moment, key) < last)
    return statement.order_by(moment.desc(), key.desc()).limit(bindparam("limit"))


def _id(history: History, source: Any) -> Any:
    """The column of the history's key; the first of its model."""
    return source.c[next(iter(_SHOWN[history].model_fields))]
