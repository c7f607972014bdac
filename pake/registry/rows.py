"""What the list routes show, read as rows: from columns to JSON without an entity or a model between.

A page of services with their histories is hundreds of rows that nobody changes; an entity and a model of each
took three times as long as reading them. The columns are those of the models in `schemas.py`, which describe
the answers. Each function sends a fixed number of statements; histories are cut by a LATERAL subquery that
reads the newest rows off an index. For entities see `queries.py`.

Each list has an ETag, made of the keys of its rows and of the transactions that wrote them (PostgreSQL's
`xmin`): it is another one after any change to what is shown, and stays the same as long as there is none. A
client that has the list already costs one statement, which reads keys and no more.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Connection,
    CursorResult,
    Select,
    String,
    Table,
    Uuid,
    any_,
    bindparam,
    cast,
    func,
    insert,
    literal_column,
    select,
    true,
)
from sqlalchemy import tuple_ as pair
from sqlalchemy.dialects.postgresql import aggregate_order_by

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


class Found(NamedTuple):
    """A list, or that the client has it already."""

    etag: str
    rows: list[Row] | None
    """None: the client has the list of this ETag."""


Known = Callable[[str], bool]
"""Whether the client has the list of that ETag. None in its place: it has none, which costs no statement."""


def list_services(
    connection: Connection,
    wanted: Filter,
    include: Sequence[str],
    history_limit: int,
    known: Known | None = None,
) -> Found:
    """Services by name, with the newest rows of the histories in `include`. 1 statement, 1 more for each."""
    given = {"environment": wanted.environment, "status": wanted.status, "after": wanted.after}
    values = {name: value for name, value in given.items() if value is not None}
    page = _services(frozenset(values))
    if known is not None:
        keys = _services_keys(frozenset(values), tuple(include))
        limits = {"history_limit": history_limit} if include else {}
        now = connection.execute(keys, {**values, **limits, "limit": wanted.limit})
        if known(etag := _etag(now)):
            return Found(etag, None)
    services = _read(connection, page, limit=wanted.limit, **values)
    ids = [service["service_id"] for service in services]
    written = [[service["service_id"], service.pop(WRITTEN)] for service in services]
    for name in include:
        newest: defaultdict[str, list[Row]] = defaultdict(list)
        history = _HISTORIES[name]
        key = _key_of(history)
        for row in _read(connection, _newest(history), services=ids, history_limit=history_limit):
            newest[row["service_id"]].append(row)
        for service, keys_of_service in zip(services, written, strict=True):
            service[name] = rows = newest[service["service_id"]]
            keys_of_service.append(",".join([f"{row[key]}:{row.pop(WRITTEN)}" for row in rows]))
    return Found(_etag(written), services)


def list_history(
    connection: Connection,
    history: History,
    service_id: UUID,
    *,
    before: tuple[datetime, int] | None,
    limit: int,
    known: Known | None = None,
) -> Found:
    """The health checks or metrics of one service, newest first. 1 statement."""
    statement, key = _of_one_service(history, before is not None), _key_of(history)
    values = {"service_id": service_id, "limit": limit, **_key(before)}
    if known is not None:
        etag = _etag_now(connection, statement, (key, WRITTEN), values)
        if etag != _etag(()) and known(etag):  # an empty one may be of a service that is there no longer
            return Found(etag, None)
    rows = _read(connection, statement, **values)
    return Found(_etag((row[key], row.pop(WRITTEN)) for row in rows), rows)


def list_health_checks_with_services(
    connection: Connection,
    *,
    before: tuple[datetime, int] | None,
    limit: int,
    known: Known | None = None,
) -> Found:
    """Health checks of all services, newest first, each with its service. 1 statement."""
    statement, key = _with_services(before is not None), _key_of(ServiceHealthCheck)
    values = {"limit": limit, **_key(before)}
    of_both = (key, WRITTEN, f"service.{WRITTEN}")
    if known is not None and known(etag := _etag_now(connection, statement, of_both, values)):
        return Found(etag, None)
    rows = _read(connection, statement, **values)
    written = [(row[key], row.pop(WRITTEN), row.pop(f"service.{WRITTEN}")) for row in rows]
    for row in rows:
        row["service"] = {name: row.pop(f"service.{name}") for name in ServiceOut.model_fields}
    return Found(_etag(written), rows)


def record(connection: Connection, history: History, values: list[dict[str, Any]]) -> list[Row]:
    """Write rows of a history; what is shown of each, in the same order. 1 statement."""
    return _dicts(connection.execute(_recording(history), values))


def _read(connection: Connection, statement: Select[Any], **values: Any) -> list[Row]:
    return _dicts(connection.execute(statement, values))


def _dicts(result: CursorResult[Any]) -> list[Row]:
    names = tuple(result.keys())
    return [dict(zip(names, row, strict=True)) for row in result.all()]


def _key(before: tuple[datetime, int] | None) -> dict[str, Any]:
    return dict(zip(("timestamp", "id"), before, strict=True)) if before else {}


# ---- ETags

WRITTEN = "written"
"""Name of the column with a row's xmin: the transaction that wrote it. No answer shows it."""

_SHAPE = [sorted(model.model_fields) for model in _SHOWN.values()]
"""Part of every ETag: a release that shows other columns shows another list."""


def _etag(keys: Iterable[Iterable[Any]]) -> str:
    """The ETag of a list whose rows have these keys, without its quotes."""
    content = orjson.dumps([_SHAPE, [tuple(key) for key in keys]])
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _etag_now(
    connection: Connection, statement: Select[Any], names: tuple[str, ...], values: dict[str, Any]
) -> str:
    """The ETag that the list of that statement has now. 1 statement."""
    shown = statement.selected_columns
    keys = statement.with_only_columns(*(shown[name] for name in names), maintain_column_froms=True)
    return _etag(connection.execute(keys, values))


# ---- the statements, built once


def _columns(source: Any, model: type[Any], prefix: str = "") -> Sequence[Any]:
    """The columns of `source` that the answer shows, and WRITTEN."""
    written = _written(source) if isinstance(source, Table) else source.c[WRITTEN]
    return [*_shown(source, model, prefix), written.label(prefix + WRITTEN)]


def _shown(source: Any, model: type[Any], prefix: str = "") -> Sequence[Any]:
    """The columns that the answer shows, UUIDs as text, which is how."""
    columns: list[ColumnElement[Any]] = [source.c[name] for name in _SHOWN[model].model_fields]
    return [
        (cast(one, String) if isinstance(one.type, Uuid) else one).label(prefix + one.name) for one in columns
    ]


def _written(table: Table) -> ColumnElement[Any]:
    return literal_column(f"{table.name}.xmin")


@cache
def _recording(history: History) -> Any:
    table = history.__table__
    assert isinstance(table, Table)
    return insert(table).returning(*_shown(table, history), sort_by_parameter_order=True)


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
    rows = _newest_of(history, services.c.service_id).lateral()
    wanted = cast(bindparam("services", type_=ARRAY(String)), ARRAY(Uuid))
    return (
        select(*_columns(rows, history))
        .select_from(services.join(rows, true()))
        .where(services.c.service_id == any_(wanted))
        .order_by(rows.c.timestamp.desc(), rows.c[_key_of(history)].desc())
    )


def _newest_of(history: History, service_id: ColumnElement[Any]) -> Select[Any]:
    """The newest rows of the service in the enclosing FROM."""
    table: Any = history.__table__
    return (
        select(table, _written(table).label(WRITTEN))
        .where(history.service_id == service_id)
        .order_by(history.timestamp.desc(), history.id.desc())
        .limit(bindparam("history_limit"))
    )


@cache
def _services_keys(given: frozenset[str], include: tuple[str, ...]) -> Select[Any]:
    """What the ETag of a page of services is made of: a row each, a word for each history."""
    page = _services(given).subquery()
    words = []
    for name in include:
        history = _HISTORIES[name]
        rows = _newest_of(history, cast(page.c.service_id, Uuid)).correlate(page).subquery()
        key = rows.c[_key_of(history)]
        word = cast(key, String) + ":" + cast(rows.c[WRITTEN], String)
        newest_first: Any = aggregate_order_by(literal_column("','"), rows.c.timestamp.desc(), key.desc())
        joined = func.coalesce(func.string_agg(word, newest_first), "")
        words.append(select(joined).correlate(page).scalar_subquery())
    return select(page.c.service_id, page.c[WRITTEN], *words).order_by(page.c.service_name)


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
    moment, key = table.c.timestamp, table.c[_key_of(history)]
    if later_page:
        last = pair(bindparam("timestamp", type_=moment.type), bindparam("id", type_=key.type))
        statement = statement.where(pair(moment, key) < last)
    return statement.order_by(moment.desc(), key.desc()).limit(bindparam("limit"))


def _key_of(history: History) -> str:
    """The name of the history's key; the first column of its model."""
    return next(iter(_SHOWN[history].model_fields))
