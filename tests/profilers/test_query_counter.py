"""Budgets, duplicates and sums, each beside what must stay silent."""

from __future__ import annotations

import logging

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from profilers import query_budget, record
from tests.profilers.example import Customer, Product


def ask(engine: sa.Engine, times: int) -> str:
    with Session(engine) as session:
        for number in range(times):
            session.execute(sa.select(Customer.name).where(Customer.id == number))
    return ""


def test_over_the_limit_is_a_finding_and_one_warning(profiled, engine, caplog):
    app, profiles = profiled("queries", PROFILE_QUERIES_MAX_STATEMENTS=3)
    app.add_url_rule("/<int:times>", view_func=lambda times: ask(engine, times))
    with caplog.at_level(logging.WARNING, "profilers.queries"):
        app.test_client().get("/3")
        app.test_client().get("/4")
    fine, over = profiles
    assert fine.findings == []
    (finding,) = over.findings
    assert (finding.kind, finding.count, finding.details) == ("over_budget", 4, {"limit": 3})
    assert finding.location.function == "ask"
    assert caplog.messages == [finding.message]


def test_a_view_has_a_budget_of_its_own(profiled, engine):
    app, profiles = profiled("queries")

    @app.get("/")
    @query_budget(1)
    def view() -> str:
        return ask(engine, 2)

    app.test_client().get("/")
    assert [finding.details["limit"] for finding in profiles[0].findings] == [1]


def test_a_budget_in_the_config_beats_the_decorator(profiled, engine):
    app, profiles = profiled("queries", PROFILE_QUERIES_BUDGETS="POST *=0, GET /a*=5")
    app.add_url_rule("/a/<int:n>", view_func=query_budget(1)(lambda n: ask(engine, n)))
    app.test_client().get("/a/5")
    app.test_client().get("/a/6")
    assert [len(profile.findings) for profile in profiles] == [0, 1]


def test_equal_parameters_are_a_duplicate_and_different_ones_are_not(engine):
    with record("run", profile="queries") as profile, Session(engine) as session:
        for number in range(6):
            session.execute(sa.select(Customer.name).where(Customer.id == number))
            session.execute(sa.select(Customer.email).where(Customer.id == 1))
    (finding,) = profile.findings
    assert (finding.kind, finding.count) == ("duplicate_query", 6)
    assert "customer.email" in finding.subject


def test_what_is_asked_again_after_a_write_is_no_duplicate(engine):
    with record("run", profile="queries") as profile, Session(engine) as session:
        for number in range(6):
            session.execute(sa.select(sa.func.count()).select_from(Product))
            session.add(Product(name=str(number)))
            session.flush()
    assert profile.findings == []


@pytest.mark.parametrize("value", [b"x", [1, 2], {"a": 1}, 1.5, None])
def test_any_parameter_can_be_told_apart(engine, value):
    query = sa.select(sa.literal(value, sa.JSON) if isinstance(value, (list, dict)) else sa.literal(value))
    with record("run", profile="queries") as profile, engine.connect() as connection:
        for _ in range(3):
            connection.execute(query)
    assert [finding.count for finding in profile.findings] == [3]


def test_parameters_are_kept_as_a_keyed_number_only(engine):
    with record("run", profile="queries") as profile, engine.connect() as connection:
        connection.execute(sa.select(Customer.id).where(Customer.email == "canary"))
        connection.execute(sa.select(Customer.id).where(Customer.id == 7))
    one, two = (statement.parameters for statement in profile.statements)
    assert one != two
    assert two not in (7, hash((7,)))
