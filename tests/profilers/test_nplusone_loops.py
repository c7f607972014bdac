"""Statements sent one by one: told apart by cause, each fix executed, beside their healthy twins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import bindparam, text
from sqlalchemy.orm import Session

from profilers import Profile, record
from tests.profilers import example, loops
from tests.profilers.example import Customer, Product, memory_engine

Code = Callable[[Session], None]


def run(engine: sa.Engine, code: Code, profile: str = "nplusone") -> Profile:
    with Session(engine) as session, record("run", profile=profile) as seen:
        code(session)
    return seen


SELECTS = [
    (loops.gets, "get_in_loop", "Customer"),
    (loops.gets_by_two_keys, "get_in_loop", "Seat"),
    (loops.selects, "select_in_loop", "Order"),
    (loops.selects_of_columns, "select_in_loop", "Customer"),
    (loops.selects_with_a_constant, "select_in_loop", "Customer"),
    (loops.first_of_query, "select_in_loop", "Customer"),
    (loops.lists_of_one, "select_in_loop", "Order"),
    (loops.orders_by_parent, "select_in_loop", "Order"),
    (loops.counts, "count_in_loop", "Order"),
    (loops.counts_of_query, "count_in_loop", "Order"),
    (loops.newest, "count_in_loop", "Order"),
    (loops.write_only, "write_only_collection", "Customer.visits"),
    (loops.write_only_counts, "count_in_loop", "Customer.visits"),
    (loops.core, "core_in_loop", "customer"),
    (loops.core_on_a_connection, "core_in_loop", "customer"),
]
WRITES = [
    (loops.inserts, "insert_row_by_row", "Product", [{"name": "a"}, {"name": "b"}]),
    (loops.core_inserts, "insert_row_by_row", "product", [{"name": "a"}, {"name": "b"}]),
    (loops.inserts_of_one_flush, "insert_row_by_row", "product", [{"name": "a"}, {"name": "b"}]),
    (loops.updates, "update_row_by_row", "Customer", [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]),
    (loops.deletes, "delete_row_by_row", "Visit", []),
]


def in_code(**values: Any) -> dict[str, Any]:
    """The names that a printed fix may use."""
    tables = {table.name: table for table in example.Base.metadata.tables.values()}
    return {**vars(sa), **tables, **vars(example), **values}


@pytest.mark.parametrize(
    ("code", "cause", "subject"), SELECTS, ids=lambda value: getattr(value, "__name__", None)
)
def test_selects_in_a_loop_and_the_one_statement_that_replaces_them(engine, code, cause, subject):
    profile = run(engine, code)
    (finding,) = profile.findings
    assert (finding.cause, finding.subject, finding.count) == (cause, subject, 10)
    assert finding.location.function == code.__name__
    assert finding.fix in finding.message

    def fixed(session: Session) -> None:
        emails = [f"{number}@example.org" for number in loops.IDS]
        values = {name: list(loops.IDS) for name in ("ids", "customer_ids", "region_ids")}
        keys = [(number, number) for number in loops.IDS]
        result = eval(finding.fix, in_code(session=session, emails=emails, keys=keys, **values))
        rows = result if isinstance(result, list) else session.execute(result).all()
        assert len(rows) in (10, 20)

    assert run(engine, fixed).statement_count == finding.details["statements_after"] == 1


@pytest.mark.parametrize(
    ("code", "cause", "subject", "rows"), WRITES, ids=lambda value: getattr(value, "__name__", None)
)
def test_rows_written_one_by_one_and_the_one_statement_that_replaces_them(engine, code, cause, subject, rows):
    (finding,) = run(engine, code).findings
    assert (finding.cause, finding.subject, finding.count) == (cause, subject, 10)

    def fixed(session: Session) -> None:
        exec(finding.fix, in_code(session=session, rows=rows, customer_ids=list(loops.IDS)))

    assert run(engine, fixed).statement_count == finding.details["statements_after"] == 1


@pytest.mark.parametrize(
    ("code", "fix"),
    [
        (loops.upserts, "Send one INSERT for all rows, not one for each"),
        (loops.inserts_from_a_select, "Send one INSERT for all rows, not one for each"),
        (
            loops.updates_by_an_expression,
            "connection.execute(update(customer).where(… == bindparam(…)), rows)",
        ),
        (loops.updates_by_another_key, "connection.execute(update(customer).where(… == bindparam(…)), rows)"),
        (loops.deletes_of_some, "Send one DELETE for all values, not one for each"),
        (loops.deletes_below_another_table, "Send one DELETE for all values, not one for each"),
    ],
)
def test_what_a_plain_list_of_rows_would_write_otherwise_gets_no_code(engine, code, fix):
    (finding,) = run(engine, code).findings
    assert finding.fix.endswith(fix)


@pytest.mark.parametrize(
    "code", [loops.texts, loops.texts_with_values_inside, loops.texts_for_the_driver, loops.text_inserts]
)
def test_text_in_a_loop(engine, code):
    (finding,) = run(engine, code).findings
    assert (finding.cause, finding.count) == ("text_in_loop", 10)
    assert finding.subject.endswith("?)" if code is loops.text_inserts else "?")

    def fixed(session: Session) -> None:
        if code is loops.text_inserts:
            session.execute(text("INSERT INTO product (name) VALUES (:name)"), [{"name": "a"}, {"name": "b"}])
        else:
            keys = bindparam("keys", expanding=True)
            query = text("SELECT name FROM customer WHERE id IN :keys").bindparams(keys)
            assert len(session.execute(query, {"keys": list(loops.IDS)}).all()) == 10

    assert run(engine, fixed).statement_count == finding.details["statements_after"] == 1


@pytest.mark.parametrize(("code", "table"), [(loops.flushes, "product"), (loops.commits, "product")])
def test_a_flush_or_commit_for_each_row(code, table):
    (finding,) = run(memory_engine(), code).findings
    assert (finding.cause, finding.subject, finding.count) == ("flush_row_by_row", table, 10)
    assert "session.add_all" in finding.fix
    assert run(memory_engine(), loops.one_flush).findings == []


def test_a_flush_for_each_changed_row(engine):
    (finding,) = run(engine, loops.flushed_updates).findings
    assert (finding.cause, finding.subject, finding.count) == ("flush_row_by_row", "customer", 10)
    after = run(engine, loops.updates_of_one_flush)
    assert after.findings == []
    assert after.statement_count == 1 + finding.details["statements_after"]


def test_a_query_before_each_row_is_told_as_one_with_the_rows():
    engine = memory_engine()
    profile = run(engine, loops.checks)
    (finding,) = profile.findings
    assert (finding.cause, finding.subject) == ("validation_query", "Customer")
    assert (profile.statement_count, finding.count) == (20, 19)

    def fixed(session: Session) -> None:
        names = in_code(session=session, emails=loops.NEW)
        exec(finding.fix, names)
        new = [email for email in loops.NEW if email not in names["existing"]]
        session.add_all([Customer(name="new", email=email, region_id=1) for email in new])
        session.commit()

    # SQLite takes an insertmanyvalues in as many calls as rows when it has to return their keys in order.
    after = run(memory_engine(), fixed)
    assert after.findings == []
    assert [item.executemany for item in after.statements].count(False) == 1


@pytest.mark.parametrize(
    "code",
    [
        loops.three_gets,
        loops.gets_from_the_identity_map,
        loops.gets_on_different_lines,
        loops.gets_on_one_line,
        loops.a_helper_called_on_different_lines,
        loops.pages,
        loops.pages_by_key,
        loops.pages_of_text,
        loops.batches,
        loops.batches_of_pairs,
        loops.ranges,
        loops.equal_values,
        loops.one_flush,
        loops.updates_of_one_flush,
        loops.bulk_insert,
        loops.bulk_inserts_in_batches,
        loops.bulk_update,
        loops.deletes_in_batches,
        loops.a_statement_that_streams,
    ],
)
def test_silent_on_the_healthy_twin(engine, code):
    profile = run(engine, code)
    assert profile.statement_count > 0
    assert profile.findings == []


def test_silent_on_rows_that_a_test_file_makes(engine):
    def arrange(session: Session) -> None:
        for number in loops.IDS:
            session.add(Product(name=str(number)))
            session.commit()

    assert run(engine, arrange).findings == []


@pytest.fixture
def made_in_a_fixture(engine) -> Profile:
    return run(engine, loops.gets)


def test_silent_on_what_a_fixture_does(made_in_a_fixture):
    assert made_in_a_fixture.statement_count == 10
    assert made_in_a_fixture.findings == []


@pytest.mark.parametrize("code", [loops.allowed_gets, loops.allowed_lazy_loads])
def test_a_loop_can_be_allowed_in_code(engine, code):
    profile = run(engine, code)
    assert profile.statement_count >= 10
    assert profile.findings == []


def test_an_allowance_holds_for_its_block_only(engine):
    (finding,) = run(engine, loops.allowance_that_ended_too_early).findings
    assert (finding.cause, finding.count) == ("get_in_loop", 9)


def test_a_loop_can_be_allowed_by_pattern(engine, monkeypatch):
    monkeypatch.setenv("FLASK_PROFILE_NPLUSONE_ALLOW", "Customer, Nothing.*")
    assert run(engine, loops.gets).findings == []
    assert len(run(engine, loops.selects).findings) == 1


def test_an_allowance_that_matches_nothing_is_reported_with_its_line_and_reason(engine):
    (finding,) = run(engine, loops.stale_allowance).findings
    assert (finding.kind, finding.subject) == ("stale_allowance", "Order.customer")
    assert finding.location.function == "stale_allowance"
    assert "it was slow to load" in finding.message


def test_in_requests_an_allowance_is_stale_only_after_many(engine, profiled):
    app, profiles = profiled("nplusone", PROFILE_NPLUSONE_ALLOW="Nothing.here")

    @app.get("/<int:rows>")
    def view(rows: int) -> str:
        with Session(engine) as session:
            (loops.allowed_gets if rows else loops.stale_allowance)(session)
        return ""

    client = app.test_client()
    for number in range(101):
        client.get(f"/{number % 2}")
    stale = {finding.subject: at for at, profile in enumerate(profiles) for finding in profile.findings}
    assert stale == {"Nothing.here": 99}
    for _ in range(100):
        client.get("/0")
    stale = {finding.subject for profile in profiles for finding in profile.findings}
    assert stale == {"Nothing.here", "Order.customer"}


def test_the_threshold_is_an_option(engine, monkeypatch):
    monkeypatch.setenv("FLASK_PROFILE_NPLUSONE_THRESHOLD", "3")
    assert len(run(engine, loops.three_gets).findings) == 1
