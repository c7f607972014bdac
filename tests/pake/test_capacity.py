"""`flask pake check-capacity`: the sum of all connections against what PostgreSQL grants."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from apiflask import APIFlask

from pake.capacity import Demand, Room, report, room, shortage

DEMAND = Demand(hosts=2, workers=4, pool=8)


def test_every_worker_has_its_pool_and_one_for_plans_and_a_reload_doubles_it() -> None:
    assert (DEMAND.serving, DEMAND.reloading) == (72, 144)
    assert "2 hosts x 4 workers x (8 threads" in report(DEMAND, Room(200, 3, None, 0))[0]


@pytest.mark.parametrize(
    ("granted", "said"),
    [
        (Room(147, 3, None, 0), None),
        (Room(146, 3, None, 0), "while it reloads than PostgreSQL has: set max_connections to 147 at least"),
        (Room(200, 3, 143, 0), "or DATABASE_POOL_SIZE to 7 at most"),
        (Room(200, 3, None, 60), "set max_connections to 207 at least"),
        (Room(70, 3, None, 0), "more connections than PostgreSQL has"),
        (Room(20, 3, None, 0), "or fewer workers"),
    ],
)
def test_what_does_not_fit_is_said_with_what_would(granted: Room, said: str | None) -> None:
    found = shortage(DEMAND, granted)
    assert found is None if said is None else found and said in found


def test_postgresql_says_what_it_grants(app: APIFlask, database_url: str) -> None:
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        granted = room(connection)
        shown = connection.scalar(sa.text("SHOW max_connections"))
        database = sa.make_url(database_url).database
        connection.execute(sa.text(f'ALTER DATABASE "{database}" CONNECTION LIMIT 7'))
        connection.commit()
        limited = room(connection)
    assert granted.max_connections == int(shown)
    assert granted.limit is None
    assert 0 < granted.ours < granted.max_connections
    assert limited.ours == limited.limit == 7


@pytest.mark.parametrize(
    ("hosts", "status", "last"), [("1", 0, "it fits"), ("1000", 1, "Error: the service")]
)
def test_the_command_ends_with_the_verdict(app: APIFlask, hosts: str, status: int, last: str) -> None:
    done = app.test_cli_runner().invoke(args=["pake", "check-capacity", "--hosts", hosts, "--workers", "2"])
    assert done.exit_code == status
    assert done.output.splitlines()[-1].startswith(last)
