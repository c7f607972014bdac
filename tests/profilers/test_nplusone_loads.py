"""Relationships and columns loaded one at a time: cause, chain, both lines, and a fix that is executed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import orm, select
from sqlalchemy.orm import Session, joinedload, selectinload

from profilers import Finding, Profile, record
from tests.profilers import example
from tests.profilers.example import Category, Customer, Employee, Item, Manager, Order, memory_engine

Statement = Any
Touch = Callable[[Session, Callable[[Statement], Statement]], None]


def as_it_is(statement: Statement) -> Statement:
    return statement


def applied(finding: Finding) -> Callable[[Statement], Statement]:
    """The printed fix, put behind the statement that queries the parents."""
    assert finding.fix.startswith(".options(")
    names = {**vars(orm), **vars(example)}
    return lambda statement: eval(f"statement{finding.fix}", names, {"statement": statement})


def run(engine: sa.Engine, touch: Touch, change: Callable[[Statement], Statement] = as_it_is) -> Profile:
    with Session(engine) as session, record("run", profile="nplusone") as profile:
        touch(session, change)
    return profile


def customer(session, change):
    for order in session.scalars(change(select(Order))):
        order.customer.name


def items(session, change):
    for order in session.scalars(change(select(Order))):
        len(order.items)


def customer_and_region(session, change):
    for order in session.scalars(change(select(Order))):
        order.customer.region.name


def items_products_and_back(session, change):
    for region_customer in session.scalars(change(select(Customer))):
        for order in region_customer.orders:
            for item in order.items:
                item.product.name


def region_below_a_joined_customer(session, change):
    for order in session.scalars(change(select(Order).options(joinedload(Order.customer)))):
        order.customer.region.name


def region_below_a_selectin_customer(session, change):
    for order in session.scalars(change(select(Order).options(selectinload(Order.customer)))):
        order.customer.region.name


def product_below_eager_items(session, change):
    for order in session.scalars(change(select(Order).options(selectinload(Order.items)))):
        for item in order.items:
            item.product.name


def items_of_one_customer(session, change):
    one = session.scalars(change(select(Customer).where(Customer.id == 1))).one()
    for order in one.orders:
        for item in order.items:
            item.product.name


def tree(session, change):
    def walk(category):
        for child in category.children:
            walk(child)

    walk(session.scalars(change(select(Category).where(Category.parent_id.is_(None)))).one())


def legacy_query(session, change):
    for order in change(session.query(Order)).all():
        order.customer.name


def biography(session, change):
    for each in session.scalars(change(select(Customer))):
        each.biography


def biography_below_a_joined_customer(session, change):
    for order in session.scalars(change(select(Order).options(joinedload(Order.customer)))):
        order.customer.biography


def column_left_out_by_load_only(session, change):
    for each in session.scalars(change(select(Customer).options(orm.load_only(Customer.id)))):
        each.name, each.email


def budget_of_managers(session, change):
    for each in session.scalars(change(select(Employee))):
        if isinstance(each, Manager):
            each.budget


@pytest.mark.parametrize(
    ("touch", "cause", "subjects", "statements", "fixed"),
    [
        (customer, "lazy_relationship", ["Order.customer"], 11, 1),
        (legacy_query, "lazy_relationship", ["Order.customer"], 11, 1),
        (items, "lazy_relationship", ["Order.items"], 11, 2),
        (customer_and_region, "lazy_relationship", ["Order.customer"], 21, 1),
        (items_products_and_back, "lazy_relationship", ["Customer.orders"], 41, 3),
        (region_below_a_joined_customer, "lazy_relationship", ["Customer.region"], 11, 1),
        (region_below_a_selectin_customer, "lazy_relationship", ["Customer.region"], 12, 2),
        (product_below_eager_items, "lazy_relationship", ["Item.product"], 22, 2),
        (tree, "lazy_relationship", ["Category.children"], 22, 4),
        (biography, "deferred_column", ["Customer.biography"], 11, 1),
        (biography_below_a_joined_customer, "deferred_column", ["Customer.biography"], 11, 1),
        (column_left_out_by_load_only, "deferred_column", ["Customer.name", "Customer.email"], 21, 1),
        (budget_of_managers, "subclass_column", ["Manager.budget"], 11, 2),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_printed_fix_brings_the_statements_down(engine, touch, cause, subjects, statements, fixed):
    profile = run(engine, touch)
    assert [(finding.cause, finding.subject) for finding in profile.findings] == [
        (cause, subject) for subject in subjects
    ]
    assert profile.statement_count == statements

    def change(statement: Statement) -> Statement:
        for finding in profile.findings:
            statement = applied(finding)(statement)
        return statement

    after = run(engine, touch, change)
    assert after.findings == []
    assert after.statement_count == fixed
    saved = sum(finding.count - finding.details["statements_after"] for finding in profile.findings)
    assert statements - saved == fixed


def test_three_levels_in_mixed_directions_are_one_finding_from_the_right_root():
    engine = memory_engine()
    (finding,) = run(engine, items_products_and_back).findings
    assert finding.details["chain"] == ["Customer.orders", "Order.items", "Item.product"]
    assert finding.count == 40
    assert finding.details["parents"] == 10
    assert finding.fix == (
        ".options(selectinload(Customer.orders).selectinload(Order.items).joinedload(Item.product))"
    )


def test_a_loader_that_the_query_names_is_to_be_replaced(engine):
    def touch(session, change):
        for order in session.scalars(select(Order).options(orm.lazyload(Order.customer))):
            order.customer.name

    (finding,) = run(engine, touch).findings
    assert finding.fix == (
        "Replace the loader of Order.customer in the query by .options(joinedload(Order.customer))"
    )


def test_a_single_parent_on_the_way_belongs_to_the_chain():
    engine = memory_engine()
    with Session(engine) as session:
        session.execute(sa.update(Order).values(customer_id=1))
        session.commit()
    (finding,) = run(engine, items_of_one_customer).findings
    assert (finding.subject, finding.details["parents"]) == ("Order.items", 10)
    assert finding.details["chain"] == ["Customer.orders", "Order.items", "Item.product"]
    assert run(engine, items_of_one_customer, applied(finding)).statement_count == 3


def test_two_branches_are_two_findings_and_their_fixes_work_together(engine):
    def both(session, change):
        for order in session.scalars(change(select(Order))):
            order.customer.region.name
            for item in order.items:
                item.product.name

    profile = run(engine, both)
    assert [finding.subject for finding in profile.findings] == ["Order.customer", "Order.items"]
    one, two = map(applied, profile.findings)
    assert run(engine, both, lambda statement: two(one(statement))).statement_count == 2


def test_the_finding_names_the_line_that_queried_and_the_line_that_touched(engine):
    def query(session):
        return session.scalars(select(Order)).all()

    def show(orders):
        for order in orders:
            order.customer.name

    with Session(engine) as session, record("run") as profile:
        show(query(session))
    (finding,) = profile.findings
    assert (finding.origin.function, finding.location.function) == ("query", "show")
    assert finding.origin.line == query.__code__.co_firstlineno + 1
    assert finding.location.line == show.__code__.co_firstlineno + 2
    for part in (
        str(finding.origin),
        str(finding.location),
        finding.subject,
        finding.fix,
        "10 Order objects",
    ):
        assert part in finding.message


def test_parents_from_two_queries_are_told_apart(engine):
    with Session(engine) as session, record("run") as profile:
        few = session.scalars(select(Order).where(Order.id <= 4)).all()
        many = session.scalars(select(Order).where(Order.id > 4)).all()
        for order in few + many:
            order.customer.name
    (finding,) = profile.findings
    assert finding.details["parents"] == 6
    assert finding.origin.line == finding.location.line - 2


def test_parents_made_before_the_profile_have_no_origin(engine):
    with Session(engine) as session:
        orders = session.scalars(select(Order)).all()
        with record("run") as profile:
            for order in orders:
                order.customer.name
    (finding,) = profile.findings
    assert finding.origin is None
    assert finding.fix == ".options(joinedload(Order.customer))"


def test_a_lazy_load_from_a_template_is_named_by_its_line(engine, profiled, tmp_path):
    (tmp_path / "orders.html").write_text(
        "<ul>\n{% for order in orders %}\n{{ order.customer.name }}\n{% endfor %}"
    )
    app, profiles = profiled("nplusone")
    app.template_folder = str(tmp_path)

    @app.get("/")
    def view() -> str:
        from flask import render_template

        with Session(engine) as session:
            return render_template("orders.html", orders=session.scalars(select(Order)).all())

    assert app.test_client().get("/").status_code == 200
    (finding,) = profiles[0].findings
    assert finding.location.file.endswith("orders.html")
    assert finding.location.line == 3
    assert finding.origin.function == "view"


def test_silent_on_immediateload(engine):
    def touch(session, change):
        query = select(Order).options(orm.immediateload(Order.customer), orm.immediateload(Order.items))
        for order in session.scalars(query):
            order.customer.name
            len(order.items)

    profile = run(engine, touch)
    assert profile.statement_count == 21
    assert profile.findings == []


@pytest.mark.parametrize("load", ["joinedload", "selectinload", "subqueryload"])
def test_silent_on_every_eager_strategy(engine, load):
    eager = getattr(orm, load)

    def touch(session, change):
        query = select(Order).options(eager(Order.customer), eager(Order.items).options(eager(Item.product)))
        for order in session.scalars(query).unique():
            order.customer.name
            assert all(item.product.name for item in order.items)

    assert run(engine, touch).findings == []


def test_silent_on_contains_eager(engine):
    def touch(session, change):
        query = select(Order).join(Order.customer).options(orm.contains_eager(Order.customer))
        for order in session.scalars(query):
            order.customer.name

    assert run(engine, touch).statement_count == 1


def test_silent_on_the_identity_map(engine):
    def touch(session, change):
        customers = session.scalars(select(Customer)).all()
        for order in session.scalars(select(Order)):
            order.customer.name
        assert customers

    profile = run(engine, touch)
    assert profile.findings == []
    assert profile.statement_count == 2


@pytest.mark.parametrize(("rows", "findings"), [(2, 0), (3, 0), (4, 0), (5, 1)])
def test_silent_below_the_threshold(rows, findings):
    assert len(run(memory_engine(rows), customer).findings) == findings


def test_silent_on_batches_of_selectin():
    profile = run(
        memory_engine(3000),
        lambda session, change: session.scalars(select(Order).options(selectinload(Order.items))).all(),
    )
    assert profile.statement_count == 7
    assert profile.findings == []


def test_many_children_of_one_parent_are_one_parent(engine):
    def touch(session, change):
        one = session.get(Order, 1)
        for _ in range(20):
            session.expire(one, ["items"])
            len(one.items)

    assert [finding.cause for finding in run(engine, touch).findings] == []


def test_the_count_goes_on_when_the_profile_is_full(monkeypatch):
    from profilers import listeners

    monkeypatch.setattr(listeners, "MAX_RECORDS", 20)
    profile = run(memory_engine(100), customer_and_region)
    assert len(profile.records) == 20
    assert profile.statement_count == 201
    (finding,) = profile.findings
    assert finding.count == 200
    assert finding.details["parents"] == 100


def test_items_know_their_way_back(engine):
    def touch(session, change):
        for item in session.scalars(change(select(Item))):
            item.order.customer.region.name

    (finding,) = run(engine, touch).findings
    assert finding.details["chain"] == ["Item.order", "Order.customer", "Customer.region"]
    assert run(engine, touch, applied(finding)).statement_count == 1
