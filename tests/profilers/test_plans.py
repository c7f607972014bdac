"""What may be sent to EXPLAIN, and what is read from a plan; no database is needed for either."""

from __future__ import annotations

import pytest

from profilers.plan_hints import conditions, conjuncts, hints, index_for
from profilers.plans import Column, NoPlanError, Plan, Table, numbered, outline, plannable


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT %(a)s, %(b)s, %(a)s", "SELECT $1, $2, $1"),
        ("SELECT %s, %s", "SELECT $1, $2"),
        ("SELECT 5 %% 2 WHERE a LIKE '%%x'", "SELECT 5 % 2 WHERE a LIKE '%x'"),
        ("WHERE a IN (__[POSTCOMPILE_a_1]) AND b = %(b)s", "WHERE a IN ($1) AND b = $2"),
        ("x LIMIT %(l)s OFFSET %(o)s", "x LIMIT 100 OFFSET 0"),
        ("SELECT 1", "SELECT 1"),
    ],
)
def test_values_of_the_driver_become_numbers(sql, expected):
    assert numbered(sql) == expected


def test_types_are_given_where_they_are_known():
    assert numbered("SELECT %(a)s, %(b)s", {"a": "INTEGER"}) == "SELECT CAST($1 AS INTEGER), $2"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "  (select 1)",
        "/* route: x */ SELECT 1;",
        "WITH a AS (SELECT 1) SELECT 2",
        "-- x\nUPDATE a SET b=1",
    ],
)
def test_one_statement_over_rows_may_be_planned(sql):
    assert plannable(sql) == sql.strip().removesuffix(";")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1; SELECT 2",
        "SELECT ';'",
        "EXPLAIN ANALYZE SELECT 1",
        "ANALYZE",
        "CALL f()",
        "",
        "SELECTED",
        "/*",
    ],
)
def test_anything_else_may_not(sql):
    with pytest.raises(NoPlanError):
        plannable(sql)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("(a.x = $1)", ["a.x = $1"]),
        ("((a.x = $1) AND (a.y > $2))", ["a.x = $1", "a.y > $2"]),
        ("((a.x = ' AND (') AND (a.y > $2))", ["a.x = ' AND ('", "a.y > $2"]),
        ("((a.x = $1) OR (a.y > $2))", ["(a.x = $1) OR (a.y > $2)"]),
    ],
)
def test_conditions_are_taken_apart_at_and(text, parts):
    assert list(conjuncts(text)) == parts


TABLE = Table(
    "orders",
    rows=50_000,
    columns={"customer": Column("integer", 10_000), "state": Column("text", 3), "note": Column("json", 0)},
)


@pytest.mark.parametrize(
    ("condition", "keys"),
    [
        ("(o.customer = $1)", ["customer"]),
        ("((o.state = $1) AND (o.customer = $2))", ["customer", "state"]),
        ("(o.state = $1)", []),
        ("(o.customer > $1)", []),
        ("((o.customer)::text = $1)", []),
        ("(o.customer = o.state)", []),
        ("((o.customer = $1) OR (o.state = $2))", []),
        ("(p.customer = $1)", []),
        ("(o.unknown = $1)", []),
    ],
)
def test_an_index_is_advised_only_where_it_leaves_little(condition, keys):
    assert index_for(conditions(condition, "o", TABLE), TABLE) == keys


def scan(**more: object) -> dict[str, object]:
    named = {"Schema": "public", "Relation Name": "orders", "Alias": "o"}
    return {"Node Type": "Seq Scan", "Plan Rows": 500, "Plan Width": 8, **named, **more}


def plan_of(root: dict[str, object], rows: float = 500) -> Plan:
    return Plan(root, {("public", "orders"): Table("orders", rows, columns=TABLE.columns)}, 2**22)


def nested_loop(inner: dict[str, object], outer_rows: int) -> dict[str, object]:
    outer = {"Node Type": "Index Scan", "Plan Rows": outer_rows, "Plan Width": 8, "Alias": "c"}
    sides = [outer, {"Node Type": "Materialize", "Plan Rows": 500, "Plan Width": 8, "Plans": [inner]}]
    condition = {"Join Filter": "(c.id = o.customer)"}
    return {"Node Type": "Nested Loop", "Plan Rows": outer_rows, "Plan Width": 8, "Plans": sides, **condition}


def test_a_table_that_a_nested_loop_reads_again_and_again_wants_an_index():
    (hint,) = hints(plan_of(nested_loop(scan(), 20_000)))
    assert (hint.cause, hint.fix) == ("missing_index", "CREATE INDEX CONCURRENTLY ON orders (customer);")


def test_a_nested_loop_over_a_few_rows_does_not():
    assert hints(plan_of(nested_loop(scan(), 10))) == []


def test_a_plan_is_drawn_without_the_values_of_the_statement():
    lines = outline(plan_of(scan(Filter="((o.state = 'canary'::text) AND (o.customer = 4711))")))
    assert lines == [
        "Seq Scan on orders (cost 0, 500 rows)",
        "  Filter: ((o.state = ?::text) AND (o.customer = ?))",
    ]
