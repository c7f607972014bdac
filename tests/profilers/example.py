"""The models that the tests profile: a shop with customers, orders and items."""

from __future__ import annotations

from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, WriteOnlyMapped, mapped_column, relationship


class Base(DeclarativeBase):
    pass


class Region(Base):
    __tablename__ = "region"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Customer(Base):
    __tablename__ = "customer"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    email: Mapped[str | None] = mapped_column(unique=True)
    biography: Mapped[str] = mapped_column(default="", deferred=True)
    region_id: Mapped[int] = mapped_column(sa.ForeignKey("region.id"))
    region: Mapped[Region] = relationship()
    orders: Mapped[list[Order]] = relationship(back_populates="customer")
    visits: WriteOnlyMapped[Visit] = relationship()


class Visit(Base):
    __tablename__ = "visit"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(sa.ForeignKey("customer.id"))


class Order(Base):
    __tablename__ = "order"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(sa.ForeignKey("customer.id"))
    customer: Mapped[Customer] = relationship(back_populates="orders")
    items: Mapped[list[Item]] = relationship(back_populates="order")


class Product(Base):
    __tablename__ = "product"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(sa.ForeignKey("order.id"))
    order: Mapped[Order] = relationship(back_populates="items")
    product_id: Mapped[int] = mapped_column(sa.ForeignKey("product.id"))
    product: Mapped[Product] = relationship()


class Category(Base):
    __tablename__ = "category"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int | None] = mapped_column(sa.ForeignKey("category.id"))
    children: Mapped[list[Category]] = relationship()


class Seat(Base):
    __tablename__ = "seat"
    row: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)


class Employee(Base):
    __tablename__ = "employee"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    __mapper_args__: ClassVar = {"polymorphic_on": "kind", "polymorphic_identity": "employee"}


class Manager(Employee):
    __tablename__ = "manager"
    id: Mapped[int] = mapped_column(sa.ForeignKey("employee.id"), primary_key=True)
    budget: Mapped[int]
    __mapper_args__: ClassVar = {"polymorphic_identity": "manager"}


def fill(engine: sa.Engine, rows: int = 10) -> None:
    """As many customers, each with one order of two items, each of a product of its own."""
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Category(children=[Category(children=[Category()]) for _ in range(rows)]))
        session.add_all([Seat(row=number, number=number) for number in range(1, rows + 1)])
        for number in range(1, rows + 1):
            region = Region(name=f"region {number}")
            customer = Customer(name=f"customer {number}", email=f"{number}@example.org", region=region)
            products = [Product(name=f"product {number}.{each}") for each in "ab"]
            order = Order(customer=customer, items=[Item(product=each) for each in products])
            session.add_all([order, Manager(budget=number)])
            customer.visits.add_all([Visit(), Visit()])
        session.commit()


def memory_engine(rows: int = 10, **options: Any) -> sa.Engine:
    """A filled SQLite database that lives as long as its engine."""
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool, **options)
    fill(engine, rows)
    return engine
