"""The three requests that are measured: without SQL, 2 statements with 110 rows, 11 statements.

They answer with JSON, so a tool that draws itself into HTML pages has nothing to draw: in its favour.
"""

from __future__ import annotations

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import ForeignKey, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload

CUSTOMERS, ORDERS = 10, 100

REQUESTS = {"no SQL": "/plain", "2 statements, 110 rows": "/customers", "11 statements": "/orders"}


class Base(DeclarativeBase):
    pass


class Customer(Base):
    __tablename__ = "customer"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    orders: Mapped[list[Order]] = relationship(back_populates="customer")


class Order(Base):
    __tablename__ = "order"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customer.id"), index=True)
    customer: Mapped[Customer] = relationship(back_populates="orders")


def fill(session: Session) -> None:
    """Create the tables and their rows."""
    Base.metadata.create_all(session.connection())
    session.add_all(Customer(name=f"customer {number}") for number in range(CUSTOMERS))
    session.flush()
    keys = session.scalars(select(Customer.id)).all()
    session.add_all(Order(customer_id=keys[number % CUSTOMERS]) for number in range(ORDERS))
    session.commit()


def create_app(database_url: str, **config: object) -> tuple[Flask, SQLAlchemy]:
    """The app without any profiler; its secret key is that of a benchmark."""
    app = Flask(__name__)
    app.config.update(SQLALCHEMY_DATABASE_URI=database_url, SECRET_KEY="benchmark", **config)
    db = SQLAlchemy(app, model_class=Base)

    @app.get("/plain")
    def plain() -> dict[str, str]:
        return {"shop": "open"}

    @app.get("/customers")
    def customers() -> dict[str, int]:
        found = db.session.scalars(select(Customer).options(selectinload(Customer.orders))).all()
        return {customer.name: len(customer.orders) for customer in found}

    @app.get("/orders")
    def orders() -> list[str]:
        found = db.session.scalars(select(Order).order_by(Order.id).limit(CUSTOMERS)).all()
        return [order.customer.name for order in found]

    return app, db
