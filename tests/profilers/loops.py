"""Code that sends statements one by one, and its healthy twins, for test_nplusone_loops.py.

In a file of its own because rows that a test file writes one by one are no finding.
"""

from __future__ import annotations

from sqlalchemy import delete, func, insert, select, text, tuple_, update
from sqlalchemy.dialects import sqlite
from sqlalchemy.orm import Session, with_parent

from profilers import allow_n_plus_one
from tests.profilers.example import Customer, Order, Product, Region, Seat, Visit

IDS = range(1, 11)
NEW = [f"new{number}@example.org" for number in IDS]
customer = Customer.__table__
product = Product.__table__


# One by one -----------------------------------------------------------------------------------------------


def gets(session: Session) -> None:
    for number in IDS:
        session.get(Customer, number)


def gets_by_two_keys(session: Session) -> None:
    for number in IDS:
        session.get(Seat, (number, number))


def selects(session: Session) -> None:
    for number in IDS:
        session.scalars(select(Order).where(Order.customer_id == number)).all()


def selects_of_columns(session: Session) -> None:
    for number in IDS:
        session.execute(select(Customer.name).where(Customer.id == number)).one()


def selects_with_a_constant(session: Session) -> None:
    for number in IDS:
        session.scalars(select(Customer).where(Customer.name != "", Customer.region_id == number)).all()


def first_of_query(session: Session) -> None:
    for number in IDS:
        session.query(Customer).filter_by(email=f"{number}@example.org").first()


def lists_of_one(session: Session) -> None:
    for number in IDS:
        session.scalars(select(Order).where(Order.customer_id.in_([number]))).all()


def orders_by_parent(session: Session) -> None:
    for each in session.scalars(select(Customer)):
        session.scalars(select(Order).where(with_parent(each, Customer.orders))).all()


def counts(session: Session) -> None:
    for number in IDS:
        session.scalar(select(func.count()).where(Order.customer_id == number))


def counts_of_query(session: Session) -> None:
    for number in IDS:
        session.query(Order).filter(Order.customer_id == number).count()


def newest(session: Session) -> None:
    for number in IDS:
        session.scalar(select(func.max(Order.id)).where(Order.customer_id == number))


def write_only(session: Session) -> None:
    for each in session.scalars(select(Customer)):
        session.scalars(each.visits.select()).all()


def write_only_counts(session: Session) -> None:
    for each in session.scalars(select(Customer)):
        session.scalar(select(func.count()).select_from(each.visits.select().subquery()))


def core(session: Session) -> None:
    for number in IDS:
        session.execute(select(customer).where(customer.c.id == number)).one()


def core_on_a_connection(session: Session) -> None:
    for number in IDS:
        session.connection().execute(select(customer.c.name).where(customer.c.id == number)).one()


def texts(session: Session) -> None:
    for number in IDS:
        session.execute(text("SELECT name FROM customer WHERE id = :id"), {"id": number}).one()


def texts_with_values_inside(session: Session) -> None:
    for number in IDS:
        session.execute(text(f"SELECT name FROM customer WHERE id = {number}")).one()


def texts_for_the_driver(session: Session) -> None:
    for number in IDS:
        session.connection().exec_driver_sql("SELECT name FROM customer WHERE id = ?", (number,)).one()


def text_inserts(session: Session) -> None:
    for number in IDS:
        session.execute(text("INSERT INTO product (name) VALUES (:name)"), {"name": str(number)})


def flushes(session: Session) -> None:
    for number in IDS:
        session.add(Product(name=str(number)))
        session.flush()


def commits(session: Session) -> None:
    for number in IDS:
        session.add(Product(name=str(number)))
        session.commit()


def flushed_updates(session: Session) -> None:
    for each in session.scalars(select(Customer)).all():
        each.name = "new"
        session.flush()


def checks(session: Session) -> None:
    for email in NEW:
        if session.scalar(select(Customer).where(Customer.email == email)) is None:
            session.add(Customer(name="new", email=email, region_id=1))
    session.commit()


def inserts(session: Session) -> None:
    for number in IDS:
        session.execute(insert(Product).values(name=str(number)))


def core_inserts(session: Session) -> None:
    for number in IDS:
        session.connection().execute(insert(product), {"name": str(number)})


def inserts_of_one_flush(session: Session) -> None:
    for number in IDS:
        session.add(Product(name=func.lower(f"P{number}")))
    session.flush()


def updates(session: Session) -> None:
    for number in IDS:
        session.execute(update(Customer).where(Customer.id == number).values(name=f"new {number}"))


def deletes(session: Session) -> None:
    for number in IDS:
        session.execute(delete(Visit).where(Visit.customer_id == number))


def upserts(session: Session) -> None:
    for number in IDS:
        statement = sqlite.insert(Product).values(id=number, name="new")
        session.execute(statement.on_conflict_do_update(index_elements=["id"], set_={"name": "new"}))


def inserts_from_a_select(session: Session) -> None:
    for number in IDS:
        names = select(Customer.name).where(Customer.id == number)
        session.execute(insert(Product).from_select(["name"], names))


def updates_by_an_expression(session: Session) -> None:
    for number in IDS:
        session.execute(update(Customer).where(Customer.id == number).values(name=Customer.name + "!"))


def updates_by_another_key(session: Session) -> None:
    for number in IDS:
        session.execute(update(Customer).where(Customer.region_id == number).values(name="new"))


def deletes_of_some(session: Session) -> None:
    for number in IDS:
        session.execute(delete(Visit).where(Visit.customer_id == number, Visit.id > 1_000))


def deletes_below_another_table(session: Session) -> None:
    for number in IDS:
        kept = select(Customer.id).where(Customer.id == number, Customer.name == "")
        session.execute(delete(Visit).where(Visit.customer_id.in_(kept)))


# Healthy twins --------------------------------------------------------------------------------------------


def three_gets(session: Session) -> None:
    for number in IDS[:3]:
        session.get(Customer, number)


def gets_from_the_identity_map(session: Session) -> None:
    kept = session.scalars(select(Customer)).all()
    for number in IDS:
        session.get(Customer, number)
    assert kept


def gets_on_different_lines(session: Session) -> None:
    session.get(Customer, 1)
    session.get(Customer, 2)
    session.get(Customer, 3)
    session.get(Customer, 4)
    session.get(Customer, 5)
    session.get(Customer, 6)


def gets_on_one_line(session: Session) -> None:
    get = session.get
    [get(Region, 1), get(Region, 2), get(Region, 3), get(Region, 4), get(Region, 5), get(Region, 6)]


def _region(session: Session, number: int) -> Region | None:
    return session.get(Region, number)


def a_helper_called_on_different_lines(session: Session) -> None:
    _region(session, 1)
    _region(session, 2)
    _region(session, 3)
    _region(session, 4)
    _region(session, 5)
    _region(session, 6)


def pages(session: Session) -> None:
    for start in IDS:
        session.scalars(select(Order).order_by(Order.id).offset(start).limit(2)).all()


def pages_by_key(session: Session) -> None:
    for last in IDS:
        session.scalars(select(Order).where(Order.id > last).order_by(Order.id).limit(2)).all()


def pages_of_text(session: Session) -> None:
    for last in IDS:
        session.execute(text("SELECT id FROM customer WHERE id > :last ORDER BY id LIMIT 2"), {"last": last})


def batches(session: Session) -> None:
    for start in IDS:
        session.scalars(select(Order).where(Order.id.in_([start, start + 1, start + 2]))).all()


def batches_of_pairs(session: Session) -> None:
    for start in IDS:
        keys = [(start, start), (start + 1, start + 1)]
        session.scalars(select(Order).where(tuple_(Order.id, Order.customer_id).in_(keys))).all()


def ranges(session: Session) -> None:
    for start in IDS:
        session.scalars(select(Order).where(Order.id >= start, Order.id < start + 2)).all()


def equal_values(session: Session) -> None:
    for _ in IDS:
        session.execute(select(Customer.name).where(Customer.id == 1)).one()


def one_flush(session: Session) -> None:
    session.add_all([Product(name=str(number)) for number in IDS])
    session.commit()


def updates_of_one_flush(session: Session) -> None:
    for number, each in enumerate(session.scalars(select(Customer)).all()):
        each.name = f"new {number}"
    session.commit()


def bulk_insert(session: Session) -> None:
    session.execute(insert(Product), [{"name": str(number)} for number in IDS])


def bulk_inserts_in_batches(session: Session) -> None:
    for _ in IDS:
        session.execute(insert(Product), [{"name": str(number)} for number in IDS])


def bulk_update(session: Session) -> None:
    session.execute(update(Customer), [{"id": number, "name": "new"} for number in IDS])


def deletes_in_batches(session: Session) -> None:
    for start in IDS:
        session.execute(delete(Visit).where(Visit.id.in_([start, start + 10])))


def a_statement_that_streams(session: Session) -> None:
    for _ in session.scalars(select(Order).execution_options(yield_per=2)):
        pass


# Allowed --------------------------------------------------------------------------------------------------


def allowed_gets(session: Session) -> None:
    with allow_n_plus_one("Customer", reason="ten at most"):
        gets(session)


@allow_n_plus_one("Order.*", reason="ten at most")
def allowed_lazy_loads(session: Session) -> None:
    for order in session.scalars(select(Order)):
        len(order.items)
        order.customer.name


def allowance_that_ended_too_early(session: Session) -> None:
    with allow_n_plus_one("Customer", reason="ten at most"):
        session.get(Customer, 10)
    for number in IDS[:9]:
        session.get(Customer, number)


def stale_allowance(session: Session) -> None:
    with allow_n_plus_one("Order.customer", reason="it was slow to load"):
        session.scalars(select(Order)).all()
