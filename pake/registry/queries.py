"""The read side: every way to load services with their history, each with a fixed number of statements.

    service = get_service_with_health_checks(session, service_id)
    page = list_services_with_all_relationships(session, Filter(environment="staging"), history_limit=20)

The number of statements does not depend on the number of rows; the tests count them on PostgreSQL. Without
`history_limit` the whole history is loaded, by `joinedload` for one service and `selectinload` for a list.
With it only the newest rows of each service are, by a LATERAL subquery that reads them off an index, so that
the cost does not grow with the history.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Select, bindparam, select, true, tuple_
from sqlalchemy.orm import (
    InstrumentedAttribute,
    Session,
    aliased,
    contains_eager,
    joinedload,
    selectinload,
)
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.interfaces import ORMOption

from pake.registry.models import (
    Environment,
    ServiceHealthCheck,
    ServiceMetrics,
    ServiceRegistry,
    ServiceStatus,
)

History = type[ServiceHealthCheck] | type[ServiceMetrics]
HistoryT = TypeVar("HistoryT", bound=ServiceHealthCheck | ServiceMetrics)
Histories = InstrumentedAttribute[Any]
"""`ServiceRegistry.health_checks` or `ServiceRegistry.metrics`."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which services a list holds, by name in ascending order."""

    environment: Environment | None = None
    status: ServiceStatus | None = None
    after: str | None = None
    """The last name of the page before."""
    limit: int = 100


def get_service(session: Session, service_id: UUID) -> ServiceRegistry | None:
    """One service alone. 1 statement."""
    return session.scalar(_SERVICE, {"service_id": service_id})


def get_service_with_health_checks(
    session: Session, service_id: UUID, *, history_limit: int | None = None
) -> ServiceRegistry | None:
    """One service with its health checks. 1 statement."""
    if history_limit is None:
        return _one(session, service_id, joinedload(ServiceRegistry.health_checks))
    return _one_with_newest(session, service_id, ServiceRegistry.health_checks, history_limit)


def get_service_with_metrics(
    session: Session, service_id: UUID, *, history_limit: int | None = None
) -> ServiceRegistry | None:
    """One service with its metrics. 1 statement."""
    if history_limit is None:
        return _one(session, service_id, joinedload(ServiceRegistry.metrics))
    return _one_with_newest(session, service_id, ServiceRegistry.metrics, history_limit)


def get_service_with_all_relationships(
    session: Session, service_id: UUID, *, history_limit: int | None = None
) -> ServiceRegistry | None:
    """One service with its health checks and metrics. 3 statements at most.

    Not one: two joined collections would return the product of both.
    """
    if history_limit is None:
        return _one(
            session,
            service_id,
            selectinload(ServiceRegistry.health_checks),
            selectinload(ServiceRegistry.metrics),
        )
    service = get_service(session, service_id)
    if service is not None:
        _load_newest(session, [service], ServiceRegistry.health_checks, history_limit)
        _load_newest(session, [service], ServiceRegistry.metrics, history_limit)
    return service


def list_services(session: Session, wanted: Filter = Filter()) -> Sequence[ServiceRegistry]:
    """Services alone. 1 statement."""
    return session.scalars(_page(wanted)).all()


def list_services_with_health_checks(
    session: Session, wanted: Filter = Filter(), *, history_limit: int | None = None
) -> Sequence[ServiceRegistry]:
    """Services, each with its health checks. 2 statements."""
    if history_limit is None:
        return session.scalars(_page(wanted).options(selectinload(ServiceRegistry.health_checks))).all()
    services = list_services(session, wanted)
    _load_newest(session, services, ServiceRegistry.health_checks, history_limit)
    return services


def list_services_with_metrics(
    session: Session, wanted: Filter = Filter(), *, history_limit: int | None = None
) -> Sequence[ServiceRegistry]:
    """Services, each with its metrics. 2 statements."""
    if history_limit is None:
        return session.scalars(_page(wanted).options(selectinload(ServiceRegistry.metrics))).all()
    services = list_services(session, wanted)
    _load_newest(session, services, ServiceRegistry.metrics, history_limit)
    return services


def list_services_with_all_relationships(
    session: Session, wanted: Filter = Filter(), *, history_limit: int | None = None
) -> Sequence[ServiceRegistry]:
    """Services, each with its health checks and metrics. 3 statements."""
    if history_limit is None:
        both = (selectinload(ServiceRegistry.health_checks), selectinload(ServiceRegistry.metrics))
        return session.scalars(_page(wanted).options(*both)).all()
    services = list_services_with_health_checks(session, wanted, history_limit=history_limit)
    _load_newest(session, services, ServiceRegistry.metrics, history_limit)
    return services


def get_health_check_with_service(session: Session, health_check_id: int) -> ServiceHealthCheck | None:
    """One health check with its service. 1 statement."""
    statement = select(ServiceHealthCheck).where(ServiceHealthCheck.health_check_id == health_check_id)
    return session.scalar(statement.options(joinedload(ServiceHealthCheck.service, innerjoin=True)))


def get_metric_with_service(session: Session, metric_id: int) -> ServiceMetrics | None:
    """One metric with its service. 1 statement."""
    statement = select(ServiceMetrics).where(ServiceMetrics.metric_id == metric_id)
    return session.scalar(statement.options(joinedload(ServiceMetrics.service, innerjoin=True)))


def list_health_checks_with_services(
    session: Session, *, before: tuple[datetime, int] | None = None, limit: int = 100
) -> Sequence[ServiceHealthCheck]:
    """Health checks of all services, newest first, each with its service. 1 statement.

    Args:
        before: timestamp and id of the last row of the page before.
    """
    statement = _newest_first(ServiceHealthCheck, before, limit)
    return session.scalars(statement.options(joinedload(ServiceHealthCheck.service, innerjoin=True))).all()


def list_history(
    session: Session,
    history: type[HistoryT],
    service_id: UUID,
    *,
    before: tuple[datetime, int] | None = None,
    limit: int = 100,
) -> Sequence[HistoryT]:
    """The health checks or metrics of one service, newest first. 1 statement.

    Args:
        before: timestamp and id of the last row of the page before.
    """
    statement = _newest_first(history, before, limit)
    return session.scalars(statement.where(history.service_id == service_id)).all()


_SERVICE = select(ServiceRegistry).where(ServiceRegistry.service_id == bindparam("service_id"))
"""Made once: a tenth of the route's time was making it."""


def _one(session: Session, service_id: UUID, *options: ORMOption) -> ServiceRegistry | None:
    found = session.scalars(_SERVICE.options(*options), {"service_id": service_id})
    return found.unique().one_or_none()


def _one_with_newest(
    session: Session, service_id: UUID, history: Histories, limit: int
) -> ServiceRegistry | None:
    newest, order = _newest(history, limit)
    statement = (
        _SERVICE.outerjoin(newest, true()).options(contains_eager(history.of_type(newest))).order_by(*order)
    )
    return session.scalars(statement, {"service_id": service_id}).unique().one_or_none()


def _load_newest(
    session: Session, services: Sequence[ServiceRegistry], history: Histories, limit: int
) -> None:
    """Fill `history` of all `services` with their newest rows. 1 statement."""
    newest, order = _newest(history, limit)
    ids = [service.service_id for service in services]
    found: defaultdict[UUID, list[Any]] = defaultdict(list)
    statement = select(newest).select_from(ServiceRegistry).join(newest, true()).order_by(*order)
    for row in session.scalars(statement.where(ServiceRegistry.service_id.in_(ids))):
        found[row.service_id].append(row)
    for service in services:
        set_committed_value(service, history.key, found[service.service_id])


def _newest(history: Histories, limit: int) -> tuple[Any, list[ColumnElement[Any]]]:
    """The newest rows of the service in the enclosing FROM, and their order."""
    mapper = history.property.mapper
    rows = (
        select(mapper.class_)
        .where(mapper.class_.service_id == ServiceRegistry.service_id)
        .order_by(*history.property.order_by)
        .limit(limit)
        .lateral()
    )
    newest = aliased(mapper.class_, rows)
    return newest, [newest.timestamp.desc(), newest.id.desc()]


def _newest_first(
    history: type[HistoryT], before: tuple[datetime, int] | None, limit: int
) -> Select[HistoryT]:
    statement = select(history).order_by(history.timestamp.desc(), history.id.desc()).limit(limit)
    if before is not None:
        statement = statement.where(tuple_(history.timestamp, history.id) < before)
    return statement


def _page(wanted: Filter) -> Select[ServiceRegistry]:
    statement = select(ServiceRegistry).order_by(ServiceRegistry.service_name).limit(wanted.limit)
    if wanted.environment is not None:
        statement = statement.where(ServiceRegistry.environment == wanted.environment)
    if wanted.status is not None:
        statement = statement.where(ServiceRegistry.status == wanted.status)
    if wanted.after is not None:
        statement = statement.where(ServiceRegistry.service_name > wanted.after)
    return statement
