"""Plans of slow statements over time: what changed, when, and what is no change."""

from __future__ import annotations

import re

import pytest
import sqlalchemy as sa

from profilers import record, slow_queries
from profilers.console.figures import flips, plan_steps
from profilers.profile import Finding, Profile
from profilers.slow_queries import SlowQueries, SlowQueryOptions
from profilers.storage.plan_history import MAX_PLANS
from profilers.store import Limits, Store, open_store
from tests.conftest import autocommit

SHAPE = "SELECT id FROM post WHERE title = ?"
SEQUENTIAL = ["Seq Scan on post (cost 100, 5 rows)", "  Filter: title = ?"]
INDEXED = ["Index Scan using post_title on post (cost 8, 5 rows)", "  Index Cond: title = ?"]


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request, tmp_path) -> Store:
    postgresql = request.param == "postgresql"
    return open_store(request.getfixturevalue("empty_database_url") if postgresql else tmp_path / "profiles")


def slow(plan: list[str], asked_at: float, *, at: float = 1000.0, database: str = "shop") -> Profile:
    """A request with a slow statement, whose plan was asked for at some time."""
    details = {"plan": plan, "planned_at": asked_at, "database": database}
    finding = Finding("slow_query", "slow_statement", SHAPE, 1, details=details)
    return Profile("GET /", at, duration=1.0, status=200, host="h", worker=1, findings=[finding])


def test_a_change_and_the_way_back_are_two_flips(store):
    for asked_at, plan in ((100, INDEXED), (200, INDEXED), (300, SEQUENTIAL), (400, INDEXED)):
        store.add([slow(plan, asked_at)])
    back, change = flips(store.plans())
    assert (change.shape, change.database, change.after, change.at) == (SHAPE, "shop", 200, 300)
    assert (list(change.old), list(change.new)) == (INDEXED, SEQUENTIAL)
    assert (back.after, back.at, list(back.new)) == (300, 400, INDEXED)


def test_other_estimates_are_the_same_plan_and_the_newest_are_shown(store):
    grown = [line.replace("cost 8, 5 rows", "cost 80, 51 rows") for line in INDEXED]
    store.add([slow(INDEXED, 100), slow(grown, 200)])
    (row,) = store.plans()
    assert (list(row.outline), row.first_seen, row.last_seen) == (grown, 100, 200)
    assert flips([row]) == []


def test_a_worker_that_still_has_the_old_plan_does_not_bring_it_back(store):
    store.add([slow(INDEXED, 100)])
    store.add([slow(SEQUENTIAL, 300)])
    store.add([slow(INDEXED, 100, at=2000.0)])
    assert len(flips(store.plans())) == 1


def test_each_database_has_its_own_plan(store):
    store.add([slow(INDEXED, 100, database="a"), slow(SEQUENTIAL, 200, database="b")])
    assert len(store.plans()) == 2
    assert flips(store.plans()) == []


def test_plans_are_bounded_expire_and_are_forgotten(tmp_path):
    store = open_store(tmp_path / "profiles", Limits(days=1))
    store.add([slow([f"Result {number}"], number) for number in range(1, MAX_PLANS + 20)])
    assert len(store.plans()) == MAX_PLANS
    store.add([slow(INDEXED, 500_000, at=500_000)])
    assert [row.outline for row in store.plans()] == [tuple(INDEXED)]
    store.clear()
    assert store.plans() == []


def test_the_lines_that_differ_are_marked():
    new = ["Limit (cost 9, 1 rows)", *(f"  {line}" for line in SEQUENTIAL)]
    old = ["Limit (cost 7, 2 rows)", *(f"  {line}" for line in INDEXED)]
    assert [step.differs for step in plan_steps(new, old)] == [False, True, True]
    assert not any(step.differs for step in plan_steps(new))


def test_a_plan_is_asked_for_again_and_an_index_that_is_gone_shows(empty_database_url, monkeypatch, tmp_path):
    """On PostgreSQL: the statement is the same, the index is dropped between."""
    with autocommit(empty_database_url) as connection:
        connection.exec_driver_sql("CREATE TABLE post (id int, title text)")
        connection.exec_driver_sql("INSERT INTO post SELECT n, 'title ' || n FROM generate_series(1, 9000) n")
        connection.exec_driver_sql("CREATE INDEX post_title ON post (title)")
        connection.exec_driver_sql("ANALYZE post")
    engine = sa.create_engine(empty_database_url)
    profiler = SlowQueries(SlowQueryOptions(threshold_ms=0))
    store = open_store(tmp_path / "profiles")

    def ask() -> None:
        with record("test", profile="queries") as profile, engine.connect() as connection:
            connection.execute(sa.text("SELECT id FROM post WHERE title = :title"), {"title": "title 7"})
        profiler.examine(profile)
        store.add([profile])

    ask()
    with autocommit(empty_database_url) as connection:
        connection.exec_driver_sql("DROP INDEX post_title")
    ask()
    assert flips(store.plans()) == [], "a plan of now is not asked for again"
    monkeypatch.setattr(slow_queries, "AGAIN_SECONDS", 0.0)
    ask()
    engine.dispose()
    (flip,) = flips(store.plans())
    assert re.search(r"Index Scan|Bitmap", flip.old[0])
    assert flip.new[0].startswith("Seq Scan on post")
    assert flip.after < flip.at
