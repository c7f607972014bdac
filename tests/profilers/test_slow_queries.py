"""Slow statements and their plans, on real PostgreSQL: each fix is run, and what it was for is gone."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session

from profilers import Finding, Profilers, record
from profilers.call_stack import render
from profilers.plans import NotReachedError, fetch
from profilers.slow_queries import SlowQueries, SlowQueryOptions
from tests.conftest import autocommit
from tests.profilers.example import Customer, memory_engine

SCHEMA = """
CREATE TABLE customer (id int PRIMARY KEY, name text, email varchar(80), region int);
INSERT INTO customer SELECT n, 'customer ' || n, n || '@example.org', n %% 3 FROM generate_series(1, 30000) n;
CREATE TABLE "order" (id int PRIMARY KEY, customer_id int, state text, "when" timestamp);
INSERT INTO "order" SELECT n, n %% 10000, 'paid', timestamp '2026-01-01' + n * interval '1 minute'
    FROM generate_series(1, 60000) n;
CREATE TABLE region (id int PRIMARY KEY, name text NOT NULL);
INSERT INTO region SELECT n, 'region ' || n FROM generate_series(0, 2) n;
ANALYZE
"""


@pytest.fixture
def shop(empty_database_url: str) -> Iterator[sa.Engine]:
    """30,000 customers in 3 regions and 60,000 orders; no index but the primary keys."""
    with autocommit(empty_database_url) as connection:
        for statement in SCHEMA.split(";"):
            connection.exec_driver_sql(statement)
    engine = sa.create_engine(empty_database_url)
    yield engine
    engine.dispose()


Slow = Callable[..., list[Finding]]


@pytest.fixture
def slow(shop: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> Slow:
    """`slow(sql, **values)`: the findings of a process in which every statement counts as slow."""
    monkeypatch.setenv("FLASK_PROFILE_SLOW_QUERIES_THRESHOLD_MS", "0")

    def run(sql: str, **values: object) -> list[Finding]:
        with record("test", profile="slow-queries") as profile, shop.connect() as connection:
            connection.execute(sa.text(sql), values)
        return profile.findings

    return run


MENDABLE = {
    "equality": (
        "SELECT * FROM customer WHERE email = :email",
        {"email": "7@example.org"},
        "CREATE INDEX CONCURRENTLY ON customer (email);",
    ),
    "lower case": (
        "SELECT * FROM customer WHERE lower(email) = :email",
        {"email": "7@example.org"},
        "CREATE INDEX CONCURRENTLY ON customer (lower(email));",
    ),
    "quoted table, several conditions": (
        """SELECT * FROM "order" AS o WHERE o.state = :state AND o.customer_id = :id AND o."when" > :since""",
        {"state": "paid", "id": 4, "since": "2026-01-01"},
        """CREATE INDEX CONCURRENTLY ON "order" (customer_id, state);""",
    ),
    "two bounds": (
        """SELECT * FROM "order" WHERE "when" >= :since AND "when" < :until""",
        {"since": "2026-01-01", "until": "2026-01-02"},
        """CREATE INDEX CONCURRENTLY ON "order" ("when");""",
    ),
    "update": (
        """UPDATE "order" SET state = :state WHERE customer_id = :id""",
        {"state": "sent", "id": 4},
        """CREATE INDEX CONCURRENTLY ON "order" (customer_id);""",
    ),
    "delete": (
        """DELETE FROM "order" WHERE customer_id = :id""",
        {"id": 4},
        """CREATE INDEX CONCURRENTLY ON "order" (customer_id);""",
    ),
    "join": (
        """SELECT o.id FROM customer c JOIN "order" o ON o.customer_id = c.id WHERE c.id IN (:one, :two)""",
        {"one": 1, "two": 3},
        """CREATE INDEX CONCURRENTLY ON "order" (customer_id);""",
    ),
    "first page of a sorted table": (
        """SELECT * FROM "order" ORDER BY "when" DESC LIMIT :limit""",
        {"limit": 20},
        """CREATE INDEX CONCURRENTLY ON "order" ("when" DESC);""",
    ),
}


@pytest.mark.parametrize("case", MENDABLE)
def test_missing_index_is_found_and_creating_it_mends_the_plan(shop, slow, case):
    sql, values, fix = MENDABLE[case]
    (finding,) = slow(sql, **values)
    assert (finding.kind, finding.cause, finding.fix) == ("slow_query", "missing_index", fix)
    assert any("Seq Scan" in line for line in finding.details["plan"])
    with autocommit(shop.url.render_as_string(hide_password=False)) as connection:
        connection.exec_driver_sql(finding.fix)
    (mended,) = slow(sql, **values)
    assert (mended.cause, mended.fix, mended.details["hints"]) == ("slow_statement", "", [])
    assert any("Index" in line for line in mended.details["plan"])


@pytest.mark.parametrize(
    ("sql", "values"),
    [
        ("SELECT * FROM customer WHERE id = :id", {"id": 7}),
        ("SELECT * FROM customer WHERE region = :region", {"region": 1}),
        ("SELECT * FROM region WHERE name = :name", {"name": "region 1"}),
        ("SELECT count(*) FROM customer", {}),
        ("SELECT * FROM customer WHERE name LIKE :name", {"name": "%7"}),
        ("SELECT * FROM customer WHERE email || name = :name", {"name": "x"}),
        ("SELECT c.id FROM customer c JOIN region r ON r.id = c.region", {}),
        ('SELECT * FROM "order" WHERE "when" > :since', {"since": "2026-01-01"}),
        ("SELECT * FROM customer ORDER BY id LIMIT :limit", {"limit": 20}),
        ("INSERT INTO region VALUES (:id, :name)", {"id": 9, "name": "new"}),
    ],
)
def test_a_healthy_plan_gets_no_advice(slow, sql, values):
    (finding,) = slow(sql, **values)
    assert finding.details["plan"]
    assert (finding.details["hints"], finding.details["no_plan"]) == ([], "")


def test_a_sort_on_disk_is_mended_by_the_memory_it_asks_for(shop, slow):
    sql = 'SELECT o.*, c.name FROM "order" o, customer c WHERE c.id = o.customer_id ORDER BY c.name, o.state'
    with shop.begin() as connection:
        database = shop.url.database
        connection.exec_driver_sql(f'ALTER DATABASE "{database}" SET work_mem = "1MB"')
    shop.dispose()
    (finding,) = slow(sql)
    assert finding.cause == "sort_on_disk"
    memory = finding.fix.removeprefix("SET LOCAL ").removesuffix(";")
    with shop.begin() as connection:
        connection.exec_driver_sql(finding.fix)
        connection.exec_driver_sql(f'ALTER DATABASE "{database}" SET {memory}')
    shop.dispose()
    (mended,) = slow(sql)
    assert mended.details["hints"] == []


def test_missing_and_stale_statistics_are_mended_by_analyze(shop, slow):
    sql = "SELECT count(*) FROM visit WHERE length(page) > 3"
    with shop.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE visit (page text) WITH (autovacuum_enabled = off)")
        connection.exec_driver_sql("INSERT INTO visit SELECT repeat('x', 90) FROM generate_series(1, 20000)")
    (finding,) = slow(sql)
    assert (finding.cause, finding.fix) == ("no_statistics", "ANALYZE visit;")
    with shop.begin() as connection:
        connection.exec_driver_sql(finding.fix)
    assert slow(sql)[0].details["hints"] == []
    with shop.begin() as connection:
        connection.exec_driver_sql("INSERT INTO visit SELECT repeat('y', 90) FROM generate_series(1, 40000)")
        connection.exec_driver_sql("SELECT pg_stat_force_next_flush()")
    (finding,) = slow(sql)
    assert (finding.cause, finding.fix) == ("stale_statistics", "ANALYZE visit;")


def test_an_index_for_a_partition_goes_to_its_partitioned_table(shop, slow):
    with shop.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE event (day int, who int) PARTITION BY RANGE (day)")
        for part in (0, 1):
            bounds = f"FROM ({part * 100}) TO ({part * 100 + 100})"
            connection.exec_driver_sql(f"CREATE TABLE event_{part} PARTITION OF event FOR VALUES {bounds}")
        connection.exec_driver_sql("INSERT INTO event SELECT n %% 200, n FROM generate_series(1, 60000) n")
    with shop.begin() as connection:
        connection.exec_driver_sql("ANALYZE")
    sql = "SELECT * FROM event WHERE who = :who"
    (finding,) = slow(sql, who=7)
    assert [hint["fix"] for hint in finding.details["hints"]] == ["CREATE INDEX ON event (who);"]
    with shop.begin() as connection:
        connection.exec_driver_sql(finding.fix)
    assert slow(sql, who=7)[0].details["hints"] == []


def test_only_statements_over_the_threshold_are_findings(shop, monkeypatch):
    monkeypatch.setenv("FLASK_PROFILE_SLOW_QUERIES_THRESHOLD_MS", "300")
    with record("test", profile="slow-queries") as profile, shop.connect() as connection:
        connection.execute(sa.text("SELECT pg_sleep(0.4)"))
        connection.execute(sa.text("SELECT 1"))
    (finding,) = profile.findings
    assert finding.subject == "SELECT pg_sleep(?)"
    assert finding.duration >= 0.4
    assert finding.location is not None
    assert finding.location.function == "test_only_statements_over_the_threshold_are_findings"
    assert profile.sections["slow-queries"] == {"threshold_ms": 300.0, "statements": 1, "without_plan": []}


def test_no_value_reaches_finding_or_log(shop, slow, caplog):
    with caplog.at_level(logging.WARNING, "profilers.slow_queries"):
        findings = slow("SELECT * FROM customer WHERE name = 'canary-1' AND email = :email", email="canary-2")
        findings += slow("SELECT * FROM customer WHERE lower('canary-3') = name AND id = :id", id=1)
    assert "SELECT * FROM customer WHERE name = ?" in caplog.text
    assert "canary" not in caplog.text + str(findings)


def test_log_can_be_switched_off(slow, monkeypatch, caplog):
    monkeypatch.setenv("FLASK_PROFILE_SLOW_QUERIES_LOG", "no")
    assert slow("SELECT 1")
    assert caplog.messages == []


def test_orm_statement_with_a_list_a_page_and_untyped_values_is_planned(shop, monkeypatch):
    monkeypatch.setenv("FLASK_PROFILE_SLOW_QUERIES_THRESHOLD_MS", "0")
    customer = sa.table("customer", sa.column("id", sa.Integer), sa.column("name", sa.String))
    asked = (
        sa.select(customer.c.id, sa.literal("100%").label("share"), sa.func.concat(sa.literal("x"), "y"))
        .where(customer.c.id.in_([1, 2, 3]), customer.c.name.like("%7"))
        .order_by(customer.c.id)
        .limit(5)
        .offset(0)
    )
    with record("test", profile="slow-queries") as profile, Session(shop) as session:
        session.execute(asked)
    (finding,) = profile.findings
    assert finding.details["no_plan"] == ""
    assert any("Index" in line for line in finding.details["plan"])


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELECT 1; DROP TABLE region", "semicolon"),
        ("SELECT 1; COMMIT; DROP TABLE region", "semicolon"),
        ("EXPLAIN ANALYZE SELECT 1", "not a SELECT"),
        ("CREATE TABLE new AS SELECT 1", "not a SELECT"),
        ("TRUNCATE region", "not a SELECT"),
    ],
)
def test_what_is_not_one_plain_statement_is_not_sent(shop, slow, sql, reason):
    with record("test", profile="slow-queries") as profile, shop.connect() as connection:
        connection.exec_driver_sql(sql)
        connection.rollback()
    (finding,) = profile.findings
    assert reason in finding.details["no_plan"]
    assert finding.details["plan"] == []


def test_explaining_runs_nothing(shop, slow):
    with shop.begin() as connection:
        connection.exec_driver_sql("CREATE SEQUENCE runs")
    slow("SELECT nextval('runs')")
    slow('DELETE FROM "order" WHERE id = :id', id=1)  # rolled back
    slow("WITH gone AS (DELETE FROM region RETURNING id) SELECT * FROM gone")
    slow("SELECT * FROM region FOR UPDATE")
    with shop.connect() as connection:
        assert connection.scalar(sa.text("SELECT last_value FROM runs")) == 1
        assert connection.scalar(sa.text('SELECT count(*) FROM "order"')) == 60_000
        assert connection.scalar(sa.text("SELECT count(*) FROM region")) == 3


def test_a_plan_is_asked_for_once_and_never_through_the_apps_pool(shop, monkeypatch):
    asked = []
    monkeypatch.setattr("profilers.slow_queries.fetch", lambda *given: asked.append(given) or fetch(*given))
    sent = []

    @sa.event.listens_for(shop, "before_cursor_execute")
    def note(conn, cursor, statement, *_: object) -> None:
        sent.append(statement)

    profiler = SlowQueries(SlowQueryOptions(threshold_ms=0))
    monkeypatch.setattr("profilers.recording._profilers", lambda names, extension: [profiler])
    for _ in range(3):
        with record("test", profile="slow-queries") as profile, shop.connect() as connection:
            connection.execute(sa.text("SELECT 1 FROM region"))
        assert profile.findings[0].details["plan"]
    assert sent == ["SELECT 1 FROM region"] * 3
    assert len(asked) == 1
    assert shop.pool.checkedin() == 1


def test_a_role_that_may_not_read_is_told_so(shop, monkeypatch):
    monkeypatch.setenv("FLASK_PROFILE_SLOW_QUERIES_THRESHOLD_MS", "0")
    with record("test", profile="slow-queries") as profile, shop.begin() as connection:
        connection.exec_driver_sql("SELECT * FROM region")
        connection.exec_driver_sql("REVOKE ALL ON region FROM CURRENT_USER")
    assert profile.findings[0].details["no_plan"] == "the database role may not read its tables"


def test_a_database_that_cannot_be_reached_for_a_plan_is_left_alone_for_a_while(shop, monkeypatch):
    tries = []

    def refuse(engine, statement):
        tries.append(statement)
        raise NotReachedError("OperationalError on the way to the database")

    monkeypatch.setattr("profilers.slow_queries.fetch", refuse)
    profiler = SlowQueries(SlowQueryOptions(threshold_ms=0))
    monkeypatch.setattr("profilers.recording._profilers", lambda names, extension: [profiler])
    for _ in range(3):
        with record("test", profile="slow-queries") as profile, shop.connect() as connection:
            connection.execute(sa.text("SELECT 1 FROM region"))
        assert len(profile.findings) == 1
    assert len(tries) == 1


def test_other_databases_and_older_versions_are_named(slow, monkeypatch, shop):
    engine = memory_engine()
    with record("test", profile="slow-queries", engine=engine) as profile, Session(engine) as session:
        session.scalars(sa.select(Customer)).all()
    engine.dispose()
    assert profile.sections["slow-queries"]["without_plan"] == ["plans need PostgreSQL, this is sqlite"]
    with record("test", profile="slow-queries") as profile, shop.connect() as connection:
        monkeypatch.setattr(shop.dialect, "server_version_info", (15, 4))
        connection.execute(sa.text("SELECT 1"))
    reason = "EXPLAIN (GENERIC_PLAN) needs PostgreSQL 16, this is 15.4"
    assert profile.sections["slow-queries"]["without_plan"] == [reason]


def test_the_plan_of_a_request_is_fetched_after_its_response_and_stored(shop):
    app = Flask("shop")
    app.config.update(PROFILE="slow-queries,pyinstrument", PROFILE_SLOW_QUERIES_THRESHOLD_MS=0)
    app.config.update(PROFILE_PYINSTRUMENT_SAMPLE=1, PROFILE_PYINSTRUMENT_SLOWER_THAN_MS=0)
    worker = Profilers(app).worker
    assert worker is not None
    fetched = []
    serving = threading.get_ident()

    @app.get("/customers/<email>")
    def customers(email: str) -> str:
        with shop.connect() as connection:
            connection.execute(sa.text("SELECT * FROM customer WHERE email = :email"), {"email": email})
        return ""

    @sa.event.listens_for(shop, "checkout")
    def note(*_: object) -> None:
        fetched.append(threading.get_ident() == serving)

    app.test_client().get("/customers/canary")
    assert worker.writer.flush(30)
    (row,) = worker.store.profiles()
    profile = worker.store.profile(row.id)
    assert profile is not None
    (finding,) = profile.findings
    assert finding.fix == "CREATE INDEX CONCURRENTLY ON customer (email);"
    assert fetched == [True, False]  # the app's, then ours, from the same settings in the writer's thread
    assert render(profile.sections["pyinstrument"], "text")
    assert "canary" not in json.dumps(profile.to_json())
