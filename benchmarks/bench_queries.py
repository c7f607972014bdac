"""`make bench-queries`: the read side with and without its eager loading, side by side on PostgreSQL.

Both sides load the same rows through the same models: lazy touches each relationship and lets SQLAlchemy
load it, eager is the method of `pake.registry.queries`. The database is on this machine, behind a socket;
where it is not, each statement that is saved saves a round trip as well.

    make bench-queries
    make bench-queries ARGS="--rounds 100"
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import sqlalchemy as sa
from sqlalchemy.orm import Session

from benchmarks.service import postgres, service
from benchmarks.turns import take_turns
from pake.extensions import db
from pake.registry import queries
from pake.registry.models import ServiceHealthCheck
from pake.registry.queries import Filter

SERVICES = (10, 100)
CHILDREN = 50

Read = Callable[[Session, int], object]


def lazy_health_checks(session: Session, limit: int) -> object:
    return [service.health_checks[0] for service in queries.list_services(session, Filter(limit=limit))]


def eager_health_checks(session: Session, limit: int) -> object:
    found = queries.list_services_with_health_checks(session, Filter(limit=limit))
    return [service.health_checks[0] for service in found]


def lazy_all(session: Session, limit: int) -> object:
    found = queries.list_services(session, Filter(limit=limit))
    return [(service.health_checks[0], service.metrics[0]) for service in found]


def eager_all(session: Session, limit: int) -> object:
    found = queries.list_services_with_all_relationships(session, Filter(limit=limit))
    return [(service.health_checks[0], service.metrics[0]) for service in found]


def lazy_service(session: Session, limit: int) -> object:
    newest = sa.select(ServiceHealthCheck).order_by(
        ServiceHealthCheck.timestamp.desc(), ServiceHealthCheck.health_check_id.desc()
    )
    return [check.service.service_name for check in session.scalars(newest.limit(limit))]


def eager_service(session: Session, limit: int) -> object:
    found = queries.list_health_checks_with_services(session, limit=limit)
    return [check.service.service_name for check in found]


READS: dict[str, tuple[Read, Read]] = {
    f"services, each with {CHILDREN} health checks": (lazy_health_checks, eager_health_checks),
    f"services, each with {CHILDREN} health checks and {CHILDREN} metrics": (lazy_all, eager_all),
    "health checks, each with its service": (lazy_service, eager_service),
}
"""What is read: lazily, eagerly."""


@contextmanager
def counted(engine: sa.Engine) -> Iterator[list[str]]:
    """The statements that the block sends."""
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        statements.append(statement)

    sa.event.listen(engine, "before_cursor_execute", note)
    yield statements
    sa.event.remove(engine, "before_cursor_execute", note)


def run(read: Read, limit: int, engine: sa.Engine) -> object:
    """Read in a session of its own, as a request would."""
    with Session(engine) as session:
        return read(session, limit)


def row(name: str, limit: int, engine: sa.Engine, rounds: int) -> str:
    """Both sides of one read, as a row of the table."""
    cells = [f"{limit} {name}"]
    calls = {
        side: partial(run, read, limit, engine)
        for side, read in zip(("lazy", "eager"), READS[name], strict=True)
    }
    times = take_turns(calls, rounds, name)
    for side, call in calls.items():
        with counted(engine) as statements:
            call()
        cells += [str(len(statements)), f"{times.milliseconds(side):.1f}"]
    cells.append(str(times.ratio("lazy", to="eager")))
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(
        "bench_queries", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=25, help="reads of each side (25)")
    rounds = parser.parse_args().rounds
    size = {"services": max(SERVICES), "health_checks": CHILDREN, "metrics": CHILDREN}
    with postgres() as folder, service(folder, "queries", **size) as app, app.app_context():
        print("| read | lazy: statements | ms | eager: statements | ms | lazy / eager time, quartiles |")
        print("|---|---|---|---|---|---|")
        for name in READS:
            for limit in SERVICES:
                print(row(name, limit, db.engine, rounds), flush=True)


if __name__ == "__main__":
    main()
