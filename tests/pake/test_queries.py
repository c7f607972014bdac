"""The read side sends a fixed number of statements, whatever the number of rows."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from pake.registry import queries
from pake.registry.models import ServiceHealthCheck, ServiceMetrics, ServiceRegistry
from pake.registry.queries import Filter
from profilers.profile import Profile
from profilers.testing import QueryError

Counting = Callable[[int], AbstractContextManager[Profile]]
Checking = Callable[[], AbstractContextManager[Profile]]

START = datetime(2026, 1, 1, tzinfo=UTC)
SERVICES = (1, 10, 100)
CHILDREN = (0, 1, 50)

GET = {
    queries.get_service_with_health_checks: 1,
    queries.get_service_with_metrics: 1,
    queries.get_service_with_all_relationships: 3,
}
LIST = {
    queries.list_services_with_health_checks: 2,
    queries.list_services_with_metrics: 2,
    queries.list_services_with_all_relationships: 3,
}


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(database_url)
    yield engine
    engine.dispose()


def populate(engine: sa.Engine, services: int, children: int) -> list[UUID]:
    with Session(engine) as session:
        rows = [
            ServiceRegistry(
                service_name=f"service-{number:04}",
                service_version="1.0",
                service_type="api",
                environment="staging" if number % 2 else "production",
                base_url="http://127.0.0.1/",
                health_checks=[
                    ServiceHealthCheck(status="healthy", timestamp=START + timedelta(minutes=age))
                    for age in range(children)
                ],
                metrics=[
                    ServiceMetrics(
                        metric_name="load", metric_value=age, timestamp=START + timedelta(minutes=age)
                    )
                    for age in range(children)
                ],
            )
            for number in range(services)
        ]
        session.add_all(rows)
        session.commit()
        return list(
            session.scalars(sa.select(ServiceRegistry.service_id).order_by(ServiceRegistry.service_name))
        )


def histories(service: ServiceRegistry) -> tuple[int, ...]:
    """The lengths of the histories that are loaded; touching them must not send a statement."""
    loaded = sa.inspect(service).dict
    return tuple(len(loaded[name]) for name in ("health_checks", "metrics") if name in loaded)


@pytest.mark.parametrize("history_limit", [None, 20])
@pytest.mark.parametrize("children", CHILDREN)
@pytest.mark.parametrize("services", SERVICES)
def test_statements_do_not_depend_on_rows(
    engine: sa.Engine, max_queries: Counting, services: int, children: int, history_limit: int | None
) -> None:
    ids = populate(engine, services, children)
    expected_children = min(children, history_limit or children)
    for load, statements in GET.items():
        with Session(engine) as session, max_queries(statements) as sent:
            service = load(session, ids[-1], history_limit=history_limit)
            assert service is not None
            assert set(histories(service)) == {expected_children}
        assert sent.statement_count == statements, load.__name__
    for load_list, statements in LIST.items():
        with Session(engine) as session, max_queries(statements) as sent:
            found = load_list(session, history_limit=history_limit)
            assert [service.service_id for service in found] == ids
            assert {length for service in found for length in histories(service)} == {expected_children}
        assert sent.statement_count == statements, load_list.__name__


@pytest.mark.parametrize("services", SERVICES)
def test_many_to_one_is_one_statement(engine: sa.Engine, max_queries: Counting, services: int) -> None:
    populate(engine, services, children=1)
    with Session(engine) as session:
        check_id = session.scalars(sa.select(ServiceHealthCheck.health_check_id)).first()
        metric_id = session.scalars(sa.select(ServiceMetrics.metric_id)).first()
    assert check_id is not None
    assert metric_id is not None
    loads: tuple[Callable[[Session], object], ...] = (
        lambda session: queries.get_health_check_with_service(session, check_id).service.service_name,  # type: ignore[union-attr]
        lambda session: queries.get_metric_with_service(session, metric_id).service.service_name,  # type: ignore[union-attr]
        lambda session: [
            check.service.service_name for check in queries.list_health_checks_with_services(session)
        ],
    )
    for load in loads:
        with Session(engine) as session, max_queries(1) as sent:
            assert load(session)
        assert sent.statement_count == 1


def test_the_lazy_twin_sends_eleven_statements_for_ten_services(
    engine: sa.Engine, max_queries: Counting, no_n_plus_one: Checking
) -> None:
    populate(engine, services=10, children=1)

    def touch_each() -> None:
        with Session(engine) as session:
            for service in queries.list_services(session):
                assert len(service.health_checks) == 1

    with max_queries(11) as sent:
        touch_each()
    assert sent.statement_count == 11

    def checked() -> None:
        with no_n_plus_one():
            touch_each()

    with pytest.raises(QueryError, match=r"ServiceRegistry\.health_checks.*10 statements"):
        checked()


@pytest.mark.parametrize("load", [*LIST, *GET], ids=lambda load: load.__name__)
def test_history_is_the_newest_first(engine: sa.Engine, load: Callable[..., object]) -> None:
    ids = populate(engine, services=2, children=50)
    with Session(engine) as session:
        if load in LIST:
            (service, _) = load(session, history_limit=3)  # type: ignore[misc]
        else:
            service = load(session, ids[0], history_limit=3)
        loaded = sa.inspect(service).dict
        for name in {"health_checks", "metrics"} & loaded.keys():
            ages = [(row.timestamp - START) // timedelta(minutes=1) for row in loaded[name]]
            assert ages == [49, 48, 47]


def test_a_service_that_is_not_there_is_none(engine: sa.Engine) -> None:
    with Session(engine) as session:
        for load in GET:
            assert load(session, UUID(int=0)) is None
            assert load(session, UUID(int=0), history_limit=5) is None


def test_pages_by_name_hold_every_service_once(engine: sa.Engine) -> None:
    populate(engine, services=10, children=0)
    with Session(engine) as session:
        names: list[str] = []
        while page := queries.list_services(session, Filter(after=names[-1] if names else None, limit=4)):
            names += [service.service_name for service in page]
    assert names == [f"service-{number:04}" for number in range(10)]


def test_filters_hold(engine: sa.Engine) -> None:
    populate(engine, services=10, children=0)
    with Session(engine) as session:
        assert len(queries.list_services(session, Filter(environment="staging"))) == 5
        assert len(queries.list_services(session, Filter(status="retired"))) == 0


def test_health_checks_page_by_time_across_equal_timestamps(engine: sa.Engine) -> None:
    populate(engine, services=5, children=3)
    seen: list[int] = []
    before: tuple[datetime, int] | None = None
    with Session(engine) as session:
        while page := queries.list_health_checks_with_services(session, before=before, limit=4):
            seen += [check.health_check_id for check in page]
            before = (page[-1].timestamp, page[-1].health_check_id)
    assert len(seen) == len(set(seen)) == 15
