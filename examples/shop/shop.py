"""A shop with everything that slows shops down, to try the profilers and their console on.

FLASK_PROFILE=queries,nplusone,slow-queries,pyinstrument FLASK_PROFILE_CONSOLE=1 flask --app shop run --debug

Then look at /customers, /orders and /report, and at /__profilers__/. SHOP_DATABASE_URL names a PostgreSQL
database; without it the shop is in memory.
"""

import math
import os
import time
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from flask import Flask, Response, render_template_string
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from sqlalchemy.pool import StaticPool

from profilers import Profilers


class Base(DeclarativeBase):
    pass


class Customer(Base):
    __tablename__ = "customer"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    orders: Mapped[list["Order"]] = relationship(back_populates="customer")


class Order(Base):
    __tablename__ = "order"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(sa.ForeignKey("customer.id"))
    total: Mapped[int]
    customer: Mapped[Customer] = relationship(back_populates="orders")


LAYOUT = """<!doctype html><html lang="en"><head><title>Shop</title></head><body><h1>{{ title }}</h1>
<ul>{% for line in lines %}<li>{{ line }}</li>{% endfor %}</ul></body></html>"""


def make_engine() -> sa.Engine:
    """Twelve customers with five orders each."""
    url = os.environ.get("SHOP_DATABASE_URL")
    if url:
        engine = sa.create_engine(url)
    else:
        engine = sa.create_engine(
            "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
        )
    with engine.begin() as connection:
        if url:
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(1)"))  # several workers start at once
        Base.metadata.create_all(connection)
        if not connection.scalar(sa.select(sa.func.count(Customer.id))):
            customers = [{"id": number, "name": f"Customer {number}"} for number in range(1, 13)]
            connection.execute(sa.insert(Customer), customers)
            orders = [{"customer_id": 1 + number % 12, "total": number * 7 % 100} for number in range(60)]
            connection.execute(sa.insert(Order), orders)
    return engine


def create_app() -> Flask:
    app = Flask(__name__)
    Profilers(app)
    engine = make_engine()

    def page(title: str, lines: list[str]) -> str:
        return render_template_string(LAYOUT, title=title, lines=lines)

    @app.get("/customers")
    def customers() -> str:
        """An N+1: the orders of each customer are asked for one by one."""
        with Session(engine) as session:
            found = session.scalars(sa.select(Customer).order_by(Customer.name)).all()
            return page("Customers", [f"{each.name}: {len(each.orders)} orders" for each in found])

    @app.get("/orders/<int:number>")
    def order(number: int) -> dict[str, Any]:
        """As it should be: one statement."""
        with Session(engine) as session:
            statement = sa.select(Order.id, Customer.name).join(Order.customer).where(Order.id == number)
            found = session.execute(statement).first()
            return {"order": number, "customer": found.name if found else None}

    @app.get("/orders")
    def orders() -> str:
        """An N+1 the other way round: the customer of each order."""
        with Session(engine) as session:
            found = session.scalars(sa.select(Order).order_by(Order.total).limit(24)).all()
            return page("Orders", [f"{each.total} by {each.customer.name}" for each in found])

    @app.get("/report")
    def report() -> str:
        """A slow statement, and Python that takes its time."""
        wait = sa.func.pg_sleep(0.03) if engine.dialect.name == "postgresql" else sa.literal(0)
        with Session(engine) as session:
            sums = sa.select(Order.customer_id, sa.func.sum(Order.total).label("total")).group_by(
                "customer_id"
            )
            best = sums.subquery()
            statement = sa.select(Customer.name, best.c.total, wait).join(
                best, best.c.customer_id == Customer.id
            )
            found = session.execute(statement.order_by(best.c.total.desc()).limit(3)).all()
        return page("Report", [f"{each.name}: {each.total} ({score(each.total):.1f})" for each in found])

    @app.get("/export")
    def export() -> Response:
        """A stream, which sends its statements while it is sent."""

        def lines() -> Iterator[str]:
            with Session(engine) as session:
                for number in session.scalars(sa.select(Order.id).order_by(Order.id)):
                    yield f"{number}\n"

        return Response(lines(), mimetype="text/csv")

    @app.get("/broken")
    def broken() -> str:
        raise RuntimeError("the shop is closed")

    @app.get("/forever")
    def forever() -> str:
        """Until its worker is killed."""
        time.sleep(300)
        return ""

    return app


def score(total: int) -> float:
    return sum(curve(total + step) for step in range(400))


def curve(value: int) -> float:
    return sum(math.sin(value / (step + 1)) for step in range(60))
